"""What the nodes of a knowledge graph are called, and how its values read.

A node is called by its label (rdfs:label, skos:prefLabel, schema:name) in the language that is asked for; else by the
last part of its IRI, taken apart: `capitalOf` is "capital of". A blank node without a label is told by what is said of
it: "street Unter den Linden 1, postal code 10117".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote

from pegbox.data.sources.graph_facts import Facts, Term, is_blank

RDF, RDFS = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://www.w3.org/2000/01/rdf-schema#"
SKOS, XSD = "http://www.w3.org/2004/02/skos/core#", "http://www.w3.org/2001/XMLSchema#"
LABELS = (f"{RDFS}label", f"{SKOS}prefLabel", "https://schema.org/name", "http://schema.org/name")
KEPT = 10_000  # names that are remembered
EDGES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # between words of camelCase and HTMLPage


def local_name(iri: str) -> str:
    """What follows the last #, / or : of an IRI."""
    return re.split(r"[#/:]", iri)[-1]


def words_of(name: str) -> str:
    """The words of a camelCase or under_scored name; small ones where it begins with a small letter."""
    words = EDGES.sub(" ", unquote(name).replace("_", " ")).split()
    if name[:1].islower():
        words = [word if len(word) > 1 and word.isupper() else word.lower() for word in words]
    return " ".join(words)


class NamelessError(Exception):
    """A value that lies behind two nodes without a name, or behind one of which nothing is said."""


class Names:
    """The names in one graph and language (`en`, which `en-GB` is as well)."""

    def __init__(self, facts: Facts, language: str) -> None:
        self._facts, self._language = facts, language.lower()
        self.label = lru_cache(KEPT)(self._label)

    def _label(self, node: str) -> str | None:
        """The label of a node, if it has one."""
        found = [(predicate, term) for predicate, term in self._facts.about(node) if predicate in LABELS]
        texts = [
            (self._rank(term.language), LABELS.index(predicate), " ".join(term.text.split()))
            for predicate, term in found
            if term.form == "literal" and term.text.strip()
        ]
        return min(texts)[2] if texts else None

    def _rank(self, language: str) -> tuple[int, str]:
        """The smaller the better: the language asked for, a kind of it, none, another."""
        order = (language == self._language, language.startswith(f"{self._language}-"), not language, True)
        return order.index(True), language

    def of(self, node: str) -> str:
        """What a node with a name is called. An address of a page, in which words are hard to find, is told whole."""
        local = local_name(node)
        is_word = re.search(r"[^\W\d_]", local) and not re.search(r"[.?=&]", local)
        return self.label(node) or (words_of(local) if is_word else node)

    def in_one_language(self, terms: list[Term]) -> list[Term]:
        """Without translations: of the texts, those in the best language that is there. Others stay as they are."""
        texts = {term.language for term in terms if term.form == "literal"}
        best = min(texts, key=self._rank, default="")
        return [term for term in terms if term.language in ("", best)]

    def value(self, term: Term, deep: bool = True) -> str:
        """An object as it is read. Raises ValueError for a broken literal, and NamelessError."""
        match term.form:
            case "iri":
                return self.of(term.text)
            case "literal":
                return _readable(term)
            case "broken":
                raise ValueError(f"holds {term.text[:40]!r}, which is no {local_name(term.datatype)}")
        if label := self.label(term.text):
            return label
        if not deep:
            raise NamelessError
        return self._described(term.text)

    def _described(self, blank: str) -> str:
        """A blank node by what is said of it, its kind apart where more is said."""
        said = self._facts.about(blank)
        said = [fact for fact in said if fact[0] != f"{RDF}type"] or said
        if not said:
            raise NamelessError
        told = {(self.of(predicate), self.value(term, deep=False)) for predicate, term in self._kept(said)}
        return ", ".join(f"{name} {value}" for name, value in sorted(told))

    def _kept(self, said: list[tuple[str, Term]]) -> Iterable[tuple[str, Term]]:
        for predicate in dict.fromkeys(predicate for predicate, _ in said):
            terms = self.in_one_language([term for other, term in said if other == predicate])
            yield from ((predicate, term) for term in terms)

    def is_named(self, node: str) -> bool:
        """Whether a node has a name: an IRI, or a label."""
        return not is_blank(node) or self.label(node) is not None


def _readable(term: Term) -> str:
    """A literal as a person writes it: 3600000 for 3.6E6, 2020-01-02 10:00:00 for 2020-01-02T10:00:00."""
    kind = term.datatype.removeprefix(XSD)
    if kind in ("double", "float"):
        number = float(term.text)
        return str(int(number)) if number.is_integer() and abs(number) < 1e16 else str(number)
    return term.text.replace("T", " ", 1) if kind == "dateTime" else term.text
