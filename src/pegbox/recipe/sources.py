"""Where rows come from: files and folders, rows of a SQLite query, a hub dataset, a knowledge graph, a sample by its name.

A plain string is a file or a folder, or (`owner/name`, with no ending that a file has) a dataset on the hub.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from pegbox.recipe.templates import Rows, Template
from pegbox.recipe.values import Amount, Frozen, Share, is_text, must_be

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w-]*(\.[\w-]*)*")
GRAPHS = ("ttl", "nt", "jsonld")
ENDINGS = {*GRAPHS, "jsonl", "ndjson", "json", "csv", "tsv", "txt", "md", "parquet", "arrow", "feather"}
PACKED = ("gz", "zst")
ENDINGS |= {*PACKED, "zip", "db", "sqlite", "sqlite3"}
TAGS = ("<share>", "<sources>")  # pydantic's names for the members of a union, which nobody writes


Weight = Annotated[Amount, Field(description="how often an epoch learns its rows: 2 is twice, 0.5 is half of them")]


class _Source(Frozen):
    path: str = Field(min_length=1, description="a file, a folder, a database; of a dataset on the hub owner/name")
    weight: Weight = 1.0

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        """The plain string, where that says it all."""
        return self.path if source_of(self.path) == self else handler(self)


class FileSource(_Source):
    """A file of rows, or a folder of texts; compressed or not."""

    kind: Literal["file"] = "file"


class QuerySource(_Source):
    """The rows of a query to a SQLite database, which is opened for reading only."""

    kind: Literal["sqlite"] = "sqlite"
    query: str = Field(min_length=1, description="one SELECT; give it an ORDER BY, so that rows keep their numbers")


class HubSource(_Source):
    """A dataset as `datasets.load_dataset` knows it (extra `hub`); `path`, `name`, `split`, `revision` are its names."""

    kind: Literal["hub"] = "hub"
    name: str | None = Field(default=None, description="the configuration of the dataset")
    split: str = Field(default="train", description="which of its splits")
    revision: str | None = Field(default=None, description="a branch, a tag or a commit")


class GraphSource(_Source):
    """A knowledge graph: Turtle, N-Triples or JSON-LD (extra `rdf`), a row for each question or each fact."""

    kind: Literal["rdf"] = "rdf"
    rows: Rows = Field(
        default="questions",
        description="`questions`: a prompt and a completion for each subject and predicate; `facts`: a text for each fact",
    )
    language: str = Field(default="en", min_length=2, description="of the names and texts, where there are several")
    templates: dict[str, Template | None] = Field(
        default={},
        description="by predicate (an IRI, ex:capital, capital, or * for the others):"
        " {prompt: , completion: } or {text: } with {subject}, {predicate} and {object} in it; null leaves it out",
    )

    @model_validator(mode="after")
    def _templates_make_these_rows(self) -> GraphSource:
        needed = "prompt and completion" if self.rows == "questions" else "text"
        for name, template in self.templates.items():
            if template is not None and template.rows != self.rows:
                raise ValueError(f"makes {self.rows}, so templates.{name} must have {needed}")
        return self


class SampleSource(Frozen):
    """Real rows to try a recipe on, out of a package of a registry (`pegbox.samples` has the list)."""

    kind: Literal["sample"] = "sample"
    name: str = Field(min_length=1, description="which sample: medicine-titles, support-answers, ...")
    weight: Weight = 1.0

    @property
    def path(self) -> str:
        """What its rows' places and messages call it; where its file lies is known to `pegbox.samples`."""
        return self.name


Source = Annotated[FileSource | QuerySource | HubSource | GraphSource | SampleSource, Field(discriminator="kind")]


def source_of(name: str) -> FileSource | HubSource | GraphSource:
    """What a plain string names."""
    *_, inner, ending = ("", *name.rpartition("/")[2].lower().split("."))
    kind = (
        GraphSource
        if (inner if ending in PACKED else ending) in GRAPHS
        else HubSource
        if HUB_ID.fullmatch(name) and ending not in ENDINGS
        else FileSource
    )
    return kind(path=name)


def _are_sources(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_source, value))


def _is_source(value: Any) -> bool:
    return isinstance(value, Mapping | _Source | SampleSource) or (is_text(value) and value != "")


def _is_split(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return 0 < value < 1 if is_number else _are_sources(value)


def _whole(value: Any) -> Any:
    """What stands for a source, or for several, as a list of mappings with their kinds; anything else as it is."""
    if isinstance(value, str | Mapping | _Source | SampleSource):
        value = [value]
    return list(map(_one, value)) if isinstance(value, list | tuple) else value


def _is_plain(value: Mapping[str, Any]) -> bool:
    """Whether a path and a weight are ones; what is not is told of by pydantic."""
    path, weight = value["path"], value["weight"]
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf
    return is_text(path) and path != "" and is_number


def _one(value: Any) -> Any:
    if is_text(value) and value:
        return source_of(value)
    if isinstance(value, Mapping) and set(value) == {"path", "weight"} and _is_plain(value):
        return source_of(value["path"]).model_copy(update={"weight": float(value["weight"])})
    if isinstance(value, Mapping) and "kind" not in value:
        path = value.get("path")
        kind = "sqlite" if "query" in value else source_of(path).kind if is_text(path) and path else "file"
        return {**value, "kind": kind}
    return value


WRITTEN = str | Source | tuple[str | Source, ...]
Sources = Annotated[
    tuple[Source, ...],
    must_be("a file, a dataset or a list of them", _are_sources),
    BeforeValidator(_whole, json_schema_input_type=WRITTEN),
]
ShareOrSources = Annotated[
    Annotated[Share, Tag(TAGS[0])] | Annotated[tuple[Source, ...], Tag(TAGS[1])],
    Discriminator(lambda value: TAGS[isinstance(value, list | tuple)]),
    must_be("a share between 0 and 1, a file, a dataset or a list of them", _is_split),
    BeforeValidator(_whole, json_schema_input_type=Share | WRITTEN),
]
