"""`verify`: a run that nobody touched holds; one byte anywhere, or another model, is told by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pegbox
from pegbox.errors import RecipeError
from pegbox.finished import Run, verifying
from pegbox.finished.scoring import score_run
from pegbox.finished.verifying import verify
from pegbox.runs import checkpoint, receipt
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows

TRAIN = {"num_train_epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "save_steps": 4}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    causal_folder(folder / "causal")
    encoder_folder(folder / "encoder")
    write_rows(folder / "chat.jsonl", sums(80))
    write_rows(folder / "texts.jsonl", [{"text": f"the dog sleeps and {row['prompt']} the light"} for row in sums(60)])
    words = ("turn on the light", "the dog sleeps")
    labelled = [{"text": f"{words[n % 2]} {row['prompt']}", "label": "yn"[n % 2]} for n, row in enumerate(sums(60))]
    write_rows(folder / "labels.jsonl", labelled)
    return folder


@pytest.fixture(scope="module")
def chat(home: Path) -> Path:
    return trained(home, "chat")


def trained(home: Path, name: str, **changes: Any) -> Path:
    recipe = chat_recipe(home / "causal", home / "chat.jsonl", train=TRAIN)
    return pegbox.train(recipe | changes, run_dir=home / "runs" / name).path


@pytest.fixture
def run(chat: Path, tmp_path: Path) -> Path:
    """A copy of the chat run that a test may spoil."""
    return Path(shutil.copytree(chat, tmp_path / "run"))


def found(run: Path, rows: int = 0) -> dict[str, Any]:
    return {check["check"]: check for check in verify(run, rows)["checks"]}


def failed(run: Path, rows: int = 0) -> list[str]:
    return [name for name, check in found(run, rows).items() if check["ok"] is False]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@contextmanager
def flipped(file: Path) -> Iterator[None]:
    before = file.read_bytes()
    flip(file)
    yield
    file.write_bytes(before)


def forge(run: Path, **changes: Any) -> None:
    """What a forger would do after changing files: a receipt with the hashes that they have now."""
    told = json.loads((run / "receipt.json").read_text())
    hashes = {"files": receipt.record_hashes(run), "model_files": dict(checkpoint.hashes(run / "model"))}
    (run / "receipt.json").write_text(json.dumps(told | hashes | changes))


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# ---- a run that holds -----------------------------------------------------------------------------------------------


def bytes_of(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("task", "method", "model", "rows"),
    [
        ("chat", {"kind": "lora", "r": 4}, "causal", "chat"),
        ("completion", {"kind": "full"}, "causal", "texts"),
        ("classification", {"kind": "full"}, "encoder", "labels"),
        ("classification", {"kind": "lora", "r": 4}, "encoder", "labels"),
    ],
)
def test_a_run_that_nobody_touched_holds_and_is_not_changed(
    home: Path, task: str, method: dict[str, Any], model: str, rows: str
) -> None:
    data = {"train": str(home / f"{rows}.jsonl"), "validation": 0.2, "test": 0.3}
    parts = {"model": str(home / model), "task": task, "data": data, "method": method}
    path = trained(home, f"{task}-{method['kind']}", **parts)
    before = bytes_of(path)
    told = verify(path)
    assert told["ok"] and told["run"] == str(path)
    assert [check["check"] for check in told["checks"]] == [*verifying.CHECKS, "answers"]
    assert all(check["ok"] is True and check["message"] and check["cure"] is None for check in told["checks"])
    asked = min(16, len((path / "predictions.jsonl").read_text().splitlines()))
    assert told["checks"][-1]["message"] == f"{asked} test rows are answered as they were"
    assert bytes_of(path) == before
    json.dumps(told)


def test_scoring_again_and_asking_leave_a_run_verified(run: Path) -> None:
    pegbox.evaluate(run)
    pegbox.evaluate(run, metric="chrf")
    Run(run).predict([{"prompt": "3 and 4"}])
    told = verify(run)
    assert told["ok"] and all(check["ok"] for check in told["checks"])
    assert Run(run).receipt["test_scored"] == 3


def test_a_resumed_run_is_verified(run: Path) -> None:
    from pegbox import pipeline

    (run / "evaluation.json").unlink()
    pipeline.resume(run)
    assert verify(run)["ok"]


# ---- one byte --------------------------------------------------------------------------------------------------------


def test_one_byte_of_any_file_of_the_run_is_noticed_and_named(run: Path) -> None:
    checked = {"": "run files", "model": "model files", "checkpoints": "checkpoints"}
    made_from_these = {"receipt.json", "report.html", "README.md", "tensorboard"}
    files = [
        path for path in run.rglob("*") if path.is_file() and path.relative_to(run).parts[0] not in made_from_these
    ]
    assert len(files) > 20
    for file in files:
        inside = file.relative_to(run)
        check = checked[inside.parts[0] if len(inside.parts) > 1 else ""]
        named = inside.parts[1] if check == "checkpoints" else file.name
        with flipped(file):
            told = found(run)[check]
            assert told["ok"] is False and named in told["message"] and told["cure"], inside
            moved = file.rename(file.with_name(f".{file.name}"))
            if check == "run files" and file.name != "recipe.yaml":
                assert f"missing: {file.name}" in found(run)[check]["message"]
            moved.rename(file)
    assert failed(run) == []


def test_one_byte_of_the_receipts_hashes_is_noticed(run: Path) -> None:
    text = (run / "receipt.json").read_text()
    told = json.loads(text)
    for check, digest in {
        "run files": told["files"]["timing.jsonl"],
        "model files": told["model_files"]["adapter_config.json"],
        "data files": next(iter(told["data"].values())),
        "base model": told["model"]["files"]["config.json"],
        "tokenizer": told["model"]["template"],
    }.items():
        (run / "receipt.json").write_text(text.replace(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1")))
        assert check in failed(run), check
    (run / "receipt.json").write_text(text[:-9])
    assert failed(run) == ["receipt"]
    (run / "receipt.json").write_text(text.replace('"data":', '"dbta":'))
    assert found(run)["receipt"]["message"] == "receipt.json lacks data"


@pytest.mark.parametrize(("file", "check"), [("chat.jsonl", "data files"), ("causal/model.safetensors", "base model")])
def test_one_byte_outside_the_run_is_noticed(home: Path, run: Path, file: str, check: str) -> None:
    with flipped(home / file):
        told = found(run, rows=4)
        assert [name for name, said in told.items() if said["ok"] is False] == [check]
        assert Path(file).name in told[check]["message"]
        assert told["answers"]["ok"] is None  # a model over another base, or other rows, prove nothing more
    assert failed(run, rows=4) == []


# ---- the model -------------------------------------------------------------------------------------------------------


def test_another_runs_model_is_caught_by_its_hashes_and_by_its_answers(home: Path, run: Path) -> None:
    other = trained(home, "other", seed=43)
    shutil.rmtree(run / "model")
    shutil.copytree(other / "model", run / "model")
    assert failed(run, rows=16) == ["model files", "answers"]
    assert "adapter_model.safetensors" in found(run)["model files"]["message"]
    forge(run)
    told = found(run, rows=16)
    assert [name for name, check in told.items() if check["ok"] is False] == ["answers"]
    assert "of 16 test rows are answered otherwise: " in told["answers"]["message"]
    assert "chat.jsonl:" in told["answers"]["message"]


def test_a_file_beside_the_model_is_noticed(run: Path) -> None:
    (run / "model" / "modeling_tiny.py").write_text("")
    told = found(run)["model files"]
    assert told["ok"] is False and told["message"] == "added: modeling_tiny.py"


def test_a_model_that_ends_its_answers_elsewhere_is_noticed(run: Path) -> None:
    rewrite(run / "model" / "generation_config.json", eos_token_id=[5])
    forge(run)
    told = found(run)["tokenizer"]
    assert told["ok"] is False and "answers end at the tokens [5]" in told["message"]


def test_a_model_with_another_chat_template_is_noticed(run: Path) -> None:
    template = run / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    forge(run)
    assert "chat template" in found(run)["tokenizer"]["message"] and failed(run) == ["tokenizer"]


def with_odd_answers(monkeypatch: pytest.MonkeyPatch, odd: int, close: int) -> None:
    right = Run.answers

    def answers(self: Run, records: Any, *rest: Any) -> Any:
        given = right(self, records, *rest)
        return replace(given, answers=("?",) * odd + given.answers[odd:], close=close)

    monkeypatch.setattr(Run, "answers", answers)


@pytest.mark.parametrize(
    ("odd", "close_now", "close_then", "device", "ok"),
    [
        (1, 0, 0, "cpu", False),
        (1, 1, 0, "cpu", False),
        (1, 0, 1, "cpu", False),
        (1, 1, 1, "cpu", True),
        (2, 1, 2, "cpu", False),
        (3, 0, 0, "cuda", None),
        (4, 0, 0, "cuda", False),
    ],
)
def test_an_answer_may_differ_where_less_than_rounding_decided_both_times(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    odd: int,
    close_now: int,
    close_then: int,
    device: str,
    ok: bool | None,
) -> None:
    rewrite(run / "evaluation.json", close_calls={"tuned": close_then})
    forge(run, hardware={"device": device})
    with_odd_answers(monkeypatch, odd, close_now)
    told = found(run, rows=8)["answers"]
    assert told["ok"] is ok and f"{odd} of 8" in told["message"]


# ---- the numbers -----------------------------------------------------------------------------------------------------


def test_numbers_that_do_not_follow_from_the_answers_are_named(run: Path) -> None:
    kept = json.loads((run / "evaluation.json").read_text())
    tuned = kept["systems"]["tuned"]["exact_match"]
    tuned["value"] += 1e-6
    rewrite(run / "evaluation.json", systems=kept["systems"], verdict="better")
    forge(run)
    told = found(run)["evaluation"]
    assert failed(run) == ["evaluation"]
    assert "systems.tuned.exact_match.value is " in told["message"]
    assert "verdict is better and comes out as not shown" in told["message"]


def test_answers_that_the_model_did_not_give_are_noticed(run: Path) -> None:
    """Forged with care: the answers, the numbers that follow from them, and all hashes."""
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        line["answers"]["tuned"] = line["reference"]
    write_rows(run / "predictions.jsonl", lines)
    close = json.loads((run / "evaluation.json").read_text())["close_calls"]
    (run / "evaluation.json").write_text(json.dumps(score_run(Run(run)) | {"close_calls": close}))
    forge(run)
    assert failed(run) == []
    assert failed(run, rows=8) == ["answers"]


def swap_references(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line | {"reference": line["answers"]["tuned"]} for line in lines]


def spread_units(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line | {"unit": line["unit"] + 100} for line in lines]


def drop_a_row(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return lines[1:]


def name_another_row(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*lines[:-1], lines[-1] | {"id": "chat.jsonl:999"}]


@pytest.mark.parametrize("forged", [swap_references, spread_units, drop_a_row, name_another_row])
def test_rows_that_are_not_those_of_the_data_are_noticed(run: Path, forged: Any) -> None:
    """Forged with care: what would be right, which rows belong together, which rows are asked."""
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    write_rows(run / "predictions.jsonl", forged(lines))
    close = json.loads((run / "evaluation.json").read_text())["close_calls"]
    (run / "evaluation.json").write_text(json.dumps(score_run(Run(run)) | {"close_calls": close}))
    forge(run)
    assert failed(run) == ["test rows"]


@pytest.mark.parametrize(("factor", "ok"), [(1 + 1e-6, True), (1 + 1e-3, False)])
def test_a_likelihood_is_compared_within_rounding(home: Path, tmp_path: Path, factor: float, ok: bool) -> None:
    data = {"train": str(home / "texts.jsonl"), "validation": 0.2, "test": 0.3}
    train = {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3}
    recipe = chat_recipe(home / "causal", home / "texts.jsonl", task="completion", data=data, train=train)
    run = pegbox.train(recipe, run_dir=tmp_path / "run").path
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        line["answers"]["tuned"]["nll"] *= factor
    write_rows(run / "predictions.jsonl", lines)
    (run / "evaluation.json").write_text(json.dumps(score_run(Run(run)) | {"close_calls": {"tuned": 0}}))
    forge(run)
    assert found(run, rows=4)["answers"]["ok"] is ok


# ---- what cannot be told ---------------------------------------------------------------------------------------------


def test_rows_that_were_moved_leave_the_check_open(home: Path, run: Path) -> None:
    moved = (home / "chat.jsonl").rename(home / "moved.jsonl")
    try:
        told = verify(run)
    finally:
        moved.rename(home / "chat.jsonl")
    checks = {check["check"]: check for check in told["checks"]}
    assert told["ok"]
    assert [name for name, check in checks.items() if check["ok"] is None] == ["data files", "test rows", "answers"]
    assert "chat.jsonl" in checks["data files"]["message"] and "put the rows back" in checks["data files"]["cure"]


def test_a_base_model_that_is_not_on_this_machine_leaves_the_check_open(home: Path, run: Path) -> None:
    moved = (home / "causal").rename(home / "away")
    try:
        told = verify(run)
    finally:
        moved.rename(home / "causal")
    checks = {check["check"]: check for check in told["checks"]}
    assert told["ok"] and checks["base model"]["ok"] is None and checks["answers"]["ok"] is None


def test_other_versions_are_a_note(run: Path) -> None:
    told = json.loads((run / "receipt.json").read_text())
    forge(run, versions=told["versions"] | {"torch": "1.0"})
    note = found(run)["versions"]
    assert note["ok"] is None and "torch 1.0, now 2." in note["message"] and verify(run, 0)["ok"]


def test_a_receipt_from_before_there_were_hashes_of_the_runs_files_leaves_the_check_open(run: Path) -> None:
    told = json.loads((run / "receipt.json").read_text())
    told.pop("files")
    (run / "receipt.json").write_text(json.dumps(told))
    assert found(run)["run files"]["ok"] is None and verify(run)["ok"]


def test_checkpoints_may_be_deleted_but_not_be_anothers(home: Path, run: Path) -> None:
    last = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    manifest = checkpoint.manifest_of(last) | {"recipe": "0" * 64}
    (last / "manifest.json").write_bytes(checkpoint.sealed(manifest))
    told = found(run)["checkpoints"]
    assert told["ok"] is False and told["message"] == f"of another recipe: {last.name}"
    shutil.rmtree(run / "checkpoints")
    assert found(run)["checkpoints"]["ok"] is None and verify(run)["ok"]


def test_a_run_that_is_not_finished_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a run folder"):
        verify(tmp_path)
    told = json.loads((run / "receipt.json").read_text())
    (run / "receipt.json").write_text(
        json.dumps({key: told[key] for key in told if key not in ("files", "model_files")})
    )
    (run / "evaluation.json").unlink()
    with pytest.raises(RecipeError, match="not finished"):
        verify(run)


def test_an_error_in_a_run_that_nobody_touched_is_a_bug_of_ours(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipt, "versions", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verify(run)
    flip(run / "timing.jsonl")
    assert "ZeroDivisionError" in found(run)["versions"]["message"]


def test_a_number_near_zero_is_held_to_the_size_of_the_others() -> None:
    answers = [3.0, -4.0, 1e-9]
    assert verifying._size(answers) == 4.0 and verifying._size([[1.0, -2.5], [0.5, 1.0]]) == 2.5
    assert verifying._alike(1e-9, 4e-5, 1e-4, 4.0) and not verifying._alike(1e-9, 4e-5, 1e-4)
    assert not verifying._alike(1e-9, 5e-4, 1e-4, 4.0)
