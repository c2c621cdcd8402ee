"""What a person sees when a run is stopped, goes on, or cannot write: one message with its cure, the right exit code.

The commands run as processes, for what is settled before torch is loaded can be seen nowhere else.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pegbox.runs import checkpoint, environment
from typed import pegbox

COMMAND = [sys.executable, "-c", "from pegbox.cli import main; main()"]


def refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "\n  cure: " in done.stderr
    for words in said:
        assert words in done.stderr


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Path:
    """The finished run, as if it had been killed in its last updates."""
    folder = Path(shutil.copytree(home / "run", tmp_path / "run"))
    for name in ("model", f"checkpoints/{checkpoint.by_step(folder / 'checkpoints')[0].name}"):
        shutil.rmtree(folder / name)
    return folder


def test_what_differs_is_listed_with_its_keys_and_can_be_accepted(home: Path, run: Path) -> None:
    recipe = (run / "recipe.yaml").read_text()
    assert "num_train_epochs: 2" in recipe
    (run / "recipe.yaml").write_text(recipe.replace("num_train_epochs: 2", "num_train_epochs: 3"))
    refused(pegbox("train", "--resume", run, cwd=home), 2, "train.num_train_epochs: was 2", "--accept-change train")
    done = pegbox("train", "--resume", run, "--accept-change", "train.num_train_epochs", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    receipt = json.loads((run / "receipt.json").read_text())
    assert receipt["accepted_changes"] == ["train.num_train_epochs: was 2.0, is now 3.0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resume", "run", "--no-kernels"), "--no-kernels"),
        (("recipe.yaml", "--accept-change", "data"), "only a run that goes on"),
        (("--resume", "run", "--accept-change", "task"), "nothing of that name differs"),
    ],
)
def test_options_of_going_on_that_have_no_effect_are_refused(home: Path, words: tuple[str, ...], said: str) -> None:
    refused(pegbox("train", *words, cwd=home), 2, said)


def test_threads_and_libraries_are_set_as_they_were_before_torch_is_loaded(home: Path, run: Path) -> None:
    receipt = json.loads((run / "receipt.json").read_text())
    assert receipt["hardware"]["environment"].items() >= environment.FIXED.items()
    receipt["hardware"]["environment"] |= {"OMP_NUM_THREADS": "2", "MKL_CBWR": "COMPATIBLE"}
    receipt["hardware"]["environment"].pop("MKL_DYNAMIC")
    receipt["hardware"]["threads"] = 2
    (run / "receipt.json").write_text(json.dumps(receipt))
    code = (
        "import os, sys, json\n"
        "from pegbox.runs import environment\n"
        "right = environment.restore\n"
        "def restore(run):\n"
        "    print('torch' in sys.modules, file=sys.stderr)\n"
        "    right(run)\n"
        "    print(json.dumps(environment.current()), file=sys.stderr)\n"
        "environment.restore = restore\n"
        "from pegbox.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--resume", str(run), "--quiet"], cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "False"
    assert json.loads(lines[1]) == receipt["hardware"]["environment"]
    assert not any("rounding" in line for line in lines), "it is as it was, and so nothing is to be said"


def test_a_second_signal_ends_it_at_once(home: Path, tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from pegbox.training import loop\n"
        "loop.take_update = lambda *given: time.sleep(60)\n"
        "from pegbox.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "train", "recipe.yaml", "--run-dir", str(tmp_path / "slow")]
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (tmp_path / "slow" / "recipe.yaml").exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == -signal.SIGTERM


def test_a_signal_before_anything_is_saved_has_its_exit_code_too(home: Path, tmp_path: Path) -> None:
    code = "import time\nfrom pegbox import cli\ncli.app = lambda: time.sleep(60)\nprint('ready', flush=True)\ncli.main()\n"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=home, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143


# ---- disks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["rows.jsonl/run", "/dev/null", "/dev/null/run"])
def test_a_place_where_no_folder_can_be_is_told_as_such(home: Path, place: str) -> None:
    refused(pegbox("train", "recipe.yaml", "--run-dir", place, cwd=home), 2, "--run-dir")


def fails_with(number: str, where: str) -> list[str]:
    """The command, in a process where the disk refuses what is written by the function named."""
    code = (
        "import os, errno\n"
        f"from pegbox.runs import {where.split('.')[0]}\n"
        "def refuse(*given, **named):\n"
        f"    raise OSError(errno.{number}, os.strerror(errno.{number}))\n"
        f"{where} = refuse\n"
        "from pegbox.cli import main\n"
        "main()\n"
    )
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("ENOSPC", ("the disk is full: ", " bytes are needed, ", " are free", "free some space")),
        ("EROFS", ("nothing can be written here", "make the folder writable")),
        ("EIO", ("the disk failed", "see that the disk is well")),
    ],
)
def test_a_disk_that_refuses_a_checkpoint_ends_the_run_and_loses_nothing(
    home: Path, tmp_path: Path, number: str, said: tuple[str, ...]
) -> None:
    words = [
        *fails_with(number, "checkpoint.durable.write"),
        "train",
        "recipe.yaml",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    # the first files of a run are written by the same door: let them pass
    words[2] = (
        words[2]
        .replace("def refuse", "right = checkpoint.durable.write\ndef refuse")
        .replace("    raise", "    if 'step-' not in str(given[0]): return right(*given)\n    raise")
    )
    done = subprocess.run(words, cwd=home, capture_output=True, text=True)
    refused(done, 4, *said)
    again = pegbox("train", "--resume", tmp_path / "run", "--json", cwd=home)
    assert again.returncode == 0, again.stderr
    model = "adapter_model.safetensors"
    assert (tmp_path / "run/model" / model).read_bytes() == (home / "run/model" / model).read_bytes()


def test_a_run_that_has_no_room_for_its_checkpoints_is_refused_before_it_trains(home: Path, tmp_path: Path) -> None:
    code = "from pegbox.runs import durable\ndurable.free = lambda path: 1000\nfrom pegbox.cli import main\nmain()\n"
    words = [sys.executable, "-c", code, "train", "recipe.yaml", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(words, cwd=home, capture_output=True, text=True)
    refused(done, 4, "the disk is full", "1,000 are free")
    assert "training:" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_spaces_and_letters_of_any_kind_in_paths(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "a b — ü 模型 'quoted' \"twice\" $HOME"
    shutil.copytree(home, place, ignore=shutil.ignore_patterns("run"))
    recipe = (place / "recipe.yaml").read_text().replace(str(home), ".")
    (place / "recipe.yaml").write_text(recipe)
    done = pegbox("train", "recipe.yaml", "train.max_steps=2", "--run-dir", "out put", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    again = pegbox("train", "--resume", "out put", "--json", cwd=place)
    assert again.returncode == 0, again.stderr
    assert pegbox("verify", "out put", cwd=place).returncode == 0
    assert os.path.isdir(place / "out put/model")
