"""The figures of the campaign as a table of docs/reliability.md, between its two marks; the words around it stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: written by benchmarks/faults/campaign.py -->", "<!-- end of the figures -->"


def write(results: Mapping[str, Any], page: Path = PAGE) -> None:
    """Put the table into the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def table(results: Mapping[str, Any]) -> str:
    """One row a campaign, every figure beside what it is out of."""
    found = results["campaigns"]
    minutes = results["seconds"] / 60
    lines = [
        f"{results['date']}, {results['machine']}, {minutes:.0f} minutes in all.",
        "",
        "| what was done | what came of it |",
        "|---|---|",
    ]
    for name, rows in ROWS.items():
        if name in found:
            figures = {part: one for part, one in found[name].items() if part != "seconds"}
            lines += [f"| {what} | {came} |" for what, came in rows(figures)]
    return "\n".join(lines)


def _kills(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for method, one in found.items():
        yield (
            f"SIGKILL, {method}: {one['kills']} times, {one['inside_a_save']} of them inside a save",
            f"{one['same_bytes']} of {one['kills']} end in the same bytes",
        )


def _writes(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for place, one in found.items():
        yield (
            f"a fault at every write, sync and rename, {place}: {one['faults']} faults at {one['calls']} calls",
            f"{one['same_bytes']} the same bytes; {one['unloadable']} folders that cannot be loaded;"
            f" {one['more_than_one_interval_lost']} lost more than one interval; {one['errors_told']} errors told",
        )


def _full_disk(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for method, one in found.items():
        yield (
            f"a disk (tmpfs) that fills up, {method}: {one['disks']} sizes, {one['large_enough']} of them large enough",
            f"{one['corrupt_checkpoints']} corrupt; free bytes told {one['told_with_exit_code_4_and_free_bytes']};"
            f" {one['same_bytes']} the same bytes once there is room",
        )


def _flips(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, words in (
        ("drawn", "bits flipped, files cut short, zeroed or removed"),
        ("every_bit", "every bit of the small files flipped"),
    ):
        one = found[name]
        yield (
            f"{words}: {one['damages']:,} times",
            f"{one['detected']:,} found, {one['silent']} silent, {one['named']:,} named with the checkpoint before taken",
        )


def _stops(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, one in found.items():
        yield (
            f"{name}: {one['signals']} times",
            f"{one['right_exit_code']} the right exit code, {one['checkpoint_saved']} with a checkpoint of the last update,"
            f" at most {one['most_seconds']:.2f} s; {one['same_bytes']} the same bytes",
        )


def _resumes(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        f"resumed at every update, {found['combinations']} ways to train: {found['resumes']} times",
        f"{found['same_bytes']} the same bytes",
    )


def _not_finite(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    one = found["not_finite"]
    yield (
        f"NaN and infinities in data, weights, activations, gradients: {one['faults']} times",
        f"{one['same_update']} found in the same update, {one['not_applied']} not applied, {one['rows']} with the right rows and"
        f" {one['first']} with the right part of the model named; {one['resumed_same_bytes']} go on to the same bytes",
    )
    spikes, quiet = found["spikes"], found["no_spikes"]
    yield (
        f"losses and gradients that spike: {spikes['spikes']} times",
        f"{spikes['told']} told in the same update with its rows; {quiet['false_alarms']} false alarms in {quiet['updates']:,} updates",
    )


def _memory(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    one = found["failures"]
    yield (
        f"allocations that fail in forward, backward, optimizer, validation: {one['failures']} in {one['runs']} runs",
        f"{one['finished']} of {one['runs']} end, {one['told']} told, {one['same_bytes']} in the bytes of a run that was cut so",
    )
    for name, limited in found["address_space"].items():
        if isinstance(limited, Mapping) and "exit_code" in limited:
            halved = len(limited["halved"])
            yield (
                f"a limit on the address space (`RLIMIT_AS`), {name}",
                f"exit code {limited['exit_code']}, halved {halved} times",
            )


def _mutants(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        f"the bugs of {len(found['by_row'])} invariants put back: {found['mutants']} mutants",
        f"{found['killed']} killed, {len(found['survived'])} survived, {len(found['stale']) + len(found['broken'])} void",
    )


ROWS = {
    "kills": _kills,
    "writes": _writes,
    "full_disk": _full_disk,
    "flips": _flips,
    "stops": _stops,
    "resumes": _resumes,
    "not_finite": _not_finite,
    "memory": _memory,
    "mutants": _mutants,
}
