"""Regression: the loss is over what it says, standardised by train alone and undone at prediction; whole runs, saved and loaded.

INVARIANTS rows 22, 24 and 26, with the bugs put back.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import pegbox
from made_tasks import made_task
from pegbox.data.records import Record, ScoredText
from pegbox.data.render import Renderer
from pegbox.errors import DataError
from pegbox.finished import Run
from pegbox.finished.verifying import verify
from pegbox.models.load import heads_of, load_model, load_tokenizer
from pegbox.models.packing import enable_packing
from pegbox.tasks.regression import Regression, _scores
from tiny_folder import causal_folder, chat_recipe, encoder_decoder_folder, encoder_folder, write_rows

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "and",
    "sleeps",
    "turn",
    "on",
    "light",
    "in",
    "kitchen",
    "set",
    "timer",
    "to",
    "minutes",
]


FOLDERS = {"bert": encoder_folder, "llama": causal_folder, "t5": encoder_decoder_folder}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: made(tmp_path_factory.mktemp(kind)) for kind, made in FOLDERS.items()}


def record(text: str, **scores: float) -> Record:
    return Record(text, ScoredText(text, scores))


def score(row: Record) -> float:
    assert isinstance(row.content, ScoredText)
    return row.content.scores["score"]


def texts(count: int, seed: int = 0) -> list[str]:
    """Different texts, ragged."""
    draw, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        found[" ".join(draw.choices(WORDS, k=draw.randrange(2, 9)))] = None
    return list(found)


EIGHT = [record(text, score=float(score)) for text, score in zip(texts(8), [3, -1, 4, 1, -5, 9, 2, 6], strict=True)]


def task_of(folder: Path, rows: Sequence[Record], **changes: Any) -> Regression:
    """The task as a run makes it."""
    made = made_task("regression", Renderer(load_tokenizer(folder)), rows, heads=heads_of(folder), **changes)
    assert isinstance(made, Regression)
    return made


def model_of(folder: Path, task: Regression) -> Any:
    """A model whose outputs differ from row to row, which those of a freshly drawn head hardly do."""
    model = load_model(folder, task.head, labels=task.labels, problem_type=task.problem_type, seed=3)
    (head,) = (child for name, child in model.named_children() if name in ("classifier", "score"))
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(5))
    return model


def loss_of(
    task: Regression, model: Any, rows: Sequence[Record], *, packed: bool = False
) -> tuple[torch.Tensor, float]:
    return task.loss(model, task.collate([task.encode(row) for row in rows], packed=packed, share_prefix=packed))


def learn(task: Regression, model: Any, rows: Sequence[Record], updates: int) -> float:
    """Full updates of all rows at once; the loss of a value after the last."""
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=updates)
    for _ in range(updates):
        loss, weight = loss_of(task, model, rows)
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
        schedule.step()
    loss, weight = loss_of(task, model, rows)
    return loss.item() / weight


def standardised(rows: Sequence[Record], task: Regression) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Slowly: each value less its mean, over its deviation, in the order of the targets."""
    columns = []
    for name in task.labels:
        values = [_scores(row)[name] for row in rows]
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        columns.append([(value - mean) / deviation for value in values])
    return np.array(columns).T


# ---- the loss (INVARIANTS 26) ---------------------------------------------------------------------------------------


def test_the_loss_is_of_each_row_with_its_own_number(folders: dict[str, Path]) -> None:
    task = task_of(folders["llama"], EIGHT)
    model = model_of(folders["llama"], task)
    outputs, right = task.outputs(model, EIGHT), standardised(EIGHT, task)
    loss, weight = loss_of(task, model, EIGHT)
    assert weight == 8
    assert loss.item() == pytest.approx(
        sum((z - y) ** 2 for z, y in zip(outputs[:, 0], right[:, 0], strict=True)), rel=1e-5
    )
    broadcast = ((outputs - right[:, 0]) ** 2).mean() * 8  # what [8, 1] against [8] gives: 8 x 8 errors
    assert loss.item() != pytest.approx(broadcast, rel=1e-2)


