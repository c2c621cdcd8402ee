"""INVARIANTS rows 12, 24, 27 and 35 over all tasks at once, each with its bug put back; and where every row is held.

| row | what | held by |
|---|---|---|
| 1, 17 | an update however it is cut, for every task and model | `test_task_updates`; of chat `training/test_update` |
| 12 | answers hang on neither padding nor the rows beside | here; gradients, packs, padding as text: `test_classification` |
| 22 | what was trained is what is loaded, in a fresh process | `test_matrix`; heads and adapters: `methods/test_fresh_process` |
| 23 | no test row before the verdict | `test_task_updates` |
| 24 | metrics over the whole set, however it is batched | here; metric by metric: `metrics/test_metric_table` |
| 26 | no [N, 1] against [N] | `test_task_updates`; losses: `test_losses`; eight points: `test_regression` |
| 27 | a collapse shows; weights are rows repeated | here; `test_losses`, `test_classification`, `evaluation/test_per_class` |
| 35 | names do not hang on the order of the rows | here; saved with the model: here |
| 36 | one label a word, spans and not words, nothing is cut | `test_token_classification`; seqeval: `metrics/test_span_metrics` |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_tokenizers import tokenizer

import pegbox
from made_tasks import made_task
from pegbox import pipeline
from pegbox.data.formats import to_record
from pegbox.data.records import Example, Record, Row
from pegbox.data.render import Renderer
from pegbox.evaluation.details import details
from pegbox.evaluation.score import score
from pegbox.finished import Run
from pegbox.metrics import METRICS, FloatArray
from pegbox.metrics.base import Metric
from pegbox.models import batch as batches
from pegbox.models.batch import Batch
from pegbox.pipeline import Ready
from pegbox.recipe import load
from pegbox.tasks import TASKS, Predictions, Task
from tiny_folder import write_rows
from tiny_models import make_double
from tiny_tasks import FORMS, MODELS, Rows, by_heart, questions, same

CASES = [
    *[
        (form, kind)
        for form in ("classification", "multilabel", "regression")
        for kind in ("bert", "llama", "t5", "bart")
    ],
    *[("token_classification", kind) for kind in ("bert", "llama", "t5")],
    *[(form, kind) for form in ("pairs", "scored pairs") for kind in ("bert", "llama")],
    ("masked_lm", "masked bert"),
    *[(form, "llama") for form in ("chat", "completion", "plain text")],
    *[("seq2seq", kind) for kind in ("t5", "bart", "t5 that writes")],
]
ONE_EACH = {form: next(kind for one, kind in CASES if one == form) for form in FORMS}
LABELLED = ("classification", "multilabel", "token_classification")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: made(tmp_path_factory.mktemp("model")) for kind, made in MODELS.items()}


# ---- row 12: neither padding nor the rows beside ---------------------------------------------------------------------


def ready_of(form: str, kind: str, models: Mapping[str, Path], folder: Path) -> Ready:
    """A model that has learnt nothing, in float64 throughout."""
    ready = pipeline.get_ready(load(by_heart(form, models[kind], "full", folder)), kernels=False)
    make_double(ready.model)
    return ready


def lengthened(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with many more words."""
    more: dict[str, Any] = {
        "tokens": ["light"] * 8,
        "tags": ["O"] * 8,
        "text": " light" * 8,
        "prompt": " light" * 8,
        "source": " light" * 8,
    }
    return {role: value + more[role] if role in more else value for role, value in row.items()}


def answers_to(ready: Ready, records: Sequence[Record]) -> list[Any]:
    """What is told of each row, and how sure it is: the probabilities, or the outputs at its words."""
    task = ready.task
    told = (task.served if task.joint else task.predict)(ready.model, records, max_new_tokens=4)
    sure: Sequence[Any] = told.probabilities or [None] * len(records)
    if task.kind == "token_classification":
        batch = task.collate([task.encode(record) for record in records], packed=False, share_prefix=False)
        with torch.no_grad():
            outputs = iter(task.scored(ready.model, batch)[0].tolist())
        sure = [[next(outputs) for _ in task.shown(record).split()] for record in records]
    return list(zip(told.answers, sure, strict=True))


def check_rows_are_answered_as_alone(ready: Ready, form: str) -> None:
    """All together, in another order, and beside a row so long that all are padded."""
    rows = FORMS[form][2](16)
    records = [
        to_record(Row(f"row {n}", row), FORMS[form][0], {}) for n, row in enumerate([*rows, lengthened(rows[3])])
    ]
    alone = [answers_to(ready, [record])[0] for record in records]
    assert same(answers_to(ready, records), alone)
    assert same(answers_to(ready, records[:-1]), alone[:-1])
    assert same(answers_to(ready, records[::-1])[::-1], alone)
    assert not same(alone[0], alone[1])  # rows differ, so that a mistaken place would show


