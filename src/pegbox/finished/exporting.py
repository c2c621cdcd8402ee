"""`pegbox export`: a run's model in the form that other programs read, and proof that it is the model that was measured.

Each export is written beside its place, loaded in a fresh process by the library that will load it, and asked test rows: its
logits and greedy answers are held against those of the model as pegbox evaluated it. Only one that passes is moved to its
place. Where numbers were rounded on the way, all test rows are answered once more, and what that costs is reported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pegbox.data.formats import with_placeholder
from pegbox.data.records import Record, Row
from pegbox.errors import ChangedError, RecipeError
from pegbox.evaluation.score import score
from pegbox.export import compare, reload
from pegbox.export.probe import PLACES, Job, Said
from pegbox.export.reload import served
from pegbox.finished.forms import FORMATS, Format
from pegbox.finished.intact import Subject, evenly
from pegbox.finished.run import Run
from pegbox.kernels import linear
from pegbox.models.generation import CLOSE
from pegbox.progress import bar, step
from pegbox.runs import checkpoint
from pegbox.tasks.asked import Asked
from pegbox.tasks.language import LanguageTask

REPORT = "export.json"
ROWS = 16  # test rows that are asked
EXPORTED = "exported"


def export(run: Run, formats: Sequence[str], out: Path, *, rows: int = ROWS) -> dict[str, Any]:
    """Write a run's model into `out/FORMAT` for each format, verified; returns what `out/export.json` holds of them.

    `rows`: how many test rows, evenly spaced, are asked. Raises RecipeError where a format does not exist, cannot hold the
    model, or has its place taken; ChangedError where an export is not the model that was measured: it is not kept.
    """
    run.refuse_unfinished()
    formats = list(dict.fromkeys(formats))
    _refuse(formats, out)
    _refuse_changed(run)
    report = out / REPORT
    known, found = _known(report), {}
    lines = list(run.folder.read_lines("predictions.jsonl"))
    chosen = evenly(lines, rows)
    records = _records(run, lines)
    by_id = dict(zip([line["id"] for line in lines], records or [], strict=False))
    with step("the measured model asked"):
        measured = _Measured.of(run, chosen, [by_id.get(line["id"]) or _typed(run, line) for line in chosen])
    out.mkdir(parents=True, exist_ok=True)
    for name in formats:
        found[name] = {"run": str(run.path.absolute())} | _one(run, name, out, measured, records)
        report.write_text(json.dumps({"formats": known | found}, indent=2) + "\n", encoding="utf-8")
    return {"run": str(run.path), "out": str(out), "formats": found}


def _known(report: Path) -> dict[str, Any]:
    """The formats that are there already. Raises RecipeError for somebody else's file of that name."""
    if not report.is_file():
        return {}
    try:
        known: dict[str, Any] = json.loads(report.read_text("utf-8"))["formats"]
        if all("checked" in told for told in known.values()):
            return known
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise RecipeError("this file is none of pegbox's", where=str(report), cure="give a new folder with --out")


def _refuse_changed(run: Run) -> None:
    """Raise ChangedError where the run's model is not the one that was measured."""
    known = run.receipt["model_files"]
    if odd := [name for name, digest in checkpoint.hashes(run.folder.model) if known.get(name) != digest]:
        cure = "put back the files that the run wrote; `pegbox verify` lists what is not as it was"
        raise ChangedError(
            f"the model has changed since it was measured: {', '.join(odd)}", where=str(run.path), cure=cure
        )


def _records(run: Run, lines: Sequence[Mapping[str, Any]]) -> list[Record] | None:
    """The test rows of the predictions; None where their files are not there as they were."""
    known = Subject(run.folder, run.receipt, 0).records or {}
    return [known[line["id"]] for line in lines] if all(line["id"] in known for line in lines) else None


def _typed(run: Run, line: Mapping[str, Any]) -> Record:
    """The row again as far as its prediction shows it: enough to ask both models the same."""
    task = run.task
    roles = task.typed(line["input"])
    if isinstance(task, LanguageTask) and not task.state().get("plain"):
        roles = {"prompt": line["input"], "completion": line["reference"]}
    values = with_placeholder(roles, task.kind, {})
    return run.record_asked(Row(line["id"], values), {}, run.recipe.data.instruction)


def _refuse(formats: Sequence[str], out: Path) -> None:
    if odd := [name for name in formats if name not in FORMATS]:
        raise RecipeError(f"no such format: {', '.join(odd)}", where="--format", cure=f"choose of {', '.join(FORMATS)}")
    if taken := [name for name in formats if (out / name).exists()]:
        raise RecipeError(f"{out / taken[0]} exists already", where="--out", cure="give a new folder with --out")
    if out.exists() and not out.is_dir():
        raise RecipeError("is a file", where=str(out), cure="give a folder with --out")


