"""Every option of a recipe acts: changing it changes what the run does, and in the way that its name says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pegbox
from pegbox import pipeline
from pegbox.errors import DataError
from pegbox.finished import Run
from tiny_folder import causal_folder, chat_recipe, sums, write_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    causal_folder(folder / "model")
    write_rows(folder / "rows.jsonl", [{**row, "from": f"g{n % 20}"} for n, row in enumerate(sums(100))])
    return folder


def ready(home: Path, **changes: Any) -> pipeline.Ready:
    recipe = chat_recipe(home / "model", home / "rows.jsonl", **changes)
    return pipeline.get_ready(pegbox.Recipe.model_validate(recipe))


def trained(home: Path, folder: Path, **train: Any) -> Run:
    settings = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, **train}
    recipe = chat_recipe(home / "model", home / "rows.jsonl", train=settings)
    return pegbox.train({**recipe, "evaluate": {"max_new_tokens": 2, "few_shot": 0}}, run_dir=folder)


def lines(run: Run, key: str) -> list[Any]:
    return [line[key] for line in run.folder.read_lines("metrics.jsonl") if "split" not in line]


def steps(run: Run) -> list[int]:
    return [line["step"] for line in run.folder.read_lines("metrics.jsonl") if "split" in line]


def test_the_length_of_a_run(home: Path, tmp_path: Path) -> None:
    assert lines(trained(home, tmp_path / "a", max_steps=3), "step") == [1, 2, 3]
    train = {"num_train_epochs": 2.5, "batch_size": 8}
    made = ready(home, train=train)
    assert made.plan.updates == round(2.5 * -(-len(made.data.train) // 8))


def test_the_options_of_an_update_change_it(home: Path, tmp_path: Path) -> None:
    plain = trained(home, tmp_path / "plain")
    changed = {
        "learning_rate": trained(home, tmp_path / "lr", learning_rate=1e-3),
        "lr_scheduler_type": trained(home, tmp_path / "schedule", lr_scheduler_type="constant"),
        "warmup_ratio": trained(home, tmp_path / "warmup", warmup_ratio=0.5),
        "weight_decay": trained(home, tmp_path / "decay", weight_decay=0.9),
        "max_grad_norm": trained(home, tmp_path / "clip", max_grad_norm=1e-6),
        "batch_size": trained(home, tmp_path / "batch", batch_size=4),
    }
    for name, run in changed.items():
        assert run.receipt["model_files"] != plain.receipt["model_files"], name
    assert lines(changed["batch_size"], "rows") == [4] * 6
    same = trained(home, tmp_path / "micro", micro_batch_size=2)
    assert lines(same, "loss") == pytest.approx(lines(plain, "loss"), abs=1e-4)
    assert same.receipt["plan"]["micro_batch_rows"] == 2
    again = trained(home, tmp_path / "again", gradient_checkpointing=True)
    assert again.receipt["gradient_checkpointing"] and not plain.receipt["gradient_checkpointing"]
    assert again.receipt["model_files"] == plain.receipt["model_files"]


def test_validation_and_checkpoints_come_when_asked(home: Path, tmp_path: Path) -> None:
    run = trained(home, tmp_path / "a", eval_steps=4, save_steps=2, save_total_limit=3)
    assert steps(run) == [4, 6]
    kept = {path.name for path in run.folder.checkpoints.iterdir()}
    assert {"step-2", "step-4", "step-6"} == kept
    few = trained(home, tmp_path / "b", eval_steps=4, save_steps=1, save_total_limit=2)
    assert len(list(few.folder.checkpoints.iterdir())) in (2, 3)


def test_the_data_options(home: Path) -> None:
    rows = str(home / "rows.jsonl")
    grouped = ready(home, data={"train": rows, "columns": {"group": "from"}, "validation": 0.3, "test": 0.3})
    sides = [{record.group for record in side} for side in (grouped.data.splits.train, grouped.data.splits.test)]
    assert not sides[0] & sides[1]
    told = ready(home, data={"train": rows, "instruction": "Count.", "validation": 0.2, "test": 0.3})
    text = told.task.renderer.decode(told.data.train[0].input_ids)
    assert "system\nCount." in text
    limit = sorted(map(len, ready(home).data.train))[10]
    with pytest.raises(DataError, match="too_long"):
        ready(home, data={"train": rows, "max_length": limit, "validation": 0.2, "test": 0.3})
    short = ready(home, data={"train": rows, "max_length": limit, "truncation": "drop", "validation": 0.2, "test": 0.3})
    assert max(map(len, short.data.train)) <= limit
    shares = ready(home, data={"train": rows, "validation": 0.4, "test": 0.1}).data.splits
    assert len(shares.validation) > len(shares.test)


def test_the_evaluation_options(home: Path, tmp_path: Path) -> None:
    recipe = chat_recipe(home / "model", home / "rows.jsonl", train={"max_steps": 1, "batch_size": 8})
    settings = {"max_new_tokens": 3, "few_shot": 0, "max_rows": 12, "metrics": ["chrf"], "primary": "token_f1"}
    run = pegbox.train({**recipe, "evaluate": settings}, run_dir=tmp_path / "run")
    assert run.evaluation["rows"] == 12
    assert set(run.evaluation["systems"]) == {"trivial", "base", "permuted", "tuned"}
    assert set(run.evaluation["systems"]["tuned"]) == {"token_f1", "chrf"}
    tokenizer = run.task.renderer.tokenizer
    answers = [line["answers"]["base"] for line in run.folder.read_lines("predictions.jsonl")]
    assert max(len(tokenizer.encode(answer, add_special_tokens=False)) for answer in answers) <= 6


def test_the_options_of_lora(home: Path) -> None:
    def learnt(**method: Any) -> int:
        return ready(home, method={"kind": "lora", **method}).plan.trainable_parameters

    assert learnt(r=8) == 2 * learnt(r=4)
    assert learnt(r=4, target_modules=["q_proj"]) < learnt(r=4)
    scalings = [
        ready(home, method={"kind": "lora", "r": 4, **method}).model.model.layers[0].self_attn.q_proj.scaling
        for method in ({}, {"lora_alpha": 4.0}, {"use_rslora": True})
    ]
    assert scalings == [2.0, 1.0, 4.0]


def test_the_options_of_lora_that_change_how_it_learns(home: Path, tmp_path: Path) -> None:
    def files(name: str, **method: Any) -> Any:
        recipe = chat_recipe(home / "model", home / "rows.jsonl", method={"kind": "lora", "r": 4, **method})
        recipe |= {"train": {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-2}}
        recipe |= {"evaluate": {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}}
        return pegbox.train(recipe, run_dir=tmp_path / name).receipt["model_files"]["adapter_model.safetensors"]

    plain = files("plain")
    for name, value in {"use_dora": True, "init_lora_weights": "gaussian", "loraplus_lr_ratio": 8.0}.items():
        assert files(name, **{name: value}) != plain, name
    assert files("pissa", init_lora_weights="pissa") != files("rounds", init_lora_weights="pissa_niter_1") != plain
    assert files("dropout", lora_dropout=0.5) != plain


def test_the_options_of_freeze_and_adapter_and_peft(home: Path) -> None:
    def learnt(**method: Any) -> int:
        return ready(home, method=method).plan.trainable_parameters

    one, two = (learnt(kind="freeze", top_layers=count) for count in (1, 2))
    assert two == 2 * one > 0 < learnt(kind="freeze", parts=["norms"]) < learnt(kind="freeze", parts=["embeddings"])
    houlsby = learnt(kind="adapter", bottleneck_size=4)
    assert houlsby == 2 * learnt(kind="adapter", bottleneck_size=4, variant="pfeiffer")
    assert houlsby < learnt(kind="adapter", bottleneck_size=8)
    assert 2 * learnt(kind="adapter", bottleneck_size=4, target_modules=["o_proj"]) == houlsby
    made = ready(home, method={"kind": "adapter", "non_linearity": "gelu"}).model.model.layers[0].mlp.down_proj
    assert made.non_linearity == "gelu"
    assert learnt(kind="peft", peft_type="LOHA", r=4) == 2 * learnt(kind="peft", peft_type="LOHA", r=2)


def test_the_options_of_the_model(home: Path, tmp_path: Path) -> None:
    def plan(**model: Any) -> Any:
        recipe = chat_recipe(home / "model", home / "rows.jsonl")
        return pipeline.get_ready(
            pegbox.Recipe.model_validate({**recipe, "model": {"name": str(home / "model"), **model}})
        ).plan

    plain, nf4, int8, grown = (
        plan(),
        plan(quantization="nf4"),
        plan(quantization="int8"),
        plan(add_tokens=["<a>", "<b>"]),
    )
    assert nf4.parameters == int8.parameters == plain.parameters, "numbers, however they are held"
    assert grown.trainable_parameters == plain.trainable_parameters + 2 * 32
    recipe = chat_recipe(home / "model", home / "rows.jsonl", train={"max_steps": 2, "batch_size": 8})
    recipe |= {"model": {"name": str(home / "model"), "quantization": "nf4"}}
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    layer = run.load_base().model.layers[0].mlp.up_proj
    assert layer.weight.dtype.itemsize == 1 and run.load_tuned().model.layers[0].mlp.up_proj.quantized is not None
