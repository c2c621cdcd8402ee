"""Nothing in the package runs, unpickles or hands to a shell what it reads (DESIGN section 5)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from source_tree import SOURCE, dotted, files_of, imports, plant, tree_of

BANNED_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
BANNED_CALLS = {
    "eval",
    "exec",
    "__import__",
    "builtins.eval",
    "builtins.exec",
    "torch.load",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
}
BANNED_ARGUMENTS = {"shell", "allow_pickle", "trust_remote_code"}  # where they are set to anything but False


def danger_faults(source: Path) -> list[str]:
    """Every place that could run or unpickle what it reads (DESIGN section 5)."""
    faults = []
    for path in files_of(source):
        tree = tree_of(path)
        where = path.relative_to(source)
        aliases = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                aliases.update({alias.asname: alias.name for alias in node.names if alias.asname})
            elif isinstance(node, ast.ImportFrom) and not node.level:
                aliases.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        for line, name in imports(tree, []):
            if name.split(".")[0] in BANNED_MODULES or name in BANNED_CALLS:
                faults.append(f"{where}:{line}: imports {name}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            head, dot, rest = (dotted(node.func) or "").partition(".")
            called = aliases.get(head, head) + dot + rest
            if called in BANNED_CALLS:
                faults.append(f"{where}:{node.lineno}: calls {called}")
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in BANNED_ARGUMENTS and not off:
                    faults.append(f"{where}:{node.lineno}: sets {keyword.arg}")
    return faults


def test_nothing_in_the_package_runs_or_unpickles_what_it_reads() -> None:
    assert danger_faults(SOURCE) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle\n",
        "from pickle import loads\n",
        "def late():\n    import joblib.numpy_pickle\n",
        "import torch\ntorch.load('x')\n",
        "import torch as t\nt.load('x')\n",
        "from torch import load\n",
        "eval('1')\n",
        "exec('1')\n",
        "__import__('os')\n",
        "import subprocess\nsubprocess.run('ls', shell=True)\n",
        "import subprocess\nsubprocess.run('ls', shell=1)\n",
        "import numpy\nnumpy.load('x', allow_pickle=True)\n",
        "Model.from_pretrained('x', trust_remote_code=True)\n",
        "import yaml\nyaml.load('x', Loader=yaml.SafeLoader)\n",
        "from yaml import unsafe_load as read\nread('x')\n",
        "import os\nos.system('ls')\n",
    ],
)
def test_a_planted_danger_is_found(tmp_path: Path, text: str) -> None:
    assert danger_faults(plant(tmp_path, {"data/sources.py": text}))


def test_harmless_namesakes_are_not_dangers(tmp_path: Path) -> None:
    text = (
        "import json, torch, yaml\nfrom pegbox.recipe import load\n"
        "model.eval()\njson.load(f)\nyaml.safe_load(s)\nload('r')\nre.compile('x')\nrun(['ls'], shell=False)\n"
    )
    assert danger_faults(plant(tmp_path, {"data/sources.py": text})) == []
