"""A knowledge graph -> rows: a question and its answer for each subject and predicate, or a text for each fact.

Several objects make one answer, "A, B": as rows of their own they would contradict each other. Rows come sorted by
subject and predicate, so the same graph gives the same rows however it is written. Each names its `subject` and
`predicate`: with `columns: {group: subject}` all that is said of a thing stays on one side of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from pegbox.data.records import Row
from pegbox.data.sources.graph_facts import Facts, Group, Term, is_blank
from pegbox.data.sources.graph_files import load
from pegbox.data.sources.graph_names import LABELS, NamelessError, Names
from pegbox.data.sources.graph_wording import LANGUAGES, TYPE, chosen, usual
from pegbox.data.sources.outcomes import MalformedRow, Remark
from pegbox.errors import DataError, RecipeError
from pegbox.recipe.sources import GraphSource
from pegbox.recipe.templates import Template

# why facts are left out
AS_WRITTEN = "they say how the graph is written"
NAMELESS = "they lead through nodes without a name, further than one step"


class _Outcome(NamedTuple):
    """What becomes of facts: a row's values, or why it has none; and the line of the first of them, if it is known."""

    told: dict[str, str] | str
    line: int | None


def read_graph(source: GraphSource, told: list[Remark] | None = None) -> Iterator[Row | MalformedRow]:
    """The rows of a graph; the place of a row is its first line in N-Triples, else its number. What is left out (names,
    translations, what a template of null says) is counted in `told`.

    Raises RecipeError without the extra, or for a template that no fact has; DataError for a file that is no graph.
    """
    told = [] if told is None else told
    try:
        facts = Facts()
    except ImportError:
        raise RecipeError("a graph needs `rdflib`", where=source.path, cure="pip install 'pegbox[rdf]'") from None
    with closing(facts):
        yield from load(facts, source.path, told)
        predicates = facts.predicates()
        if not predicates:
            raise DataError("the graph says nothing", where=source.path, cure="give a graph with facts")
        teller = _Teller(source, facts, chosen(source, predicates, facts.prefixes))
        for number, outcome in enumerate(teller.tell_all(), start=1):
            where = f"{source.path}:{outcome.line or number}"
            if isinstance(outcome.told, str):
                yield MalformedRow(where, outcome.told)
            else:
                yield Row(where, outcome.told)
        told += teller.remarks()


class _Teller:
    """Tells the facts of one graph."""

    def __init__(self, source: GraphSource, facts: Facts, templates: dict[str, Template | None]) -> None:
        self._source, self._facts, self._templates = source, facts, templates
        self._names = Names(facts, source.language)
        self._left: Counter[str] = Counter()

    def tell_all(self) -> Iterator[_Outcome]:
        """Everything, in the one order: first what has an IRI. Blank nodes have no order, so their rows are sorted."""
        for group in self._facts.groups(of_blanks=False):
            yield from self._tell(group)
        of_blanks = (outcome for group in self._facts.groups(of_blanks=True) for outcome in self._tell_blank(group))
        yield from sorted(of_blanks, key=lambda outcome: (str(outcome.told), outcome.line or 0))

    def remarks(self) -> Iterator[Remark]:
        """What was left out, so far."""
        for what, count in sorted((+self._left).items()):  # + leaves what was counted zero times
            facts = "1 fact is" if count == 1 else f"{count} facts are"
            cure = "nothing, if that is meant; a template that names a predicate brings its facts back"
            yield Remark(self._source.path, "source", f"{facts} left out: {what}", cure)

    def _tell_blank(self, group: Group) -> Iterator[_Outcome]:
        """A blank node with a name is like any other; one without is told where a thing with a name leads to it."""
        if self._names.is_named(group.subject) or self._wording(group.predicate) is None:
            yield from self._tell(group)
        elif not any(map(self._names.is_named, self._facts.leading_to(group.subject))):
            self._left[NAMELESS] += len(group.objects)

    def _tell(self, group: Group) -> Iterator[_Outcome]:
        """The rows of a group: one for a question, one for each fact."""
        wording = self._wording(group.predicate)
        if wording is None:
            self._left[self._why_not(group.predicate)] += len(group.objects)
            return
        template, predicate = wording
        subject = self._names.of(group.subject)
        kept = self._kept(group)
        first = min((term.line for term in kept if term.line), default=None)
        try:
            lines = {self._names.value(term): term.line for term in kept}
        except NamelessError:
            self._left[NAMELESS] += len(kept)
            return
        except ValueError as error:
            yield _Outcome(f"'{predicate}' of '{subject}' {error}", first)
            return
        if lines and self._source.rows == "questions":
            lines = {_joined(sorted(lines)): first}
        tied = {"subject": subject if is_blank(group.subject) else group.subject, "predicate": group.predicate}
        for answer, line in sorted(lines.items()):
            words = {"subject": subject, "predicate": predicate, "object": answer}
            told = template.model_dump(exclude_none=True)
            yield _Outcome({role: text.format(**words) for role, text in told.items()} | tied, line)

    def _wording(self, predicate: str) -> tuple[Template, str] | None:
        name = self._names.of(predicate)
        if predicate in self._templates:
            template = self._templates[predicate]
            return (template, name) if template else None
        return usual(self._source.rows, predicate, name)

    def _why_not(self, predicate: str) -> str:
        if predicate in self._templates:
            return "their template is null"
        return "they only name things" if predicate in LABELS else AS_WRITTEN

    def _kept(self, group: Group) -> list[Term]:
        """The objects without translations, and without the kinds of things that graphs are written in."""
        kept = self._names.in_one_language(group.objects)
        self._left["they say the same in other languages"] += len(group.objects) - len(kept)
        if group.predicate == TYPE:
            kinds = [term for term in kept if not term.text.startswith(LANGUAGES)]
            self._left[AS_WRITTEN] += len(kept) - len(kinds)
            kept = kinds
        return kept


def _joined(answers: list[str]) -> str:
    return ("; " if any("," in answer for answer in answers) else ", ").join(answers)
