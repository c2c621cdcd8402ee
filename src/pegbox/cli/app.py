"""The application, and how a command is made: its examples, and the two options that every command takes."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Fine-tune pretrained language models, and learn honestly whether it helped.",
    epilog="\b\nStart here:\n  pegbox demo\n  pegbox init rows.jsonl\n  pegbox train recipe.yaml",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML recipe")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="key=value ...", help="overrides of recipe keys")]
Metric = Annotated[str | None, typer.Option(help="another metric than the recipe's")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, warnings and errors only")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="tell every step and how long it took")]


def command(*examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command whose help ends in `examples`, and which can be told to be quiet or verbose."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, quiet: bool, verbose: bool, **options: Any) -> None:
            set_volume(quiet=quiet, verbose=verbose)
            function(*args, **options)

        hints = typing.get_type_hints(function, include_extras=True)
        own = [given.replace(annotation=hints[name]) for name, given in inspect.signature(function).parameters.items()]
        both = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for name, kind in (("quiet", Quiet), ("verbose", Verbose))
        ]
        run.__annotations__ = {given.name: given.annotation for given in (*own, *both)}
        vars(run)["__signature__"] = inspect.Signature([*own, *both])
        shown = "\n".join(f"  {example}" for example in examples)
        app.command(epilog=f"\b\nExamples:\n{shown}")(run)
        return function

    return register


def set_volume(*, quiet: bool, verbose: bool) -> None:
    """How much is said on stderr: by loggers, so that a program of a user's can say the same."""
    logging.getLogger("pegbox").setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    logging.getLogger("pegbox.progress").setLevel(logging.CRITICAL if quiet else logging.NOTSET)


def say(value: Any) -> None:
    """A result on stdout, as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _version(asked: bool) -> None:
    if asked:
        from pegbox import __version__

        print(f"pegbox {__version__}")
        raise typer.Exit


@app.callback()
def pegbox(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="the version")] = False,
) -> None:
    """Fine-tune pretrained language models, and learn honestly whether it helped."""
