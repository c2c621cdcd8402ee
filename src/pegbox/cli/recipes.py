"""The commands up to a finished run. Heavy imports stand inside, so that `pegbox --help` is quick."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli.app import AsJson, Overrides, RecipeFile, command, say
from pegbox.errors import NotBetterError, RecipeError


class DemoTask(StrEnum):
    """The tasks that have a demo."""

    CHAT = "chat"
    CLASSIFICATION = "classification"


@command("pegbox demo", "pegbox demo --language de --run-dir house", "pegbox demo --task classification")
def demo(
    task: Annotated[DemoTask, typer.Option(help="what is shown")] = DemoTask.CHAT,
    language: Annotated[str | None, typer.Option(help="of the commands of `chat`; default: en")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="default: runs/demo-<time>")] = None,
    as_json: AsJson = False,
) -> None:
    """Teach a small model something; see if it learnt it.

    `chat`: to operate a house, by 1,500 commands and 135M parameters, in a few minutes on two CPU cores.
    `classification`: how a tweet is meant, by 1,850 tweets and 23M parameters, in about a minute.
    """
    from pegbox.cli import screen

    if task is DemoTask.CLASSIFICATION:
        from pegbox.demo.opinions import run_opinions

        if language is not None:
            raise RecipeError("the tweets are English", where="--language", cure="leave --language away")
        run = run_opinions(run_dir)
        shown = partial(screen.opinions, run, list(run.folder.read_lines("predictions.jsonl")))
    else:
        from pegbox.demo.run import asked, run_demo

        run = run_demo(language or "en", run_dir)
        shown = partial(screen.demo, run, asked(run))
    say(run.evaluation | {"run": str(run.path)}) if as_json else shown()


@command("pegbox init tickets.jsonl", "pegbox init train.csv more.csv --out reviews.yaml --model ./my-model")
def init(
    data: Annotated[list[Path], typer.Argument(metavar="DATA ...", help="a file of rows, or several")],
    out: Annotated[Path, typer.Option(help="the recipe to write; an existing file is never touched")] = Path(
        "recipe.yaml"
    ),
    model: Annotated[str | None, typer.Option(help="a hub id, folder or .gguf file; default: a small one")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at rows, propose task and columns, write a recipe."""
    from pegbox.cli import screen
    from pegbox.proposal.propose import propose

    if out.exists():
        raise RecipeError("the file exists already", where=str(out), cure="give another name with --out")
    proposal = propose([str(file) for file in data], model)
    with out.open("x", encoding="utf-8") as file:
        file.write(proposal.to_yaml(out.parent))
    found = proposal.to_json() | {"recipe": str(out)}
    say(found) if as_json else screen.proposal(found)


@command(
    "pegbox check recipe.yaml",
    "pegbox check recipe.yaml data.max_length=512",
    "pegbox check recipe.yaml --fix cleaned --redact",
)
def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="write a cleaned copy and a list of its changes to this new folder"),
    ] = None,
    redact: Annotated[bool, typer.Option("--redact", help="hide secrets and personal data in that copy")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at the data and plan the run, without training."""
    from pegbox.checking import check as run_check
    from pegbox.cli import screen

    if redact and fix is None:
        raise RecipeError("--redact changes the cleaned copy only", cure="give a folder for it with --fix")
    found = run_check(recipe, overrides or (), fix=fix, redact=redact)
    say(found) if as_json else screen.check(found)


@command("pegbox preview recipe.yaml", "pegbox preview recipe.yaml --rows 1")
def preview(
    recipe: RecipeFile,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=1, help="how many examples")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show examples as tokens, and which of them are trained."""
    from pegbox.checking import preview as run_preview
    from pegbox.cli import screen

    shown = run_preview(recipe, overrides or (), rows)
    say({"examples": shown}) if as_json else screen.preview(shown)


@command(
    "pegbox train recipe.yaml",
    "pegbox train recipe.yaml train.learning_rate=1e-3 --run-dir first",
    "pegbox train --resume first",
    "pegbox train --resume first --accept-change train.num_train_epochs",
)
def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="a YAML recipe")] = None,
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="must be new or empty; default: runs/<time>")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="go on with a run")] = None,
    accept_change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="go on although this differs: a key of the recipe, data, code, model, template"
        ),
    ] = None,
    require_better: Annotated[
        bool, typer.Option("--require-better", help='exit with 5 unless the verdict is "better"')
    ] = False,
    no_kernels: Annotated[
        bool, typer.Option("--no-kernels", help="plain operations only: slower, for comparison")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train, evaluate and judge: the whole pipeline."""
    from pegbox.runs import environment

    if resume is not None and (recipe, overrides, run_dir, no_kernels) != (None, None, None, False):
        cure = "leave RECIPE, overrides, --run-dir and --no-kernels away"
        raise RecipeError("--resume takes the recipe of the run", cure=cure)
    if accept_change and resume is None:
        raise RecipeError("only a run that goes on can differ", where="--accept-change", cure="give the run: --resume")
    if resume is not None:
        environment.restore(resume)
    from pegbox import pipeline
    from pegbox.cli import screen

    if resume is not None:
        run = pipeline.resume(resume, accept=accept_change or ())
    elif recipe is not None:
        run = pipeline.train(recipe, run_dir=run_dir, overrides=overrides or (), kernels=not no_kernels)
    else:
        raise RecipeError("no recipe was given", cure="pegbox train RECIPE, or pegbox train --resume RUN")
    if not pipeline.is_first_rank():
        return
    say(run.evaluation | {"run": str(run.path)}) if as_json else screen.verdict(run)
    if require_better and run.verdict != "better":
        raise NotBetterError(f'the verdict is "{run.verdict}"', where=str(run.path))


@command("pegbox schema > recipe.schema.json")
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from pegbox.recipe import Recipe

    say(Recipe.model_json_schema())
