"""`pegbox demo --task classification`: labels out of scores, and from rows to the screen on a tiny model."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from pegbox.cli import main
from pegbox.demo import opinions
from pegbox.demo.ratings import Rated
from tiny_folder import encoder_folder

WORDS = {2.0: ("great", "lovely", "fresh"), 0.0: ("red", "round", "flat"), -2.0: ("dull", "awful", "stale")}


def tweets(count: int) -> list[Rated]:
    draw = random.Random(0)
    kinds = [draw.choice(list(WORDS)) for _ in range(count)]
    return [Rated(f"cake {i} is {draw.choice(WORDS[kind])} and big", kind) for i, kind in enumerate(kinds)]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(opinions, "MODEL", str(encoder_folder(tmp_path / "model")))
    monkeypatch.setattr(opinions, "rated", lambda name: tweets(120))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pegbox(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["pegbox", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
        sys.exit(0)
    return ended.value.code


@pytest.mark.parametrize(
    ("score", "label"),
    [
        (-4.0, "negative"),
        (-0.5, "negative"),
        (-0.49, "neutral"),
        (0.0, "neutral"),
        (0.49, "neutral"),
        (0.5, "positive"),
    ],
)
def test_a_score_tells_the_opinion(score: float, label: str) -> None:
    assert opinions.opinion(Rated("a text", score)) == label


def test_the_demo_shows_a_dozen_tweets_the_table_and_the_verdict(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not pegbox(monkeypatch, "demo", "--task", "classification", "--run-dir", "out")
    told = capsys.readouterr().out
    assert told.count("bag of words  ") == told.count("after         ") == 12
    for words in ("verdict:", "linear_probe", "bag_of_words", "report.html"):
        assert words in told
    rows = [json.loads(line) for line in (small / "out/rows/rows.jsonl").open(encoding="utf-8")]
    right = {one.text: opinions.opinion(one) for one in tweets(120)}
    assert {row["tweet"]: row["opinion"] for row in rows} == right and [row["tweet"] for row in rows] != list(right)
    assert (small / "out/run/recipe.yaml").is_file() and (small / "out/run/report.html").is_file()


def test_the_demo_as_json_is_the_evaluation(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not pegbox(monkeypatch, "demo", "--task", "classification", "--run-dir", "out", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "classification" and found["run"] == str(Path("out/run"))
    assert {"trivial", "bag_of_words", "linear_probe", "tuned"} <= set(found["systems"])


def test_a_language_has_no_effect_on_tweets_and_is_refused(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pegbox(monkeypatch, "demo", "--task", "classification", "--language", "de") == 2
    assert "English" in capsys.readouterr().err
    assert not (small / "runs").exists()
