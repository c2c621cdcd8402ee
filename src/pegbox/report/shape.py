"""The section on what the rows are like: how many have each label, how long they are. From `shape` of `data.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pegbox.report.sections import Block, Figure, Section
from pegbox.report.shape_pictures import bars, histogram

PICTURED = 15  # labels or sources in a picture, at most
LISTED = 100  # in numbers, at most
SIDES = {"asked": "What is asked", "answer": "The right answer"}


def section(shape: Mapping[str, Any] | None) -> Section | None:
    """None where the run is older than this section, or has no rows."""
    if not shape or not shape["rows"]:
        return None
    blocks = [
        *([_names("Rows of each label", "labels", shape["labels"])] if "labels" in shape else []),
        *([_tokens(shape["tokens"])] if "tokens" in shape else []),
        _characters(shape["characters"]),
        *([_names("Rows of each source", "sources", shape["sources"])] if len(shape["sources"]["counts"]) > 1 else []),
    ]
    return Section("What the rows are like", "shape", blocks)


def _names(title: str, name: str, found: Mapping[str, Any]) -> Block:
    """A bar for each of the most frequent names, and one for all others."""
    counts = list(found["counts"].items())
    shown, rest = counts[:PICTURED], sum(count for _, count in counts[PICTURED:]) + found["more"]
    others = [(f"{len(counts) - PICTURED:,} others", rest)] if len(counts) > PICTURED else []
    fewest = min(counts, key=lambda item: item[1])
    told = (
        f"{len(counts):,} {name if len(counts) > 1 else name[:-1]}: '{counts[0][0]}' is the most frequent with "
        f"{counts[0][1]:,}, '{fewest[0]}' the rarest with {fewest[1]:,}."
    )
    numbers = [(label, f"{count:,}") for label, count in counts[:LISTED]]
    more = len(counts) > LISTED
    after = [f"The {len(counts) - LISTED:,} rarest {name} stand in data.json alone."] if more else []
    return Block(title, [told], [Figure(bars([*shown, *others], f"shape-{name}", title))], after=after, numbers=numbers)


def _tokens(found: Mapping[str, Any]) -> Block:
    """Lengths in tokens, and the limit."""
    told = (
        f"Half of the rows have {found['median']:,} tokens or more, the longest {found['longest']:,}. The limit is "
        f"{found['max_length']:,} (data.max_length): {found['longer']:,} "
        f"{'row is' if found['longer'] == 1 else 'rows are'} longer."
    )
    picture = histogram(found, "shape-tokens", "tokens", limit=found["max_length"])
    return Block("Lengths in tokens", [told], [Figure(picture)], numbers=_bins(found))


def _characters(found: Mapping[str, Any]) -> Block:
    """Lengths in characters of what is asked, and of the answer where it is written."""
    figures = [Figure(histogram(one, f"shape-{side}", "characters"), f"{SIDES[side]}.") for side, one in found.items()]
    numbers = [
        (f"{SIDES[side]}: {bin}" if len(found) > 1 else bin, told)
        for side, one in found.items()
        for bin, told in _bins(one)
    ]
    return Block("Lengths in characters", figures=figures, numbers=numbers)


def _bins(found: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The bins that have rows."""
    ends = [*(f" to {end - 1:,}" for end in found["edges"][1:]), " or more"]
    pairs = zip(found["edges"], ends, found["counts"], strict=True)
    return [
        (f"{low:,}" if end == f" to {low:,}" else f"{low:,}{end}", f"{count:,} row{'' if count == 1 else 's'}")
        for low, end, count in pairs
        if count
    ]
