"""Functions of the standard library: cut out whole, parted from their docstrings, never run, and nobody else's."""

from __future__ import annotations

import ast
import calendar
import fnmatch
import inspect
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

import pegbox
from pegbox.errors import RecipeError
from pegbox.samples import SAMPLES, path_of, software
from pegbox.samples.software import Function, Module, docstring_rows, function_rows, functions_of, standard_library

PLANTED = '''
raise SystemExit("a module that is read is not run")


def area(width, height):
    """Return the area of a rectangle.

    Of none it is 0.
    """
    # both in metres
    if width is None or height is None:
        return 0
    return width * height  # square metres, as everywhere in this module


class Shelf:
    """A class."""

    @property
    def books(self):
        """The books that stand on the shelf."""
        found = [book for row in self.rows for book in row]
        return sorted(found, key=lambda book: book.title.casefold())

    def _hidden(self):
        """Nobody calls this from outside."""
        found = [book for row in self.rows for book in row]
        return sorted(found, key=lambda book: book.title.casefold())


def unsaid(width, height):
    found = [width * height for width in range(100) for height in range(100)]
    return sorted(found, key=lambda area: area * 2 if area > 100 else area)
'''
AREA = """def area(width, height):
    # both in metres
    if width is None or height is None:
        return 0
    return width * height  # square metres, as everywhere in this module"""
BOOKS = """@property
def books(self):
    found = [book for row in self.rows for book in row]
    return sorted(found, key=lambda book: book.title.casefold())"""


@pytest.fixture(scope="module")
def library() -> list[Module]:
    return standard_library()


@pytest.fixture(scope="module")
def functions(library: list[Module]) -> list[Function]:
    return list(functions_of(library))


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> list[Module]:
    """What is read where the library's folder holds these files."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return standard_library()


def by_answer(module: Module) -> dict[str, tuple[str, str]]:
    return {row["completion"]: (row["prompt"], row["group"]) for row in docstring_rows([module])}


def test_a_row_is_a_function_without_its_docstring_and_the_first_line_of_that() -> None:
    assert by_answer(Module("planted", PLANTED)) == {
        "Return the area of a rectangle.": (AREA, "planted"),
        "The books that stand on the shelf.": (BOOKS, "planted"),
    }


def test_a_form_feed_ends_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many old modules have one between their parts."""
    fed = Module("planted", "\x0c\n\x0c\n" + PLANTED)
    assert by_answer(fed) == by_answer(Module("planted", PLANTED))
    monkeypatch.setattr(software, "lines_of", str.splitlines)
    assert by_answer(fed) != by_answer(Module("planted", PLANTED))


@pytest.mark.parametrize(
    "text",
    [
        'def one(a): """Return what it is given, as it is."""; b = a; return b' + "\n" + "#" * 120,
        'def one(\n    a,\n): """Return what it is given, as it is."""; b = a; return b' + "\n" + "#" * 120,
        'def one(a):\n    """Return what it is given, as it is."""; b = a\n    return b' + "\n    #" + "#" * 120,
        'def one(a):\n    """Return what it is given, as it is."""\n    #' + "#" * 120,
        'class A:\n    def one(a):\n        """Return a text, as it is."""\n        return """\nat the left'
        + "#" * 120
        + '"""',
        'def one(a):\n    """Return what it is given, as it is"""\n    #' + "#" * 120 + "\n    return a",
        'def one(a):\n    """See two."""\n    #' + "#" * 120 + "\n    return a",
        'def one(a):\n    """Return what it is given, as it is."""\n    return a',
        'def one(a):\n    """Return what it is given, as it is."""\n    #' + "#" * 600 + "\n    return a",
    ],
    ids=[
        "one line",
        "head and body",
        "shared line",
        "nothing to do",
        "left",
        "no sentence",
        "too little",
        "short",
        "long",
    ],
)
def test_a_function_that_cannot_be_parted_or_says_nothing_is_left_out(text: str) -> None:
    assert docstring_rows([Module("planted", text)]) == []


