"""The code in the docs does what it says: every shell and Python block is run, page by page, in a folder of its own.

A page's blocks are run in order, with tiny models that answer to the names of the real ones. A block that holds a file is
written as that file. What is not run is listed here, exactly: the list cannot grow unseen.
"""

from __future__ import annotations

import csv
import io
import json
import random
import runpy
import shutil
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import Block, blocks_of, name_of, pages

import pegbox
from pegbox.cli import main
from tiny_folder import causal_folder, chat_recipe, sums, write_rows
from tiny_masked import masked_folder

CHAT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

# what a page finds in its folder beside the two models
GIVEN = {
    "README.md": ["house", "my-run"],
    "docs/api.md": ["recipe.yaml", "tickets.jsonl"],
    "docs/guides/better.md": ["recipe.yaml", "tickets.jsonl", "harder.jsonl", "runs"],
    "docs/guides/compare.md": ["recipe.yaml", "tickets.jsonl", "validation.jsonl", "test.jsonl"],
    "docs/guides/continued-pretraining.md": ["reports.jsonl", "commands.csv"],
    "docs/guides/elsewhere.md": ["new.jsonl", "runs"],
    "docs/guides/export.md": ["recipe.yaml", "tickets.jsonl", "runs"],
    "docs/guides/losses.md": ["commands.csv"],
    "docs/guides/memory.md": ["recipe.yaml", "tickets.jsonl"],
    "docs/guides/methods.md": ["tickets.jsonl"],
    "docs/guides/offline.md": ["recipe.yaml", "tickets.jsonl"],
    "docs/guides/overfitting.md": ["recipe.yaml", "tickets.jsonl"],
    "docs/guides/refused.md": ["commands.csv"],
    "docs/guides/rows.md": ["commands.csv"],
    "docs/plan.md": ["recipe.yaml", "tickets.jsonl"],
    "docs/guides/tasks.md": ["requests.csv"],
    "docs/guides/stopped.md": ["recipe.yaml", "tickets.jsonl"],
    "docs/guides/trackers.md": ["recipe.yaml", "tickets.jsonl", "runs"],
    "docs/index.md": ["tickets.jsonl"],
    "docs/lightning.md": ["recipe.yaml", "tickets.jsonl"],
    "docs/recipe.md": ["tickets.jsonl"],
}
# every command of a shell block that is not run here
NOT_RUN = {
    "README.md": ["make demo ARGS=--run-dir house", "make test", "source .venv/bin/activate"],
    "docs/commands.md": ["torchrun --nproc-per-node 2 --no-python pegbox train recipe.yaml --run-dir runs/two"],
    "docs/guides/offline.md": [
        "pip download -d wheels -c constraints.txt .[all]",
        "pegbox check recipe.yaml",
        "cp -r ~/.cache/pegbox /media/stick/",
        "pip install --no-index --find-links wheels pegbox[all]",
        "PEGBOX_CACHE=/media/stick/pegbox HF_HUB_OFFLINE=1 pegbox train recipe.yaml",
    ],
    "docs/guides/recipes.md": ["pegbox train recipes/support.yaml"],
    "docs/guides/sources.md": ["pip install pegbox[hub]", "pip install pegbox[rdf]"],
    "docs/guides/trackers.md": ["tensorboard --logdir runs/watched/tensorboard"],
    "docs/index.md": ["make demo", "make test"],
    "docs/lightning.md": ["pip install pegbox[lightning]"],
    "docs/plan.md": ["make bench-plan"],
    "docs/reliability.md": ["make faults"],
    "docs/guides/stopped.md": ["pegbox train --resume runs/long --accept-change train.num_train_epochs"],
}


def commands_csv(path: Path) -> None:
    """Short and long commands with their intents, three of a pattern. The tiny tokenizer is trained anew each time and cuts
    words in its own ways: short ones have at most 12 tokens even letter by letter, long ones more even word by word."""
    draw = random.Random(0)
    said = {"HassTurnOn": "on", "HassTurnOff": "off", "HassGetState": "is"}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["utterance", "intent", "pattern"])
    for number in range(150):
        intent = draw.choice(list(said))
        where = " and ".join(f"room {number}{letter}" for letter in "abcdef") if number % 3 == 0 else f"lamp {number}"
        writer.writerow([f"{said[intent]} {where}", intent, f"p{number // 3}"])
    path.write_text(text.getvalue(), encoding="utf-8")


