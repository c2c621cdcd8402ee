"""The disk fails at any call of a save, fills up, tears and flips: no checkpoint is lost or loaded damaged.

Short forms of the campaigns in benchmarks/faults. Faults of one save are gone through here, with a model of eight numbers; those
of whole runs in a process of their own, which forks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from pegbox.errors import TrainingError
from pegbox.recipe import Train
from pegbox.runs import checkpoint, durable
from pegbox.runs.checkpoint import TrainState
from pegbox.training import schedule

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from faults import door  # noqa: E402

MANIFEST, STATE = checkpoint.MANIFEST, checkpoint.STATE
SAVE_KINDS = ("error", "part, then full", "killed before", "part, then killed", "power lost")


def faults(
    kinds: Iterable[str], run: Path, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Iterable[str]:
    """Every one of these faults at every call that the action makes; where it was put, after each. What it raises is let go."""
    monkeypatch.setattr(door, "kill", killed)
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: None
    )  # the door has seen it, and the power fails by its account
    for kind in kinds:
        for at in range(1000):
            with door.Door(run, at, kind) as passed:
                try:
                    action()
                except (Killed, TrainingError) as error:
                    assert isinstance(error, Killed) == ("killed" in kind or kind == "power lost"), error
            if at >= len(passed.passed):
                break
            yield f"{kind} at {passed.passed[at]}"


class Killed(BaseException):
    pass


def killed() -> None:
    raise Killed


def check_old_or_new(run: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A file that is replaced has its old or its new bytes, whatever fails; how many faults that was seen after."""
    count, file = 0, run / "file"
    run.mkdir()
    durable.replace(file, [b"old" * 100])
    for where in faults(door.KINDS, run, lambda: durable.replace(file, [b"new" * 99, b"new" * 98]), monkeypatch):
        assert file.read_bytes() in (b"old" * 100, b"new" * 197), where
        durable.replace(file, [b"old" * 100])
        count += 1
    return count


def test_a_file_that_is_replaced_is_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_old_or_new(tmp_path / "run", monkeypatch) > 50


def test_the_check_sees_a_file_that_is_written_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(target: Path, parts: Iterable[bytes]) -> None:
        with durable.explained(target):
            durable.write(target, parts)

    monkeypatch.setattr(durable, "replace", replaced)
    with pytest.raises(AssertionError):
        check_old_or_new(tmp_path / "run", monkeypatch)


# ---- a save -----------------------------------------------------------------------------------------------------------


class Saves:
    """Checkpoints of a model of eight numbers, in a run's folder; step 2 is there, step 4 is to come."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"
        run.mkdir()
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 2)
        self.optimizer = schedule.adamw(dict(self.model.named_parameters()), Train())
        self.save(2)

    def save(self, step: int) -> None:
        checkpoint.save(self.folder, TrainState(step=step), self.model, self.optimizer, "hash")
        checkpoint.prune(self.folder, 1, TrainState(step=step, best_step=2))

    def newest(self) -> int:
        """The step of the newest checkpoint that verifies, 0 where there is none; its tensors load."""
        path = checkpoint.newest(self.folder)
        return checkpoint.load(path, self.model, self.optimizer).step if path else 0


def check_a_save_loses_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Whatever fails in it, the checkpoint before is there or the new one is; how many faults that was seen after."""
    saves, count = Saves(run), 0
    for where in faults(SAVE_KINDS, run, lambda: saves.save(4), monkeypatch):
        assert saves.newest() in (2, 4), where
        saves.save(4)  # what was left behind is in nobody's way
        assert saves.newest() == 4, where
        assert sorted(path.name for path in saves.folder.iterdir()) == ["step-2", "step-4"], where
        for file in (saves.folder / "step-4").iterdir():
            file.unlink()
        (saves.folder / "step-4").rmdir()
        count += 1
    return count


def test_no_fault_in_a_save_loses_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_a_save_loses_nothing(tmp_path / "run", monkeypatch) > 100


def test_the_check_sees_an_old_checkpoint_that_is_deleted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = checkpoint.save

    def save_in_place(folder: Path, state: TrainState, *given: Any) -> Path:
        checkpoint.prune(folder, 0, state)
        return right(folder, state, *given)

    monkeypatch.setattr(checkpoint, "save", save_in_place)
    with pytest.raises(AssertionError):
        check_a_save_loses_nothing(tmp_path / "run", monkeypatch)


def check_a_save_is_on_the_disk(run: Path) -> None:
    """After a save has returned, the power may go: the first checkpoint of a run, and the one after it."""
    run.mkdir()
    with door.Door(run) as passed:
        saves = Saves(run / "it")
    passed.unsynced.names.discard(str(run / "it"))  # the run's own name is its maker's
    passed.unsynced.lose()
    assert saves.newest() == 2
    with door.Door(run) as passed:
        saves.save(4)
    passed.unsynced.lose()
    assert saves.newest() == 4


def test_what_a_save_has_written_outlasts_a_power_failure(tmp_path: Path) -> None:
    check_a_save_is_on_the_disk(tmp_path / "run")


