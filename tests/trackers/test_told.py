"""What a tracker is told of where the rows come from: names, never folders or queries."""

from __future__ import annotations

from pegbox.recipe import load
from pegbox.trackers.base import settings


def test_of_sources_their_names_alone_are_told() -> None:
    data = {
        "train": [
            {"path": "/home/ada/shop.db", "query": "SELECT secret FROM t"},
            {"path": "/home/ada/a.jsonl", "weight": 2},
        ],
        "test": "/home/ada/test.jsonl",
        "benchmarks": "/home/ada/exam.txt",
        "filter": "/home/ada/mine.py:keep",
    }
    told = settings(load({"model": "a/b", "task": "chat", "data": data}))
    assert (told["data.train"], told["data.test"]) == ("shop.db, a.jsonl", "test.jsonl")
    assert (told["data.benchmarks"], told["data.filter"]) == ("exam.txt", "mine.py:keep")
    assert "ada" not in str(told) and "SELECT" not in str(told)


def test_of_a_sample_its_name_is_told() -> None:
    """It has no path. A dataset of the hub has both, and is told by its path."""
    data = {"train": [{"kind": "sample", "name": "law-clauses"}, {"kind": "hub", "path": "ada/shop", "name": "de"}]}
    told = settings(load({"model": "a/b", "task": "chat", "data": data}))
    assert told["data.train"] == "law-clauses, ada/shop"
