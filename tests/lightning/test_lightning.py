"""A Lightning Trainer takes the loop's updates to the number, or says why it will not.

The oracle is `training.loop` on the same recipe. Each property is a function, shown to hold and shown to fail with its
bug put in.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

import lightning as L
import pegbox
import pegbox.lightning.data as lightning_data
import pegbox.lightning.module as lightning_module
from pegbox.errors import RecipeError, TrainingError
from pegbox.lightning import PegboxDataModule, PegboxModule, from_recipe
from pegbox.lightning.batches import share_of_group
from pegbox.pipeline import Ready, get_ready
from pegbox.recipe import load as load_recipe
from pegbox.runs.checkpoint import trainable
from pegbox.runs.folder import RunFolder
from pegbox.runtime import Ranks
from pegbox.trackers import Log
from pegbox.training import loop, schedule, validation
from source_tree import REPOSITORY
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows
from tiny_models import make_double

HERE = Path(__file__).resolve()
TRAIN = {"max_steps": 10, "batch_size": 8, "learning_rate": 1e-2, "max_grad_norm": 0.3, "warmup_ratio": 0.2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 60 rows 28 are left to train on, so that the last update of an epoch is short."""
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", sums(60))


@pytest.fixture
def recipe(model: Path, rows: Path) -> dict[str, Any]:
    return chat_recipe(model, rows, train=TRAIN)


def ready_for(recipe: dict[str, Any], dtype: torch.dtype) -> Ready:
    ready = get_ready(load_recipe(recipe))
    if dtype == torch.float64:
        make_double(ready.model)
    return ready


def weights_of(model: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().cpu() for parameter in trainable(model).values()])


def loop_updates(
    recipe: dict[str, Any], folder: Path, dtype: torch.dtype = torch.float32, updates: int = 10
) -> tuple[torch.Tensor, list[float], float]:
    """The weights, the losses on the way and the validation loss after the loop's first updates."""
    ready = ready_for(recipe, dtype)
    run = RunFolder.create(folder)
    job = loop.Job(
        model=ready.model,
        task=ready.task,
        train=ready.data.train,
        validation=ready.data.validation,
        settings=ready.recipe.train,
        plan=ready.plan,
        seed=ready.recipe.seed,
        run=run,
        recipe_hash="",
        log=Log(run),
    )
    optimizer = schedule.adamw(trainable(ready.model), job.settings)
    losses = [loop.take_update(job, optimizer, step).loss for step in range(updates)]
    return weights_of(ready.model), losses, validation.validation_loss(job)


class Losses(L.Callback):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.rates: list[float] = []
        self.validation: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        self.train.append(trainer.callback_metrics["train_loss"].item())
        self.rates.append(trainer.callback_metrics["lr"].item())

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        if not trainer.sanity_checking:
            self.validation.append(trainer.callback_metrics["val_loss"].item())


