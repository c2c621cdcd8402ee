"""Label sets: each label told by itself, thresholds from validation alone, and rivals that are treated alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_tokenizers import tokenizer

import pegbox
from made_tasks import made_task
from pegbox.data.records import Example, LabelSetText, Record
from pegbox.data.render import Renderer
from pegbox.errors import DataError
from pegbox.finished import Run
from pegbox.metrics import METRICS
from pegbox.models.batch import pad
from pegbox.tasks import multilabel
from pegbox.tasks.multilabel import Multilabel
from tiny_folder import chat_recipe, encoder_folder, write_rows
from tiny_models import tiny_classifier

WORDS = {"light": "turn on the light", "dog": "the dog sleeps", "timer": "set the timer to 46 minutes"}


def labelled(text: str, *labels: str) -> Record:
    return Record(text, LabelSetText(text, tuple(sorted(labels))))


def some(count: int, seed: int = 0) -> list[Record]:
    """Rows whose words say which labels they have; a quarter have none."""
    draw = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        labels = [label for label in WORDS if draw.random() < 0.4]
        rows.append(labelled(" and ".join([f"the quick {index}", *(WORDS[label] for label in labels)]), *labels))
    return rows


def task_of(records: Sequence[Record], **changes: Any) -> Multilabel:
    made = made_task("multilabel", Renderer(tokenizer("wordpiece"), []), records, **changes)
    assert isinstance(made, Multilabel)
    return made


def model_for(task: Multilabel, **options: Any) -> Any:
    size = {"vocab_size": len(task.renderer.tokenizer), "num_labels": len(task.labels)}
    return tiny_classifier("bert", **size, problem_type="multi_label_classification", **options)


# ---- labels and targets ----------------------------------------------------------------------------------------------


def test_each_label_is_an_output_of_its_own_in_the_order_of_the_names() -> None:
    rows = [labelled("x", "b"), labelled("y"), labelled("z", "c", "a")]
    for order in itertools.permutations(rows):
        task = task_of(order)
        assert task.labels == ("a", "b", "c")
        assert [task.targets(row) for row in rows] == [(0, 1, 0), (0, 0, 0), (1, 0, 1)]
        assert [task.reference(row) for row in rows] == [["b"], [], ["a", "c"]]
        assert task.label_counts(rows) == {"a": 1, "b": 1, "c": 1}
    assert task.targets(labelled("x", "b", "unknown")) == (0, 1, 0)


def test_one_label_will_do_and_none_is_refused() -> None:
    assert task_of([labelled("x", "urgent"), labelled("y")]).labels == ("urgent",)
    with pytest.raises(DataError, match="no row has a label"):
        task_of([labelled("x"), labelled("y")])


# ---- the loss --------------------------------------------------------------------------------------------------------


def loss_of(task: Multilabel, model: Any, examples: Sequence[Example]) -> tuple[float, float]:
    total, weight = task.loss(model, pad(examples, 0))
    return total.item(), weight


def test_the_loss_is_torchs_over_rows_and_labels_and_adds_up() -> None:
    rows = some(7)
    task = task_of(rows)
    model = model_for(task, dtype=torch.float64)
    examples = [task.encode(row) for row in rows]
    total, weight = loss_of(task, model, examples)
    logits = torch.from_numpy(task.outputs(model, rows))
    truth = torch.tensor([task.targets(row) for row in rows], dtype=torch.float64)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    assert weight == truth.numel()
    assert total / weight == pytest.approx(wanted.item(), rel=1e-12)
    parts = [loss_of(task, model, [example]) for example in examples]
    assert sum(part for part, _ in parts) == pytest.approx(total, rel=1e-12)
    assert sum(part for _, part in parts) == weight


def test_a_label_that_weighs_three_counts_as_three_rows_where_it_is_there() -> None:
    rows = [labelled("the dog", "dog"), labelled("the light"), labelled("turn on", "dog")]
    weighed = task_of(rows, train={"loss": {"kind": "binary_cross_entropy", "class_weights": {"dog": 3}}})
    plain, model = task_of(rows), model_for(weighed, dtype=torch.float64)
    examples = [plain.encode(row) for row in rows]
    total, weight = loss_of(weighed, model, examples)
    repeated = [example for example in examples for _ in range(3 if example.targets[0] else 1)]
    assert total == pytest.approx(loss_of(plain, model, repeated)[0], rel=1e-12)
    assert weight == 3


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_a_label_is_told_where_its_probability_reaches_its_threshold() -> None:
    rows = some(40)
    task = task_of(rows)
    model = model_for(task)
    shares = torch.from_numpy(task.outputs(model, rows)).sigmoid().numpy()
    for thresholds in ((0.5, 0.5, 0.5), tuple((np.quantile(shares, 0.7, axis=0) + 1e-6).tolist())):
        task.restore(task.state() | {"thresholds": thresholds})
        found = task.predict(model, rows)
        reached = [
            [name for name, there in zip(task.labels, row, strict=True) if there] for row in shares >= thresholds
        ]
        assert list(found.answers) == reached
        for given, row in zip(found.probabilities, shares, strict=True):
            assert list(given.values()) == pytest.approx(row.tolist(), rel=1e-5)
    assert {len(answer) for answer in found.answers} > {0}  # the empty set is an answer, too


def test_thresholds_raise_f1_on_validation_and_are_kept() -> None:
    rows = some(80)
    task = task_of(rows)
    model = model_for(task)
    references = [task.reference(row) for row in rows]
    before = METRICS["f1_macro"](task.predict(model, rows).answers, references)
    task.calibrate(model, rows)
    after = METRICS["f1_macro"](task.predict(model, rows).answers, references)
    assert after > before
    assert task.state()["thresholds"] != [0.5] * 3
    other = Multilabel(task.renderer, task.recipe)
    other.restore(task.state())
    assert other.predict(model, rows) == task.predict(model, rows)
    assert other.state() == task.state()


# ---- rivals ----------------------------------------------------------------------------------------------------------


def test_the_trivial_answer_is_the_best_that_is_the_same_for_all_rows() -> None:
    rows = [labelled(str(n), *(["a"] if n < 3 else []), *(["b"] if n < 6 else [])) for n in range(10)]
    for metric, best in (("f1_macro", ["a", "b"]), ("accuracy", [])):
        task = task_of(rows, evaluate={"primary": metric})
        found = task.trivial(rows, rows[:2])
        assert list(found.answers) == [best, best]
        assert found.probabilities == ({"a": 0.3, "b": 0.6},) * 2
        references = [task.reference(row) for row in rows]
        sets = [
            [name for name, there in zip("ab", both, strict=True) if there]
            for both in itertools.product([0, 1], [0, 1])
        ]
        values = {tuple(each): METRICS[metric]([each] * 10, references) for each in sets}
        assert values[tuple(best)] == max(values.values())


def test_rivals_learn_from_train_and_take_their_thresholds_from_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some(150)
    train, validation, test = rows[:70], rows[70:110], rows[110:]
    task = task_of([*rows, labelled("new", "unseen")])
    base = model_for(task)
    found = task.rivals(base, train, [*validation, labelled("new", "unseen")], test)
    assert list(found) == ["bag_of_words", "linear_probe"]
    references = [task.reference(row) for row in test]
    assert METRICS["accuracy"](found["bag_of_words"].answers, references) == 1.0
    assert METRICS["f1_macro"](found["linear_probe"].answers, references) > 0.8
    assert all(row["unseen"] == 0 for given in found.values() for row in given.probabilities)
    assert task.rivals(base, train, [*validation, labelled("new", "unseen")], test) == found
    seen: list[Any] = []

    def beyond_all(shares: Any, truth: Any) -> Any:
        seen.append(truth.tolist())
        return np.full(shares.shape[1], 2.0)

    monkeypatch.setattr(multilabel, "find_thresholds", beyond_all)
    strict = task.rivals(base, train, validation, test)
    assert not any(answer for given in strict.values() for answer in given.answers)
    assert all(truth == [list(task.targets(row)) for row in validation] for truth in seen)


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("runs")
    encoder_folder(home / "encoder")
    rows = [{"text": row.content.text, "labels": list(row.content.labels)} for row in some(60)]  # type: ignore[union-attr]
    write_rows(home / "rows.jsonl", rows)
    return home


def run_of(home: Path, name: str, loss: Any = None) -> Run:
    train = {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-2} | ({} if loss is None else {"loss": loss})
    recipe = chat_recipe(home / "encoder", home / "rows.jsonl", task="multilabel", train=train)
    return pegbox.train(recipe, run_dir=home / name)


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.folder.read_lines("metrics.jsonl")]


@pytest.fixture(scope="module")
def plain(home: Path) -> Run:
    return run_of(home, "plain")


@pytest.mark.parametrize(
    ("option", "loss"),
    [
        ("weights", {"kind": "binary_cross_entropy", "class_weights": {"light": 1, "dog": 2, "timer": 5}}),
        ("balanced", {"kind": "binary_cross_entropy", "class_weights": "balanced"}),
        ("focal", "focal"),
        ("weighed focal", {"kind": "focal", "gamma": 0, "class_weights": {"light": 1, "dog": 2, "timer": 5}}),
    ],
)
def test_every_option_of_the_loss_changes_what_is_learnt(home: Path, plain: Run, option: str, loss: Any) -> None:
    found = losses(run_of(home, option, loss))
    assert len(found) == len(losses(plain))
    assert all(abs(one - other) > 1e-4 for one, other in zip(found, losses(plain), strict=True))


def test_a_run_holds_its_thresholds_and_says_the_same_when_it_is_loaded_again(plain: Run) -> None:
    state = plain.receipt["task"]
    assert state["labels"] == ["dog", "light", "timer"]
    assert len(state["thresholds"]) == 3
    lines = list(plain.folder.read_lines("predictions.jsonl"))
    fresh = Run(plain.path)
    assert fresh.predict([{"text": line["input"]} for line in lines]) == [line["answers"]["tuned"] for line in lines]
    assert fresh.model.config.problem_type == "multi_label_classification"
    assert fresh.model.config.id2label == {0: "dog", 1: "light", 2: "timer"}
    for line in lines:
        for name, row in line["probabilities"].items():
            assert list(row) == state["labels"], name
            if name == "tuned":
                pairs = zip(row, state["thresholds"], strict=True)
                assert line["answers"][name] == [label for label, least in pairs if row[label] >= least]


def test_every_system_is_judged_by_every_metric(plain: Run) -> None:
    systems = plain.evaluation["systems"]
    assert set(systems) == {"trivial", "bag_of_words", "linear_probe", "tuned", "permuted"}
    assert plain.evaluation["primary"] == "f1_macro"
    for values in systems.values():
        assert {"f1_macro", "f1_weighted", "accuracy", "auroc"} <= values.keys()
    assert systems["bag_of_words"]["f1_macro"]["value"] > systems["trivial"]["f1_macro"]["value"]
    assert systems["trivial"]["auroc"]["value"] == 0.5
