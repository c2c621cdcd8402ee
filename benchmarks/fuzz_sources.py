"""Can a stranger's file break the reading of rows? Mutated files and valid ones of every kind, read and made into records.

    python benchmarks/fuzz_sources.py --out benchmarks/results/fuzz_sources.json

Of a mutant: no exception but the errors that a user is told, each with `file` or `file:line` and a cure (of a row: the
reason); no crash and no hang; whatever is read can be written as JSON. Of a valid file: nothing is refused and all
values are what they were. Each case is run in a process that may die. Exit code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz_files import Case, mutant, valid

from pegbox.data.formats import to_record
from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, Remark, read
from pegbox.errors import DataError, RecipeError

LIMIT_S = 30.0  # for one case; they take some milliseconds
FAULTY = "FAULT"  # how an outcome begins that breaks a promise


def outcome(case: Case, folder: Path) -> str:
    """What became of a case, in a few words; FAULTY and the reason where a promise is broken."""
    path = folder / case.name
    path.write_bytes(case.data)
    rows: list[Row] = []
    told: list[Remark] = []
    unread = unusable = 0
    try:
        for row in read([str(path)], told):
            if isinstance(row, MalformedRow):
                unread += 1
            else:
                rows.append(row)
                unusable += not _is_usable(row, case.task)
            if not re.fullmatch(re.escape(str(path)) + r"(/\S+)?:\d+", row.where):
                return f"{FAULTY}: the place is {row.where}"
        if case.rows is not None and [row.values for row in rows] != list(case.rows):
            return f"{FAULTY}: other values"
    except (DataError, RecipeError) as error:
        if not (error.where or "").startswith(str(path)) or not error.cure or len(error.what) > 500:
            return f"{FAULTY}: an error without a place or a cure: {error}"
        return "file refused" if case.rows is None else f"{FAULTY}: {error}"
    except Exception as error:
        return f"{FAULTY}: {type(error).__name__}: {error}"
    if case.rows is not None and (unread or unusable):
        return f"{FAULTY}: a valid row is refused"
    return "rows refused" if unread or unusable else "read"


def _is_usable(row: Row, task: str) -> bool:
    """Whether the task can learn from the row; whatever was read must be possible to write."""
    json.dumps(dict(row.values), allow_nan=False, ensure_ascii=False).encode("utf-8")
    try:
        to_record(row, task, {})
    except (RecipeError, ValueError) as error:
        assert str(error)
        return False
    return True


def _work(make: Callable[[int], Case], seeds: range, answers: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            answers.send(outcome(make(seed), Path(folder)))
            for file in Path(folder).iterdir():
                file.unlink()


def outcomes(make: Callable[[int], Case], seeds: range) -> Iterator[tuple[int, str]]:
    """Each seed and what became of its case. A process that dies or hangs is replaced by one for the seeds behind."""
    context = multiprocessing.get_context("spawn")
    while seeds:
        answers, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(make, seeds, theirs))
        process.start()
        theirs.close()
        for seed in seeds:
            patience = LIMIT_S * (4 if seed == seeds[0] else 1)  # the first one imports
            try:
                told = answers.recv() if answers.poll(patience) else f"{FAULTY}: hangs"
            except EOFError:
                told = f"{FAULTY}: the process died"
            yield seed, told
            if told in (f"{FAULTY}: hangs", f"{FAULTY}: the process died"):
                break
        process.kill()
        process.join()
        seeds = range(seed + 1, seeds.stop)


def main() -> int:
    """Run the campaign; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--valid", type=int, default=2_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results, faults = {}, {}
    start = time.perf_counter()
    for name, make, count in (("mutants", mutant, given.mutants), ("valid", valid, given.valid)):
        found = dict(outcomes(make, range(count)))
        results[name] = dict(Counter(told.split(":")[0] for told in found.values()))
        faults |= {f"{name} {seed}": told for seed, told in found.items() if told.startswith(FAULTY)}
    about = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
    told = {**about, "seconds": round(time.perf_counter() - start), **results, "faults": faults}
    print(json.dumps(told, indent=1, ensure_ascii=False))
    if given.out:
        given.out.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
