"""Software: functions of the running Python's own standard library, to learn how its authors write and document them.

Source: the modules that lie in this Python's `stdlib` folder. They are parsed (`ast`), never imported and never run.
Licence: PSF-2.0, that of Python. Some files came from elsewhere and say so: a file with a copyright notice of anyone but
the Python Software Foundation is left out, and so is a package whose `__init__` has one. Left out too are what is no
module for its readers: tests, names that begin with an underscore, programs, tables of encodings and what is bundled.

The same version of Python gives the same rows. Another has other functions: its version is part of the sample's name in
the cache.

Two forms. A function without its docstring -> the docstring's first line, where that is a sentence; of functions with
the same sentence or the same code one is taken. And the function whole, with its docstring, for filling in the middle.
Rows carry their module as `group`: functions of one module call each other and are documented by one hand, so a split
never divides it.
"""

from __future__ import annotations

import ast
import platform
import re
import sys
import sysconfig
import textwrap
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pegbox.errors import RecipeError
from pegbox.samples.sample import Row, Sample, shuffled

ROWS = 900
MOST = 20  # rows of one module: of some 150, tkinter alone has a tenth of all functions
CODE = (120, 600)  # characters of a function that is asked about: about 200 tokens at most
SENTENCE = (15, 100)  # characters of a docstring's first line
WHOLE = (150, 600)  # characters of a function that is filled in
OTHERS = frozenset({"distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "turtledemo"})
FOREIGN = re.compile(r"copyright(?![^\n]*python software foundation)", re.IGNORECASE)

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A module's dotted name and its source."""

    name: str
    source: str


@dataclass(frozen=True)
class Function:
    """A function as it stands in its module, moved to the left margin; without its docstring, and that."""

    module: str
    source: str
    code: str
    docstring: str


def docstrings() -> list[Row]:
    """Rows of `chat`: a function without its docstring, and the docstring's first line."""
    return docstring_rows(standard_library())[:ROWS]


def functions() -> list[Row]:
    """Rows of `completion`: functions of the library as texts."""
    return function_rows(standard_library())[:ROWS]


def docstring_rows(modules: Iterable[Module]) -> list[Row]:
    """Of functions that are short and have a sentence as first line; of equal sentences, and of equal code, the first."""
    rows: dict[str, Row] = {}
    for function in functions_of(modules):
        sentence = function.docstring.partition("\n")[0].strip()
        if _within(function.code, CODE) and _within(sentence, SENTENCE) and sentence.endswith("."):
            row = {"prompt": function.code, "completion": sentence, "group": function.module}
            rows.setdefault(sentence.casefold(), row)
    return _some_of_each({row["prompt"]: row for row in reversed(rows.values())}.values())


def function_rows(modules: Iterable[Module]) -> list[Row]:
    """Of functions that are short, with their docstrings; of equal ones the first."""
    rows: dict[str, Row] = {}
    for function in functions_of(modules):
        if _within(function.source, WHOLE):
            rows.setdefault(function.source, {"text": function.source, "group": function.module})
    return _some_of_each(rows.values())


def _some_of_each(rows: Iterable[Row]) -> list[Row]:
    """The rows shuffled, with at most MOST of a module."""
    taken: Counter[str] = Counter()
    kept = []
    for row in shuffled(list(rows)):
        taken[row["group"]] += 1
        if taken[row["group"]] <= MOST:
            kept.append(row)
    return kept


def _within(text: str, bounds: tuple[int, int]) -> bool:
    least, most = bounds
    return least <= len(text) <= most


# ---- modules ---------------------------------------------------------------------------------------------------------


def standard_library() -> list[Module]:
    """The modules for readers, by name. Raises RecipeError where this Python has them as bytecode or not at all."""
    folder = Path(sysconfig.get_path("stdlib"))
    public = sorted(name for name in sys.stdlib_module_names if not name.startswith("_") and name not in OTHERS)
    found = [module for name in public for module in _modules(folder, name)]
    foreign = {module.name.removesuffix(".__init__") for module in found if FOREIGN.search(module.source)}
    kept = [module for module in found if not foreign & set(_above(module.name))]
    if not kept:
        cure = "use a Python whose library lies in its folder as .py files"
        raise RecipeError(
            f"there are no sources of the standard library in {folder}", where="sample software", cure=cure
        )
    return kept


def _modules(folder: Path, name: str) -> Iterator[Module]:
    """The module of that name, or all of its package."""
    alone = folder / f"{name}.py"
    for path in [alone] if alone.is_file() else sorted((folder / name).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        inner = [part for part in parts if part != "__init__"]
        if not any(part.startswith("_") or part in ("test", "tests") for part in inner):
            with tokenize.open(path) as file:  # in the encoding that the file says
                yield Module(".".join(parts), file.read())


def _above(name: str) -> list[str]:
    """The name of a module, and those of the packages that it lies in."""
    parts = name.removesuffix(".__init__").split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


# ---- functions -------------------------------------------------------------------------------------------------------


def functions_of(modules: Iterable[Module]) -> Iterator[Function]:
    """The public functions and methods, in the order in which they stand; those with a docstring and something to do."""
    for module in modules:
        lines = lines_of(module.source)
        for node in _definitions(ast.parse(module.source).body):
            if (function := _function(module.name, node, lines)) is not None:
                yield function


def lines_of(source: str) -> list[str]:
    """The lines as Python counts them: a form feed, which `splitlines` takes for an end, ends none."""
    return source.split("\n")


def _definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _definitions(node.body)
        elif isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def _function(module: str, node: Definition, lines: list[str]) -> Function | None:
    """The function's lines with and without those of its docstring; None where that has no lines of its own."""
    docstring = ast.get_docstring(node)
    if not docstring or len(node.body) < 2:
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    said, then = node.body[0], node.body[1]
    last, start, end = _end(node), said.lineno - 1, _end(said)
    if lines[start].lstrip()[:1] not in ("'", '"', "r", "R") or then.lineno <= end or start < node.lineno:
        return None
    source, code = (_moved(lines[first:last]), _moved(lines[first:start] + lines[end:last]))
    if source is None or code is None:
        return None
    return Function(module, source, code, docstring)


def _end(node: ast.stmt) -> int:
    assert node.end_lineno is not None, "what `ast.parse` made has it"
    return node.end_lineno


def _moved(lines: list[str]) -> str | None:
    """The lines at the left margin; None where they are no function there: a text in them begins further left."""
    text = textwrap.dedent("\n".join(lines))
    try:
        ast.parse(text)
    except SyntaxError:
        return None
    return text


_PYTHON = f"python=={platform.python_version()}"
_AUTHORS = "Python Software Foundation and the authors of Python, docs.python.org/3/license.html"

DOCSTRINGS = Sample(
    about="a function of Python's standard library -> the first line of its docstring",
    task="chat",
    package=_PYTHON,
    licence="PSF-2.0",
    attribution=_AUTHORS,
    rows=docstrings,
)
FUNCTIONS = Sample(
    about="a function of Python's standard library, of which the middle is filled in",
    task="completion",
    package=_PYTHON,
    licence="PSF-2.0",
    attribution=_AUTHORS,
    rows=functions,
)