@dataclass(frozen=True)
class _Measured:
    """What the model that was measured says to some test rows. `close[i]`: rounding may turn its answer to row i."""

    asked: Sequence[Asked]
    texts: Sequence[str]
    said: Said
    close: Sequence[bool]

    @classmethod
    def of(cls, run: Run, lines: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> _Measured:
        """Ask it; `lines` are those of the run's predictions, `records` the same rows. The model is let go of after."""
        model, task = run.load_tuned(), run.task
        asked = [task.asked(model, task.encode(record)) for record in records]
        asked = [replace(row, places=row.places[:PLACES]) for row in asked]
        texts, renderer = [str(line["input"]) for line in lines], task.renderer
        answers = task.written(model, asked, run.recipe.evaluate.max_new_tokens or 1)
        serving = served(renderer.tokenizer, sorted(renderer.stop_ids) if answers else [], texts)
        logits = [reload.logits(model, row) for row in asked]
        said = Said(logits, [answer.input_ids for answer in answers], serving)
        return cls(asked, texts, said, [answer.margin < CLOSE for answer in answers])


def _one(run: Run, name: str, out: Path, measured: _Measured, records: Sequence[Record] | None) -> dict[str, Any]:
    """Write one format beside its place, check it, and move it there."""
    form = FORMATS[name]
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out) as work:
        draft = Path(work) / name
        draft.mkdir()
        with step(f"{name} written"):
            loaded = _written(form, run, draft)
        job = Job(
            way=form.way(run),
            export=str(loaded),
            base=str(run.base_folder),
            head=run.task.head,
            labels=run.task.labels,
            quantization=run.recipe.model.quantization,
            rows=measured.asked,
            texts=measured.texts,
            max_new_tokens=(run.recipe.evaluate.max_new_tokens or 0) if measured.said.answers else 0,
            stop_ids=sorted(run.task.renderer.stop_ids),
            never=run.task.never_said,
        )
        with step(f"{name} loaded in a fresh process, and asked"):
            outputs = compare.OUTPUTS.get(run.task.problem_type or run.task.head, compare.categorical)
            found = compare.difference(measured.said, _ask(job, Path(work)), measured.close, outputs)
        if fault := compare.fault(found, form.mean_kl, exact=form.exact):
            cure = "this is a fault of pegbox or of the library that loads it: please report it; nothing was kept"
            raise ChangedError(f"the export is not the model that was measured: {fault}", where=name, cure=cure)
        size = sum(file.stat().st_size for file in draft.rglob("*") if file.is_file())
        told = {"files": dict(checkpoint.hashes(draft)), "bytes": size}
        told |= {"exact": form.exact, "checked": {"rows": len(measured.asked), **found.to_json()}}
        if records is None and not form.exact:
            told["not_scored"] = "the test rows are not there as they were"
        elif records is not None and not form.exact:
            with step(f"{name} scored on the test rows"):
                told["score"] = _scored(run, job, records)
        draft.rename(out / name)
    return told


def _written(form: Format, run: Run, draft: Path) -> Path:
    """What is to be loaded. Raises RecipeError, of the run and not of a folder on the way, where it cannot be written."""
    try:
        return form.write(run, draft)
    except RecipeError as error:
        raise RecipeError(error.what, where=str(run.path), cure=error.cure) from error


def _ask(job: Job, work: Path) -> Said:
    """What an export says in a process of its own, which has nothing of this one but the job's file."""
    job.write(work)
    command = [sys.executable, "-m", "pegbox.export.reload", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ChangedError(f"the export cannot be loaded: {last}", where=job.export, cure="please report it")
    return Said.read(work)


def _scored(run: Run, job: Job, records: Sequence[Record]) -> dict[str, Any]:
    """The export's score on the test rows beside the tuned model's; `loss`: how much less it is, with its interval."""
    tokens, primary = run.recipe.evaluate.max_new_tokens or 1, run.recipe.evaluate.primary
    assert primary is not None
    model = reload.load(job)
    linear.install(model)
    with bar("export", len(records)) as shown:
        given = run.task.predict(model, records, max_new_tokens=tokens, advance=shown.advance)
    lines = [
        {**line, "answers": {"tuned": line["answers"]["tuned"], EXPORTED: answer}, "probabilities": {}}
        for line, answer in zip(run.folder.read_lines("predictions.jsonl"), given.answers, strict=True)
    ]
    for line, kept, sure in zip(lines, run.folder.read_lines("predictions.jsonl"), given.probabilities, strict=False):
        line["probabilities"] = {"tuned": kept["probabilities"]["tuned"], EXPORTED: sure}
    found = score(run.task.kind, lines, primary=primary, metrics=(primary,), seed=run.recipe.seed)
    loss = {key: found["comparison"][key] for key in ("difference", "low", "high")}
    return {"metric": found["primary"], "rows": len(lines), "loss": loss} | {
        name: found["systems"][name][found["primary"]] for name in ("tuned", EXPORTED)
    }
