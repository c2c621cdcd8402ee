"""Sources -> rows, one after the other; each keeps its `file:line` (or its number where lines say nothing) to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from pegbox.data.records import Row
from pegbox.data.sources.arrays import read_json
from pegbox.data.sources.columnar import read_arrow, read_parquet
from pegbox.data.sources.files import File, files_of
from pegbox.data.sources.lines import read_jsonl, read_paragraphs
from pegbox.data.sources.outcomes import MalformedRow, Remark, refusal
from pegbox.data.sources.tables import read_csv, read_tsv
from pegbox.recipe.sources import FileSource, GraphSource, HubSource, QuerySource, SampleSource, Source, source_of

Rows = Iterator[Row | MalformedRow]


def read(sources: Sequence[str | Source], told: list[Remark] | None = None) -> Rows:
    """All rows of the sources in order; a row that cannot be read is yielded as a MalformedRow, never skipped.

    What was guessed about a file (its encoding, its delimiter), or left out, is appended to `told` while it is read.
    Raises DataError for a file that is missing, empty, damaged, of an unknown encoding or an unknown kind.
    """
    return (row for _, row in numbered(sources, told))


def numbered(
    sources: Sequence[str | Source], told: list[Remark] | None = None
) -> Iterator[tuple[int, Row | MalformedRow]]:
    """As `read`, each row with the number of its source. No two rows have the same place: of what is read once more
    (another query to the same database, a file that also lies in a folder) the places say so, `shop.db[2]:17`."""
    told = [] if told is None else told
    times: dict[str, dict[int, int]] = {}
    for number, source in enumerate(sources):
        named = source_of(source) if isinstance(source, str) else source
        for row in SOURCES[named.kind](named, told):
            name, _, place = row.where.rpartition(":")
            known = times.setdefault(name, {})
            time = known.setdefault(number, len(known) + 1)
            yield number, row if time == 1 else replace(row, where=f"{name}[{time}]:{place}")


def read_all(sources: Sequence[str | Source]) -> list[Row]:
    """All rows of the sources. Raises DataError that counts the rows that cannot be read and names the first of them."""
    rows = list(read(sources))
    if unread := [row for row in rows if isinstance(row, MalformedRow)]:
        raise refusal(unread)
    return [row for row in rows if isinstance(row, Row)]


def _files(source: FileSource, told: list[Remark]) -> Rows:
    for file in files_of(source.path, told):
        yield from READERS[file.kind](file)


def _graph(source: GraphSource, told: list[Remark]) -> Rows:
    from pegbox.data.sources.graphs import read_graph

    return read_graph(source, told)


def _hub(source: HubSource, told: list[Remark]) -> Rows:
    from pegbox.data.sources.hub import read_hub

    return read_hub(source)


def _query(source: QuerySource, told: list[Remark]) -> Rows:
    from pegbox.data.sources.queries import read_query

    return read_query(source)


def _sample(source: SampleSource, told: list[Remark]) -> Rows:
    from pegbox.samples import path_of

    for file in files_of(str(path_of(source.name)), told):
        yield from READERS[file.kind](replace(file, where=source.name))


SOURCES: Mapping[str, Callable[..., Rows]] = {
    "file": _files,
    "sqlite": _query,
    "hub": _hub,
    "rdf": _graph,
    "sample": _sample,
}

READERS: Mapping[str, Callable[[File], Rows]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".txt": read_paragraphs,
    ".md": read_paragraphs,
}
