"""Which rows of several runs are the same, what is computed of them, and what a reader is warned of."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_runs import DIGEST, FILE, line, lines, run, skilled

from pegbox.errors import RecipeError
from pegbox.finished import comparing
from pegbox.finished.matching import match
from pegbox.runs.checkpoint import sha256


def compare(*paths: Path, metric: str | None = None) -> dict[str, Any]:
    found = comparing.compare(paths, metric=metric, resamples=400)
    json.dumps(found, allow_nan=False)
    return found


def numbers(found: dict[str, Any]) -> Any:
    return found["rows"], found["units"], found["differences"], {run["name"]: run["metrics"] for run in found["runs"]}


def told(found: dict[str, Any], severity: str = "warning") -> str:
    return " ".join(note["message"] for note in found["notes"] if note["severity"] == severity)


@pytest.fixture
def answered() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return skilled(rng, 60, 0.8), skilled(rng, 60, 0.3)


# --- which rows are the same ---


def test_rows_are_matched_by_what_they_say_whatever_their_order_and_name(
    tmp_path: Path, answered: tuple[np.ndarray, np.ndarray]
) -> None:
    good, bad = (lines(right) for right in answered)
    run(tmp_path / "a", good)
    run(tmp_path / "b", bad)
    shuffled = [
        given | {"id": f"/elsewhere/t.jsonl:{place}", "unit": 900 - given["unit"]} for place, given in enumerate(bad)
    ]
    random.Random(0).shuffle(shuffled)
    run(tmp_path / "other" / "b", shuffled, data={"/elsewhere/t.jsonl": DIGEST})
    as_given = compare(tmp_path / "a", tmp_path / "b")
    assert numbers(as_given) == numbers(compare(tmp_path / "a", tmp_path / "other" / "b"))
    assert numbers(as_given) == numbers(compare(tmp_path / "b", tmp_path / "a"))
    difference = as_given["differences"][0]
    assert difference["difference"] == pytest.approx(answered[0].mean() - answered[1].mean())
    assert (as_given["best"], difference["run"], difference["against"]) == ("a", "a", "b")


def test_only_common_rows_are_compared_and_their_number_is_told(tmp_path: Path) -> None:
    right = np.ones(60, dtype=bool)
    a = run(tmp_path / "a", lines(right))
    b = run(tmp_path / "b", [*lines(~right)[20:], line(77, "right"), line(78, "right")])
    found = compare(a, b)
    assert (found["rows"], found["units"]) == (40, 40)
    assert {told["name"]: told["rows_of_run"] for told in found["runs"]} == {"a": 60, "b": 42}
    assert found["runs"][1]["metrics"]["exact_match"]["value"] == 0  # the two that it has right are not compared
    assert "Compared are the 40 rows that all runs were tested on, of 60 (a); 42 (b)." in told(found, "note")


def test_the_same_question_with_another_right_answer_is_another_row(tmp_path: Path) -> None:
    a = run(tmp_path / "a", [line(1, "x"), line(2, "right")])
    b = run(tmp_path / "b", [line(1, "x", reference="left"), line(2, "right")])
    assert compare(a, b)["rows"] == 1


def test_the_order_of_the_rows_is_decided_by_what_they_say() -> None:
    given = lines([True] * 30)
    found = match({"a": given[::-1], "b": random.Random(1).sample(given, 30)})
    assert [row["input"] for row in found.rows] == sorted(row["input"] for row in given)


def test_twins_are_matched_in_order_as_many_as_every_run_has_and_count_as_one_unit() -> None:
    def twin(number: int, answer: str, unit: int) -> dict[str, Any]:
        return line(number, answer, unit=unit) | {"input": "the same"}

    three = [twin(1, "a1", 1), twin(2, "a2", 2), twin(3, "a3", 3)]
    two = [twin(8, "b1", 1), twin(9, "b2", 1)]
    found = match({"a": three, "b": two})
    assert [row["answers"] for row in found.rows] == [{"a": "a1", "b": "b1"}, {"a": "a2", "b": "b2"}]
    assert len(set(found.units.tolist())) == 1


def test_rows_that_belong_together_in_any_run_are_resampled_together() -> None:
    def given(*units: int) -> list[dict[str, Any]]:
        return [line(number, "x", unit=unit) for number, unit in enumerate(units, start=1)]

    found = match({"a": given(0, 0, 1, 2, 3, 4), "b": given(5, 6, 6, 7, 8, 9), "c": given(1, 2, 3, 4, 5, 5)})
    unit = {row["input"][-1]: int(at) for row, at in zip(found.rows, found.units, strict=True)}
    assert unit["1"] == unit["2"] == unit["3"] and unit["5"] == unit["6"]
    assert len({unit["1"], unit["4"], unit["5"]}) == 3


def test_rows_that_belong_together_through_one_that_is_not_compared_still_do() -> None:
    a = [line(1, "x", unit=0), line(2, "x", unit=0), line(3, "x", unit=1)]
    b = [line(1, "x", unit=0), line(2, "x", unit=1), line(3, "x", unit=1)]
    c = [line(1, "x"), line(3, "x")]
    assert len(set(match({"a": a, "b": b, "c": c}).units.tolist())) == 1
    assert len(set(match({"a": a, "c": c}).units.tolist())) == 2


def test_groups_of_a_run_make_the_intervals_as_wide_as_they_must_be(tmp_path: Path) -> None:
    right = np.repeat(np.random.default_rng(2).random(40) < 0.7, 5)
    other = np.repeat(np.random.default_rng(3).random(40) < 0.5, 5)
    grouped = [given | {"unit": place // 5} for place, given in enumerate(lines(right))]
    alone = compare(run(tmp_path / "a", lines(right)), run(tmp_path / "b", lines(other)))
    together = compare(run(tmp_path / "c" / "a", grouped), tmp_path / "b")
    widths = [found["differences"][0]["high"] - found["differences"][0]["low"] for found in (alone, together)]
    assert (alone["units"], together["units"]) == (200, 40)
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(5), rel=0.2)


# --- which comparisons are refused ---


def test_what_cannot_be_compared_is_refused_with_a_cure(tmp_path: Path) -> None:
    a = run(tmp_path / "a", lines([True] * 9))
    chrf = run(tmp_path / "chrf", lines([True] * 9), primary="chrf")
    completion = run(tmp_path / "completion", lines([True] * 9), task="completion")
    elsewhere = run(tmp_path / "elsewhere", [line(number, "x") for number in range(20, 30)])
    unfinished = run(tmp_path / "unfinished", [])
    for others, message in [
        ([chrf], "judged by different metrics.*a by exact_match, chrf by chrf"),
        ([completion], "different tasks"),
        ([elsewhere], "no test row in common"),
        ([unfinished], "no predictions yet"),
        ([], "two or more"),
        ([a], "two or more"),
        ([tmp_path / "none"], "not a run folder"),
    ]:
        with pytest.raises(RecipeError, match=message) as error:
            compare(a, *others)
        assert error.value.cure
    assert compare(a, chrf, metric="exact_match")["primary"] == "exact_match"
    assert compare(a, completion, metric="exact_match")["task"] == "chat, completion"
    with pytest.raises(RecipeError, match="did you mean 'chrf'"):
        compare(a, chrf, metric="chfr")


def likelihoods(nats: float, tokens: int, rows: int = 40) -> list[dict[str, Any]]:
    return [line(n, {"nll": nats * tokens + n / 50, "tokens": tokens}) for n in range(1, rows)]


def test_perplexities_are_compared_only_where_the_texts_have_the_same_tokens(tmp_path: Path) -> None:
    def made(name: str, nats: float, tokens: int) -> Path:
        return run(tmp_path / name, likelihoods(nats, tokens), task="completion", primary="perplexity")

    a, b, finer = made("a", 2.0, 10), made("b", 2.5, 10), made("finer", 1.9, 11)
    assert compare(a, b)["best"] == "a"
    with pytest.raises(RecipeError, match="39 of 39 texts.*other numbers of tokens") as error:
        compare(a, finer)
    assert "tokenizer" in str(error.value.cure)
    with pytest.raises(RecipeError, match="there is no exact_match"):
        compare(a, b, metric="exact_match")
    with pytest.raises(RecipeError, match="there is no perplexity"):
        compare(run(tmp_path / "c", lines([True] * 9)), run(tmp_path / "d", lines([True] * 9)), metric="perplexity")


def test_an_infinite_perplexity_is_told_without_breaking_json(tmp_path: Path) -> None:
    broken = likelihoods(2.0, 10)
    broken[3]["answers"]["tuned"] = None
    a = run(tmp_path / "a", likelihoods(2.0, 10), task="completion", primary="perplexity")
    b = run(tmp_path / "b", broken, task="completion", primary="perplexity")
    found = compare(a, b)
    assert found["best"] is None or found["best"] == "a"
    assert found["runs"][1]["metrics"]["perplexity"]["value"] is None
    assert found["rows_that_differ"]["count"] == 1


# --- what is told of the runs ---


def test_three_runs_are_ranked_with_every_pair_adjusted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [
        run(tmp_path / name, lines(skilled(rng, 300, share))) for name, share in [("c", 0.1), ("a", 0.9), ("b", 0.5)]
    ]
    found = compare(*paths)
    assert [told["name"] for told in found["runs"]] == ["a", "b", "c"] and found["best"] == "a"
    assert [(pair["run"], pair["against"]) for pair in found["differences"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(pair["p_adjusted"] >= pair["p_value"] for pair in found["differences"])
    assert "3 pairs are compared" in told(found, "note")
    assert found["reason"] == "a is ahead of b and c, by more than chance would explain."


def test_what_is_not_shown_comes_with_the_rows_that_it_would_take(tmp_path: Path) -> None:
    right = np.arange(200) % 10 < 6
    other = right.copy()
    other[[0, 50, 100]] = False
    other[[7, 8]] = True
    found = compare(run(tmp_path / "a", lines(right)), run(tmp_path / "b", lines(other)))
    assert found["best"] is None and found["units_needed"] > 200
    assert f"About {found['units_needed']:,} rows would be needed" in found["reason"]
    few = compare(run(tmp_path / "x", lines([True] * 20)), run(tmp_path / "y", lines([False] * 20)))
    assert few["best"] is None and "at least 30" in few["reason"]


def test_metrics_that_any_recipe_asks_for_are_had_of_all_runs(tmp_path: Path) -> None:
    a = run(tmp_path / "a", lines([True] * 40), metrics=["chrf"])
    b = run(tmp_path / "b", lines([False] * 40), metrics=["token_f1"])
    for told in compare(a, b)["runs"]:
        assert list(told["metrics"]) == ["exact_match", "chrf", "token_f1"]
        assert all(set(scored) == {"value", "low", "high"} for scored in told["metrics"].values())


def test_names_are_the_shortest_ends_of_paths_that_tell_runs_apart(tmp_path: Path) -> None:
    right = lines([True] * 9)
    paths = [run(tmp_path / "x" / "run", right), run(tmp_path / "y" / "run", right), run(tmp_path / "y" / "z", right)]
    found = compare(*paths)
    assert {told["name"] for told in found["runs"]} == {"x/run", "y/run", "y/z"}


def test_the_rows_that_differ_most_come_first_with_every_answer(tmp_path: Path) -> None:
    right = np.ones(60, dtype=bool)
    other = right.copy()
    other[5:35] = False
    found = compare(run(tmp_path / "a", lines(right)), run(tmp_path / "b", lines(other)))["rows_that_differ"]
    assert found["count"] == 30 and len(found["rows"]) == comparing.MOST_ROWS
    for row in found["rows"]:
        assert row["answers"] == {"a": "right", "b": "wrong"} and row["scores"] == {"a": 1, "b": 0}
    said = ["righ", "r", "zzzzz", "ri", "right", "rig"]  # the farther from "right", the earlier
    near = run(tmp_path / "c", [line(n, text) for n, text in enumerate(said)], primary="edit_similarity")
    far = run(tmp_path / "d", [line(n, "right") for n in range(6)], primary="edit_similarity")
    rows = compare(near, far)["rows_that_differ"]["rows"]
    assert [row["answers"]["c"] for row in rows] == ["zzzzz", "r", "ri", "rig", "righ"]


# --- what a reader is warned of ---


def test_recipes_are_compared_key_by_key(tmp_path: Path) -> None:
    right = lines([True] * 9)
    a = run(tmp_path / "a", right, recipe={"method": {"kind": "lora", "r": 4}, "seed": 1})
    b = run(tmp_path / "b", right, recipe={"method": "full", "seed": 1})
    found = compare(a, b)["recipes"]
    assert found["method.kind"] == {"a": "lora", "b": "full"} and found["method.r"] == {"a": 4, "b": None}
    assert "seed" not in found and not [key for key in found if not key.startswith("method.")]


@pytest.mark.parametrize(("seeds", "said"), [((1, 2), "noise of seeds"), ((1, 1), "recipes are the same")])
def test_runs_that_differ_in_the_seed_alone_measure_its_noise(
    tmp_path: Path, seeds: tuple[int, int], said: str
) -> None:
    right = lines([True] * 9)
    found = compare(*(run(tmp_path / str(place), right, recipe={"seed": seed}) for place, seed in enumerate(seeds)))
    assert said in told(found, "note")
    other = run(tmp_path / "c", right, recipe={"seed": 3, "method": "full"})
    assert "seed" not in told(compare(tmp_path / "0", other), "note")


def test_rows_that_a_run_was_trained_on_are_told_with_their_number(tmp_path: Path) -> None:
    right = lines([True] * 40)
    a = run(tmp_path / "a", right, train=[f"{FILE}:{n}" for n in (3, 4, 5, 99)])
    b = run(tmp_path / "b", right, train=[f"{FILE}:{n}" for n in (98, 99)])
    found = compare(a, b)
    assert "3 of the 40 rows compared stand in the training rows of a" in told(found)
    assert "training rows of b" not in told(found)
    assert not told(compare(b, run(tmp_path / "c", right)))


def test_the_same_file_in_another_folder_hides_no_leak(tmp_path: Path) -> None:
    a = run(tmp_path / "a", lines([True] * 50))
    moved = [given | {"id": f"/moved/r.jsonl:{place}"} for place, given in enumerate(lines([True] * 40), start=1)]
    b = run(tmp_path / "b", moved, train=["/moved/r.jsonl:7", "/moved/r.jsonl:44"], data={"/moved/r.jsonl": DIGEST})
    found = compare(a, b)
    assert "1 of the 40 rows compared stand in the training rows of b" in told(found)
    assert "trained on test rows of a: 1 row (b)" in told(found, "note")
    assert "different data" not in told(found) and "data.train" not in found["recipes"]


def test_test_rows_that_another_run_was_trained_on_are_left_out_and_told(tmp_path: Path) -> None:
    right = lines([True] * 50)
    a = run(tmp_path / "a", right[:40])
    b = run(tmp_path / "b", right[10:], train=[f"{FILE}:{n}" for n in range(1, 6)])
    found = compare(a, b)
    assert found["rows"] == 30
    assert "trained on test rows of a: 5 rows (b)" in told(found, "note") and not told(found)


def test_rows_like_those_compared_among_the_training_rows_are_told(tmp_path: Path) -> None:
    right = lines([True] * 40)
    groups = {f"{FILE}:{n}": "same template" for n in (1, 2, 60, 61)} | {f"{FILE}:62": "another"}
    a = run(tmp_path / "a", right, groups=groups, train=[f"{FILE}:62"])
    splits = [{"id": row, "split": "test", "group": name} for row, name in groups.items() if row[-2:] in ("60", "61")]
    with (a / "splits.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in splits)
    b = run(tmp_path / "b", right, train=[f"{FILE}:{n}" for n in (60, 61, 62)])
    assert "groups that a held out for the test: 2 rows (b)" in told(compare(a, b))


def test_in_other_files_the_rows_are_known_by_what_they_ask(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    rows = [{"prompt": f"question {n}", "completion": "right"} for n in range(1, 42)]
    first.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = {"prompt": "Question  7", "completion": "right"}  # a twin: case and white space do not count
    second.write_text("".join(json.dumps(row) + "\n" for row in [seen, rows[40], *rows[:40]]))
    a = run(tmp_path / "a", lines([True] * 41, file=str(first)), data={str(first): sha256(first)})
    given = [line(n + 2, "right", file=str(second)) | {"input": f"question {n}"} for n in range(1, 41)]
    b = run(
        tmp_path / "b",
        given,
        train=[f"{second}:1", f"{second}:2"],
        data={str(second): sha256(second)},
        recipe={"data": {"train": str(second), "instruction": "Answer."}},
    )
    found = compare(a, b)
    assert "1 of the 40 rows compared stand in the training rows of b" in told(found)
    assert "trained on test rows of a: 1 row (b)" in told(found, "note")  # though b words its instruction otherwise
    assert "trained on different data" in told(found) and "(a)" in told(found)
    second.write_text("{}")
    assert "The data files of b are not where they were" in told(compare(a, b))


def test_looking_often_other_weights_and_a_metric_chosen_afterwards_are_told(tmp_path: Path) -> None:
    right = lines([True] * 40)
    a = run(tmp_path / "a", right, test_scored=3)
    b = run(
        tmp_path / "b",
        right,
        model={"name": "x", "source": "hub", "files": {"model.safetensors": "0" * 64}, "stop_ids": [2], "template": ""},
    )
    found = compare(a, b, metric="token_f1")
    assert "3 times (a)" in told(found, "note")
    assert "different files under the one name HuggingFaceTB/SmolLM2-135M-Instruct" in told(found)
    assert "token_f1 was chosen for this comparison" in told(found, "note")