def test_other_rows_numbers_are_another_loss_and_the_outputs_own_are_none(folders: dict[str, Path]) -> None:
    task = task_of(folders["llama"], EIGHT)
    model = model_of(folders["llama"], task)
    numbers = task.outputs(model, EIGHT) * np.array(task.state()["deviation"]) + np.array(task.state()["mean"])
    told = [record(row.where, score=float(number)) for row, number in zip(EIGHT, numbers[:, 0], strict=True)]
    swapped = [record(row.where, score=float(number)) for row, number in zip(EIGHT, numbers[::-1, 0], strict=True)]
    assert loss_of(task, model, told)[0].item() == pytest.approx(0, abs=1e-9)
    assert loss_of(task, model, swapped)[0].item() > 1e-4


def test_eight_points_are_learnt_to_nothing(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers broadcast to 8 x 8 all outputs go to the mean, and the loss stays near 1."""
    task = task_of(folders["bert"], EIGHT)
    assert learn(task, model_of(folders["bert"], task), EIGHT, 150) < 1e-4

    def broadcast(outputs: Any, targets: Any, weights: Any) -> tuple[torch.Tensor, float]:
        return ((outputs - targets[:, 0]) ** 2).mean() * len(outputs), float(len(outputs))

    monkeypatch.setattr(task, "criterion", broadcast)
    assert learn(task, model_of(folders["bert"], task), EIGHT, 150) > 0.9


def test_a_batch_weighs_its_values_and_is_the_sum_of_its_rows(folders: dict[str, Path]) -> None:
    rows = [record(row.where, one=score(row), two=index) for index, row in enumerate(EIGHT)]
    task = task_of(folders["llama"], rows)
    model = model_of(folders["llama"], task)
    together, weight = loss_of(task, model, rows)
    apart = [loss_of(task, model, [row]) for row in rows]
    assert weight == sum(one for _, one in apart) == 16
    assert together.item() == pytest.approx(sum(loss.item() for loss, _ in apart), rel=1e-5)
    assert enable_packing(model, [task.encode(row) for row in rows])
    assert loss_of(task, model, rows, packed=True)[0].item() == pytest.approx(together.item(), rel=1e-5)


LOSSES: Mapping[str, Any] = {
    "mse": (None, lambda z, y: functional.mse_loss(z, y, reduction="sum")),
    "mae": ("mae", lambda z, y: functional.l1_loss(z, y, reduction="sum")),
    "huber": ({"kind": "huber", "delta": 0.3}, lambda z, y: functional.huber_loss(z, y, reduction="sum", delta=0.3)),
    "wider huber": ({"kind": "huber", "delta": 1.0}, lambda z, y: functional.huber_loss(z, y, reduction="sum")),
}


def test_each_loss_is_torchs_of_standardised_numbers_and_no_two_are_alike(folders: dict[str, Path]) -> None:
    found = {}
    for name, (asked, plain) in LOSSES.items():
        task = task_of(folders["llama"], EIGHT, train={"loss": asked} if asked else {})
        model = model_of(folders["llama"], task)
        outputs, right = task.outputs(model, EIGHT), standardised(EIGHT, task)
        found[name] = loss_of(task, model, EIGHT)[0].item()
        assert found[name] == pytest.approx(plain(torch.tensor(outputs), torch.tensor(right)).item(), rel=1e-5)
    assert len({round(value, 3) for value in found.values()}) == len(LOSSES)


# ---- standardisation ------------------------------------------------------------------------------------------------


def test_numbers_of_any_scale_are_learnt_alike(folders: dict[str, Path]) -> None:
    """y and 1000 y + 50,000 take the same updates, and the answers are each in their own unit."""
    said = []
    for scale, shift in ((1.0, 0.0), (1000.0, 50_000.0)):
        rows = [record(row.where, score=score(row) * scale + shift) for row in EIGHT]
        task = task_of(folders["llama"], rows)
        model = model_of(folders["llama"], task)
        learn(task, model, rows, 20)
        said.append([(answer - shift) / scale for answer in task.predict(model, rows).answers])
    assert said[0] == pytest.approx(said[1], abs=1e-3)
    assert np.std(said[0]) > 0.5


def test_standardisation_is_undone_to_the_digits_that_are_told(folders: dict[str, Path]) -> None:
    task = task_of(folders["bert"], EIGHT)
    model = model_of(folders["bert"], task)
    outputs = task.outputs(model, EIGHT)
    values = [score(row) for row in EIGHT]
    answers = task.predict(model, EIGHT).answers
    assert all(isinstance(answer, float) for answer in answers)
    assert answers == pytest.approx(
        (outputs[:, 0] * np.std(values) + np.mean(values)).tolist(), abs=1e-6 * np.std(values)
    )


def test_the_digits_of_an_answer_follow_the_targets_deviation(folders: dict[str, Path]) -> None:
    """Seconds since 1970 that differ by hours keep their seconds; seven significant digits would lose an hour."""
    hours = [1.7e9 + 3600 * index for index in range(8)]
    task = task_of(folders["bert"], [record(text, score=hour) for text, hour in zip(texts(8), hours, strict=True)])
    assert task.trivial(EIGHT, EIGHT[:1]).answers == (np.mean([score(r) for r in EIGHT]),)
    assert task._told(np.array([[1.7e9 + 12_345.678_912_3]])).answers == (1.7e9 + 12_345.679,)
    small = task_of(folders["bert"], [record(row.where, score=1e-9 * n) for n, row in enumerate(EIGHT)])
    assert small._told(np.array([[1.234_567_891_23e-9]])).answers == (1.234_568e-9,)


def test_a_constant_target_stays_what_it_is(folders: dict[str, Path]) -> None:
    rows = [record(row.where, constant=0.1, other=float(n)) for n, row in enumerate(EIGHT)]
    state = task_of(folders["bert"], rows).state()
    assert state["deviation"][0] == 1.0
    assert state["mean"][0] == 0.1


def test_targets_beyond_what_can_be_squared_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="too large"):
        task_of(folders["bert"], [record(row.where, score=1e300 * n) for n, row in enumerate(EIGHT)])


# ---- several targets ------------------------------------------------------------------------------------------------


def test_targets_of_all_rows_are_those_of_the_first_in_its_order(folders: dict[str, Path]) -> None:
    rows = [record("a dog", width=1.0, height=2.0), record("a fox", height=4.0, width=3.0)]
    task = task_of(folders["bert"], rows)
    assert task.labels == ("width", "height")
    assert task.state()["targets"] == ["width", "height"]
    assert [task.reference(row) for row in rows] == [[1.0, 2.0], [3.0, 4.0]]
    assert task.state()["mean"] == [2.0, 3.0]
    again = Regression(task.renderer, task.recipe, task.heads)
    again.restore(json.loads(json.dumps(task.state())))
    model = model_of(folders["bert"], task)
    assert again.predict(model, rows) == task.predict(model, rows)
    assert model.config.id2label == {0: "width", 1: "height"}


@pytest.mark.parametrize(
    "odd", [{"width": 1.0}, {"width": 1.0, "height": 2.0, "depth": 3.0}, {"width": 1.0, "hight": 2.0}]
)
def test_a_row_with_other_targets_is_named(odd: dict[str, float], folders: dict[str, Path]) -> None:
    rows = [record("a dog", width=1.0, height=2.0), record("rows.jsonl:2", **odd)]
    with pytest.raises(DataError, match=r"rows\.jsonl:2.*height"):
        task_of(folders["bert"], rows)


def test_targets_of_every_scale_are_learnt_together(folders: dict[str, Path]) -> None:
    rows = [record(row.where, large=1e6 * n, small=1e-3 * (n % 3)) for n, row in enumerate(EIGHT)]
    task = task_of(folders["bert"], rows)
    model = model_of(folders["bert"], task)
    learn(task, model, rows, 200)
    for answer, row in zip(task.predict(model, rows).answers, rows, strict=True):
        large, small = _scores(row).values()
        assert answer[0] == pytest.approx(large, abs=1e5)
        assert answer[1] == pytest.approx(small, abs=1e-4)


# ---- whole runs -----------------------------------------------------------------------------------------------------


def scored(count: int) -> list[dict[str, Any]]:
    """A number that the words tell, and noise on it; what is appended to the file lies higher."""
    draw = random.Random(1)
    return [
        {"text": text, "score": 20 + 3 * text.count("dog") - 2 * text.count("fox") + draw.gauss(0, 0.1)}
        for text in texts(count, seed=5)
    ]


METHOD = {"bert": {"kind": "full"}, "llama": {"kind": "lora", "r": 4}, "t5": {"kind": "full"}}
SYSTEMS = {"trivial", "bag_of_words", "linear_probe", "permuted", "tuned"}
CHILD = """
import json, sys
import torch
from pathlib import Path
from transformers import AutoModelForSequenceClassification, AutoTokenizer
import pegbox

texts, found = json.loads(sys.argv[1]), {}
for folder in map(Path, sys.argv[2:]):
    ours, plain = pegbox.load(folder).predict([{"text": text} for text in texts]), None
    if (folder / "model" / "config.json").is_file():
        model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        mean, deviation = model.config.target_mean[0], model.config.target_deviation[0]
        with torch.no_grad():
            plain = [model(**tokenizer(text, return_tensors="pt")).logits.item() * deviation + mean for text in texts]
    found[folder.name] = [ours, plain]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def runs(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    file = write_rows(root / "rows.jsonl", scored(60))
    found = {}
    for kind, folder in folders.items():
        train = {"num_train_epochs": 6, "batch_size": 8, "learning_rate": 1e-2 if kind == "llama" else 3e-3}
        found[kind] = pegbox.train(
            chat_recipe(folder, file, task="regression", method=METHOD[kind], train=train), run_dir=root / kind
        )
    return found


@pytest.fixture(scope="module")
def fresh(runs: dict[str, Run]) -> dict[str, Any]:
    """What a fresh process answers, by pegbox and (where the model is whole) by plain Transformers."""
    asked = json.dumps([line["input"] for line in runs["bert"].folder.read_lines("predictions.jsonl")][:6])
    folders = [str(run.path) for run in runs.values()]
    done = subprocess.run([sys.executable, "-c", CHILD, asked, *folders], check=True, capture_output=True, timeout=300)
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_whole_run_is_measured_and_answers_alike_in_a_fresh_process(
    kind: str, runs: dict[str, Run], fresh: dict[str, Any]
) -> None:
    run = runs[kind]
    assert run.evaluation["primary"] == "rmse"
    assert set(run.evaluation["systems"]) == SYSTEMS
    assert {"rmse", "mae", "r2", "pearson", "spearman", "mse"} <= run.evaluation["systems"]["tuned"].keys()
    lines = list(run.folder.read_lines("predictions.jsonl"))
    assert all(isinstance(answer, float) for line in lines for answer in line["answers"].values())
    ours, plain = fresh[kind]
    assert ours == pytest.approx([line["answers"]["tuned"] for line in lines][:6], rel=1e-5)
    assert plain is None or plain == pytest.approx(ours, rel=1e-5)
    assert (plain is None) == (kind == "llama")
    assert run.receipt["kernels"]["attention"] == ("packed" if kind == "llama" else run.receipt["kernels"]["attention"])


def test_a_run_is_standardised_by_its_training_rows_alone(runs: dict[str, Run]) -> None:
    run = runs["bert"]
    sides = {line["id"]: line["split"] for line in run.folder.read_lines("splits.jsonl")}
    values = {f"rows.jsonl:{n}": row["score"] for n, row in enumerate(scored(60), start=1)}
    train = [
        value for where, value in values.items() for name in sides if name.endswith(where) and sides[name] == "train"
    ]
    told = run.receipt["task"]
    assert len(train) < 60
    assert told["mean"] == pytest.approx([np.mean(train)], rel=1e-12)
    assert told["deviation"] == pytest.approx([np.std(train)], rel=1e-12)
    assert told["mean"] != pytest.approx([np.mean(list(values.values()))], rel=1e-6)  # of all rows: another number
    trivial = {line["answers"]["trivial"] for line in run.folder.read_lines("predictions.jsonl")}
    assert list(trivial) == pytest.approx([np.mean(train)], abs=1e-5)


def test_a_run_answers_as_it_was_measured(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert verify(run.path, rows=4)["ok"]
