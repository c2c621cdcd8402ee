"""The user's own Python: a function of a file that the recipe or the command line names as `PATH.py:NAME`.

This is the only place of the program that runs a file of the user's, and it runs only what was named (DESIGN section 5):
nothing is looked for beside the data, the model or a run. The file stands alone, so that one hash tells whether it
changed: it may import whatever is installed, and no file beside itself. It is read afresh each time, without a cache of
its bytecode: Python's own cache takes a file that was changed within a second, to the same size, for the old one.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from pegbox.errors import RecipeError

if TYPE_CHECKING:
    from pegbox.recipe.schema import Recipe

EXAMPLE = "write for example ./my_loss.py:my_loss, the file and the name of a function in it"


def is_own(reference: str) -> bool:
    """True where a name means a function of the user's own, rightly written or not, and not one that pegbox has."""
    return reference.endswith(".py") or ".py:" in reference


def split(reference: str) -> tuple[str, str]:
    """`PATH.py:NAME` as the path and the name. Raises ValueError where it is not of that form."""
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ValueError(f"must be PATH.py:NAME, not '{reference}'; {EXAMPLE}")
    return path, name


def as_reference(given: Any) -> Any:
    """A function as the `PATH.py:NAME` by which a run can find it again; anything else as it is.

    Raises ValueError for one that no file defines by that name: of a notebook's cell, or made inside another function.
    """
    if not isinstance(given, FunctionType):
        return given
    path, name = given.__code__.co_filename, given.__qualname__
    if not (name.isidentifier() and path.endswith(".py") and Path(path).is_file()):
        raise ValueError(f"the function {name} does not stand in a file of its own: {EXAMPLE}")
    return f"{Path(path).absolute()}:{name}"


def own_files(recipe: Recipe) -> list[str]:
    """The user's Python files that a recipe names, each once: what runs there is as much of a run as its rows."""
    loss, evaluate = recipe.train.loss, recipe.evaluate
    named = [loss.function] if loss is not None and loss.kind == "own" else []
    metrics = (*(evaluate.metrics or ()), evaluate.primary or "", recipe.train.metric_for_best_model)
    named += [name for name in metrics if is_own(name)]
    named += [recipe.data.filter] if isinstance(recipe.data.filter, str) else []
    return list(dict.fromkeys(split(reference)[0] for reference in named))


def load_own(reference: str, where: str) -> Callable[..., Any]:
    """The function that `PATH.py:NAME` names, from running that file. `where`: the recipe key or option that names it.

    Raises RecipeError: it is not of this form, there is no such file, running it fails (with the line), it has no such
    name, or that is no function.
    """
    try:
        path, name = split(reference)
    except ValueError:
        raise RecipeError(f"'{reference}' is not PATH.py:NAME", where=where, cure=EXAMPLE) from None
    module = _run(path, where)
    if name not in vars(module):
        defined = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        cure = f"it defines {', '.join(defined[:8])}" if defined else "it defines no function"
        raise RecipeError(f"{path} has no '{name}'", where=where, cure=cure)
    function = getattr(module, name)
    if not callable(function):
        what = f"'{name}' of {path} is no function, it is {type(function).__name__}"
        raise RecipeError(what, where=where, cure=EXAMPLE)
    return function  # type: ignore[no-any-return]


class _Source(SourceLoader):
    """A file as a module, with bytes that are read once. It knows no time of the file: so Python keeps no bytecode."""

    def __init__(self, path: str, source: bytes) -> None:
        self.path, self.source = path, source

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str | bytes) -> bytes:
        return self.source


def _run(path: str, where: str) -> ModuleType:
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        cure = "the path is relative to the recipe, or to the working directory where no recipe file names it"
        raise RecipeError(f"cannot read {path}: {error.strerror}", where=where, cure=cure) from None
    name = f"pegbox_own_{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    spec = spec_from_loader(name, _Source(path, source))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        cure = f"mend it until `python {Path(path).name}` runs; it may import what is installed, but no file beside it"
        raise RecipeError(f"{path} cannot be run: {failure(error, path)}", where=where, cure=cure) from error
    return module


def failure(error: BaseException, path: str) -> str:
    """What an error says, and the last line of the user's file that it came through: `ValueError: no (line 12)`."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
    said = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}".rstrip(": ")
    return f"{said} (line {lines[-1]})" if lines else said
