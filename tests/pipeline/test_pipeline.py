"""Whole runs on tiny models: the folder, the verdict, the model as others load it, resuming, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import pegbox
from pegbox import pipeline
from pegbox.data.records import Message
from pegbox.errors import DataError, RecipeError
from pegbox.evaluation import systems
from pegbox.finished import Run
from pegbox.runs import checkpoint
from pegbox.training import loop
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", sums(120))


@pytest.fixture(scope="module")
def run(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pegbox.train(chat_recipe(model, rows), run_dir=tmp_path_factory.mktemp("runs") / "chat")


FILES = {
    *("recipe.yaml", "receipt.json", "data.json", "splits.jsonl", "metrics.jsonl", "timing.jsonl", "checkpoints"),
    *("model", "evaluation.json", "predictions.jsonl", "report.html", "README.md", "tensorboard"),
}


def test_a_run_folder_holds_what_the_contract_lists(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == FILES
    line = next(iter(run.folder.read_lines("metrics.jsonl")))
    assert set(line) == {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "rows"}
    prediction = next(iter(run.folder.read_lines("predictions.jsonl")))
    assert set(prediction["answers"]) == {"trivial", "base", "base_few_shot", "permuted", "tuned"}
    assert set(run.evaluation["systems"]) == set(prediction["answers"])
    splits = list(run.folder.read_lines("splits.jsonl"))
    assert len(splits) == 120
    assert run.receipt["test_scored"] == 1
    assert {"training", "evaluation"} == set(run.receipt["seconds"])


def test_training_the_explicit_recipe_again_gives_the_same_run(run: Run, tmp_path: Path) -> None:
    again = pegbox.train(run.path / "recipe.yaml", run_dir=tmp_path / "again")
    assert again.evaluation == run.evaluation
    assert (again.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    assert again.receipt["model_files"] == run.receipt["model_files"]


def test_another_seed_gives_another_run(run: Run, model: Path, rows: Path, tmp_path: Path) -> None:
    other = pegbox.train(chat_recipe(model, rows, seed=43), run_dir=tmp_path / "other")
    assert (other.path / "metrics.jsonl").read_bytes() != (run.path / "metrics.jsonl").read_bytes()


def test_plain_operations_take_the_same_updates(run: Run, model: Path, rows: Path, tmp_path: Path) -> None:
    plain = pegbox.train(chat_recipe(model, rows), run_dir=tmp_path / "plain", kernels=False)
    assert run.receipt["kernels"] == {"attention": "packed", "linear": "onednn"}
    assert plain.receipt["kernels"]["linear"] == "plain"
    fast, slow = (list(r.folder.read_lines("metrics.jsonl")) for r in (run, plain))
    assert [line["loss"] for line in fast] == pytest.approx([line["loss"] for line in slow], abs=1e-4)
    assert plain.receipt["kernels"]["attention"] != "packed"


def test_the_adapter_answers_the_same_in_plain_transformers_and_peft(run: Run, model: Path) -> None:
    peft = pytest.importorskip("peft")
    tuned = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), run.folder.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.folder.model)
    for prompt in ("3 and 4", "12 and 50"):
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = tuned.generate(**asked, max_new_tokens=6, do_sample=False)[0, asked["input_ids"].shape[1] :]
        wanted = tokenizer.decode([token for token in ids if token not in tokenizer.all_special_ids])
        assert run.generate(prompt, max_new_tokens=6) == wanted


def test_what_was_saved_is_what_answers(run: Run) -> None:
    lines = list(run.folder.read_lines("predictions.jsonl"))[:8]
    answers = Run(run.path).predict([{"prompt": line["input"]} for line in lines])
    assert answers == [line["answers"]["tuned"] for line in lines]


def test_a_question_can_be_a_prompt_or_messages(run: Run) -> None:
    messages = [{"role": "user", "content": "3 and 4"}]
    assert run.generate("3 and 4", max_new_tokens=4) == run.generate(messages, max_new_tokens=4)
    torch.manual_seed(0)
    assert isinstance(run.generate("3 and 4", max_new_tokens=4, do_sample=True), str)


# ---- the other tasks and methods ------------------------------------------------------------------------------------


def texts(count: int) -> list[dict[str, str]]:
    return [{"text": f"dogs {word['prompt']} lights"} for word in sums(count)]


def labelled(count: int) -> list[dict[str, Any]]:
    words = {"yes": "light on", "no": "dog asleep"}
    return [
        {"text": f"{words[label]} {row['prompt']}", "label": label}
        for row, label in zip(sums(count), ["yes", "no", "yes"] * count, strict=False)
    ]


@pytest.mark.parametrize("method", [{"kind": "lora", "r": 4}, {"kind": "full"}], ids=["lora", "full"])
@pytest.mark.parametrize(
    ("task", "made", "primary", "expected"),
    [
        ("completion", sums, "exact_match", {"trivial", "base", "base_few_shot", "permuted", "tuned"}),
        ("completion", texts, "perplexity", {"trivial", "base", "base_few_shot", "tuned"}),
        ("classification", labelled, "f1_macro", {"trivial", "bag_of_words", "linear_probe", "permuted", "tuned"}),
    ],
    ids=["prompts", "plain text", "labels"],
)
def test_every_task_and_method_runs_from_rows_to_a_verdict(
    task: str,
    made: Any,
    primary: str,
    expected: set[str],
    method: dict[str, Any],
    model: Path,
    encoder: Path,
    tmp_path: Path,
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", made(90))
    folder = encoder if task == "classification" else model
    recipe = chat_recipe(folder, file, task=task, method=method)
    found = pegbox.train(recipe, run_dir=tmp_path / "run")
    assert found.evaluation["primary"] == primary
    assert set(found.evaluation["systems"]) == expected
    assert found.verdict in ("better", "worse", "not shown")
    assert all(primary in metrics for metrics in found.evaluation["systems"].values())
    lines = list(found.folder.read_lines("predictions.jsonl"))
    if task == "classification":
        assert {answer for line in lines for answer in line["answers"].values()} <= {"yes", "no"}
        assert Run(found.path).predict([{"text": line["input"]} for line in lines[:5]]) == [
            line["answers"]["tuned"] for line in lines[:5]
        ]
    if method["kind"] == "full":
        kinds = {"completion": AutoModelForCausalLM, "classification": AutoModelForSequenceClassification}
        plain = kinds[task].from_pretrained(found.folder.model)
        ours = Run(found.path).model.state_dict()
        assert all(torch.equal(tensor, ours[name]) for name, tensor in plain.state_dict().items())
    rescored = pegbox.evaluate(found.path)
    assert rescored["systems"] == found.evaluation["systems"]
    other = pegbox.evaluate(found.path, data=str(write_rows(tmp_path / "more.jsonl", made(130)[90:])))
    assert other["rows"] == 40
    with pytest.raises(DataError, match="leak"):
        pegbox.evaluate(found.path, data=str(write_rows(tmp_path / "known.jsonl", made(3))))


def test_bf16_compute_keeps_what_learns_in_float32(model: Path, rows: Path, tmp_path: Path) -> None:
    recipe = chat_recipe(model, rows, train={"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3, "bf16": True})
    ready = pipeline.get_ready(pegbox.Recipe.model_validate(recipe))
    learnt = checkpoint.trainable(ready.model)
    assert {p.dtype for p in learnt.values()} == {torch.float32}
    assert ready.model.lm_head.weight.dtype == torch.bfloat16
    found = pegbox.train(recipe, run_dir=tmp_path / "run")
    moments = checkpoint.load_file(found.folder.checkpoints / "step-4" / "optimizer.safetensors")
    assert {tensor.dtype for tensor in moments.values()} == {torch.float32}


# ---- resuming -------------------------------------------------------------------------------------------------------


class KilledError(Exception):
    pass


@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_killed_run_resumes_to_the_same_bytes(
    run: Run, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    right = loop.take_update

    def killed(job: Any, optimizer: Any, at: int) -> Any:
        if at == step:
            raise KilledError
        return right(job, optimizer, at)

    monkeypatch.setattr(loop, "take_update", killed)
    with pytest.raises(KilledError):
        pegbox.train(chat_recipe(model, rows), run_dir=tmp_path / "run")
    monkeypatch.undo()
    resumed = pipeline.resume(tmp_path / "run")
    assert (resumed.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    assert resumed.receipt["model_files"] == run.receipt["model_files"]
    assert resumed.evaluation == run.evaluation


def test_a_damaged_checkpoint_is_passed_over(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder.checkpoints, tmp_path / "checkpoints")
    newest = checkpoint.newest(tmp_path / "checkpoints")
    assert newest is not None
    file = newest / "trainable.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    before = checkpoint.newest(tmp_path / "checkpoints")
    assert before is not None
    assert before.name != newest.name


def test_resuming_with_other_data_is_refused(model: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", sums(60))
    done = pegbox.train(chat_recipe(model, file), run_dir=tmp_path / "run")
    write_rows(file, sums(61))
    with pytest.raises(RecipeError, match="rows.jsonl has changed"):
        pipeline.resume(done.path)


# ---- honesty --------------------------------------------------------------------------------------------------------


def check_test_rows_stay_unseen(model: Path, rows: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model sees a test row before the training is over, and the shots hold no twin of one."""
    seen: list[set[str]] = []
    right = loop.train

    def audited(job: Any, state: Any) -> Any:
        seen.append({example.where for example in (*job.train, *job.validation)})
        return right(job, state)

    monkeypatch.setattr(loop, "train", audited)
    found = pegbox.train(chat_recipe(model, rows), run_dir=folder)
    sides = {line["id"]: line["split"] for line in found.folder.read_lines("splits.jsonl")}
    assert not {where for where in seen[0] if sides[where] == "test"}
    assert {line["id"] for line in found.folder.read_lines("predictions.jsonl")} == {
        where for where, side in sides.items() if side == "test"
    }


