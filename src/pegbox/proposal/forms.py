"""Rules for rows whose form cannot be mistaken: conversations, preferences, tagged words, lists of labels."""

from __future__ import annotations

from pegbox.errors import RecipeError
from pegbox.proposal import names
from pegbox.proposal.columns import listed, shown
from pegbox.proposal.guess import Columns, Guess, best_text, find, prose


def written_out(columns: Columns) -> Guess | None:
    """Lists that a table holds as text: no task, and RecipeError."""
    for column in columns:
        if column.normal in names.LISTS and column.all(str) and all(v.strip()[:1] == "[" for v in column.values):
            what = f"{shown(column.name)} holds lists that are written as text"
            raise RecipeError(what, cure="give the rows as JSONL or Parquet, with lists as lists")
    return None


def preference(columns: Columns) -> Guess | None:
    """Two answers to the same question, one preferred; or an answer, and whether it is wanted."""
    chosen, rejected, asked = (find(columns, wanted) for wanted in (names.CHOSEN, names.REJECTED, names.ASKED))
    roles = {"prompt": asked.name} if asked else {}
    if chosen is not None and rejected is not None and chosen.all(str, list) and rejected.all(str, list):
        why = f"{shown(chosen.name)} and {shown(rejected.name)} are a better and a worse answer to the same question"
        return Guess("preference", "sure", (why,), roles | {"chosen": chosen.name, "rejected": rejected.name})
    answer, wanted = find(columns, ("completion",)), find(columns, ("label",))
    if asked is None or answer is None or wanted is None or wanted.counts.keys() != {"True", "False"}:
        return None
    why = f"{shown(wanted.name)} says whether the answer in {shown(answer.name)} is wanted"
    return Guess("preference", "likely", (why,), roles | {"completion": answer.name, "label": wanted.name})


def conversation(columns: Columns) -> Guess | None:
    """Messages as OpenAI writes them, or ShareGPT's `conversations`."""
    beside = [column.name for column in columns if column.name == "tools"]
    spoken = [column for column in columns if column.has_keys("role", "content")]
    if spoken:
        best = find(spoken, ("messages", "conversations", "conversation", "chat", "turns")) or spoken[0]
        turns = sum(map(len, best.values)) / len(best.values)
        why = (
            f"{shown(best.name)} holds {len(best.values)} lists of turns with role and content, {turns:.1f} on average"
        )
        return Guess("chat", "a guess" if len(spoken) > 1 else "sure", (why,), {"messages": best.name}, tuple(beside))
    told = next((column for column in columns if column.has_keys("from", "value")), None)
    if told is None:
        return None
    why = f"{shown(told.name)} holds {len(told.values)} conversations in ShareGPT's form (from, value)"
    if told.name != "conversations":
        cure = f"rename {shown(told.name)} to conversations"
        raise RecipeError(f"{why}, which is known by the name 'conversations' only", cure=cure)
    beside += [column.name for column in columns if column.name == "system"]
    return Guess("chat", "sure", (why,), {}, (told.name, *beside))


def tagged(columns: Columns) -> Guess | None:
    """Lists of words, and lists of equal length with a tag for each."""
    for tokens in (column for column in columns if column.is_names and len(column.values) == column.rows):
        lengths = [len(value) for value in tokens.values]
        fitting = [
            column
            for column in columns
            if column is not tokens and column.all(list) and [len(value) for value in column.values] == lengths
        ]
        tags = find(fitting, names.TAGS) or (fitting[0] if fitting else None)
        if max(lengths) > 1 and tags is not None and tokens.normal not in names.TAGS:
            if not all(isinstance(tag, str) for value in tags.values for tag in value):
                cure = "write the tags' names: O, B-PER, I-PER (a hub data set keeps them in its features)"
                raise RecipeError(f"{shown(tags.name)} holds numbers, which do not say what is a name", cure=cure)
            why = f"each word of {shown(tokens.name)} has a tag in {shown(tags.name)}"
            return Guess("token_classification", "sure", (why,), {"tokens": tokens.name, "tags": tags.name})
    return None


def several_labels(columns: Columns) -> Guess | None:
    """Texts with a list of labels each, or with several columns of 0 and 1."""
    text = best_text(prose(columns))
    if text is None:
        return None
    labels = find([column for column in columns if column.all(list) and not column.is_objects], names.LABELS)
    if labels is not None:
        why = f"{shown(labels.name)} holds a list of labels for each {shown(text.name)}"
        return Guess("multilabel", "likely", (why,), {"text": text.name, "labels": labels.name})
    flags = [column.name for column in columns if column.counts.keys() in ({"0", "1"}, {"False", "True"})]
    if len(flags) < 3:
        return None
    why = f"{listed(flags)} say yes or no of each {shown(text.name)}"
    return Guess("multilabel", "likely", (why,), {"text": text.name, "labels": tuple(flags)})


def matching(columns: Columns) -> Guess | None:
    """Texts beside texts that match them; there may be texts that do not, or a score."""
    asked, positive = find(columns, names.ANCHORS), find(columns, names.POSITIVES)
    if asked is None or positive is None or not asked.is_prose or not positive.is_prose:
        return None
    why = [f"{shown(positive.name)} matches {shown(asked.name)}, and nothing is to be answered"]
    roles, negative = {"text": asked.name, "text_pair": positive.name}, find(columns, names.NEGATIVES)
    if negative is not None and negative.all(str):
        roles["negative"] = negative.name
        why.append(f"{shown(negative.name)} does not match it")
    scored = [column for column in columns if column.name == "score" and column.is_number]
    if scored and "negative" not in roles:
        roles["score"] = "score"
        return Guess("embedding", "likely", (*why, "'score' says how alike they are"), roles)
    told = "from how many texts each shall be told: from those of its update, so that a larger train.batch_size teaches more"
    return Guess("embedding", "likely", tuple(why), roles, unknown=(told,))


def alpaca(columns: Columns) -> Guess | None:
    """Alpaca's `instruction`, `input`, `output`, by exactly these names."""
    by_name = {column.name: column for column in columns}
    if not {"instruction", "output"} <= by_name.keys() or by_name["instruction"].is_id:
        return None
    others = [name for name in ("instruction", "input", "output", "system") if name in by_name]
    given = by_name.get("input")
    why = [
        f"{listed(others)} are Alpaca's columns; a user's turn is the instruction and, where there is one, its input"
    ]
    if given is not None:
        why.append(f"{len(given.values)} of {given.rows} rows have an input")
    return Guess("chat", "sure", tuple(why), {}, tuple(others))
