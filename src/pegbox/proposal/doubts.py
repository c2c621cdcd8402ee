"""What a proposal leaves open: the columns that it does not use, and what a person should look at before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pegbox.data.records import Record
from pegbox.data.splits import parts
from pegbox.proposal import names
from pegbox.proposal.columns import Column, listed, shown
from pegbox.proposal.guess import Guess, find
from pegbox.proposal.settings import UNITS, Settings
from pegbox.recipe import PROMPTED

LONG = 1500  # characters, from where on a text may not fit an encoder of 512 tokens


def group_of(guess: Guess, columns: Sequence[Column]) -> Column | None:
    """A column that says by its name which rows belong together, and whose values repeat."""
    rest = [column for column in columns if column.name not in guess.reads and column.all(str, int)]
    return find([column for column in rest if 1 < column.distinct < len(column.values)], names.GROUP)


def instruction_of(guess: Guess, columns: Sequence[Column]) -> str | None:
    """What a column says that is the same in every row, where it reads like an instruction."""
    if guess.kind not in PROMPTED or "prompt" not in guess.roles:
        return None
    rest = [column for column in columns if column.name not in guess.reads and column.is_constant and column.all(str)]
    said = find(rest, ("instruction", "system", "system_prompt"))
    return said.values[0] if said is not None else None


def left(guess: Guess, columns: Sequence[Column]) -> Iterator[str]:
    """The columns that are not used, and what they hold."""
    rest = [column for column in columns if column.name not in guess.reads]
    if rest:
        more = f" and {len(rest) - 8} more" if len(rest) > 8 else ""
        yield f"not used: {', '.join(map(str, rest[:8]))}{more}"


def unknown(
    guess: Guess,
    columns: Sequence[Column],
    records: Sequence[Record],
    settings: Settings,
    files: Sequence[str],
    complete: bool,
) -> Iterator[str]:
    """What a person should look at. `complete`: these are all rows of the files."""
    yield from guess.unknown
    group = group_of(guess, columns)
    rest = [column for column in columns if column.name not in guess.reads and column is not group]
    doubtful = [c for c in rest if c.is_prose or c.is_objects or c.normal in names.LABEL or c.is_label(named=False)]
    if doubtful:
        yield f"what could matter and is not used: {listed(column.name for column in doubtful)}"
    if group is not None:
        yield f"whether the rows of one {shown(group.name)} ({group.distinct} different) belong together: data.columns.group"
    if (about := find(rest, names.SENSITIVE)) is not None and 1 < about.distinct < len(about.values) / 10:
        yield f"whether it serves every {shown(about.name)} alike: data.columns.sensitive_feature tells the groups apart"
    if instruction_of(guess, columns) is not None:
        yield "whether the model shall be told what a column says in every row: data.instruction"
    yield from _answers(guess, records)
    yield from _sizes(guess, records, settings, complete)
    for name in files:
        if len(files) > 1 and Path(name).stem.casefold() in names.HELD_OUT:
            yield f"whether {shown(Path(name).name)} is meant to be set aside: name it under data.test or data.validation"


def _answers(guess: Guess, records: Sequence[Record]) -> Iterator[str]:
    """Answers that are labels, labels that are a scale or have one row."""
    answers = Column("", len(records), tuple(parts(record.content)[1] for record in records))
    if guess.kind == "chat" and answers.is_label(named=False):
        yield f"the {answers.distinct} different answers could be labels: task: classification trains a smaller model faster"
    if guess.kind == "classification":
        if answers.is_number and answers.distinct > 2:
            yield "whether the label's numbers are a scale: they are learnt as names, and 1 is as far from 2 as from 5"
        if single := [name for name, count in answers.counts.items() if count == 1]:
            yield f"{len(single)} of {answers.distinct} labels have one row only ({listed(single, 3)}): too few to learn"


def _sizes(guess: Guess, records: Sequence[Record], settings: Settings, complete: bool) -> Iterator[str]:
    if not complete:
        yield f"all but the {len(records)} rows looked at: `pegbox check` reads every row"
    elif settings.test_units < UNITS:
        yield (
            f"whether the model gets better: {len(records)} rows are too few for a verdict, for their test part has "
            f"{settings.test_units} different ones and a verdict takes {UNITS}; from about 80 rows on there is one"
        )
    elif settings.test_units < 2 * UNITS:
        yield f"small differences: {settings.test_units} test rows show large ones only"
    if settings.near_apart:
        yield (
            "whether rows that are nearly the same may stand in train and test: so many are that they cannot be kept "
            "together (data.allow: [near_duplicate]), and the test is easier for it; a data.columns.group would help"
        )
    longest = max(len(parts(record.content)[0]) for record in records)
    if guess.kind not in PROMPTED and longest > LONG:
        yield (
            f"whether the longest text ({longest} characters) fits the model: `pegbox check` counts tokens, and "
            "data.truncation: cut shortens what does not fit"
        )
