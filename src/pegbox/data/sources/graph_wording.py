"""Which words a fact is told in: the user's templates, else ones that read well for most predicates, in English."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pegbox.data.cells import listed
from pegbox.data.sources.graph_names import LABELS, RDF, RDFS, SKOS, local_name
from pegbox.errors import RecipeError
from pegbox.recipe.sources import GraphSource
from pegbox.recipe.templates import Rows, Template

OWL = "http://www.w3.org/2002/07/owl#"
TYPE = f"{RDF}type"
PREPOSITIONS = {"of", "in", "by", "for", "to", "from", "at", "with", "on", "as", "about", "under", "near", "after"}
# what is said of names and of how a graph is written, and not of the world: no rows, unless a template asks for them
WRITTEN_IN = (OWL, "http://www.w3.org/ns/shacl#", f"{RDFS}isDefinedBy", f"{RDF}first", f"{RDF}rest")
LANGUAGES = (OWL, RDF, RDFS, "http://www.w3.org/ns/shacl#")  # a kind of thing that they define is likewise none


Shape = Mapping[Rows, Template]


def _shape(prompt: str, text: str) -> Shape:
    return {"questions": Template(prompt=prompt, completion="{object}"), "facts": Template(text=text)}


NOUN = _shape("What is the {predicate} of {subject}?", "The {predicate} of {subject} is {object}.")
RELATION = _shape("What is {subject} {predicate}?", "{subject} is {predicate} {object}.")
DESCRIPTION = _shape("How is {subject} described?", "{subject}: {object}")
KIND = _shape("What is {subject} a kind of?", "{subject} is a kind of {object}.")
USUAL: Mapping[str, Shape] = {
    TYPE: _shape("What kind of thing is {subject}?", "{subject} is a thing of the kind {object}."),
    f"{RDFS}subClassOf": KIND,
    f"{SKOS}broader": KIND,
    f"{SKOS}altLabel": _shape("What else is {subject} called?", "{subject} is also called {object}."),
    f"{RDFS}comment": DESCRIPTION,
    f"{SKOS}definition": DESCRIPTION,
    "http://purl.org/dc/terms/description": DESCRIPTION,
    "http://schema.org/description": DESCRIPTION,
    "https://schema.org/description": DESCRIPTION,
}


def is_unsaid(predicate: str) -> bool:
    """Whether a predicate says nothing of the world."""
    return predicate in LABELS or predicate.startswith(WRITTEN_IN)


def usual(rows: Rows, predicate: str, name: str) -> tuple[Template, str] | None:
    """The words for a predicate of that name, and what it is called in them; None where nothing is said of it."""
    if is_unsaid(predicate):
        return None
    if predicate in USUAL:
        return USUAL[predicate][rows], name
    words = name.split()
    if len(words) > 1 and words[0].lower() in ("has", "is"):
        words = [word if word.isupper() else word.lower() for word in words[1:]]
    shape = RELATION if words[-1:] and words[-1] in PREPOSITIONS else NOUN
    return shape[rows], " ".join(words)


def chosen(source: GraphSource, predicates: Sequence[str], prefixes: Mapping[str, str]) -> dict[str, Template | None]:
    """The user's template for each predicate that has one: by its IRI, else as ex:name, else by its name, else `*`.

    Raises RecipeError for a key that names no predicate of the graph: it would have no effect.
    """
    found = {predicate: source.templates["*"] for predicate in predicates if "*" in source.templates}
    found = {predicate: template for predicate, template in found.items() if not is_unsaid(predicate)}
    for key in sorted(source.templates.keys() - {"*"}, key=lambda key: (key in predicates, ":" in key)):
        named = _named(key, predicates, prefixes)
        if not named:
            raise _unknown(key, predicates, source.path)
        found |= dict.fromkeys(named, source.templates[key])
    return found


def _named(key: str, predicates: Sequence[str], prefixes: Mapping[str, str]) -> list[str]:
    prefix, _, local = key.partition(":")
    whole = {key, prefixes[prefix] + local} if prefix in prefixes else {key}
    return [one for one in predicates if one in whole or (":" not in key and local_name(one) == key)]


def _unknown(key: str, predicates: Sequence[str], path: str) -> RecipeError:
    names = sorted({local_name(predicate) for predicate in predicates})
    close = difflib.get_close_matches(local_name(key), names, n=1)
    cure = f"did you mean '{close[0]}'?" if close else f"its predicates are: {listed(names)}"
    return RecipeError("no fact of the graph has this predicate", where=f"{path}: templates.{key}", cure=cure)