def make_trainer(folder: Path, *callbacks: Any, **settings: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
        quiet["enable_checkpointing"] = False
    given = {"accelerator": "cpu", "devices": 1, "max_epochs": -1, **quiet, **settings}
    return L.Trainer(default_root_dir=folder, callbacks=list(callbacks), **given)


def modules_of(ready: Ready) -> tuple[PegboxModule, PegboxDataModule]:
    module = PegboxModule(ready)
    return module, PegboxDataModule(module)


# ---- the updates are the loop's -------------------------------------------------------------------------------------


def check_updates_are_the_loops(
    recipe: dict[str, Any],
    folder: Path,
    dtype: torch.dtype = torch.float32,
    ours: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    """The first ten updates of the recipe; `ours`: the loop's recipe where it is another."""
    wanted, losses, validation = loop_updates(ours or recipe, folder / "loop", dtype)
    seen = Losses()
    module, data = modules_of(ready_for(recipe, dtype))
    make_trainer(folder, seen, **settings).fit(module, data)
    assert (weights_of(module.model) - wanted).abs().max() < (1e-10 if dtype == torch.float64 else 5e-5)
    assert seen.train == pytest.approx(losses, abs=5e-5)
    assert seen.validation[-1] == pytest.approx(validation, abs=5e-5)


def labelled(count: int) -> list[dict[str, Any]]:
    words = {"yes": "turn on the light", "no": "the dog sleeps"}
    return [
        {"text": f"{words[label]} {row['prompt']}", "label": label}
        for row, label in zip(sums(count), ["yes", "no", "yes"] * count, strict=False)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_ten_updates_of_a_packed_chat_are_the_loops(recipe: dict[str, Any], tmp_path: Path, dtype: torch.dtype) -> None:
    ready = get_ready(load_recipe(recipe))
    assert ready.plan.packed and ready.plan.share_prefix
    assert len(ready.data.train) % 8 != 0  # the short update at the end of an epoch is among the ten
    check_updates_are_the_loops(recipe, tmp_path, dtype)


@pytest.mark.parametrize("method", [{"kind": "lora", "r": 4}, {"kind": "full"}], ids=["lora", "full"])
def test_ten_updates_of_a_padded_classifier_are_the_loops(tmp_path: Path, method: dict[str, Any]) -> None:
    encoder, file = encoder_folder(tmp_path / "encoder"), write_rows(tmp_path / "rows.jsonl", labelled(60))
    recipe = chat_recipe(encoder, file, task="classification", method=method, train=TRAIN)
    check_updates_are_the_loops(recipe, tmp_path)


def paired(count: int) -> list[dict[str, Any]]:
    return [{"text": row["prompt"], "text_pair": f"the light {n} is on"} for n, row in enumerate(sums(count))]


def test_updates_and_validation_of_rows_that_hang_together_are_the_loops(tmp_path: Path) -> None:
    encoder, file = encoder_folder(tmp_path / "encoder", spread=0.5), write_rows(tmp_path / "rows.jsonl", paired(60))
    recipe = chat_recipe(encoder, file, task="embedding", method="full", train=TRAIN | {"micro_batch_size": 3})
    check_updates_are_the_loops(recipe, tmp_path)
    ready, two = get_ready(load_recipe(recipe)), [Ranks(rank, 2) for rank in (0, 1)]
    parts = [
        [share_of_group(ready, index, ready.data.train[:5], ranks).micro_batches for ranks in two] for index in (0, 1)
    ]
    assert [[len(part) for part in parts_of] for parts_of in parts] == [[2, 0], [0, 2]]  # one rank has the whole group


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_cut_of_an_update_changes_nothing(recipe: dict[str, Any], tmp_path: Path, dtype: torch.dtype) -> None:
    ragged = recipe | {"task": "completion"}
    one = ragged | {"train": TRAIN | {"micro_batch_size": 1}}
    check_updates_are_the_loops(one, tmp_path, dtype, ours=ragged)


def test_dropout_draws_what_it_draws_in_the_loop(recipe: dict[str, Any], tmp_path: Path) -> None:
    noisy = recipe | {"method": {"kind": "lora", "r": 4, "lora_dropout": 0.3}}
    check_updates_are_the_loops(noisy, tmp_path)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_recipe_in_bfloat16_takes_the_loops_updates(recipe: dict[str, Any], tmp_path: Path, precision: str) -> None:
    check_updates_are_the_loops(recipe | {"train": TRAIN | {"bf16": True}}, tmp_path, precision=precision)


def mean_of_means(right: Any) -> Any:
    def loss(self: Any, model: Any, batch: Any) -> Any:
        total, weight = right(self, model, batch)
        return total / weight, 1.0

    return loss


@pytest.mark.parametrize("bug", ["order", "rate", "clipping", "means", "short epochs"])
def test_an_update_that_is_not_the_loops_is_caught(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    """Each bug is put into Lightning's side alone: the loop calls its own names, or has been run before."""
    rows_of_update, find = lightning_data.rows_of_update, lightning_module.find_gradient
    one = recipe | {"train": TRAIN | {"micro_batch_size": 1}}
    done = loop_updates(one, tmp_path / "before")
    monkeypatch.setattr(sys.modules[__name__], "loop_updates", lambda *rest: done)
    if bug == "order":
        monkeypatch.setattr(lightning_data, "rows_of_update", lambda step, *rest: rows_of_update(0, *rest))
    if bug == "rate":
        monkeypatch.setattr(lightning_module, "learning_rate", lambda step, total, peak, settings: peak)
    if bug == "clipping":
        loose = {"max_grad_norm": 1e9}
        monkeypatch.setattr(lightning_module, "find_gradient", lambda *given, **named: find(*given, **named | loose))
    if bug == "means":
        task = type(get_ready(load_recipe(one)).task)
        monkeypatch.setattr(task, "loss", mean_of_means(task.loss))
    if bug == "short epochs":
        monkeypatch.setattr(lightning_data, "updates_per_epoch", lambda examples, size: examples // size)
        monkeypatch.setattr(
            lightning_data, "rows_of_update", lambda step, *rest: rows_of_update(step + step // 3, *rest)
        )
    with pytest.raises(AssertionError):
        check_updates_are_the_loops(one, tmp_path)


def test_every_rate_is_that_of_the_schedule(recipe: dict[str, Any], tmp_path: Path) -> None:
    seen = Losses()
    module, data = modules_of(get_ready(load_recipe(recipe)))
    make_trainer(tmp_path, seen).fit(module, data)
    settings = module.ready.recipe.train
    assert seen.rates == pytest.approx([schedule.learning_rate(s, 10, 1e-2, settings) for s in range(10)], rel=1e-6)


def test_the_validation_loss_is_no_mean_of_batches(recipe: dict[str, Any], tmp_path: Path) -> None:
    module, data = from_recipe(recipe)
    [found] = make_trainer(tmp_path).validate(module, data, verbose=False)
    assert found["val_loss"] == pytest.approx(loop_updates(recipe, tmp_path / "loop", updates=0)[2], rel=1e-6)
    task, model = module.ready.task, module.ready.model
    with torch.no_grad():
        parts = [task.loss(model, part) for batch in data.val_dataloader() for part in batch.micro_batches]
    means = sum(loss.item() / weight for loss, weight in parts) / len(parts)
    assert len(parts) > 1 and abs(means - found["val_loss"]) > 1e-4  # the two can be told apart on these rows


def ranked(folder: Path) -> None:
    """A script of its own: two processes of Lightning's ddp; the first writes what came out."""
    module, data = modules_of(ready_for(json.loads((folder / "recipe.json").read_text()), torch.float64))
    seen = Losses()
    trainer = make_trainer(folder, seen, devices=2, strategy="ddp")
    trainer.fit(module, data)
    answers = [row["id"] for batch in trainer.predict(module, data) or [] for row in batch]
    if trainer.is_global_zero:
        save_file({"weights": weights_of(module.model)}, folder / "found.safetensors")
    told = {"train": seen.train, "validation": seen.validation[-1], "answers": answers}
    (folder / f"told-{trainer.global_rank}.json").write_text(json.dumps(told))


def test_two_processes_of_ddp_take_the_updates_of_one(recipe: dict[str, Any], tmp_path: Path) -> None:
    """One row at once and nine an update, or one at an epoch's end: the ranks differ in backward passes, or have none."""
    recipe |= {"train": TRAIN | {"batch_size": 9, "micro_batch_size": 1}}
    assert len(get_ready(load_recipe(recipe)).data.train) % 9 == 1
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    paths = os.pathsep.join(map(str, (REPOSITORY / "src", HERE.parent.parent, HERE.parent.parent / "data")))
    subprocess.run(
        [sys.executable, str(HERE), str(tmp_path)],
        check=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
    )
    wanted, losses, validation = loop_updates(recipe, tmp_path / "loop", torch.float64)
    found = load_file(tmp_path / "found.safetensors")["weights"]
    assert (found - wanted).abs().max() < 1e-10
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in range(2)]
    for rank in told:
        assert rank["train"] == pytest.approx(losses, abs=1e-6)
        assert rank["validation"] == pytest.approx(validation, abs=1e-6)
    test = [record.where for record in get_ready(load_recipe(recipe)).data.splits.test]
    assert sorted(told[0]["answers"] + told[1]["answers"]) == sorted(test)


# ---- the length of training, and going on ---------------------------------------------------------------------------


def test_training_ends_after_the_recipes_updates_or_earlier_where_the_trainer_says(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    module, data = from_recipe(recipe)
    seen = Losses()
    make_trainer(tmp_path, seen).fit(module, data)
    assert module.step == 10 and len(seen.train) == 10 and seen.validation
    make_trainer(tmp_path, max_steps=3).fit(module, data)
    assert module.step == 3  # a new Trainer begins anew


def test_more_updates_than_the_recipe_has_are_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="10 updates are done"):
        make_trainer(tmp_path, min_steps=11).fit(*from_recipe(recipe))


def check_resumes_exactly(recipe: dict[str, Any], folder: Path, step: int) -> None:
    every = ModelCheckpoint(folder / "kept", filename="{step}", every_n_train_steps=step, save_top_k=-1)
    whole, data = from_recipe(recipe)
    seen = Losses()
    make_trainer(folder, every, seen).fit(whole, data)
    rest = Losses()
    module, data = from_recipe(recipe)
    torch.manual_seed(99)
    trainer = make_trainer(folder, rest)
    trainer.fit(module, data, ckpt_path=folder / "kept" / f"step={step}.ckpt", weights_only=True)
    assert module.step == 10
    assert rest.train == seen.train[step:]
    assert torch.equal(weights_of(module.model), weights_of(whole.model))
    assert rest.validation[-1] == seen.validation[-1]


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_resumed_run_takes_the_updates_that_it_would_have_taken(
    recipe: dict[str, Any], tmp_path: Path, step: int
) -> None:
    """In the middle of an epoch (of four updates) and at its end, with dropout."""
    noisy = recipe | {"method": {"kind": "lora", "r": 4, "lora_dropout": 0.3}}
    check_resumes_exactly(noisy, tmp_path, step)


def test_resuming_at_another_update_is_caught(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = PegboxModule.on_load_checkpoint

    def forgetful(self: PegboxModule, checkpoint: dict[str, Any]) -> None:
        right(self, checkpoint)
        self.step = 4  # where the epoch began

    monkeypatch.setattr(PegboxModule, "on_load_checkpoint", forgetful)
    with pytest.raises(AssertionError):
        check_resumes_exactly(recipe | {"method": {"kind": "lora", "r": 4, "lora_dropout": 0.3}}, tmp_path, 6)


def test_a_checkpoint_holds_what_learns_and_fits_no_other_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path / "kept", monitor="val_loss")
    module, data = from_recipe(recipe)
    make_trainer(tmp_path, kept).fit(module, data)
    held = torch.load(kept.best_model_path, weights_only=True)
    assert held["state_dict"].keys() == {f"model.{name}" for name in trainable(module.model)}
    assert held["hyper_parameters"]["train"]["batch_size"] == 8
    other = from_recipe(recipe | {"method": {"kind": "lora", "r": 8}})
    with pytest.raises(RecipeError, match="does not fit"):
        make_trainer(tmp_path).validate(*other, ckpt_path=kept.best_model_path)


def test_the_best_weights_come_back(recipe: dict[str, Any], tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path / "kept", monitor="val_loss")
    module, data = from_recipe(recipe)
    trainer = make_trainer(tmp_path, kept)
    trainer.fit(module, data)
    best = weights_of(module.model)
    with torch.no_grad():
        for parameter in trainable(module.model).values():
            parameter.add_(1)
    [found] = trainer.validate(module, data, ckpt_path="best", verbose=False)
    assert found["val_loss"] == pytest.approx(kept.best_model_score.item(), rel=1e-6)  # type: ignore[union-attr]
    assert torch.equal(weights_of(module.model), best)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "cure"),
    [
        ({"precision": "bf16-mixed"}, "train.bf16"),
        ({"precision": "bf16-true"}, "train.bf16"),
        ({"precision": "64-true"}, "train.bf16"),
        ({"accumulate_grad_batches": 2}, "train.batch_size"),
        ({"gradient_clip_val": 0.5}, "train.max_grad_norm"),
        ({"overfit_batches": 1}, "data.train"),
        ({"strategy": type("Sharded", (SingleDeviceStrategy,), {})("cpu")}, "ddp"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_a_setting_that_would_change_an_update_is_refused_with_the_cure(
    recipe: dict[str, Any], tmp_path: Path, setting: dict[str, Any], cure: str
) -> None:
    module, data = from_recipe(recipe)
    before = weights_of(module.model)
    with pytest.raises(RecipeError) as told:
        make_trainer(tmp_path, **setting).fit(module, data)
    assert told.value.where == next(iter(setting))
    assert cure in str(told.value.cure)
    assert torch.equal(weights_of(module.model), before)


def test_full_precision_is_no_way_around_a_recipe_in_bfloat16(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="precision"):
        make_trainer(tmp_path, precision="64-true").fit(*from_recipe(recipe, ["train.bf16=true"]))


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("eval_steps", 3, "val_check_interval=3"),
        ("save_steps", 4, "every_n_train_steps=4"),
        ("early_stopping_patience", 2, "patience=2"),
        ("report_to", "tensorboard", "logger="),
    ],
)
def test_what_is_left_to_the_trainer_is_said(
    recipe: dict[str, Any], caplog: pytest.LogCaptureFixture, key: str, value: int | str, instead: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="pegbox"):
        from_recipe(recipe, [f"train.{key}={value}"])
    assert [f"train.{key}" in line and instead in line for line in caplog.messages] == [True]


def test_without_lightning_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pegbox.lightning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(RecipeError, match=re.escape("pip install 'pegbox[lightning]'")):
        __import__("pegbox.lightning")


# ---- what comes out -------------------------------------------------------------------------------------------------


def test_the_saved_adapter_is_what_answers_and_loads_with_peft(recipe: dict[str, Any], tmp_path: Path) -> None:
    module, data = from_recipe(recipe)
    make_trainer(tmp_path).fit(module, data)
    module.save(tmp_path / "model")
    tuned = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([module.ready.data.train[0].input_ids])
    with torch.no_grad():
        found, wanted = tuned(ids).logits, module.model.eval()(ids).logits
        before = get_ready(load_recipe(recipe)).model(ids).logits
    assert (found - wanted).abs().max() < 1e-5 < (before - wanted).abs().max()
    with pytest.raises(RecipeError, match="not empty"):
        module.save(tmp_path / "model")


def test_the_saved_classifier_loads_with_transformers(tmp_path: Path) -> None:
    encoder, file = encoder_folder(tmp_path / "encoder"), write_rows(tmp_path / "rows.jsonl", labelled(60))
    recipe = chat_recipe(encoder, file, task="classification", method="full", train=TRAIN)
    module, data = from_recipe(recipe)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    answers = [row["answer"] for batch in trainer.predict(module, data) or [] for row in batch]
    assert set(answers) <= {"yes", "no"} and len(answers) == len(module.ready.data.splits.test)
    module.save(tmp_path / "model")
    ids = torch.tensor([module.ready.data.train[0].input_ids])
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in module.model.state_dict().items())
    with torch.no_grad():
        assert (plain(ids).logits - module.model.eval()(ids).logits).abs().max() < 1e-6


def test_the_answers_are_those_of_the_run_that_pegbox_makes_of_the_recipe(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    assert run.receipt["chosen_step"] == 10
    module, data = from_recipe(recipe)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    found = {row["id"]: (row["input"], row["answer"]) for batch in trainer.predict(module, data) or [] for row in batch}
    lines = run.folder.read_lines("predictions.jsonl")
    assert found == {line["id"]: (line["input"], line["answers"]["tuned"]) for line in lines}
    module.save(tmp_path / "model")
    ours, theirs = (load_file(f / "adapter_model.safetensors") for f in (run.folder.model, tmp_path / "model"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 5e-5 for name in ours)
    assert {f.name for f in run.folder.model.iterdir()} == {f.name for f in (tmp_path / "model").iterdir()}


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_code_of_the_page_runs_as_printed(recipe: dict[str, Any], tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "lightning.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    (tmp_path / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    paths = {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env={**os.environ, **paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'answer':" in done.stdout
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


if __name__ == "__main__":
    ranked(Path(sys.argv[1]))
