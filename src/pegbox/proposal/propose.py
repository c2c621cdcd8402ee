"""What could be trained on some rows: `pegbox init` looks at them and proposes a task, columns and settings.

It looks at LOOK rows, drawn from the first READ of them. What it proposes has been tried on every one of these: the
rows become records as they will in training, no column is read that was not meant, and the split has been made, so that
the shares give the test rows that a verdict takes, where there are enough rows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from types import MappingProxyType

from pegbox.data import sources
from pegbox.data.formats import FIXED, to_record
from pegbox.data.records import Record, Row
from pegbox.data.sources import MalformedRow
from pegbox.errors import DataError, RecipeError
from pegbox.proposal import doubts, names
from pegbox.proposal.columns import Column, columns_of, listed, shown
from pegbox.proposal.encoder_decoders import is_encoder_decoder
from pegbox.proposal.guess import Guess, find
from pegbox.proposal.recipe import Proposal
from pegbox.proposal.rules import RULES
from pegbox.proposal.settings import SEED, choose_settings

LOOK = 5000  # rows looked at
READ = 100_000  # rows among which they are chosen

GENERATES, READS = "HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"
GENERATING = ("chat", "completion", "preference")

# kinds that are recognised and cannot be trained yet: what can be done today. A kind that can is one row less.
NOT_YET: Mapping[str, str] = MappingProxyType(
    {
        "preference": "train on the better answers: `task: chat` with `data.columns: {prompt: ..., completion: chosen}`",
    }
)
# kinds that another one stands in for where the model is no encoder-decoder: the kind, and its roles
STANDS_IN: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {"seq2seq": ("chat", {"source": "prompt", "target": "completion"})}
)


@dataclass(frozen=True)
class Looked:
    """The rows that were looked at, and whether these are all."""

    files: tuple[str, ...]
    rows: tuple[Row, ...]
    complete: bool

    @property
    def where(self) -> str:
        """The files, for a message."""
        return ", ".join(self.files)


def propose(files: Sequence[str], model: str | None = None) -> Proposal:
    """Look at the rows and propose a recipe. `model`: instead of the one that is usual for the task; an encoder-decoder
    learns sources and targets as they are.

    Raises DataError where rows cannot be read or used, RecipeError where no task fits them or none that can be trained yet.
    """
    looked = _look(files)
    columns = columns_of(looked.rows)
    guess = _trainable(_decide(columns, looked), looked, model)
    _refuse_lost_context(guess, columns, looked)
    records = _records(guess, looked)
    settings = choose_settings(records, looked.complete, looked.where)
    group = doubts.group_of(guess, columns)
    return Proposal(
        task=guess.kind,
        columns={role: column for role, column in guess.roles.items() if role != column},
        model=model or (GENERATES if guess.kind in GENERATING else READS),
        files=looked.files,
        rows=len(looked.rows),
        complete=looked.complete,
        sureness=guess.sureness,
        reasons=(*guess.reasons, *doubts.left(guess, columns)),
        unknown=tuple(doubts.unknown(guess, columns, records, settings, looked.files, looked.complete)),
        settings=settings,
        group=group.name if group else None,
        instruction=doubts.instruction_of(guess, columns),
    )


# ---- rows ------------------------------------------------------------------------------------------------------------


def _look(files: Sequence[str]) -> Looked:
    """Rows from everywhere in the files. Where one of them cannot be read, all that cannot are counted first."""
    kept: list[Row] = []
    complete = True
    for name in files:
        if not _is_text(name):  # no recipe could name it
            raise DataError("the file's name is not UTF-8", where=ascii(name), cure="rename the file")
        rows, whole = _drawn(name, LOOK // len(files) or 1, READ // len(files) or 1)
        kept, complete = kept + rows, complete and whole
    if not kept:
        raise DataError("no rows", where=", ".join(files), cure="give a file with at least one row")
    return Looked(tuple(files), tuple(kept), complete)


def _drawn(name: str, most: int, behind: int) -> tuple[list[Row], bool]:
    """At most `most` of the first `behind` rows, in order; True where these are all.

    They are drawn (reservoir sampling, seeded): the head of a file may be sorted by label, and rows at even distances
    show one label only where labels take turns.
    """
    draw = random.Random(SEED)
    kept: list[tuple[int, Row]] = []
    unread: list[MalformedRow] = []
    whole = True
    for number, row in enumerate(sources.read([name])):
        if isinstance(row, MalformedRow):
            unread.append(row)
        elif unread:  # only those that cannot be read matter from here on
            continue
        elif number >= behind:
            whole = False
            break
        elif len(kept) < most:
            kept.append((number, row))
        elif (place := draw.randrange(number + 1)) < most:
            kept[place], whole = (number, row), False
        else:
            whole = False
    if unread:
        raise sources.refusal(unread)
    return [row for _, row in sorted(kept, key=itemgetter(0))], whole


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _records(guess: Guess, looked: Looked) -> tuple[Record, ...]:
    """The rows as training will read them. Raises DataError for those that cannot be used."""
    records, refused = [], []
    columns = {role: column for role, column in guess.roles.items() if role != column}
    for row in looked.rows:
        try:
            record = to_record(row, guess.kind, columns)
        except ValueError as error:
            refused.append(MalformedRow(row.where, str(error)))
            continue
        if not _reads_only(guess, row, columns, record):
            raise _read_by_name(guess, row)
        records.append(record)
    if refused:
        found = sources.refusal(refused)
        what = found.what.replace("cannot be read", f"cannot be used for {_plan(guess)}", 1)
        cure = (
            "mend or take out these rows; or write the recipe with that task and data.allow: [malformed] to drop them"
        )
        raise DataError(what, where=looked.where, cure=cure)
    return tuple(records)


def _plan(guess: Guess) -> str:
    roles = ", ".join(
        f"{role}: {shown(column) if isinstance(column, str) else f'[{listed(column)}]'}"
        for role, column in guess.roles.items()
    )
    return f"task: {guess.kind}" + (f" with columns {{{roles}}}" if roles else "")


def _reads_only(guess: Guess, row: Row, columns: Mapping[str, str | tuple[str, ...]], record: Record) -> bool:
    """True where the row says the same without the columns that the proposal does not mean."""
    alone = Row(row.where, {name: value for name, value in row.values.items() if name in guess.reads})
    try:
        return to_record(alone, guess.kind, columns) == record
    except ValueError:
        return False


def _read_by_name(guess: Guess, row: Row) -> RecipeError:
    standard = [name for name in row.values if name not in guess.reads and name in STANDARD]
    what = f"the rows look like {_plan(guess)}, but {listed(standard)} would be read instead or as well, by its name"
    return RecipeError(what, where=row.where, cure="rename these columns, or take them out")


STANDARD = ("messages", "prompt", "completion", "text_pair", *FIXED, "input", "system")  # read where a row has them


# ---- what they are ---------------------------------------------------------------------------------------------------


def _decide(columns: Sequence[Column], looked: Looked) -> Guess:
    for rule in RULES:
        if guess := rule(columns):
            return guess
    told = "\n  ".join(str(column) for column in columns[:12])
    more = f"\n  and {len(columns) - 12} more" if len(columns) > 12 else ""
    cure = (
        "rename what is asked to prompt and what is answered to completion; or the text to text and its class to label; "
        "or write a recipe that says which they are, for example data.columns: {text: ..., label: ...}"
    )
    what = f"no task is plain from the columns of these {len(looked.rows)} rows:\n  {told}{more}"
    raise RecipeError(what, where=looked.where, cure=cure)


def _trainable(guess: Guess, looked: Looked, model: str | None) -> Guess:
    """The guess as what can be trained today. Raises RecipeError where nothing can."""
    if guess.kind in NOT_YET:
        what = f"these rows look like {_plan(guess)}, which pegbox cannot train yet: {'; '.join(guess.reasons)}"
        raise RecipeError(what, where=looked.where, cure=f"today: {NOT_YET[guess.kind]}")
    if guess.kind not in STANDS_IN or (model is not None and is_encoder_decoder(model)):
        return guess
    kind, roles = STANDS_IN[guess.kind]
    instead = (
        f"the rows are {guess.kind}, which takes an encoder-decoder: {kind} stands in, and learns the same with a decoder; "
        "name an encoder-decoder with --model for the other"
    )
    told = "the untouched model is not told what to do with a text unless you say it in data.instruction"
    named = {roles[role]: column for role, column in guess.roles.items()}
    return replace(guess, kind=kind, roles=named, reasons=(*guess.reasons, instead), unknown=(*guess.unknown, told))


def _refuse_lost_context(guess: Guess, columns: Sequence[Column], looked: Looked) -> None:
    """A question is not asked without the passage that it is about."""
    if "prompt" not in guess.roles:
        return
    rest = [column for column in columns if column.name not in guess.reads and not column.is_constant]
    rest = [column for column in rest if column.is_prose or column.all(list) or column.normal == "system"]
    context = find([column for column in rest if column.values], names.CONTEXT)
    if context is not None:
        what = f"the rows look like {_plan(guess)}, but {context} seems to belong to what is asked, and would be lost"
        role = "system" if context.normal == "system" else "input"
        asked, answer = shown(guess.roles["prompt"]), shown(guess.roles["completion"])
        cure = f"rename {asked} to instruction, {shown(context.name)} to {role} and {answer} to output, or take it out"
        raise RecipeError(what, where=looked.where, cure=cure)
