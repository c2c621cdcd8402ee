"""The checks that look at rows as wholes: cannot be used, too long, teach nothing, stand twice, stand on two sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.data.doctor.findings import SHOWN, Finding, Severity, count_of, listed
from pegbox.data.sources import Remark
from pegbox.data.splits import Traits

Rows = NDArray[np.int64]
Where = Callable[[Any], str]  # the name of a row by its number


def malformed(reasons: Mapping[str, str]) -> Iterator[Finding]:
    """Rows that cannot be used; `reasons` says why for each `file:line`. The message tells each reason once."""
    if reasons:
        by_reason: dict[str, list[str]] = defaultdict(list)
        for where, why in reasons.items():
            by_reason[why].append(where)
        told = [f"\n  {listed(rows, 1)}: {why}" for why, rows in list(by_reason.items())[:SHOWN]]
        more = f"\n  and {len(by_reason) - SHOWN} other reasons" if len(by_reason) > SHOWN else ""
        message = count_of(len(reasons), "cannot be used", "cannot be used") + "".join(told) + more
        cure = "mend the rows, or drop them with data.allow: [malformed]"
        yield Finding("malformed", "error", tuple(reasons), message, cure)


def filtered(rows: Sequence[str]) -> Iterator[Finding]:
    """Rows that `data.filter` left out."""
    if rows:
        message = f"{count_of(len(rows), 'was', 'were')} left out by data.filter"
        yield Finding("filtered", "note", tuple(rows), message, "widen data.filter where that was not meant")


def remarked(remarks: Sequence[Remark]) -> Iterator[Finding]:
    """How files were read where that was a guess."""
    for remark in remarks:
        severity: Severity = "warning" if remark.check == "encoding" else "note"
        yield Finding(remark.check, severity, (remark.where,), remark.message, remark.cure)


def too_long(lengths: Mapping[str, int], limit: int, truncation: str) -> Iterator[Finding]:
    """Rows of more tokens than fit, and that could not be made to; dropped where the recipe says so."""
    if not lengths:
        return
    over = sum(lengths.values()) - limit * len(lengths)
    message = (
        f"{count_of(len(lengths), 'has', 'have')} more than {limit} tokens (the longest {max(lengths.values())}; "
        f"{over} too many in all)"
    )
    cure = "raise data.max_length, as far as the model allows, or shorten them"
    if truncation == "drop":
        yield Finding("too_long", "note", tuple(lengths), message + "; dropped", cure)
        return
    if truncation == "refuse":
        cure += "; or data.truncation: drop, cut (inputs, from the end) or split (texts, sentences, conversations)"
    else:
        message += f", and data.truncation: {truncation} cannot make them fit, for an answer is never cut"
        cure += "; or drop them with data.allow: [too_long]"
    yield Finding("too_long", "error", tuple(lengths), message, cure)


def shortened(lost: Mapping[str, int], made: Mapping[str, int], limit: int) -> Iterator[Finding]:
    """Rows that were made to fit: `lost` tokens of an input, or split into as many as were `made`."""
    if lost:
        message = f"the inputs of {count_of(len(lost), 'was', 'were')} cut from the end to fit {limit} tokens"
        message = f"{message} ({sum(lost.values())} tokens in all, {max(lost.values())} of one)"
        yield Finding(
            "cut", "note", tuple(lost), message, "raise data.max_length, or shorten them where it hurts least"
        )
    if made:
        message = f"{count_of(len(made), 'was', 'were')} split into {sum(made.values())} to fit {limit} tokens"
        yield Finding("split", "note", tuple(made), message, "raise data.max_length, as far as the model allows")


def no_trained_token(rows: Sequence[str]) -> Iterator[Finding]:
    """Rows in which nothing would be learnt."""
    if rows:
        cure = "give them an answer with a weight above 0, or drop them with data.allow: [no_trained_token]"
        message = f"{count_of(len(rows), 'has', 'have')} no trained token"
        yield Finding("no_trained_token", "error", tuple(rows), message, cure)


def duplicates(traits: Traits, where: Where) -> Iterator[Finding]:
    """Rows with the same input: repeated with the same answer, or contradicting each other."""
    _, kind, counts = np.unique(traits.twin, return_inverse=True, return_counts=True)
    order = np.lexsort((traits.answer, kind))
    same_kind, same_answer = np.diff(kind[order]) == 0, np.diff(traits.answer[order].view(np.int64)) == 0
    differing = np.zeros(len(counts), bool)
    differing[kind[order][1:][same_kind & ~same_answer]] = True
    if len(repeated := np.flatnonzero((counts[kind] > 1) & ~differing[kind])):
        message = f"{len(repeated)} rows are repeated; twins are kept on the same side of the split"
        cure = "keep one of each unless the weight is meant"
        yield Finding("duplicate", "warning", tuple(map(where, repeated)), message, cure)
    if len(contradicting := np.flatnonzero(differing[kind])) and not traits.several:
        message = f"{len(contradicting)} rows have the same input as another row, and a different answer"
        rows = tuple(map(where, contradicting))
        yield Finding("contradiction", "warning", rows, message, "decide which answer is right")


def leaks(traits: Traits, file: NDArray[np.int8], near: Rows, where: Where) -> Iterator[Finding]:
    """Rows of one of the user's own files whose twin, or near twin, stands in another of them.

    `file` int8 [n]: in which of the given files a row stands; `near` int64 [P, 2]: pairs of near twins. Rows of
    different groups are no leak where they are only near: the user said what belongs together.
    """
    exact, divided = np.flatnonzero(_in_several(traits.twin, file)), _in_several(traits.group, file)
    divided &= traits.group != 0
    across = near[(file[near[:, 0]] != file[near[:, 1]]) & (traits.group[near] == 0).all(axis=1)]
    close = np.setdiff1d(across, exact)
    if divided.any():
        has = count_of(int(divided.sum()), "belongs to a group that stands", "belong to groups that stand")
        message = f"{has} in more than one of the files for train, validation and test"
        rows = tuple(map(where, np.flatnonzero(divided)))
        yield Finding("leak", "error", rows, message, "put each group into one of them, or data.allow: [leak]")
    if len(exact) or len(close):
        told = [f"{count_of(len(exact), 'stands', 'stand')} in"] if len(exact) else []
        told += [f"{count_of(len(close), 'is nearly the same as one', 'are nearly the same as others')} in"] * bool(
            len(close)
        )
        message = f"{' and '.join(told)} more than one of the files for train, validation and test"
        rows = tuple(map(where, np.union1d(exact, close)))
        yield Finding("leak", "error", rows, message, "take them out of one side, or data.allow: [leak]")


def _in_several(kinds: NDArray[np.uint64], file: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which rows [n] are of a kind that stands in more than one file."""
    _, kind = np.unique(kinds, return_inverse=True)
    files = np.zeros(kind.max(initial=-1) + 1, np.int8)
    np.bitwise_or.at(files, kind, np.left_shift(np.int8(1), file))
    several: NDArray[np.bool_] = (files[kind] & (files[kind] - 1)) != 0
    return several


