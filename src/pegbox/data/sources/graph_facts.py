"""The facts of a knowledge graph, sorted, each once: in memory while they are few, else in a temporary file of SQLite's.

However a graph is written, and in whatever order, its facts come out in the same one. Only blank nodes, which have no
names of their own, come in the order of those that their file or its reader gave them.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, NamedTuple

TEXT = "http://www.w3.org/2001/XMLSchema#string"  # the same as no datatype
BLANK = ("_:", "_;")  # names of blank nodes lie between these two
# a private database: of the name "" SQLite makes one that spills over into a temporary file, and is gone when closed
TABLE = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;
    CREATE TABLE facts (subject, predicate, object, form, language, datatype, line,
        PRIMARY KEY (subject, predicate, object, form, language, datatype)) WITHOUT ROWID;
    CREATE INDEX leading ON facts (object) WHERE form = 'blank';
    BEGIN"""


class Term(NamedTuple):
    """The object of a fact. `form`: "iri", "blank", "literal", or "broken": a literal that is not of its datatype.
    `line`: where the file says so, if it has lines for facts."""

    text: str
    form: str
    language: str
    datatype: str
    line: int | None = None


class Group(NamedTuple):
    """What a graph says of a subject by a predicate."""

    subject: str
    predicate: str
    objects: list[Term]


class Facts:
    """A set of facts. Blank nodes are called `_:name`. `prefixes`: those of the file, and the usual ones."""

    def __init__(self) -> None:
        import rdflib

        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(TABLE)
        self.prefixes = {prefix: str(iri) for prefix, iri in rdflib.Graph(bind_namespaces="rdflib").namespaces()}

    def close(self) -> None:
        """Forget them."""
        self._database.close()

    def add(self, subject: Any, predicate: Any, value: Any, line: int | None = None) -> None:
        """Add a fact of rdflib's. Raises ValueError for text that holds half of a surrogate pair."""
        row = (_node(subject), str(predicate), *_term(value, line))
        self._database.execute("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def predicates(self) -> list[str]:
        """Every predicate once, sorted."""
        return [name for (name,) in self._database.execute("SELECT DISTINCT predicate FROM facts ORDER BY predicate")]

    def groups(self, of_blanks: bool) -> Iterator[Group]:
        """All facts by subject and predicate, sorted: those of subjects with an IRI, or those of blank nodes."""
        within = "BETWEEN" if of_blanks else "NOT BETWEEN"
        asked = f"SELECT * FROM facts WHERE subject {within} ? AND ? ORDER BY subject, predicate, object"
        facts = self._database.execute(asked, BLANK)
        for (subject, predicate), rows in itertools.groupby(facts, itemgetter(0, 1)):
            yield Group(subject, predicate, [Term(*row[2:]) for row in rows])

    def about(self, subject: str) -> list[tuple[str, Term]]:
        """The predicates and objects of a subject, sorted."""
        asked = "SELECT predicate, object, form, language, datatype FROM facts WHERE subject = ? ORDER BY predicate"
        return [(predicate, Term(*term)) for predicate, *term in self._database.execute(asked, (subject,))]

    def leading_to(self, blank: str) -> list[str]:
        """The subjects that have a blank node as an object."""
        asked = "SELECT DISTINCT subject FROM facts WHERE object = ? AND form = 'blank'"
        return [subject for (subject,) in self._database.execute(asked, (blank,))]


def is_blank(node: str) -> bool:
    """Whether a subject is a blank node."""
    return node.startswith(BLANK[0])


def _node(node: Any) -> str:
    import rdflib

    return f"_:{node}" if isinstance(node, rdflib.BNode) else str(node)


def _term(value: Any, line: int | None) -> Term:
    import rdflib

    if not isinstance(value, rdflib.Literal):
        return Term(_node(value), "blank" if isinstance(value, rdflib.BNode) else "iri", "", "", line)
    datatype = str(value.datatype or "")
    form = "broken" if value.ill_typed else "literal"
    return Term(str(value), form, value.language or "", "" if datatype == TEXT else datatype, line)
