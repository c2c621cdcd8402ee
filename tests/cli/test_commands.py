"""Every command, as a person meets it: what it prints, its exit code, and one message for each mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny_folder import sums, write_rows
from typed import pegbox, refused, write_recipe


def test_train_says_the_verdict_and_where_the_report_is(home: Path) -> None:
    done = pegbox("train", "recipe.yaml", "train.max_steps=2", "--run-dir", "said", cwd=home)
    assert done.returncode == 0, done.stderr
    for words in ("verdict:", "tuned", "base_few_shot", "report.html", "95 % intervals"):
        assert words in done.stdout
    assert "training" in done.stderr
    assert "2/2" in done.stderr


def test_check_prints_the_rows_and_the_plan(home: Path) -> None:
    done = pegbox("check", "recipe.yaml", "--json", cwd=home)
    found = json.loads(done.stdout)
    assert sum(found["rows"].values()) == 120
    assert found["plan"]["updates"] > 0
    assert "plan:" in pegbox("check", "recipe.yaml", cwd=home).stdout


def test_preview_marks_exactly_what_is_trained(home: Path) -> None:
    found = json.loads(pegbox("preview", "recipe.yaml", "--rows", "2", "--json", cwd=home).stdout)["examples"]
    rows = {f"rows.jsonl:{number}": row for number, row in enumerate(sums(120), start=1)}
    assert len(found) == 2
    for example in found:
        trained = "".join(piece["text"] for piece in example["pieces"] if piece["weight"])
        row = next(row for where, row in rows.items() if example["id"].endswith(where))
        assert trained == row["completion"] + "<|im_end|>"
    assert f"«{trained}»" in pegbox("preview", "recipe.yaml", "--rows", "2", cwd=home).stdout


def test_predict_writes_an_answer_a_row_and_overwrites_nothing(home: Path) -> None:
    write_rows(home / "asked.jsonl", [{"prompt": "1 and 2"}, {"prompt": "3 and 4"}])
    done = pegbox("predict", "run", "--data", "asked.jsonl", "--out", "answers.jsonl", "--json", cwd=home)
    assert json.loads(done.stdout) == {"rows": 2, "out": "answers.jsonl"}
    lines = [json.loads(line) for line in (home / "answers.jsonl").read_text().splitlines()]
    assert [line["input"] for line in lines] == ["1 and 2", "3 and 4"]
    before = (home / "answers.jsonl").read_bytes()
    refused(pegbox("predict", "run", "--data", "asked.jsonl", "--out", "answers.jsonl", cwd=home), 2, "answers.jsonl")
    assert (home / "answers.jsonl").read_bytes() == before


def test_evaluate_scores_again_by_another_metric(home: Path) -> None:
    before = json.loads((home / "run" / "receipt.json").read_text())["test_scored"]
    found = json.loads(pegbox("evaluate", "run", "--metric", "chrf", "--json", cwd=home).stdout)
    assert found["primary"] == "chrf"
    assert json.loads((home / "run" / "receipt.json").read_text())["test_scored"] == before + 1
    refused(pegbox("evaluate", "run", "--metric", "chrff", cwd=home), 2, "chrf")


def test_the_schema_is_that_of_the_recipe() -> None:
    assert "learning_rate" in json.dumps(json.loads(pegbox("schema").stdout))


def test_require_better_exits_with_five(home: Path) -> None:
    words = ("train", "recipe.yaml", "train.max_steps=1", "train.learning_rate=1e-9", "--run-dir", "strict")
    done = pegbox(*words, "--require-better", cwd=home)
    assert done.returncode == 5
    assert "verdict" in done.stderr


# ---- mistakes -------------------------------------------------------------------------------------------------------


def test_a_wrong_recipe_key(home: Path) -> None:
    write_recipe(home, "wrong.yaml", {"trian": {"max_steps": 1}})
    refused(pegbox("train", "wrong.yaml", "--run-dir", "no", cwd=home), 2, "trian", "did you mean", "train")
    done = pegbox("train", "recipe.yaml", "train.lerning_rate=1", "--run-dir", "no", "--json", cwd=home)
    refused(done, 2, "lerning_rate", "learning_rate")
    assert json.loads(done.stdout)["error"]["exit_code"] == 2
    assert not (home / "no").exists()


def test_no_recipe_or_two_ways_at_once(home: Path) -> None:
    refused(pegbox("train", cwd=home), 2)
    refused(pegbox("train", "none.yaml", cwd=home), 2, "none.yaml")
    refused(pegbox("train", "recipe.yaml", "--resume", "run", cwd=home), 2)
    refused(pegbox("train", "--resume", "nowhere", cwd=home), 2, "nowhere")


BAD_ROWS = {
    "not JSON": ('{"prompt": "a"', 3, "rows:121"),
    "no answer": ('{"prompt": "a"}', 3, "rows:121"),
    "masked": (json.dumps({"messages": [{"role": "user", "content": "a"}]}), 3, "no trained token"),
    "weight 0": (
        json.dumps(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
        ),
        3,
        "no trained token",
    ),
    "too long": (json.dumps({"prompt": "word " * 1300, "completion": "b"}), 3, "tokens"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_row_that_cannot_be_trained_is_refused_by_its_place(home: Path, tmp_path: Path, kind: str) -> None:
    line, code, told = BAD_ROWS[kind]
    text = (home / "rows.jsonl").read_text() + line + "\n"
    (tmp_path / "bad.jsonl").write_text(text, encoding="utf-8")
    done = pegbox("train", "recipe.yaml", f"data.train={tmp_path / 'bad.jsonl'}", "--run-dir", "no", cwd=home)
    refused(done, code, "bad.jsonl:121", told.replace("rows:121", "bad.jsonl:121"))
    assert not (home / "no").exists()


@pytest.mark.parametrize(
    ("name", "told"), [("missing.jsonl", "no such"), ("empty.jsonl", "empty"), ("rows.docx", "docx")]
)
def test_a_file_that_cannot_be_read_is_named(home: Path, name: str, told: str) -> None:
    if name != "missing.jsonl":
        (home / name).write_text("" if name == "empty.jsonl" else "words", encoding="utf-8")
    done = pegbox("check", "recipe.yaml", f"data.train={name}", cwd=home)
    refused(done, 3, name, told)


def test_a_model_that_is_nowhere(home: Path) -> None:
    refused(pegbox("check", "recipe.yaml", "model=./gone", cwd=home), 2, "gone")


# ---- stops and ranks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on_to_the_same_end(
    home: Path, tmp_path: Path, signum: int, code: int
) -> None:
    words = ["train", "recipe.yaml", "train.num_train_epochs=12", "train.eval_steps=1000", "--run-dir"]
    command = [sys.executable, "-c", "from pegbox.cli import main; main()", *words, str(tmp_path / "stopped")]
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = tmp_path / "stopped" / "metrics.jsonl"
    until = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signum)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "--resume" in told
    assert any((tmp_path / "stopped" / "checkpoints").glob("step-*/manifest.json"))
    done = pegbox("train", "--resume", tmp_path / "stopped", cwd=home)
    assert done.returncode == 0, done.stderr
    whole = pegbox(*words, tmp_path / "whole", cwd=home)
    assert whole.returncode == 0, whole.stderr
    assert log.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_two_processes_under_torchrun_make_one_run(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    words = [sys.executable, "-c", "from pegbox.cli import main; main()", "train", "recipe.yaml", "--json"]
    done = subprocess.run(
        [*command, *words, "--run-dir", str(tmp_path / "two")], cwd=home, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"] == "chat"
    one, two = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (home / "run", tmp_path / "two")
    )
    assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in two], abs=1e-4)
    assert [line.get("tokens") for line in one] == [line.get("tokens") for line in two]
    alone = subprocess.run([*command, *words], cwd=home, capture_output=True, text=True, timeout=120)
    assert alone.returncode != 0
    assert "--run-dir" in alone.stderr


def test_check_writes_a_cleaned_copy_that_is_trained_from(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    done = pegbox("check", "recipe.yaml", "--fix", str(out), "--redact", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "cleaned copy:" in done.stdout and f"pegbox train {out}/recipe.yaml" in done.stdout
    assert {path.name for path in out.iterdir()} == {"train.jsonl", "changes.jsonl", "recipe.yaml"}
    told = json.loads(pegbox("check", str(out / "recipe.yaml"), "--json", cwd=home).stdout)
    assert sum(told["rows"].values()) == 120
    refused(pegbox("check", "recipe.yaml", "--redact", cwd=home), 2, "--fix")
