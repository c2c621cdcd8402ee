"""`pegbox verify`: is a run still what was measured?

First the hashes: every file of the run, its rows, the tuned and the untouched model, against the receipt. Then what
hashes cannot tell: `predictions.jsonl` must hold the test rows as the data has them, `evaluation.json` is computed again
from it, and the tuned model, loaded anew, is asked some of the rows again. The receipt is what the hashes are held
against: where somebody rewrites it with care, only these last checks notice.

A check that fails says that something is another than it was. One that cannot be done (rows that were moved, a model
that is not on this machine) is left open: that is no proof of a change. How often the test rows were scored is no part
of this: `pegbox evaluate` counts on.

Greedy answers hang on the order of floating-point sums. In float32 on the device of the run, an answer may turn only
where its two best logits were closer than rounding both times (models/generation.py counts those). In bfloat16, or on
another device, logits move by about a hundredth: there the check is left open unless half of the answers differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pegbox import runtime
from pegbox.errors import RecipeError
from pegbox.evaluation import systems
from pegbox.finished import intact
from pegbox.finished.intact import PUT_BACK, Finding, Subject, evenly, listed
from pegbox.finished.scoring import score_run
from pegbox.models import load as models
from pegbox.progress import bar
from pegbox.runs import receipt
from pegbox.runs.folder import RunFolder

NEEDED = ("data", "model", "versions", "hardware", "task")  # of the receipt, from the beginning
GENERATION = "generation_config.json"  # names the tokens at which an answer ends
# how far a number that a model computed (a log-likelihood) may be from what it was, as a share of it
FLOAT32, BFLOAT16 = 1e-4, 2e-2
SUMMATION = 1e-9  # likewise for a number that is computed from answers
ROWS_BACK = "put the rows back where they were"


def verify(run_dir: str | Path, rows: int = 16) -> dict[str, Any]:
    """Check a finished run: `{"run": , "ok": , "checks": [{"check": , "ok": , "message": , "cure": }, ...]}`.

    `rows`: how many test rows, evenly spaced, are asked again. `ok` is False where a check failed (its `ok` is False); a
    check whose `ok` is None could not be done. Nothing in the folder changes. Raises RecipeError where there is no run,
    or one that is not finished.
    """
    folder = RunFolder.open(Path(run_dir))
    try:
        told = folder.read_json("receipt.json")
        fault = _lacking(told)
    except ValueError as error:
        told, fault = {}, f"receipt.json cannot be read: {error}"
    if not fault and "files" not in told and not (folder.path / "evaluation.json").is_file():
        cure = f"finish the run with `pegbox train --resume {folder.path}`"
        raise RecipeError("the run is not finished: nothing was measured yet", where=str(folder.path), cure=cure)
    subject = Subject(folder, told, rows)
    if fault:
        subject.found["receipt"] = Finding(False, fault, PUT_BACK)
        return subject.to_json()
    with bar("verify", len(CHECKS), "checks") as shown:
        for name, check in CHECKS.items():
            subject.look(name, check)
            shown.advance(1, name)
    subject.look("answers", _answers)  # with a bar of its own
    return subject.to_json()


def _lacking(told: Any) -> str | None:
    """What a receipt lacks to be one."""
    if not isinstance(told, dict):
        return "receipt.json is no receipt"
    lacking = [key for key in NEEDED if key not in told]
    return f"receipt.json lacks {', '.join(lacking)}" if lacking else None


def _tokenizer(subject: Subject) -> Finding:
    """Served as trained: the chat template and the tokens that end an answer, read from the saved model."""
    known, folder = subject.receipt["model"], subject.folder.model
    stops = sorted(models.stop_ids(folder)) if GENERATION in subject.receipt["model_files"] else known["stop_ids"]
    wrong = []
    if receipt.text_hash(str(models.load_tokenizer(folder).chat_template or "")) != known["template"]:
        wrong.append("the chat template is not that of training")
    if stops != known["stop_ids"]:
        wrong.append(f"answers end at the tokens {stops}, in training at {known['stop_ids']}")
    if wrong:
        return Finding(False, "; ".join(wrong), PUT_BACK)
    return Finding(True, "the chat template and the tokens that end an answer are those of training")


def _test_rows(subject: Subject) -> Finding:
    """The predictions are of the rows that were set aside, with the inputs, references and groups that these have."""
    if not subject.lines:
        return Finding(None, "cannot be checked: there are no predictions", PUT_BACK)
    if subject.records is None:
        return Finding(None, "cannot be checked: the test rows are not there as they were", ROWS_BACK)
    recipe, task = subject.run.recipe, subject.run.task
    rows = systems.choose(list(subject.records.values()), recipe.evaluate.max_rows, recipe.seed)
    if [line["id"] for line in subject.lines] != [row.where for row in rows]:
        return Finding(False, "predictions.jsonl is not of the rows that were set aside for the test", PUT_BACK)
    units = systems.units(rows, recipe)
    right = [(task.shown(row), task.reference(row), unit) for row, unit in zip(rows, units, strict=True)]
    told = [(line["input"], line["reference"], line["unit"]) for line in subject.lines]
    odd = [row.where for row, one, other in zip(rows, right, told, strict=True) if one != other]
    if odd:
        said = f"predictions.jsonl has another input, right answer or group than the data: {listed(odd)}"
        return Finding(False, said, PUT_BACK)
    return Finding(True, f"{len(rows)}, with the inputs, right answers and groups that the data has")


def _evaluation(subject: Subject) -> Finding:
    """The numbers and the verdict follow from the answers."""
    if not (subject.folder.path / "predictions.jsonl").is_file():
        return Finding(None, "cannot be computed again: predictions.jsonl is missing", PUT_BACK)
    again = json.loads(json.dumps(score_run(subject.run)))
    wrong = list(_differences({key: subject.evaluation.get(key) for key in again}, again))
    if wrong:
        return Finding(False, f"evaluation.json does not follow from the answers: {listed(wrong)}", PUT_BACK)
    return Finding(True, f'every number follows from the answers, and the verdict "{again["verdict"]}"')


def _differences(kept: Any, again: Any, where: str = "") -> Iterator[str]:
    """Where two JSON values differ; numbers by more than the order of summation."""
    if isinstance(kept, dict) and isinstance(again, dict):
        for key in dict.fromkeys((*kept, *again)):
            yield from _differences(kept.get(key), again.get(key), f"{where}.{key}" if where else key)
    elif not _alike(kept, again, SUMMATION):
        yield f"{where} is {kept} and comes out as {again}"


def _alike(one: Any, other: Any, tolerance: float, size: float = 0.0) -> bool:
    """Whether two JSON values are the same, numbers within a share of themselves, or of `size`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key], tolerance, size) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_alike(*pair, tolerance, size) for pair in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance * size) or (
            math.isnan(one) and math.isnan(other)
        )
    return bool(one == other)


