"""The words that make a row of a fact of a knowledge graph: texts with {subject}, {predicate} and {object} in them."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pegbox.recipe.values import Frozen

Rows = Literal["questions", "facts"]
PLACES = ("subject", "predicate", "object")


def _with_known_places(words: str) -> str:
    """The words as they are. Raises ValueError for a place that is none, or that asks for more than its text."""
    try:
        parts = list(Formatter().parse(words))
    except ValueError as error:
        raise ValueError(f"has a brace that is alone ({error}): write {{{{ and }}}} for braces") from None
    for _, place, shape, conversion in parts:
        if place is not None and (place not in PLACES or shape or conversion):
            known = ", ".join(f"{{{name}}}" for name in PLACES)
            raise ValueError(f"may hold {known}, and not {{{place}{f'!{conversion}' if conversion else ''}}}")
    return words


Words = Annotated[str, Field(min_length=1), AfterValidator(_with_known_places)]


class Template(Frozen):
    """What is written for a fact: a question (`prompt`) and its answer (`completion`), or a `text`."""

    prompt: Words | None = Field(default=None, description="the question, with {subject} and {predicate} in it")
    completion: Words | None = Field(default=None, description="the answer, with {object} in it")
    text: Words | None = Field(default=None, description="the fact as a text")

    @model_validator(mode="after")
    def _has_one_form(self) -> Template:
        if (self.prompt is None) != (self.completion is None) or (self.prompt is None) == (self.text is None):
            raise ValueError("must have prompt and completion, or text")
        return self

    @property
    def rows(self) -> Rows:
        """Which form of rows it makes."""
        return "questions" if self.text is None else "facts"