@pytest.mark.parametrize("unsynced", ["files", "folders", "the folder of all"])
def test_the_check_sees_what_is_not_synced(unsynced: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, seen = durable.sync, door.Unsynced.fsync
    if unsynced == "files":
        monkeypatch.setattr(
            door.Unsynced, "fsync", lambda disk, path: seen(disk, path) if os.path.isdir(path) else None
        )
    else:
        kept = ("step", ".step", "checkpoints") if unsynced == "the folder of all" else ("step", ".step")
        monkeypatch.setattr(durable, "sync", lambda path: right(path) if path.name.startswith(kept) else None)
    with pytest.raises(AssertionError):
        check_a_save_is_on_the_disk(tmp_path / "run")


def check_order(run: Path) -> None:
    """Every file is synced, the manifest is begun when all others are, then comes the name, then the folders of it."""
    saves = Saves(run)
    with door.Door(run) as passed:
        saves.save(4)
    calls = passed.passed
    draft = "checkpoints/.step-4.tmp"
    named = calls.index(("rename", draft))
    synced = {name: calls.index(("fsync", f"{draft}/{name}")) for name in os.listdir(saves.folder / "step-4")}
    begun = calls.index(("open", f"{draft}/{MANIFEST}"))
    assert all(place < begun for name, place in synced.items() if name != MANIFEST)
    assert begun < synced[MANIFEST] < calls.index(("fsync", draft)) < named
    assert [call for call in calls[named:] if call[0] == "fsync"] == [("fsync", "checkpoints"), ("fsync", "")]
    assert all(place < named for place, (call, _) in enumerate(calls) if call == "write")


def test_the_manifest_is_last_and_the_name_comes_after_it(tmp_path: Path) -> None:
    check_order(tmp_path / "run")


def test_the_check_sees_a_manifest_that_is_not_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MANIFEST", STATE)
    monkeypatch.setattr(checkpoint, "STATE", MANIFEST)
    with pytest.raises(AssertionError):
        check_order(tmp_path / "run")


@pytest.mark.parametrize(
    "manifest", [b"", b"5", b"null", b'"text"', b"[]", b"{}", b"\xff", b"[" * 100_000, b"\0" * 500]
)
def test_a_manifest_of_anything_at_all_is_passed_over(manifest: bytes, tmp_path: Path) -> None:
    saves = Saves(tmp_path / "run")
    saves.save(4)
    (saves.folder / "step-4" / checkpoint.MANIFEST).write_bytes(manifest)
    assert saves.newest() == 2


# ---- whole runs -------------------------------------------------------------------------------------------------------

SCRIPT = """
import json
from faults import flips, full_disk, writes
from faults.world import made_world
from pegbox.runs import checkpoint
from pegbox.runs.folder import RunFolder
found = {}
with made_world() as world:
    found["writes"] = writes.run(world, count=4, places={writes.SAVE: ["lora"]})
    found["disk"] = full_disk.run(world, count=2, methods=["lora"])
    found["flips"] = flips.run(world, count=40, stride=97)
    RunFolder.truncate_logs = lambda folder, sizes: None  # a bug: lines of updates that are taken again stay
    found["writes with a bug"] = writes.run(world, count=2, places={writes.SAVE: ["full"]})
    checkpoint.verifies = lambda path: True  # another
    found["flips with a bug"] = flips.run(world, count=0, stride=997)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def campaigns() -> dict[str, Any]:
    """What short campaigns find, in a process of their own: they fork, and here torch has computed."""
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_that_met_a_fault_goes_on_to_the_same_bytes(campaigns: dict[str, Any]) -> None:
    (found,) = campaigns["writes"].values()
    assert found["faults"] == 4
    assert found["same_bytes"] == "4 of 4"
    assert (found["unloadable"], found["more_than_one_interval_lost"], found["odd"]) == (0, 0, [])


def test_the_campaign_sees_a_run_that_does_not_go_on_as_it_began(campaigns: dict[str, Any]) -> None:
    (found,) = campaigns["writes with a bug"].values()
    assert found["same_bytes"] != "2 of 2"


def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(campaigns: dict[str, Any]) -> None:
    found = campaigns["disk"]
    if "skipped" in found:
        pytest.skip(found["skipped"])
    assert found["lora"]["same_bytes"] == "2 of 2"
    assert (found["lora"]["corrupt_checkpoints"], found["lora"]["odd"]) == (0, [])


def test_every_damage_of_a_checkpoint_is_found_and_named(campaigns: dict[str, Any]) -> None:
    found = campaigns["flips"]
    for part in (found["drawn"], found["every_bit"]):
        assert part["detected"] == part["fell_back"] == part["named"] == part["mended"] == part["damages"] >= 40
        assert (part["silent"], part["odd"]) == (0, [])
    assert found["resumed"]["odd"] == []


def test_the_campaign_sees_damage_that_is_passed_over(campaigns: dict[str, Any]) -> None:
    found = campaigns["flips with a bug"]["every_bit"]
    assert found["silent"] == found["damages"] > 5
