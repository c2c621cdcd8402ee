"""Each invariant's bug, put back on purpose: a table of mutants, and how many of them the tests kill.

    cd benchmarks; python -m faults.mutants [--rows 1,16] [--count 5] [--workers 2]

A mutant is pegbox's source with one text of one file replaced (`mutant_table`). Its tests run in a process of their own that
imports a copy of `src`, never the one that is installed; this file is a plugin of pytest there, which sees to that and
tells how each test failed. A mutant is

    killed      a test failed at its call, by an assertion or by one of pegbox's own errors
    survived    all its tests passed
    stale       its text does not stand in the file exactly once: the table has to follow the source
    broken      anything else: it cannot be imported, a test was not run, it took too long, it fell over something else

The tests of all mutants must pass on the source as it is; otherwise a kill would say nothing.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue
from typing import Any, TypeVar

import pytest
from faults.mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LIMIT = 120.0  # seconds that the tests of a mutant may take
WHERE, TOLD = "FAULTS_SOURCE", "FAULTS_TOLD"  # variables of a child: the source that it must import, and its report
KILLED, SURVIVED, BROKEN = "killed", "survived", "broken"
Verdict = tuple[str, str]  # one of these, and why
Thing = TypeVar("Thing")
Result = TypeVar("Result")


def run(world: object = None, count: int | None = None, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """All mutants of the table, or `count` of them, drawn with the seed; a `world` is not needed."""
    return judge(MUTANTS if count is None else random.Random(seed).sample(MUTANTS, count), workers)


def judge(mutants: Sequence[Mutant], workers: int = 2) -> dict[str, Any]:
    """What became of each mutant. Raises RuntimeError where the tests fail without any."""
    began = time.monotonic()
    living = [mutant for mutant in mutants if not is_stale(mutant)]
    nodes = sorted({node for mutant in living for node in mutant.nodes})
    with tempfile.TemporaryDirectory(prefix="faults-source-") as folder:
        copies = Copies(Path(folder), workers)
        parts = [part for start in range(workers) if (part := nodes[start::workers])]
        whole = copies.each(lambda source, part: tested(source, part, LIMIT * len(part)), parts)
        if failed := [why for verdict, why in whole if verdict != SURVIVED]:
            raise RuntimeError(f"the tests fail on the source as it is: {failed}")
        found = dict(zip(living, copies.each(mutated, living), strict=True))
    killed = [mutant for mutant, (verdict, _) in found.items() if verdict == KILLED]
    return {
        "mutants": len(mutants),
        "killed": len(killed),
        "survived": [str(mutant) for mutant, (verdict, _) in found.items() if verdict == SURVIVED],
        "stale": [str(mutant) for mutant in mutants if is_stale(mutant)],
        "broken": [f"{mutant}: {why}" for mutant, (verdict, why) in found.items() if verdict == BROKEN],
        "by_row": {row: [_of_row(row, killed), _of_row(row, mutants)] for row in rows_of(mutants)},
        "seconds": round(time.monotonic() - began),
    }


def is_stale(mutant: Mutant) -> bool:
    """Whether its text is not to be found in the source, or more than once."""
    file = SOURCE / "pegbox" / mutant.file
    return not file.is_file() or file.read_text(encoding="utf-8").count(mutant.before) != 1


def rows_of(mutants: Sequence[Mutant]) -> list[str]:
    """The rows that the mutants break, in the order of INVARIANTS; what has no number comes last."""
    return sorted({row for mutant in mutants for row in mutant.rows}, key=lambda row: (not row.isdigit(), row.zfill(2)))


def _of_row(row: str, mutants: Sequence[Mutant]) -> int:
    return sum(row in mutant.rows for mutant in mutants)


# ---- the parent ------------------------------------------------------------------------------------------------------


class Copies:
    """Copies of the source, of which each worker has one.

    They are compiled once. What is compiled is known by the hash of its text, for two mutants of a file may be of the same
    length and the same second.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        copies = [folder / str(number) for number in range(count)]
        shutil.copytree(SOURCE, copies[0], ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(copies[0], quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        for copy in copies[1:]:
            shutil.copytree(copies[0], copy)
        for copy in copies:
            self._free.put(copy)
        self._count = count

    def each(self, action: Callable[[Path, Thing], Result], things: Sequence[Thing]) -> list[Result]:
        """What the action gives of each thing and a copy, in the order of the things."""

        def one(thing: Thing) -> Result:
            copy = self._free.get()
            try:
                return action(copy, thing)
            finally:
                self._free.put(copy)

        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(one, things))


def mutated(source: Path, mutant: Mutant) -> Verdict:
    """What becomes of a mutant in a copy of the source, which is afterwards as it was."""
    file = source / "pegbox" / mutant.file
    sound = file.read_text(encoding="utf-8")
    file.write_text(sound.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        return tested(source, mutant.nodes, LIMIT)
    finally:
        file.write_text(sound, encoding="utf-8")


def tested(source: Path, nodes: Sequence[str], limit: float) -> Verdict:
    """What the tests say of a source."""
    with tempfile.TemporaryDirectory(prefix="faults-mutant-") as name:
        folder = Path(name)
        told = folder / "told.json"
        settings = {
            **{WHERE: str(source), TOLD: str(told), "PEGBOX_CACHE": str(folder / "cache")},
            **{"PYTHONPATH": os.pathsep.join((str(source), str(ROOT / "benchmarks"))), "PYTHONDONTWRITEBYTECODE": "1"},
            **{"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        }
        options = ["-n", "0", "-x", "-q", "-p", "no:cacheprovider", "-p", "faults.mutants"]
        command = [sys.executable, "-m", "pytest", *options, f"--basetemp={folder / 'temp'}", *nodes]
        with (folder / "said.log").open("w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | settings, stdout=said, stderr=said, start_new_session=True
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that the test began
                process.wait()
                return BROKEN, f"it took more than {limit:.0f} s"
            if not told.is_file():
                said.seek(0)
                return BROKEN, said.read()[-500:].strip()
        return _verdict(code, json.loads(told.read_text(encoding="utf-8")))


def _verdict(code: int, told: dict[str, Any]) -> Verdict:
    failed = told["failed"]
    why = ", ".join(f"{one['test']} ({one['when']}): {one['error']}" for one in failed)
    if code == 0 and told["passed"] and not told["skipped"]:
        return SURVIVED, ""
    if code == 1 and failed and all(one["when"] == "call" and one["fair"] for one in failed):
        return KILLED, why
    return BROKEN, why or f"pytest ended with {code}: {told['passed']} passed, {told['skipped']} skipped"


# ---- the child: a plugin of pytest -----------------------------------------------------------------------------------

_told: dict[str, Any] = {"passed": 0, "skipped": 0, "failed": []}


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test another source than the mutated one."""
    import pegbox

    if not Path(str(pegbox.__file__)).is_relative_to(os.environ[WHERE]):
        raise pytest.UsageError(f"pegbox was imported from {pegbox.__file__}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what passed and what was skipped."""
    _told["passed"] += report.when == "call" and report.passed
    _told["skipped"] += report.skipped


def pytest_exception_interact(
    node: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport | pytest.CollectReport
) -> None:
    """Note a failure: where, by what, and whether that is how a test fails that finds a bug."""
    assert call.excinfo is not None
    error = call.excinfo.value
    lines = str(error).strip().split("\n")
    said = f"{type(error).__name__}: {lines[-1 if call.when == 'collect' else 0]}"  # of a file the cause comes last
    _told["failed"].append({"test": node.nodeid, "when": call.when, "error": said[:300], "fair": _is_fair(error)})


def _is_fair(error: BaseException) -> bool:
    from pegbox.errors import PegboxError

    if isinstance(error, BaseExceptionGroup):  # of Hypothesis, where several examples fail
        return all(map(_is_fair, error.exceptions))
    return isinstance(error, AssertionError | PegboxError | pytest.fail.Exception)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell it."""
    Path(os.environ[TOLD]).write_text(json.dumps(_told), encoding="utf-8")


def main() -> int:
    """Judge the table, or the part of it that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="only mutants of these rows: 1,16,checkpoints")
    parser.add_argument("--count", type=int, help="only as many, drawn with the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.rows is None:
        result = run(count=options.count, seed=options.seed, workers=options.workers)
    else:
        wanted = set(options.rows.split(","))
        result = judge([mutant for mutant in MUTANTS if wanted & set(mutant.rows)][: options.count], options.workers)
    print(json.dumps(result, indent=2))
    return 0 if result["killed"] == result["mutants"] else 1


if __name__ == "__main__":
    sys.exit(main())
