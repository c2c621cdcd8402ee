"""Files of knowledge graphs -> facts, through `rdflib` (extra `rdf`): N-Triples, Turtle, JSON-LD.

N-Triples go in line by line, so that memory stays flat and a faulty line is one malformed row. Turtle and JSON-LD are
parsed whole, and held in memory meanwhile. Nothing is fetched: JSON-LD that names a context by its address is refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pegbox.data.sources.files import File, kind_of
from pegbox.data.sources.graph_facts import Facts
from pegbox.data.sources.lines import why
from pegbox.data.sources.outcomes import MalformedRow, Remark
from pegbox.data.sources.strict_json import parse_json
from pegbox.data.sources.text import TOO_LONG, Text
from pegbox.data.sources.unpacking import UNPACKERS
from pegbox.errors import DataError

BASE = "http://relative.invalid/"  # of addresses that are relative; the file's own would differ from machine to machine


def load(facts: Facts, path: str, told: list[Remark]) -> Iterator[MalformedRow]:
    """Add the facts of a file; what cannot be read is yielded. Raises DataError where that is the whole file."""
    kind, ending = kind_of(path), Path(path).suffix.lower()
    if kind not in LOADERS:
        cure = f"a graph is read from {', '.join(LOADERS)}, and from these with {' or '.join(UNPACKERS)} behind"
        raise DataError(f"graphs in files that end in '{ending}' are not read yet", where=path, cure=cure)
    if not Path(path).is_file():
        raise DataError("no such data file", where=path, cure="check the path")
    unpack: Callable[[Path], BinaryIO] = UNPACKERS.get(ending, lambda plain: plain.open("rb"))
    try:
        with _unlogged("rdflib.term"):
            file = File(path, kind, lambda: unpack(Path(path)), told, None if ending in UNPACKERS else Path(path))
            yield from LOADERS[kind](facts, Text(file))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, cure="check the rights to read it") from None
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a stranger's file, and a parser that does not say what it raises
        what = f"cannot be read as a graph: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(what, where=path, cure="check the file with the program that wrote it") from None


@contextmanager
def _unlogged(name: str) -> Iterator[None]:
    """Without the log of rdflib, which shows a traceback for each date that is none: we count these ourselves."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class _AsWritten(dict[str, Any]):
    """Blank nodes are called as the file calls them, so that no list of them need be kept."""

    def get(self, key: str, default: Any = None) -> Any:
        return key


class _Taken:
    """Where rdflib's parser puts the fact of a line."""

    fact: tuple[Any, Any, Any] | None = None

    def triple(self, subject: Any, predicate: Any, value: Any) -> None:
        self.fact = (subject, predicate, value)


def _load_lines(facts: Facts, text: Text) -> Iterator[MalformedRow]:
    """N-Triples: a fact on each line."""
    from rdflib.exceptions import ParserError
    from rdflib.plugins.parsers.ntriples import W3CNTriplesParser

    taken: Any = _Taken()
    parser = W3CNTriplesParser(taken, bnode_context=_AsWritten())
    for number, raw in text.lines():
        where = f"{text.where}:{number}"
        if raw is None:
            yield MalformedRow(where, TOO_LONG)
            continue
        try:
            taken.fact, parser.line = None, text.decode(raw).rstrip("\r\n")
            parser.parseline()
            if taken.fact:
                subject, predicate, value = taken.fact
                facts.add(subject, predicate, value, number)
        except ParserError:
            yield MalformedRow(where, "not a fact in N-Triples: <subject> <predicate> object .")
        except ValueError as error:
            yield MalformedRow(where, f"not a usable fact: {error}")


def _load_turtle(facts: Facts, text: Text) -> Iterator[MalformedRow]:
    import rdflib
    from rdflib.plugins.parsers.notation3 import BadSyntax

    graph = rdflib.Graph(bind_namespaces="none")
    try:
        graph.parse(data="".join(text.pieces()), format="turtle", publicID=BASE)
    except BadSyntax as error:
        reason = re.search(r"\((.*?)\) at \^ in", str(error), re.DOTALL)
        what, line = f"not Turtle: {reason.group(1) if reason else 'bad syntax'}", error.lines + 1
        raise DataError(what, where=f"{text.where}:{line}", cure="mend the line, or the one before it") from None
    return _add_all(facts, graph, text.where)


def _load_json(facts: Facts, text: Text) -> Iterator[MalformedRow]:
    """JSON-LD; what it means is in the file or nowhere."""
    import rdflib
    from rdflib.plugins.parsers.jsonld import to_rdf

    try:
        value = parse_json("".join(text.pieces()))
    except ValueError as error:
        where = f"{text.where}:{getattr(error, 'lineno', 1)}"
        raise DataError(why(error), where=where, cure="mend the file") from None
    _refuse_addresses(value, text.where)
    graph = rdflib.Graph(bind_namespaces="none")
    to_rdf(value, graph, base=BASE)
    return _add_all(facts, graph, text.where)


def _refuse_addresses(value: Any, where: str) -> None:
    """Raise DataError where a context is named by an address: rdflib would fetch it."""
    left = [value]
    while left:
        here = left.pop()
        if isinstance(here, list):
            left += here
        elif isinstance(here, dict):
            left += here.values()
            context = here.get("@context")
            named = context if isinstance(context, list) else [context]
            if "@import" in here or any(isinstance(one, str) for one in named):
                what = "its @context is an address, and nothing is fetched because data says so"
                cure = (
                    "write the context itself in the place of its address; for schema.org"
                    ' {"@vocab": "https://schema.org/"} may be enough; or convert the file to Turtle or N-Triples'
                )
                raise DataError(what, where=where, cure=cure)


def _add_all(facts: Facts, graph: Any, where: str) -> Iterator[MalformedRow]:
    facts.prefixes |= {prefix: str(iri) for prefix, iri in graph.namespaces()}
    for fact in graph:
        try:
            facts.add(*fact)
        except ValueError as error:
            yield MalformedRow(where, f"not a usable fact: {error}")


LOADERS: Mapping[str, Callable[[Facts, Text], Iterator[MalformedRow]]] = {
    ".ttl": _load_turtle,
    ".nt": _load_lines,
    ".jsonld": _load_json,
}
