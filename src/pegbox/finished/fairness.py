"""What else than skill can stand behind a difference between runs: other data, a leak, looking twice, the seed alone.

Rows of two runs are the same where their files have the same SHA-256 and their lines the same number. Where the files
differ they are read once more, and rows that ask the same are the same (`data.splits.twin_key`); the instruction is left
out, for runs may word it differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pegbox.data.fingerprint import belongs, files_of, given_of
from pegbox.data.reader import Reader
from pegbox.data.splits import SPLITS, twin_key
from pegbox.finished.matching import Matched
from pegbox.finished.run import Run
from pegbox.recipe.sources import SampleSource, Source
from pegbox.runs.checkpoint import sha256

Note = dict[str, str]


def note(severity: str, message: str) -> Note:
    """A sentence for the reader; `severity` is "warning" where the comparison may be unfair, else "note"."""
    return {"severity": severity, "message": message}


def differing_keys(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """The keys of the recipes in which the runs differ, flattened: {key: {run: value}}; None where it is not set.

    A file stands as its name and the beginning of its SHA-256, so that the same file under another name is no difference.
    """
    names: dict[str, str] = {}  # of files, by their SHA-256
    flat = {name: _flat(_with_hashes(run, names)) for name, run in runs.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    table = {key: {name: values.get(key) for name, values in flat.items()} for key in keys}
    return {key: row for key, row in table.items() if any(value != next(iter(row.values())) for value in row.values())}


def _with_hashes(run: Run, names: dict[str, str]) -> dict[str, Any]:
    """The recipe's values, its files by what is in them; the first name of a file goes into `names` and is kept."""
    values = run.recipe.model_dump(mode="json")
    for split in SPLITS:
        if split in run.recipe.data.given:
            named = [_told(run, source, names) for source in run.recipe.data.given[split]]
            values["data"][split] = named[0] if len(named) == 1 else named
    return values


def _told(run: Run, source: Source, names: dict[str, str] | None = None) -> str:
    """A source by what was in its files; without `names` by that alone."""
    known = {file: sha for file, sha in run.receipt["data"].items() if belongs(file, source)}
    shas = [
        sha[:8] if names is None else f"{names.setdefault(sha, PurePath(file).name)} ({sha[:8]})"
        for file, sha in known.items()
    ]
    named = {"name"} if isinstance(source, SampleSource) else set()  # by which it stands for a file, as a path does
    more = source.model_dump(exclude={"path", "kind", *named}, exclude_defaults=True)
    options = [f"{key}: {value}" for key, value in more.items()] if isinstance(more, dict) else []
    return ", ".join([*(shas or [source.path]), *options])


