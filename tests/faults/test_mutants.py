"""The mutants of benchmarks/faults: the table follows the source, and its runner tells a bug from no bug.

All of them are killed in the campaign, which takes minutes; here three of the quickest.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest

from source_tree import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from faults.mutant_table import MUTANTS, Mutant

from faults import mutants

# of the rows of INVARIANTS those whose bug pegbox's source can have; the section on checkpoints
ROWS = {1, 2, 3, 4, 6, *range(9, 25), 26, *range(29, 36), 37, 39, 40}
QUICK = [
    mutant
    for mutant in MUTANTS
    if mutant.bug in ("the answer is cut", "perplexity is a mean over rows", "twins are told apart by case")
]
TWINS = next(mutant for mutant in QUICK if mutant.file == "data/splits.py")


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_fits_the_source(mutant: Mutant) -> None:
    assert not mutants.is_stale(mutant), f"{mutant.file} does not hold {mutant.before!r} once"
    assert mutant.nodes and mutant.before != mutant.after
    for node in mutant.nodes:
        file, _, test = node.partition("::")
        assert (REPOSITORY / file).is_file(), node
        assert re.search(rf"^def {test.partition('[')[0]}\(", (REPOSITORY / file).read_text("utf-8"), re.MULTILINE), (
            node
        )


def test_every_row_has_a_mutant_and_every_mutant_a_name_of_its_own() -> None:
    assert {*map(str, ROWS), "checkpoints"} <= set(mutants.rows_of(MUTANTS))
    assert len(set(map(str, MUTANTS))) == len(MUTANTS)


def test_bugs_are_killed_and_what_is_no_bug_survives() -> None:
    """A docstring is no bug; a text that is not there, and a file that cannot be imported, are no kills."""
    harmless = replace(
        TWINS, bug="none", before='"""A hash of the input without', after='"""Some hash of the input without'
    )
    stale = replace(TWINS, bug="stale", before="no such text")
    broken = replace(TWINS, bug="broken", before="def normal(text: str) -> str:", after="def normal(text: str) -> str")
    fallen = replace(TWINS, bug="fallen", before=TWINS.before, after="unicodedata.no_such_function(text)")
    found = mutants.judge([*QUICK, harmless, stale, broken, fallen])
    assert (found["mutants"], found["killed"]) == (7, 3)
    assert (found["survived"], found["stale"]) == (["29 none"], ["29 stale"])
    assert [said.partition(":")[0] for said in found["broken"]] == ["29 broken", "29 fallen"]
    assert "SyntaxError" in found["broken"][0] and "AttributeError" in found["broken"][1]
    assert found["by_row"] == {"10": [1, 1], "24": [1, 1], "29": [1, 5]}


def test_a_bug_that_the_tests_have_anyway_is_no_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "tested", lambda source, nodes, limit: (mutants.KILLED, "it fails"))
    with pytest.raises(RuntimeError, match="the tests fail on the source as it is"):
        mutants.judge(QUICK[:1])
