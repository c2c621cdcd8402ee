"""Row 31: prepared rows are found again when nothing changed, and prepared anew when anything did."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import tokenizer

from made_tasks import made_task
from pegbox.cache import cache_root
from pegbox.data import fingerprint
from pegbox.data import prepare as preparing
from pegbox.data.prepare import Prepared, prepare
from pegbox.data.render import Renderer
from pegbox.recipe import load
from pegbox.tasks.base import Task


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))


def rows_file(folder: Path, count: int = 60, name: str = "rows.jsonl") -> Path:
    path = folder / name
    lines = [
        json.dumps({"prompt": f"number {i} {i * i}", "completion": f"answer {i}", "stars": i % 5}) for i in range(count)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def made(folder: Path, task: Task | None = None, limit: int = 500, seed: int = 42, **data: Any) -> Prepared:
    recipe = load({"model": "a/b", "task": "chat", "seed": seed, "data": {"train": str(folder / "rows.jsonl"), **data}})
    return prepare(recipe, task or made_task("chat", Renderer(tokenizer("byte_level"))), limit)


def kept() -> set[str]:
    return {path.name for path in cache_root().glob("rows-*")}


def test_cached_rows_are_the_live_rows(tmp_path: Path) -> None:
    rows_file(tmp_path)
    first = made(tmp_path)
    names = kept()
    again = made(tmp_path)
    assert kept() == names and len(names) == 1
    assert [path.stat().st_mode & 0o77 for path in cache_root().glob("rows-*")] == [0]  # for their owner alone
    task = made_task("chat", Renderer(tokenizer("byte_level")))
    for prepared in (first, again):
        for side in ("train", "validation"):
            records, examples = getattr(prepared.splits, side), getattr(prepared, side)
            assert list(examples) == [task.encode(record) for record in records]
    assert (first.findings, first.splits, first.train) == (again.findings, again.splits, again.train)


def test_rows_are_not_read_again_where_they_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_file(tmp_path)
    made(tmp_path)
    monkeypatch.setattr("pegbox.data.reader.numbered", lambda sources, told=None: pytest.fail("read again"))
    made(tmp_path)


def test_a_task_that_finds_its_rows_prepared_has_seen_the_records_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"film {i}", "label": "ab"[i % 2]}) for i in range(60)))
    recipe = load({"model": "a/b", "task": "classification", "data": str(path)})
    for _ in range(2):
        task = made_task("classification", Renderer(tokenizer("wordpiece")))
        prepare(recipe, task, 100)
        assert task.labels == ("a", "b")


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "limit": {"limit": 400},
    "instruction": {"instruction": "Be brief."},
    "filter": {"filter": {"stars": [1, 2, 3, 4]}},
    "validation": {"validation": 0.3},
    "columns": {"columns": {"completion": "prompt"}},
    "truncation": {"truncation": "cut"},
    "allow": {"allow": ["malformed"]},
    "max_length": {"max_length": 300},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_option_is_a_miss(tmp_path: Path, change: str) -> None:
    rows_file(tmp_path)
    made(tmp_path)
    made(tmp_path, **CHANGES[change])
    assert len(kept()) == 2


def test_another_byte_of_the_file_is_a_miss(tmp_path: Path) -> None:
    path = rows_file(tmp_path)
    made(tmp_path)
    stat = path.stat()
    path.write_text(path.read_text().replace('answer 7"', 'answer 8"'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a tool does that keeps the time of a file
    assert made(tmp_path).train != made(tmp_path, seed=1).train
    assert len(kept()) == 3


def test_another_tokenizer_template_or_stop_token_is_a_miss(tmp_path: Path) -> None:
    rows_file(tmp_path)
    plain = tokenizer("byte_level")
    made(tmp_path, made_task("chat", Renderer(plain)))
    other = tokenizer("byte_level")
    other.chat_template = str(other.chat_template).replace("\n", "\n\n", 1)
    made(tmp_path, made_task("chat", Renderer(other)))
    assert len(kept()) == 2
    made(tmp_path, made_task("chat", Renderer(plain, [5])))
    assert len(kept()) == 3
    grown = tokenizer("byte_level")
    grown.add_tokens(["answer"])
    made(tmp_path, made_task("chat", Renderer(grown)))
    assert len(kept()) == 4


def test_other_code_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_file(tmp_path)
    made(tmp_path)
    monkeypatch.setattr(fingerprint, "_code", lambda: "of another version")
    made(tmp_path)
    assert len(kept()) == 2


def test_the_code_of_every_room_that_prepares_is_looked_at() -> None:
    rooms = {path.name for path in (Path(fingerprint.__file__).parents[1]).iterdir()}
    assert set(fingerprint.CODE) <= rooms and {"data", "tasks"} <= set(fingerprint.CODE)


def test_a_file_of_the_users_own_code_is_looked_at(tmp_path: Path) -> None:
    rows_file(tmp_path, 300)
    own = tmp_path / "mine.py"
    counts = []
    for least in (1, 3):
        own.write_text(f"def keep(row):\n    return row['stars'] >= {least}\n")
        made_now = made(tmp_path, filter=f"{own}:keep")
        counts.append(sum(len(getattr(made_now.splits, side)) for side in ("train", "validation", "test")))
    assert counts == [240, 120]


def test_a_stale_cache_is_caught_when_the_tokenizer_is_left_out_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "fingerprint", property(lambda self: self.kind))
    with pytest.raises(AssertionError):
        test_another_tokenizer_template_or_stop_token_is_a_miss(tmp_path)


def _prepared_in_a_process(folder: str, queue: Any) -> None:
    os.environ["PEGBOX_CACHE"] = f"{folder}/cache"
    prepared = made(Path(folder))
    queue.put((len(prepared.train), sum(sum(example.input_ids) for example in prepared.train)))


def test_two_processes_at_once_prepare_the_same_rows(tmp_path: Path) -> None:
    rows_file(tmp_path, 300)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_prepared_in_a_process, args=(str(tmp_path), queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert found[0] == found[1] and len(kept()) == 1
    assert not list(cache_root().glob(".building-*"))


def test_nothing_is_kept_of_rows_that_are_refused(tmp_path: Path) -> None:
    rows_file(tmp_path).write_text('{"prompt": 1}\n')
    with pytest.raises(Exception, match="malformed"):
        made(tmp_path)
    assert kept() == set() and not list(cache_root().glob(".building-*"))


def test_the_oldest_are_forgotten_but_none_of_this_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "KEPT", 2)
    rows_file(tmp_path)
    open_still = made(tmp_path, seed=0)
    (oldest,) = kept()
    for seed in (1, 2):
        made(tmp_path, seed=seed)
    assert len(kept()) == 3  # all of this hour
    os.utime(cache_root() / oldest, (0, 0))
    made(tmp_path, seed=3)
    assert len(kept()) == 3 and oldest not in kept()
    assert len(list(open_still.train)) == len(open_still.train)  # who reads them still can