def _flat(values: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """`{"train": {"seed": 1}}` as `{"train.seed": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{parent}{key}.") if isinstance(value, Mapping) else {f"{parent}{key}": value}
    return flat


def notes(runs: Mapping[str, Run], matched: Matched, differing: Mapping[str, Any]) -> list[Note]:
    """Everything that a careful reader must know, what may be unfair first."""
    found = [*_leaks(runs, matched), *_other_data(runs), *_other_models(runs), *_scored(runs), *_alike(differing)]
    return sorted(found, key=lambda told: told["severity"] != "warning")


def _alike(differing: Mapping[str, Any]) -> list[Note]:
    if not differing:
        return [note("note", "The recipes are the same: what is compared here is how far training repeats itself.")]
    if set(differing) == {"seed"}:
        told = "The recipes differ in nothing but the seed: what is measured here is the noise of seeds."
        return [note("note", told)]
    return []


def _scored(runs: Mapping[str, Run]) -> list[Note]:
    counts = {name: run.receipt["test_scored"] for name, run in runs.items() if run.receipt["test_scored"] > 1}
    if not counts:
        return []
    told = by_value({name: f"{count} times" for name, count in counts.items()})
    return [
        note("note", f"Test rows were scored more than once, {told}: a score seen that often can have been picked.")
    ]


def _other_data(runs: Mapping[str, Run]) -> list[Note]:
    """Whether the runs learnt from the same files."""
    hashes = {
        name: " + ".join(sorted(_told(run, source) for source in run.recipe.data.train)) for name, run in runs.items()
    }
    if len(set(hashes.values())) == 1:
        return []
    told = (
        f"The runs were trained on different data, by SHA-256 {by_value(hashes)}. What is compared is their data, too."
    )
    return [note("warning", told)]


def by_value(told: Mapping[str, str]) -> str:
    """`{"a": "x", "b": "y", "c": "x"}` as "x (a, c); y (b)"."""
    names: dict[str, list[str]] = {}
    for name, value in told.items():
        names.setdefault(value, []).append(name)
    return "; ".join(f"{value} ({', '.join(given)})" for value, given in names.items())


def _other_models(runs: Mapping[str, Run]) -> list[Note]:
    """Whether a model's name stood for the same weights in all runs."""
    found: dict[str, set[str]] = {}
    for run in runs.values():
        weights = sorted(f"{file} {digest}" for file, digest in run.receipt["model"]["files"].items())
        found.setdefault(run.recipe.model.name, set()).add("\n".join(weights))
    return [
        note("warning", f"The runs began from different files under the one name {model}.")
        for model, known in found.items()
        if len(known) > 1
    ]


# ---- leaks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sides:
    """Of one run, by the rows' keys: what it learnt, what it was tested on, what is compared, and every row's group."""

    learnt: frozenset[str]
    tested: Sequence[str]
    compared: Sequence[str]
    groups: Mapping[str, str]


def _leaks(runs: Mapping[str, Run], matched: Matched) -> list[Note]:
    """Rows, and the like of rows, that one run was tested on and another was trained on."""
    keys = {name: _contents(run) for name, run in runs.items()} if _files_differ(runs) else {}
    unread = [name for name, found in keys.items() if found is None]
    told = [
        note("warning", f"The data files of {name} are not where they were: a leak into it or from it may be missed.")
        for name in unread
    ]
    sides = {name: _sides(name, run, matched, {} if unread else keys.get(name) or {}) for name, run in runs.items()}
    for name in runs:
        told += [*_seen(name, sides), *_outside(name, sides), *_like(name, sides)]
    return told


def _files_differ(runs: Mapping[str, Run]) -> bool:
    return len({tuple(sorted(run.receipt["data"].values())) for run in runs.values()}) > 1


def _contents(run: Run) -> dict[str, str] | None:
    """What each row of the run's files asks, by the row's id; None where the files are not what they were."""
    known = run.receipt["data"]
    if any(not Path(file).is_file() or sha256(Path(file)) != digest for file, digest in known.items()):
        return None
    data = run.recipe.data.model_copy(update={"instruction": None})
    if any(not files_of([source]) for source in given_of(run.recipe)):  # rows that the hub holds may be others by now
        return None
    records = Reader(run.recipe.model_copy(update={"data": data})).records(given_of(run.recipe))
    return {record.where: twin_key(record.content) for _, record in records}


def _of_samples(run: Run) -> dict[str, str]:
    """The SHA-256 of each sample's file, by the name that its rows' places have."""
    named = [source for source in given_of(run.recipe) if isinstance(source, SampleSource)]
    return {source.name: sha for source in named for file, sha in run.receipt["data"].items() if belongs(file, source)}


def _sides(name: str, run: Run, matched: Matched, contents: Mapping[str, str]) -> _Sides:
    hashes = run.receipt["data"] | _of_samples(run)

    def key(where: str) -> str:
        file, _, line = where.rpartition(":")
        return contents.get(where) or f"{hashes.get(file, file)}:{line}"

    splits = list(run.folder.read_lines("splits.jsonl"))
    return _Sides(
        learnt=frozenset(key(row["id"]) for row in splits if row["split"] == "train"),
        tested=[key(line["id"]) for line in run.folder.read_lines("predictions.jsonl")],
        compared=[key(row["ids"][name]) for row in matched.rows],
        groups={key(row["id"]): row["group"] for row in splits if row["group"] is not None},
    )


def _seen(name: str, sides: Mapping[str, _Sides]) -> list[Note]:
    """Rows compared that the run was trained on."""
    rows = zip(*(side.compared for side in sides.values()), strict=True)  # a row has a key in each run
    if not (seen := sum(any(key in sides[name].learnt for key in keys) for keys in rows)):
        return []
    message = (
        f"{seen:,} of the {len(sides[name].compared):,} rows compared stand in the training rows of {name}: it has seen "
        "them, and the comparison is not fair."
    )
    return [note("warning", message)]


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _outside(name: str, sides: Mapping[str, _Sides]) -> list[Note]:
    """Test rows of the run that others were trained on, and that are not compared for that reason."""
    left = set(sides[name].tested) - set(sides[name].compared)
    found = {other: _rows(n) for other, side in sides.items() if other != name and (n := len(left & side.learnt))}
    if not found:
        return []
    message = (
        f"Other runs were trained on test rows of {name}: {by_value(found)}. They are not among the rows compared, but the "
        "runs were not split alike."
    )
    return [note("note", message)]


def _like(name: str, sides: Mapping[str, _Sides]) -> list[Note]:
    """Rows of the groups that the run held out for the test, among what others were trained on."""
    own = sides[name]
    compared = set(own.compared)
    held_out = {own.groups[key] for key in compared if key in own.groups}
    counts = {
        other: sum(own.groups.get(key) in held_out for key in side.learnt - compared)
        for other, side in sides.items()
        if other != name
    }
    if not any(counts.values()):
        return []
    message = (
        f"Other runs were trained on rows of groups that {name} held out for the test: "
        f"{by_value({other: _rows(count) for other, count in counts.items() if count})}. They know the like of the "
        "rows compared, and the comparison favours them."
    )
    return [note("warning", message)]
