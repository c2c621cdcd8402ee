"""The commands. Heavy imports stand inside, so that `pegbox --help` is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pegbox.errors import NotBetterError, RecipeError

app = typer.Typer(
    help="Fine-tune pretrained language models, and learn honestly whether it helped.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML recipe")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="key=value ...", help="overrides of recipe keys")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]


def _say(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@app.command()
def demo(
    language: Annotated[str, typer.Option(help="the language of the commands")] = "en",
    run_dir: Annotated[Path | None, typer.Option(help="default: runs/demo-<time>")] = None,
    as_json: AsJson = False,
) -> None:
    """Teach a 135M model to operate a house, and see whether it learnt it: a few minutes on two CPU cores."""
    from pegbox.cli import screen
    from pegbox.demo.run import run_demo

    run = run_demo(language, run_dir)
    _say(run.evaluation | {"run": str(run.path)}) if as_json else screen.demo(run)


@app.command()
def check(recipe: RecipeFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Look at the data and plan the run, without training."""
    from pegbox.cli import screen
    from pegbox.pipeline import check as run_check

    found = run_check(recipe, overrides or ())
    _say(found) if as_json else screen.check(found)


@app.command()
def preview(
    recipe: RecipeFile,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=1, help="how many examples")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show examples as tokens, and which of them are trained."""
    from pegbox.cli import screen
    from pegbox.pipeline import preview as run_preview

    shown = run_preview(recipe, overrides or (), rows)
    _say({"examples": shown}) if as_json else screen.preview(shown)


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="a YAML recipe")] = None,
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="must be new or empty; default: runs/<time>")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="go on with a run")] = None,
    require_better: Annotated[bool, typer.Option(help='exit with 5 unless the verdict is "better"')] = False,
    no_kernels: Annotated[
        bool, typer.Option("--no-kernels", help="plain operations only: slower, for comparison")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train, evaluate and judge: the whole pipeline."""
    from pegbox import pipeline
    from pegbox.cli import screen

    if resume is not None and (recipe, overrides, run_dir) != (None, None, None):
        raise RecipeError("--resume takes the recipe of the run", cure="leave RECIPE, overrides and --run-dir away")
    if resume is not None:
        run = pipeline.resume(resume, kernels=not no_kernels)
    elif recipe is not None:
        run = pipeline.train(recipe, run_dir=run_dir, overrides=overrides or (), kernels=not no_kernels)
    else:
        raise RecipeError("no recipe was given", cure="pegbox train RECIPE, or pegbox train --resume RUN")
    if not pipeline.is_first_rank():
        return
    _say(run.evaluation | {"run": str(run.path)}) if as_json else screen.verdict(run)
    if require_better and run.verdict != "better":
        raise NotBetterError(f'the verdict is "{run.verdict}"', where=str(run.path))


@app.command()
def evaluate(
    run: RunDir,
    data: Annotated[Path | None, typer.Option(help="other rows than the test rows")] = None,
    metric: Annotated[str | None, typer.Option(help="another metric than the recipe's")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a run again: from its saved predictions, or on other rows."""
    from pegbox.cli import screen
    from pegbox.pipeline import evaluate as run_evaluate

    found = run_evaluate(run, data=str(data) if data else None, metric=metric)
    _say(found) if as_json else screen.evaluation(found)


@app.command()
def predict(
    run: RunDir,
    data: Annotated[Path, typer.Option(help="rows like those of training; answers are not needed")],
    out: Annotated[Path, typer.Option(help="a new JSONL file: {id, input, answer} a line")],
    as_json: AsJson = False,
) -> None:
    """Answer the rows of a file with the tuned model."""
    from pegbox.finished.predicting import predict as run_predict

    count = run_predict(run, str(data), out)
    _say({"rows": count, "out": str(out)}) if as_json else print(f"{count} answers in {out}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from pegbox.recipe import Recipe

    _say(Recipe.model_json_schema())
