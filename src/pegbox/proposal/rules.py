"""From columns to a task: a list of rules, of which the first that fits decides. Also for tasks that cannot be trained yet.

A rule takes the columns and returns a Guess or None. The order matters: what has an unmistakable form (conversations,
preferences, tags) comes before what is told by names, and that before what is told by contents alone.
"""

from __future__ import annotations

from collections.abc import Callable

from pegbox.proposal import forms, names
from pegbox.proposal.columns import Column, listed, shown
from pegbox.proposal.guess import Columns, Guess, Sureness, best_text, find, prose

# ---- told by names ---------------------------------------------------------------------------------------------------


def prompted(columns: Columns) -> Guess | None:
    """A question and its answer, by their usual names."""
    texts = [column for column in columns if column.all(str) and not column.is_id and not column.is_date]
    asked = find([column for column in texts if not column.is_number and not column.is_constant], names.ASKED)
    answer = find([column for column in texts if column is not asked], names.ANSWERED)
    if asked is None or answer is None:
        return None
    standard = (asked.name, answer.name) == ("prompt", "completion")
    roles = {"prompt": asked.name, "completion": answer.name}
    rest = [column for column in columns if column.name not in roles.values() and not column.is_constant]
    doubtful = any(column.is_prose or column.normal in names.ASKED + names.ANSWERED for column in rest)
    sureness: Sureness = "a guess" if doubtful else "sure" if standard else "likely"
    why = f"{shown(answer.name)} answers {shown(asked.name)}: their names say so, and both are text"
    return Guess("chat", sureness, (why,), roles)


def translated(columns: Columns) -> Guess | None:
    """A text and another made from it: source and target, an article and its summary, two languages."""
    texts = [column for column in columns if column.all(str) and not column.is_id and not column.is_number]
    texts = [column for column in texts if not column.is_label(named=False)]
    for first, second in names.SEQUENCES:
        source, target = find(texts, (first,)), find(texts, (second,))
        if source is not None and target is not None:
            why = f"{shown(target.name)} is made from {shown(source.name)}: their names say so, and both are text"
            return Guess("seq2seq", "likely", (why,), {"source": source.name, "target": target.name})
    spoken = [
        (tongue != "English", column.name, tongue) for column in texts if (tongue := names.language(column.normal))
    ]
    if len(spoken) != 2:
        return None
    (_, first, tongue), (_, second, other) = sorted(spoken)  # English first: the commoner way
    why = f"{shown(first)} and {shown(second)} are names of languages, and both columns are text"
    way = f"whether {tongue} to {other} is the way that is meant, or the other"
    return Guess("seq2seq", "likely", (why,), {"source": first, "target": second}, (), (way,))


def labelled_by_name(columns: Columns) -> Guess | None:
    """A text (or two) and a column with a label's name and a label's values."""
    named = [column for column in columns if column.normal in names.LABEL]
    fitting = [column for column in named if column.is_label(True, 20 if column.normal in names.SCORE else 200)]
    label = find(fitting, names.LABEL)
    if label is None:
        return _scored(columns, named)
    rest = [column.name for column in fitting if column is not label]
    unknown = (f"whether {shown(label.name)} is to be learnt, or {listed(rest)}",) if rest else ()
    return _labelled(columns, label, "likely" if rest else "sure", unknown)


def labelled_first(columns: Columns) -> Guess | None:
    """As above where the label's name leaves no doubt: before questions and answers, which may be labelled as pairs."""
    found = labelled_by_name(columns)
    label = found.roles.get("label") if found else None
    return found if isinstance(label, str) and label.casefold() in names.SURELY_LABEL else None


def _scored(columns: Columns, named: Columns) -> Guess | None:
    text = best_text(prose(columns))
    numbers = [column for column in named if column.is_number and column.distinct > 1]
    score = find([c for c in numbers if c.normal in names.SCORE or not c.is_whole], names.LABEL)
    if text is None or score is None:
        return None
    why = f"{shown(score.name)} has {score.distinct} different numbers in {len(score.values)} rows: a score, no label"
    pair = _pair(columns)
    texts = {"text": pair[0].name, "text_pair": pair[1].name} if pair else {"text": text.name}
    return Guess("regression", "likely", (why,), texts | {"score": score.name})


def _pair(columns: Columns) -> tuple[Column, Column] | None:
    texts = [column for column in columns if column.all(str) and not column.is_id]
    for first, second in names.PAIRS:
        a, b = find(texts, (first,)), find(texts, (second,))
        if a is not None and b is not None:
            return a, b
    return None


def _labelled(columns: Columns, label: Column, sureness: Sureness, unknown: tuple[str, ...]) -> Guess | None:
    common = ", ".join(f"{shown(value)} {count}" for value, count in label.counts.most_common(5))
    dots = ", …" if label.distinct > 5 else ""
    why = f"{shown(label.name)} has {label.distinct} different values in {len(label.values)} rows: {common}{dots}"
    others = [column for column in columns if column is not label]
    if pair := _pair(others):
        also = f"{shown(pair[0].name)} and {shown(pair[1].name)} are a pair of texts by their names"
        roles = {"text": pair[0].name, "text_pair": pair[1].name, "label": label.name}
        return Guess("classification", sureness, (why, also), roles, (), unknown)
    texts = prose(others)
    text = best_text(texts)
    if text is None:
        return None
    also = f"{text} is what is judged"
    rivals = [column for column in others if column.is_label(named=False) and column.normal not in names.GROUP]
    doubtful = len(texts) > 1 and text.normal not in names.TEXT[:3]
    doubtful |= bool(rivals) and label.normal not in names.SURELY_LABEL
    sureness = "likely" if doubtful and sureness == "sure" else sureness
    return Guess("classification", sureness, (why, also), {"text": text.name, "label": label.name}, (), unknown)


# ---- told by contents ------------------------------------------------------------------------------------------------


def labelled_by_contents(columns: Columns) -> Guess | None:
    """A text, and one other column of a few short values."""
    fitting = [column for column in columns if column.is_label(named=False) and column.normal not in names.GROUP]
    if len(fitting) != 1 or len(prose(columns)) != 1:
        return None
    unknown = f"whether {shown(fitting[0].name)} is what is to be learnt: its values say so, its name does not"
    return _labelled(columns, fitting[0], "a guess", (unknown,))


def plain(columns: Columns) -> Guess | None:
    """One column of text, and nothing else that could be learnt."""
    texts = prose(columns)
    if len(texts) != 1 or any(column.is_label(named=False) and column.normal not in names.GROUP for column in columns):
        return None
    rest = [column for column in columns if column not in texts and column.values and not column.is_constant]
    doubtful = any(column.normal in names.LABEL and column.values for column in columns)
    sureness: Sureness = "a guess" if doubtful else "likely" if rest else "sure"
    return Guess("completion", sureness, (f"{texts[0]} is the only text",), {"text": texts[0].name})


RULES: tuple[Callable[[Columns], Guess | None], ...] = (
    forms.written_out,
    forms.preference,
    forms.conversation,
    forms.tagged,
    forms.matching,
    forms.alpaca,
    labelled_first,
    prompted,
    translated,
    labelled_by_name,
    forms.several_labels,
    labelled_by_contents,
    plain,
)