def near_duplicates(near: Rows, sides: NDArray[np.int8], where: Where, cut_short: int) -> Iterator[Finding]:
    """Rows nearly the same as another; how many such pairs the split parts. `sides` int8 [n], below 0: left out."""
    if len(near):
        rows = np.unique(near)
        pairs = "; ".join(f"{where(int(a))} and {where(int(b))}" for a, b in near[:3])
        message = f"{len(rows)} rows are nearly the same as another (character 5-grams, Jaccard 0.8 or more): {pairs}"
        both = sides[near]
        if parted := int(((both >= 0).all(axis=1) & (both[:, 0] != both[:, 1])).sum()):
            message += f"; {parted} such pairs stand on two sides of the split"
        if cut_short:
            message += f"; {count_of(cut_short, 'was', 'were')} not compared with all that might be near"
        cure = "keep one of each unless the weight is meant"
        yield Finding("near_duplicate", "warning", tuple(map(where, rows)), message, cure)


def straddling(sides: NDArray[np.int8], where: Where) -> Iterator[Finding]:
    """Rows left out because their twins stand on other sides of the split."""
    if len(left := np.flatnonzero(sides < 0)):
        message = f"{count_of(len(left), 'was', 'were')} left out: rows with the same or nearly the same input stand on another side"
        cure = "put rows with the same input into the same group, or keep one of each"
        yield Finding("duplicate", "warning", tuple(map(where, left)), message, cure)