def test_a_sentence_and_a_function_come_once() -> None:
    other = PLANTED.replace("width", "breadth")
    twice = [Module("first", PLANTED), Module("second", other), Module("third", PLANTED)]
    assert sorted(row["group"] for row in docstring_rows(twice)) == ["first", "first"]
    texts = [row["text"] for row in function_rows(twice)]
    assert len(texts) == len(set(texts)) == 3


def test_functions_are_what_inspect_finds(functions: list[Function]) -> None:
    """The oracle imports a few modules and asks Python itself."""
    found = {(one.module, one.source) for one in functions}
    for function in (calendar.leapdays, fnmatch.filter, shlex.join, shlex.split, calendar.TextCalendar.formatweek):
        source = textwrap.dedent(inspect.getsource(function)).rstrip("\n")
        assert (function.__module__, source) in found, function


def test_code_is_the_function_less_its_docstring(functions: list[Function]) -> None:
    """As syntax trees, of every function."""
    for one in functions:
        [whole], [code] = ast.parse(one.source).body, ast.parse(one.code).body
        assert isinstance(whole, ast.FunctionDef | ast.AsyncFunctionDef)
        assert str(ast.get_docstring(whole)).split() == one.docstring.split()
        whole.body = whole.body[1:]
        assert ast.dump(whole) == ast.dump(code), one.module
    assert len(functions) > 1500


def test_rows_are_short_and_of_many_modules(library: list[Module]) -> None:
    for rows in (docstring_rows(library), function_rows(library)):
        modules = [row["group"] for row in rows]
        assert len(rows) > 600 and len(set(modules)) > 100
        assert max(map(modules.count, set(modules))) == software.MOST
        assert max(len(row.get("text", row.get("prompt"))) for row in rows) <= 600


def test_what_others_hold_the_copyright_of_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "abc.py": "# Copyright 2007 Somebody Else\n" + PLANTED,
        "bdb.py": "# Copyright (C) 2001-2010 Python Software Foundation\n" + PLANTED,
        "xml/__init__.py": PLANTED,
        "xml/dom/__init__.py": "# (c) copyright 1999 by Somebody\n",
        "xml/dom/pulldom.py": PLANTED,
        "xml/sax.py": PLANTED,
    }
    kept = {module.name for module in planted(tmp_path, monkeypatch, files)}
    assert kept == {"bdb", "xml.__init__", "xml.sax"}
    monkeypatch.setattr(software, "FOREIGN", re.compile("$^"))
    assert {module.name for module in standard_library()} > kept


def test_every_notice_that_is_left_is_that_of_the_foundation(library: list[Module]) -> None:
    notices = [line for one in library for line in one.source.splitlines() if "copyright" in line.casefold()]
    assert notices and all("Python Software Foundation" in line for line in notices)


def test_tests_and_private_names_and_programs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["bdb.py", "_abc.py", "test/test_bdb.py", "idlelib/run.py", "site-packages/torch/fx.py", "not_python.py"]
    names += ["email/_policy.py", "email/tests/one.py", "email/__init__.py", "email/mime/text.py"]
    kept = planted(tmp_path, monkeypatch, {name: PLANTED for name in names})
    assert [module.name for module in kept] == ["bdb", "email.__init__", "email.mime.text"]


def test_a_python_without_sources_is_a_mistake_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="no sources of the standard library") as told:
        planted(tmp_path, monkeypatch, {"bdb.pyc": ""})
    assert ".py files" in str(told.value)


def test_reading_imports_nothing_and_another_process_has_the_same_rows() -> None:
    """Whatever order it has for sets; `this` and `antigravity` would be seen, and heard."""
    program = (
        "import json, sys; from pegbox.samples import software as s; before = set(sys.modules); rows = s.docstrings()\n"
        "print(json.dumps([rows, sorted(set(sys.modules) - before)]))"
    )
    source = str(Path(pegbox.__file__).parents[1])
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    rows, imported = json.loads(done.stdout)
    assert rows == software.docstrings()
    assert [
        name for name in imported if not name.startswith("_sysconfigdata")
    ] == []  # by which Python finds its folders


def test_the_version_of_python_is_part_of_the_place_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path))
    assert platform.python_version() in path_of("software-docstrings").parent.name
    assert SAMPLES["software-functions"].package == f"python=={platform.python_version()}"