@pytest.mark.parametrize(("form", "kind"), CASES, ids=[" ".join(case) for case in CASES])
def test_a_row_is_answered_as_it_is_alone(form: str, kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    check_rows_are_answered_as_alone(ready_of(form, kind, models, tmp_path), form)


def all_real(examples: Sequence[Example], pad_id: int) -> Batch:
    """Bug: padding is read as text."""
    batch = batches.pad(examples, pad_id)
    return replace(batch, attention_mask=torch.ones_like(batch.input_ids))


def at_the_last_column(examples: Sequence[Example], pad_id: int) -> Batch:
    """Bug: a decoder is pooled, and each word looked up, as though all rows were as long as the longest."""
    batch = batches.pad(examples, pad_id)
    rows, size = batch.input_ids.shape
    first = torch.tensor([len(example) for example in examples])
    shift = size - first[batch.places // size]
    return replace(batch, ends=torch.arange(1, rows + 1) * size - 1, places=batch.places + shift)


PADDINGS = [(form, kind) for form, kind in CASES if form in ("multilabel", "regression", "token_classification")]


@pytest.mark.parametrize(("form", "kind"), PADDINGS, ids=[" ".join(case) for case in PADDINGS])
def test_a_mistaken_padding_is_caught(
    form: str, kind: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = ready_of(form, kind, models, tmp_path)
    monkeypatch.setattr("pegbox.tasks.base.pad", at_the_last_column if kind == "llama" else all_real)
    with pytest.raises(AssertionError):
        check_rows_are_answered_as_alone(ready, form)


# ---- row 24: metrics over the whole set ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of each form, judged on 45 rows that are not those of train."""
    found = {}
    for form, kind in ONE_EACH.items():
        root = tmp_path_factory.mktemp("run")
        recipe = by_heart(form, models[kind], "full", root, max_steps=20, learning_rate=5e-3)
        recipe["data"]["test"] = str(write_rows(root / "test.jsonl", FORMS[form][2](61)[16:]))
        found[form] = pegbox.train(recipe, run_dir=root / "run")
    return found


def in_one_go(metric: Metric, lines: Sequence[Mapping[str, Any]], system: str) -> float:
    """The metric of one system's answers to all rows."""
    given = [line[metric.reads][system] for line in lines]
    statistics = metric.statistics(given, [line["reference"] for line in lines])
    return float(metric.values(statistics, np.ones((1, len(lines))))[0])


def check_metrics_are_of_the_whole_set(run: Run) -> None:
    lines, settings = list(run.folder.read_lines("predictions.jsonl")), run.recipe.evaluate
    assert settings.primary is not None and settings.metrics is not None
    found = score(run.recipe.task.kind, lines, primary=settings.primary, metrics=settings.metrics, seed=0)
    for system, cells in found["systems"].items():
        for name, cell in cells.items():
            wanted = in_one_go(METRICS[name], lines, system)
            assert cell["value"] == pytest.approx(wanted, rel=1e-9) or (
                cell["value"] is None and not np.isfinite(wanted)
            )


@pytest.mark.parametrize("form", FORMS)
def test_every_metric_of_every_system_is_that_of_the_whole_set(form: str, runs: dict[str, Run]) -> None:
    check_metrics_are_of_the_whole_set(runs[form])


@pytest.mark.parametrize("form", FORMS)
def test_a_mean_over_batches_is_caught(form: str, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def of(self: Metric, statistics: FloatArray) -> float:
        parts = [statistics[start : start + 7] for start in range(0, len(statistics), 7)]
        return float(np.mean([self.values(part, np.ones((1, len(part))))[0] for part in parts]))

    monkeypatch.setattr(Metric, "of", of)
    with pytest.raises(AssertionError):
        check_metrics_are_of_the_whole_set(runs[form])


# ---- row 27: a collapse shows ----------------------------------------------------------------------------------------

RARE: Mapping[
    str, tuple[Any, Any, str]
] = {  # the answer of 19 rows of 20, that of the others, and what only these have
    "classification": ("most", "rare", "rare"),
    "multilabel": (["most"], ["most", "rare"], "rare"),
    "token_classification": (["B-most", "O"], ["B-most", "B-rare"], "rare"),
}


def check_a_collapse_shows(form: str, primary: str | None = None) -> None:
    """A model that says the same of all rows looks no better than the rival that does so, and misses the rare."""
    often, rare, name = RARE[form]
    role, text = (
        FORMS[form][1][0],
        {"tokens": ["the", "dog"]} if form == "token_classification" else {"text": "the dog"},
    )
    rows = [{**text, role: rare if n % 20 == 7 else often} for n in range(200)]
    records = [to_record(Row(f"row {n}", row), form, {}) for n, row in enumerate(rows)]
    task = made_task(form, Renderer(tokenizer("wordpiece"), []), records)
    told = task.reference(to_record(Row("row", {**text, role: often}), form, {}))
    given = {"trivial": task.trivial(records, records), "tuned": Predictions((told,) * len(records))}
    lines = [
        {
            "reference": task.reference(record),
            "unit": n,
            "group": None,
            "answers": {system: said.answers[n] for system, said in given.items()},
        }
        for n, record in enumerate(records)
    ]
    primary, metrics = (
        primary or task.primary(records),
        [name for name in task.metrics if METRICS[name].reads == "answers"],
    )
    found = score(form, lines, primary=primary, metrics=metrics, seed=0)
    found |= details(lines, task=form, primary=primary, metrics=metrics, state=task.state(), seed=0)
    assert found["verdict"] != "better"
    assert set(found["systems"]["trivial"]) == set(found["systems"]["tuned"])
    assert found["per_class"]["tuned"][name]["recall"] == 0
    assert found["per_class"]["tuned"][name]["support"] == 10
    if form != "token_classification":  # its F1 counts spans of whatever label, as CoNLL does
        assert found["systems"]["tuned"][primary]["value"] <= 0.5


@pytest.mark.parametrize("form", LABELLED)
def test_a_collapse_to_the_most_frequent_shows(form: str) -> None:
    check_a_collapse_shows(form)


@pytest.mark.parametrize("form", ["classification", "multilabel"])
def test_a_primary_metric_that_hides_it_is_caught(form: str) -> None:
    with pytest.raises(AssertionError):
        check_a_collapse_shows(form, "accuracy" if form == "classification" else "f1_weighted")


# ---- row 35: names do not hang on the order of the rows --------------------------------------------------------------


def by_question(form: str, run: Run, rows: Rows) -> dict[str, Any]:
    """The run's answer to each row, by the row."""
    asked = questions(form, rows)
    return {json.dumps(row): answer for row, answer in zip(asked, run.predict(asked), strict=True)}


def check_names_do_not_hang_on_the_order(form: str, model: Path, folder: Path) -> None:
    """The same rows, all in each update, from another one on: the same label map, and the same names for every row."""
    rows, found = FORMS[form][2](16), []
    for name, order in (("as they are", rows), ("turned", rows[5:] + rows[:5])):
        (folder / name).mkdir()
        recipe = by_heart(form, model, "full", folder / name, max_steps=3, learning_rate=1e-3)
        write_rows(Path(recipe["data"]["train"]), order)
        run = pegbox.train(recipe, run_dir=folder / name / "run")
        saved = json.loads((run.folder.model / "config.json").read_text())["id2label"]
        assert [saved[str(n)] for n in range(len(saved))] == run.receipt["task"]["labels"]
        found.append((run.receipt["task"]["labels"], by_question(form, run, rows)))
    assert found[0] == found[1]


@pytest.mark.parametrize("form", LABELLED)
def test_the_names_that_are_told_do_not_hang_on_the_order_of_the_rows(
    form: str, models: dict[str, Path], tmp_path: Path
) -> None:
    check_names_do_not_hang_on_the_order(form, models["bert"], tmp_path)


@pytest.mark.parametrize("form", LABELLED)
def test_labels_in_the_order_in_which_they_are_met_are_caught(
    form: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = TASKS[form]
    right, role = kind.observe, FORMS[form][1][0]

    def met(self: Task, records: Sequence[Record]) -> None:
        right(self, records)
        given = (getattr(record.content, role) for record in records)
        vars(self)["_labels"] = tuple(
            dict.fromkeys(n for one in given for n in ([one] if isinstance(one, str) else one))
        )

    monkeypatch.setattr(kind, "observe", met)
    with pytest.raises(AssertionError):
        check_names_do_not_hang_on_the_order(form, models["bert"], tmp_path)


@pytest.mark.parametrize("form", LABELLED)
def test_a_label_map_that_is_not_the_models_tells_other_names(form: str, runs: dict[str, Run]) -> None:
    rows = FORMS[form][2](16)
    other = Run(runs[form].path)
    state = other.receipt["task"]
    other.receipt["task"] = state | {"labels": state["labels"][::-1]}
    assert by_question(form, other, rows) != by_question(form, runs[form], rows)
    assert by_question(form, Run(runs[form].path), rows) == by_question(form, runs[form], rows)