def _size(answers: Any) -> float:
    """The largest number among answers: of those near zero, rounding is no share of themselves but of this."""
    if isinstance(answers, list):
        return max(map(_size, answers), default=0.0)
    return abs(answers) if isinstance(answers, float) and math.isfinite(answers) else 0.0


def _versions(subject: Subject) -> Finding:
    """A note, never a fault: other versions may round otherwise."""
    known, now = subject.receipt["versions"], receipt.versions()
    other = [f"{name} {known[name]}, now {now.get(name)}" for name in known if known[name] != now.get(name)]
    if other:
        return Finding(
            None, f"not those of the run: {'; '.join(other)}", "where answers differ, try with those of the run"
        )
    return Finding(True, "those of the run")


CHECKS: Mapping[str, Callable[[Subject], Finding]] = {
    "run files": intact.run_files,
    "data files": intact.data_files,
    "model files": intact.model_files,
    "base model": intact.base_model,
    "checkpoints": intact.checkpoints,
    "tokenizer": _tokenizer,
    "test rows": _test_rows,
    "evaluation": _evaluation,
    "versions": _versions,
}


def _answers(subject: Subject) -> Finding:
    """The tuned model, loaded anew, answers test rows as it did."""
    lines, records = subject.lines, subject.records
    count = min(subject.rows, len(lines))
    if count == 0:
        return Finding(None, "no row was asked again", "ask some with --rows")
    if subject.found["base model"].ok is not True:
        return Finding(None, "cannot be asked: the model is loaded over its base, which is not there as it was")
    chosen = evenly(lines, count)
    if records is None:
        return Finding(None, "cannot be asked: the test rows are not there as they were", ROWS_BACK)
    run, close = subject.run, subject.evaluation["close_calls"]["tuned"]
    asked = lines if run.task.joint else chosen  # where an answer hangs on what else is asked, all of it is
    given, device = run.answers([records[line["id"]] for line in asked]), run.model.device
    exact = device.type == subject.receipt["hardware"]["device"] and not runtime.use_bf16(device, run.recipe.train.bf16)
    now = dict(zip([line["id"] for line in asked], json.loads(json.dumps(given.answers)), strict=True))
    tolerance, size = FLOAT32 if exact else BFLOAT16, _size([line["answers"]["tuned"] for line in lines])
    odd = [line["id"] for line in chosen if not _alike(line["answers"]["tuned"], now[line["id"]], tolerance, size)]
    return _weighed(odd, count, rounding=min(given.close, close), exact=exact)


def _weighed(odd: Sequence[str], count: int, *, rounding: int, exact: bool) -> Finding:
    """What rows with another answer mean; `rounding` of them may differ for no other reason."""
    if not odd:
        return Finding(True, f"{count} test rows are answered as they were")
    told = f"{len(odd)} of {count} test rows are answered otherwise: {listed(odd)}"
    if len(odd) <= rounding:
        return Finding(True, f"{told}, where less than rounding decides")
    if not exact and 2 * len(odd) < count:
        cure = "verify on the device of the run and with its versions"
        return Finding(None, f"{told}; in bfloat16 or on another device that may be rounding", cure)
    return Finding(False, told, PUT_BACK)
