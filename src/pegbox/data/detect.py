"""Which format a row is written in: known by the names of its columns, and said with the reason.

Names alone decide, never what stands in the cells: a file whose rows are read by chance in two ways is worse than one
that is refused. The first format of the task's table whose roles the row has is taken. Where there is none, the error
names the columns, and writes down the `data.columns` that is probably meant; pegbox does not decide that by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pegbox.data.cells import listed
from pegbox.data.records import Content

# other names of roles, the most telling first; `pegbox init` knows more and looks into the cells
USUAL: Mapping[str, tuple[str, ...]] = {
    "messages": ("conversation", "dialogue", "dialog", "chat", "turns"),
    "prompt": ("question", "query", "input", "instruction", "user", "problem"),
    "completion": ("answer", "response", "reply", "output", "assistant", "solution"),
    "text": ("sentence", "review", "content", "document", "body", "tweet", "anchor"),
    "label": ("class", "category", "sentiment", "intent", "topic", "tag"),
    "labels": ("tags", "topics", "categories", "genres", "label"),
    "score": ("rating", "stars", "grade", "similarity", "label", "target"),
    "tokens": ("words",),
    "tags": ("ner_tags", "pos_tags", "labels", "ner"),
    "source": ("src", "source_text", "article", "document", "dialogue"),
    "target": ("tgt", "target_text", "summary", "highlights", "translation"),
    "text_pair": ("positive", "passage", "sentence2", "answer"),
    "negative": ("hard_negative", "neg"),
    "chosen": ("preferred", "better", "accepted"),
    "rejected": ("dispreferred", "worse"),
}


class Form(NamedTuple):
    """One way to write a row: its name in `data.format`, the roles that it must have, and how it is read."""

    name: str
    roles: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Content]


class Detected(NamedTuple):
    """The form that a row is read as, and why."""

    form: Form
    why: str

    @property
    def name(self) -> str:
        """The name of the form, as `data.format` knows it."""
        return self.form.name


def first(values: Mapping[str, Any], forms: Sequence[Form]) -> Form | None:
    """The first form whose roles are all there."""
    for form in forms:
        if all(role in values for role in form.roles):
            return form
    return None


def explain(values: Mapping[str, Any], form: Form, forms: Sequence[Form]) -> str:
    """Why a row is read in this form: the columns it is known by, and what else it could have been."""
    why = f"it has {' and '.join(form.roles)}"
    others = [other for other in forms if other.name != form.name and first(values, [other])]
    if not others:
        return why
    return f"{why}; {' and '.join(others[0].roles)} would be read by data.format: {others[0].name}"


def refusal(given: Mapping[str, Any], values: Mapping[str, Any], forms: Sequence[Form], task: str) -> str:
    """What a row (as it was `given`, and by its roles) lacks, and the mapping that may be meant."""
    needed = " or ".join("+".join(form.roles) for form in forms)
    said = f"task '{task}' needs {needed}; the row has {listed(given)}"
    meant = next((mapping for form in forms if (mapping := _meant(values, form.roles))), None)
    if meant is None:
        return said
    return f"{said}. Are they meant? data.columns: {{{', '.join(f'{role}: {name}' for role, name in meant.items())}}}"


def _meant(values: Mapping[str, Any], roles: Sequence[str]) -> dict[str, str] | None:
    """The columns that roles which the row lacks may stand in; None unless each of them has one of its own."""
    free = [str(name) for name in values if name not in roles]
    mapping: dict[str, str] = {}
    for role in roles:
        if role in values:
            continue
        if role not in USUAL:  # a form that is known by its published names alone
            return None
        known = [name for usual in USUAL[role] for name in free if name.casefold() == usual]
        found = known or get_close_matches(role, free, 1, 0.8)
        if not found:
            return None
        mapping[role] = found[0]
        free.remove(found[0])
    return mapping