def requests_csv(path: Path) -> None:
    """Requests with two labels as columns of 0 and 1, and whom each is about."""
    draw = random.Random(0)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["utterance", "light", "urgent", "region"])
    for number in range(250):
        light, urgent = draw.randrange(2), draw.randrange(2)
        said = f"{'lamp' if light else 'door'} {number}{' now' if urgent else ''}"
        writer.writerow([said, light, urgent, draw.choice(["north", "south"])])
    path.write_text(text.getvalue(), encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a page can be given."""
    folder = tmp_path_factory.mktemp("docs")
    causal_folder(folder / CHAT_MODEL)
    masked_folder(folder / ENCODER)
    rows = sums(200)
    write_rows(folder / "tickets.jsonl", rows[:120])
    for name, part in {"validation": rows[120:140], "test": rows[140:180], "harder": rows[180:]}.items():
        write_rows(folder / f"{name}.jsonl", part)
    write_rows(folder / "new.jsonl", [{"prompt": row["prompt"]} for row in rows[:8]])
    commands_csv(folder / "commands.csv")
    write_rows(folder / "reports.jsonl", [{"text": f"the lamp is on in {row['prompt']}"} for row in rows])
    requests_csv(folder / "requests.csv")
    (folder / "house" / "rows").mkdir(parents=True)
    for name, part in {"train": rows[:120], "validation": rows[120:140], "test": rows[140:180]}.items():
        renamed = [
            {
                "command": f"turn on {row['prompt']}",
                "answer": json.dumps({"intent": "HassTurnOn", "name": row["completion"]}),
            }
            for row in part
        ]
        write_rows(folder / "house" / "rows" / f"{name}.jsonl", renamed)
    recipe = chat_recipe(Path(f"./{CHAT_MODEL}"), Path("tickets.jsonl"))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    pegbox.train(folder / "recipe.yaml", run_dir=folder / "runs" / "first")
    shutil.copytree(folder / "runs" / "first", folder / "my-run")
    return folder


def lay_out(home: Path, folder: Path, names: list[str]) -> None:
    for name in [CHAT_MODEL, ENCODER, *names]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (home / name).is_dir() else shutil.copy)(home / name, folder / name)


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """A `pegbox` command's exit code, and all that it said."""
    said = io.StringIO()
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main()
        sys.exit(0)
    return int(ended.value.code or 0), said.getvalue()


def run_page(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the blocks of a page in `folder`; the commands that were not run. Fails where one ends otherwise than it should."""
    left, names = [], dict[str, Any]()
    with chdir(folder):
        for block in blocks_of(text):
            if block.file:
                Path(block.file).write_text(block.text, encoding="utf-8")
            if block.language == "python" and block.runs:
                Path("_block.py").write_text(block.text, encoding="utf-8")
                with redirect_stdout(io.StringIO()):
                    names |= runpy.run_path("_block.py", init_globals=names)
            if block.language == "sh":
                left += run_shell(block, monkeypatch)
    return left


def run_shell(block: Block, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    here = [words for words in block.commands if block.runs and words[0] == "pegbox"]
    for words in here:
        wanted = block.exit_code if words is here[-1] else 0
        code, said = run_command(words, monkeypatch)
        assert code == wanted, f"{' '.join(words)}: {code}\n{said}"
        assert "Traceback" not in said
    return [" ".join(words) for words in block.commands if words not in here]


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_of_a_page_runs_in_order(
    page: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name_of(page)
    lay_out(home, tmp_path, GIVEN.get(name, []))
    assert run_page(page.read_text(encoding="utf-8"), tmp_path, monkeypatch) == NOT_RUN.get(name, [])


def test_the_lists_name_no_page_that_is_gone() -> None:
    assert {*GIVEN, *NOT_RUN} <= {name_of(page) for page in pages()}


def test_no_block_is_marked_in_a_way_that_nothing_reads() -> None:
    for page in pages():
        for block in blocks_of(page.read_text(encoding="utf-8")):
            assert all(mark == "no-run" or mark.startswith("exit=") for mark in block.marks), (name_of(page), block)
            assert block.language not in ("bash", "shell", "console", "py"), name_of(page)
            assert block.language != "python" or block.runs, name_of(page)


# ---- the proof that a wrong page is found ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "```sh\npegbox check nowhere.yaml\n```\n",
        "```sh\npegbox no-such-command\n```\n",
        "- in a list\n\n  ```sh\n  pegbox check nowhere.yaml\n  ```\n",
        "```sh exit=3\npegbox schema\n```\n",
        "```sh exit=2\npegbox check nowhere.yaml\npegbox check nowhere.yaml\n```\n",
        "```python\nassert False\n```\n",
    ],
)
def test_a_block_that_ends_otherwise_than_it_says_is_found(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError):
        run_page(text, tmp_path, monkeypatch)


def test_files_names_and_skipped_commands_are_carried_through_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "```{code-block} yaml\n:caption: wrong.yaml\n\nmodle: x\n```\n\n```sh exit=2\npegbox check wrong.yaml\n```\n"
        "```python\na = 1\n```\n\n```python\nassert a == 1\n```\n\n```sh no-run\npegbox demo\n```\n```sh\nmake test  # all\n```\n"
    )
    assert run_page(text, tmp_path, monkeypatch) == ["pegbox demo", "make test"]
    assert (tmp_path / "wrong.yaml").read_text(encoding="utf-8") == "modle: x\n"
