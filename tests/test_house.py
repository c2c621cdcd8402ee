"""The house keeps its rule: a room imports only from rooms above it, and no file grows past its size.

The checker reads the syntax tree of every file, so imports inside functions, relative ones and those for types count too.
Each check is proved on a synthetic package in which the fault was planted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from source_tree import REPOSITORY, SOURCE, files_of, imports, plant, tree_of

# Top to bottom, as in DESIGN section 2. Rooms on one line stand side by side and may not import each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("recipe",),
    ("limits",),
    ("runtime",),
    ("progress",),
    ("cache",),
    ("archives",),
    ("samples",),
    ("data",),
    ("proposal",),
    ("kernels",),
    ("models",),
    ("methods",),
    ("metrics",),
    ("tasks",),
    ("runs",),
    ("trackers",),
    ("training",),
    ("evaluation",),
    ("report", "export"),
    ("finished",),
    ("ready",),
    ("record",),
    ("pipeline",),
    ("checking",),
    ("demo", "search", "lightning"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOF = "__init__"  # pegbox/__init__.py: may import any room, and no room may import it


def order_faults(source: Path) -> list[str]:
    """Every import that reaches a room beside or below its own, and every file without a room."""
    faults = []
    for path in files_of(source):
        parts = path.relative_to(source / "pegbox").with_suffix("").parts
        room = parts[0]
        if room == ROOF:
            continue
        if room not in FLOOR:
            faults.append(f"{path.relative_to(source)}: belongs to no room")
            continue
        for line, name in imports(tree_of(path), ["pegbox", *parts[:-1]]):
            head, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if head != "pegbox" or target in (room, "__version__"):
                continue
            if FLOOR.get(target, len(FLOORS)) >= FLOOR[room]:
                faults.append(f"{path.relative_to(source)}:{line}: {room} imports {name}")
    return faults


def size_faults(source: Path) -> list[str]:
    """Every file over 400 lines, and a training loop of 250 or more."""
    limits = {"pegbox/training/loop.py": 249}
    faults = []
    for path in files_of(source):
        name = path.relative_to(source).as_posix()
        lines = len(path.read_bytes().split(b"\n")) - 1
        if lines > limits.get(name, 400):
            faults.append(f"{name}: {lines} lines")
    return faults


# --- the house as it stands ---


def test_a_room_imports_only_from_rooms_above_it() -> None:
    assert files_of(SOURCE), "the checker looked at nothing"
    assert order_faults(SOURCE) == []


def test_no_file_outgrows_its_limit() -> None:
    assert size_faults(SOURCE) == []


def test_no_room_is_ignored_by_git() -> None:
    """A bare `runs/` in .gitignore also hides src/pegbox/runs from git and from the wheel; `/runs/` does not."""
    patterns = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").split("\n")
    anywhere = {line.rstrip("/") for line in patterns if "/" not in line.rstrip("/")}
    assert anywhere & set(FLOOR) == set()


# --- the proof that each checker finds what it is for ---


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data/sources.py", "from pegbox.models import load\n"),
        ("data/sources.py", "import pegbox.training.loop\n"),
        ("data/sources.py", "from pegbox import tasks\n"),
        ("data/sources.py", "from ..tasks.chat import Chat\n"),
        ("data/sources.py", "from .. import cli\n"),
        ("data/__init__.py", "from ..tasks import chat\n"),
        ("data/deep/er.py", "from ...tasks import chat\n"),
        ("data/sources.py", "def late():\n    from pegbox.training import loop\n"),
        ("data/sources.py", "if TYPE_CHECKING:\n    from pegbox.tasks import Task\n"),
        ("data/sources.py", "import importlib\nimportlib.import_module('pegbox.tasks')\n"),
        ("data/sources.py", "import importlib\nimportlib.import_module(f'pegbox.{room}')\n"),
        ("data/sources.py", "import pegbox\n"),
        ("data/sources.py", "from pegbox import train\n"),
        ("errors.py", "from pegbox.recipe import Recipe\n"),
        ("report/page.py", "from pegbox.export import reload\n"),
        ("pipeline.py", "from pegbox.cli import main\n"),
        ("utils.py", ""),
        ("attic/old.py", "import os\n"),
    ],
)
def test_a_planted_breach_of_the_order_is_found(tmp_path: Path, file: str, text: str) -> None:
    assert len(order_faults(plant(tmp_path, {file: text}))) == 1


def test_lawful_imports_are_not_faults(tmp_path: Path) -> None:
    lawful = {
        "__init__.py": "def __getattr__(name):\n    from pegbox.cli import main\n",
        "__main__.py": "from pegbox.cli import main\n",
        "errors.py": "import os.path\n",
        "data/render.py": "from ..errors import DataError\nfrom .sources import read\nfrom pegbox.data import doctor\n",
        "training/loop.py": "import torch\nfrom pegbox import __version__, errors\nfrom pegbox.tasks.chat import Chat\n",
        "cli/train.py": "from pegbox import pipeline\nimport pegbox.search.space\n",
    }
    assert order_faults(plant(tmp_path, lawful)) == []


@pytest.mark.parametrize(("file", "limit"), [("data/sources.py", 400), ("training/loop.py", 249)])
def test_a_planted_long_file_is_found(tmp_path: Path, file: str, limit: int) -> None:
    assert size_faults(plant(tmp_path, {file: "x = 1\n" * limit})) == []
    assert len(size_faults(plant(tmp_path, {file: "x = 1\n" * (limit + 1)}))) == 1