def test_the_test_rows_are_read_once_for_the_verdict(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_test_rows_stay_unseen(model, rows, tmp_path / "run", monkeypatch)


def test_training_on_test_rows_is_caught(
    model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pipeline.prepare

    def leaking(recipe: Any, task: Any, *limits: int) -> Any:
        data = right(recipe, task, *limits)
        object.__setattr__(data, "train", (*data.train, *(task.encode(record) for record in data.splits.test)))
        return data

    monkeypatch.setattr(pipeline, "prepare", leaking)
    with pytest.raises(AssertionError):
        check_test_rows_stay_unseen(model, rows, tmp_path / "run", monkeypatch)


def test_the_base_model_is_untouched_by_the_run(run: Run, model: Path) -> None:
    """INVARIANTS row 19: `base` is the model from disk, to the bit, whatever was trained."""
    untouched = AutoModelForCausalLM.from_pretrained(model).state_dict()
    base = run.load_base().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in base.items())
    ids = torch.tensor([run.task.renderer.prompt([Message("user", "3 and 4")])])
    assert not torch.equal(run.load_base()(ids).logits, run.model(ids).logits)


def test_a_base_model_that_changed_is_refused(rows: Path, tmp_path: Path) -> None:
    folder = causal_folder(tmp_path / "model")
    done = pegbox.train(chat_recipe(folder, rows), run_dir=tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(RecipeError, match="changed"):
        Run(done.path).load_base()


def test_shots_are_the_same_for_every_row_and_no_twins_of_test_rows(run: Run) -> None:
    _, task, data = pipeline.read_rows(run.recipe)
    shots = systems.choose_shots(task, data.splits.train, data.splits.test, 5, 42)
    assert len({task.reference(shot) for shot in shots}) == 5
    leaked = systems.choose_shots(task, data.splits.test, data.splits.test, 5, 42)
    assert leaked == []
    assert shots != systems.choose_shots(task, data.splits.train, data.splits.test, 5, 43)


def test_permuted_answers_all_go_to_another_row(run: Run) -> None:
    tuned = systems.Predictions(tuple(range(30)))
    mixed = systems.permuted(tuned, 1).answers
    assert sorted(mixed) == list(range(30))
    assert all(mixed[index] != index for index in range(30))


def test_a_used_run_folder_is_refused_before_any_work(model: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RecipeError, match="not empty"):
        pegbox.train(chat_recipe(model, rows), run_dir=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_refused_data_leaves_no_run_folder(model: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [*sums(40), {"prompt": "1 and 2", "completion": 3}])
    with pytest.raises(DataError, match="rows.jsonl:41"):
        pegbox.train(chat_recipe(model, file), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_examples_share_nothing_where_training_draws_noise(model: Path, rows: Path) -> None:
    for dropout, shared in ((0.0, True), (0.1, False)):
        recipe = chat_recipe(model, rows, method={"kind": "lora", "r": 4, "lora_dropout": dropout})
        assert pipeline.get_ready(pegbox.Recipe.model_validate(recipe)).plan.share_prefix is shared
