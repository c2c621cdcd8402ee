"""The site builds without a warning, its links lead somewhere, it needs no network, and the references are complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer.main
from doc_pages import DOCS
from pydantic import BaseModel

import pegbox
from pegbox.cli.commands import app
from pegbox.recipe import Recipe
from source_tree import REPOSITORY, SOURCE, files_of

LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "embed": "src",
    "object": "data",
}
LOADED_LINKS = {"stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "icon", "shortcut"}
REMOTE = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)
CSS_LOADS = re.compile(r"@import|url\(\s*['\"]?(?:[a-z]+:)?//", re.IGNORECASE)


class Page(HTMLParser):
    """A built page: its anchors, what it links to, what a browser loads with it, and its words."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        kinds = set(given.get("rel", "").split())
        if tag in LOADED and (tag != "link" or kinds & LOADED_LINKS):
            self.loads.append(given.get(LOADED[tag], ""))
        if CSS_LOADS.search(given.get("style", "")):
            self.loads.append(f"//{given['style']}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-E",
        "-d",
        str(site) + ".trees",
        "-b",
        "html",
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*command, str(source), str(site)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(DOCS, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def built(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


def dead_links(pages: dict[str, Page], site: Path) -> Iterator[str]:
    for name, page in pages.items():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            there = (page.path.parent / unquote(target.path)).resolve() if target.path else page.path
            known = pages.get(there.relative_to(site.resolve()).as_posix()) if there.is_relative_to(site) else None
            if not there.exists():
                yield f"{name}: {link} is not there"
            elif target.fragment and known and unquote(target.fragment) not in known.anchors:
                yield f"{name}: {link} has no such place"


def remote_loads(pages: dict[str, Page], site: Path) -> Iterator[str]:
    """What a browser would fetch from a network to show the site."""
    for name, page in pages.items():
        yield from (f"{name}: {load}" for load in page.loads if REMOTE.match(load))
    for sheet in site.rglob("*.css"):
        if CSS_LOADS.search(sheet.read_text(encoding="utf-8")):
            yield sheet.name


def references(part: Any, key: str) -> Iterator[tuple[str, str]]:
    """The definitions that a piece of a JSON schema refers to, at any depth: their keys, `.*` for any, and their names."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield key, part["$ref"].rsplit("/", 1)[1]
        for name, value in part.items():
            if name != "discriminator":
                yield from references(value, f"{key}.*" if name == "additionalProperties" else key)
    if isinstance(part, list):
        for inner in part:
            yield from references(inner, key)


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a recipe, dotted, from its JSON schema: what editors are told, not what the reference is made from.

    A key that holds lists or mappings of definitions is one itself; a definition is followed where it first stands.
    """
    schema = model.model_json_schema()
    seen = set()

    def walk(key: str, part: Any) -> Iterator[str]:
        found = list(dict.fromkeys(references(part, key)))
        if not found or '"items"' in json.dumps(part) or any(place != key for place, _ in found):
            yield key
        new = [(place, name) for place, name in found if name not in seen]
        seen.update(name for _, name in new)
        for place, name in new:
            for inner, value in schema["$defs"][name]["properties"].items():
                yield from walk(f"{place}.{inner}", value)

    for key, value in schema["properties"].items():
        yield from walk(key, value)


# ---- the site -------------------------------------------------------------------------------------------------------


def test_every_page_of_the_sources_is_built(built: dict[str, Page]) -> None:
    sources = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert len(sources) > 15
    assert sources <= set(built)


def test_every_link_inside_the_site_leads_somewhere(built: dict[str, Page], site: Path) -> None:
    assert sum(len(page.links) for page in built.values()) > 100
    assert list(dead_links(built, site)) == []


def test_the_site_loads_nothing_from_a_network(built: dict[str, Page], site: Path) -> None:
    assert sum(len(page.loads) for page in built.values()) > 20
    assert list(remote_loads(built, site)) == []


def test_every_key_of_the_recipe_is_in_its_reference_with_a_meaning(built: dict[str, Page]) -> None:
    keys = {key for key in keys_of(Recipe) if not key.endswith(".kind")}
    assert {"train.learning_rate", "method.r", "data.columns", "data.train.templates.*.text", "seed"} <= keys
    page = (built["recipe.html"].path).read_text(encoding="utf-8")
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    meanings = {}
    for row in rows:
        key, *_, meaning = [
            re.sub("<[^>]+>", "", cell).strip() for cell in re.findall("<t[dh].*?</t[dh]>", row, re.DOTALL)
        ]
        meanings[key] = meaning
    assert {key for key in meanings if key != "key"} == keys
    assert [key for key, meaning in meanings.items() if not meaning] == []
    assert {"task.kind", "method.kind"} <= set(built["recipe.html"].text.split())


def test_every_command_is_in_its_reference_with_its_options(built: dict[str, Page]) -> None:
    text = built["commands.html"].text
    group = typer.main.get_command(app)
    assert {"train", "check", "predict"} <= set(group.commands)
    for name, command in group.commands.items():
        assert f"Usage: pegbox {name} " in text
        for option in command.params:
            assert option.metavar is None or option.metavar in text
            assert all(word in text for word in option.opts if word.startswith("--"))


def test_every_public_name_is_in_its_reference(built: dict[str, Page]) -> None:
    text = built["api.html"].text
    assert [name for name in pegbox.__all__ if f"pegbox.{name}" not in text] == []


def test_what_the_comparison_says_of_our_own_size_is_so() -> None:
    text = (DOCS / "comparison.md").read_text(encoding="utf-8")
    packages, lines = (
        int(re.sub(r"\D", "", re.search(rf"^\| {row}.*?\| ([^|]+)\|", text, re.MULTILINE).group(1)))  # type: ignore[union-attr]
        for row in ("Packages it requires", "Lines of Python")
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert packages == len(project["dependencies"])
    counted = sum(len(path.read_bytes().split(b"\n")) - 1 for path in files_of(SOURCE))
    assert abs(lines - counted) < 0.2 * counted


# ---- the proof that each fault is found -----------------------------------------------------------------------------


def test_a_link_to_a_page_that_is_not_there_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    (source / "conf.py").write_text("extensions = ['myst_parser']\n", encoding="utf-8")
    (source / "index.md").write_text("# A page\n\n[there](nowhere.md)\n", encoding="utf-8")
    done = build(source, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr


def test_dead_links_and_remote_loads_are_found(tmp_path: Path) -> None:
    here = tmp_path / "index.html"
    here.write_text(
        '<a href="gone.html">a</a><a href="#lost">b</a><a href="#kept" id="kept">c</a><a href="https://example.org">d</a>'
        '<script src="https://example.org/x.js"></script><link rel="stylesheet" href="//example.org/x.css">'
        '<link rel="canonical" href="https://example.org"><p style="background: url(https://example.org/x.png)">',
        encoding="utf-8",
    )
    (tmp_path / "x.css").write_text("@font-face { src: url('https://example.org/x.woff') }", encoding="utf-8")
    pages = {"index.html": Page(here)}
    assert len(list(dead_links(pages, tmp_path))) == 2
    assert len(list(remote_loads(pages, tmp_path))) == 4
