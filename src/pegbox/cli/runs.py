"""The commands that take finished runs. Heavy imports stand inside, so that `pegbox --help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli.app import AsJson, Metric, RunDir, command, say
from pegbox.errors import ChangedError, RecipeError


@command("pegbox chat runs/first", "pegbox chat runs/first --sample --max-new-tokens 400")
def chat(
    run: RunDir,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="length of an answer; default: 256")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="draw each token instead of taking the likeliest")] = False,
) -> None:
    """Talk to the tuned model.

    /base shows what the untouched model says to the same; /help lists the other words.
    """
    from pegbox.cli.chat import chat as talk

    talk(run, max_new_tokens=max_new_tokens or 256, do_sample=sample)


@command("pegbox predict runs/first --data new.jsonl --out answers.jsonl")
def predict(
    run: RunDir,
    data: Annotated[str, typer.Option(help="rows like those of training, without answers; - is stdin")],
    out: Annotated[str, typer.Option(help="a new file, .jsonl, .json, .csv, .tsv or .parquet; - is stdout")],
    as_json: AsJson = False,
) -> None:
    """Answer the rows of a file with the tuned model.

    Stopped in the middle, the same command goes on from there.
    """
    from pegbox.finished.predicting import STANDARD
    from pegbox.finished.predicting import predict as run_predict

    count = run_predict(run, data, out)
    if out != STANDARD:
        say({"rows": count, "out": out}) if as_json else print(f"{count} answers in {out}")


@command("pegbox evaluate runs/first --metric token_f1", "pegbox evaluate runs/first --data harder.jsonl")
def evaluate(
    run: RunDir,
    data: Annotated[Path | None, typer.Option(help="other rows than the test rows")] = None,
    metric: Metric = None,
    as_json: AsJson = False,
) -> None:
    """Score a run again: from its saved predictions, or on other rows."""
    from pegbox.cli import screen
    from pegbox.pipeline import evaluate as run_evaluate

    found = run_evaluate(run, data=str(data) if data else None, metric=metric)
    say(found) if as_json else screen.evaluation(found)


@command("pegbox compare runs/first runs/second", "pegbox compare runs/* --metric chrf --out comparison.html")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="run folders")],
    metric: Metric = None,
    out: Annotated[Path | None, typer.Option(help="write a page like the report; never over a file")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs, paired on the test rows that they share."""
    from pegbox.cli import screen
    from pegbox.finished.comparing import compare as run_compare

    if out is not None and out.exists():
        raise RecipeError("the file exists already", where=str(out), cure="give another name with --out")
    found = run_compare(runs, metric=metric)
    if out is not None:
        from pegbox.report.comparison import comparison_page

        with out.open("x", encoding="utf-8") as file:
            file.write(comparison_page(found))
    say(found) if as_json else screen.comparison(found)


@command("pegbox verify runs/first", "pegbox verify runs/first --rows 1000")
def verify(
    run: RunDir,
    rows: Annotated[int, typer.Option(min=0, help="test rows that are asked again")] = 16,
    as_json: AsJson = False,
) -> None:
    """Check that a run is still what was measured.

    Its files by their hashes, its numbers from its answers, and its model by asking it again.
    """
    from pegbox.cli import screen
    from pegbox.finished.verifying import verify as run_verify

    found = run_verify(run, rows)
    say(found) if as_json else screen.verified(found)
    if not found["ok"]:
        raise ChangedError("the run is not what was measured", where=str(run), cure="see the checks that failed")


@command(
    "pegbox export runs/first --format merged --out exported",
    "pegbox export runs/first --format gguf,gguf-q8_0 --out exported",
    "pegbox export runs/first --format adapter,merged-bf16,onnx --out exported --rows 100",
)
def export(
    run: RunDir,
    out: Annotated[Path, typer.Option(help="a folder; each format gets a new one inside it")],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="one or several: adapter, merged, merged-bf16, merged-f16, gguf, gguf-q8_0, gguf-q4_0, onnx",
        ),
    ] = "merged",
    rows: Annotated[int, typer.Option(min=1, help="test rows that the export is asked")] = 16,
    as_json: AsJson = False,
) -> None:
    """Write the model for other programs, each copy checked.

    Each export is loaded in a fresh process and asked test rows; one that says something else is not kept.
    """
    from pegbox.cli import screen
    from pegbox.finished.exporting import export as run_export
    from pegbox.finished.run import Run

    found = run_export(Run(run), [name.strip() for name in formats.split(",")], out, rows=rows)
    say(found) if as_json else screen.exported(found)


@command("pegbox runs", "pegbox runs experiments --json")
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where runs lie, at any depth")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List runs with their scores and verdicts."""
    from pegbox.cli import screen
    from pegbox.runs.listing import list_runs

    found = list_runs(folder)
    say({"runs": found}) if as_json else screen.runs(found)
