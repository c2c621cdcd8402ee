"""`completion` with `fim_rate`: what stands in the middle of a text, between its beginning and its end (fill-in-the-middle).

A share of the training texts, drawn by the recipe's seed and the text, is cut in three and learnt by the model's own tokens
for that (`data.infill`): the middle and the token that ends it are trained and nothing else. The other texts are learnt
whole, as plain text is: without them a model would unlearn to write from left to right (Bavarian et al. 2022, arXiv
2207.14255, find no loss at rates up to 0.9 in pretraining).

Every row of the test is asked for its middle, prefix first, and held against what stood there.

- Primary: `exact_match` where middles are short, else `edit_similarity` and not chrF as for other texts: chrF leaves white
  space out, which in code has a meaning; edits count it, and they are what benchmarks of code completion report.
- `syntax_validity` is reported where the training texts are Python.
- Trivial rival: the whole line nearest to the middle, copied. The most frequent middle would be a letter or nothing.
- The untouched model is asked as the tuned one is. Where its tokens were added (`model.add_tokens`) it never saw them: it
  goes on from the prefix alone, up to where it says the first line of the suffix.
- Examples for few-shot are whole texts before the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from pegbox.data.cells import text
from pegbox.data.infill import LEFT_TO_RIGHT, Cut, Form, Infill, cut, infill_of, lots, refuse_tokens
from pegbox.data.records import Content, Example, PlainText, Record
from pegbox.data.render import Renderer
from pegbox.errors import DataError, RecipeError
from pegbox.metrics.code import is_python
from pegbox.models.generation import room
from pegbox.recipe import Completion as Settings
from pegbox.recipe import Recipe
from pegbox.tasks.base import Advance, Predictions
from pegbox.tasks.completion import SEPARATOR
from pegbox.tasks.language import LanguageTask

MARK = "⟪…⟫"  # what people see, and may type, in the place of the middle
LOOKED_AT = 1000  # training texts, by which it is told whether they are Python
CHRF, EDITS, SYNTAX = "chrf", "edit_similarity", "syntax_validity"


class Infilling(LanguageTask):
    """Learns what stands between two texts."""

    kind = "completion"
    metrics: tuple[str, ...] = ("exact_match", EDITS, CHRF)
    trivial_name = "copy of the nearest line"

    def __init__(self, renderer: Renderer, recipe: Recipe, heads: frozenset[str] = frozenset()) -> None:
        assert isinstance(recipe.task, Settings)
        self.infill, self.settings = _infill(renderer, recipe.task), recipe.task
        self.added = not set(self.infill.names).isdisjoint(recipe.model.add_tokens)
        end = self.infill.asked.end
        if end is not None and end not in renderer.stop_ids:
            renderer = Renderer(renderer.tokenizer, [*renderer.stop_ids, end])
        super().__init__(renderer, recipe, heads)

    def observe(self, records: Sequence[Record]) -> None:
        """Only plain text can be cut."""
        if odd := next((record for record in records if not isinstance(record.content, PlainText)), None):
            cure = "give rows of `text`, or leave task.fim_rate away"
            raise DataError("task.fim_rate cuts plain text, and this row has a prompt", where=odd.where, cure=cure)

    def fit(self, train: Sequence[Record]) -> None:
        """Find out whether the texts are Python."""
        super().fit(train)
        some = train[:LOOKED_AT]
        self._told(python=len(some) > 0 and all(is_python(_content(record).text) for record in some))

    def _told(self, *, python: bool) -> None:
        self.metrics = (*type(self).metrics, SYNTAX) if python else type(self).metrics

    def state(self) -> dict[str, Any]:
        """How middles are asked for: the tokens by their names, with the places of the two texts."""
        return {
            "plain": True,
            "trivial": self.trivial_name,
            "python": SYNTAX in self.metrics,
            "added": self.added,
            "around": self.renderer.hole_in_words(self.infill.asked),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Whether the texts are Python."""
        self._told(python=bool(state["python"]))

    def encode(self, record: Record) -> Example:
        """The middle trained behind the rest, or the whole text."""
        parts = self._parts(record)
        cut_too, suffix_first = lots(_content(record).text, self.recipe.seed)
        if cut_too < self.settings.fim_rate:
            form = self.infill.spm if suffix_first < self.settings.fim_spm_rate else self.infill.psm
            assert form is not None
            tokens = self.renderer.filled(form, parts)
        else:
            self.prompt(record, ())  # a row that cannot be asked is told now, and not when it is to be scored
            tokens = self.renderer.plain_text(_content(record).text)
            refuse_tokens(tokens.input_ids, self.infill.asked)
        return Example(record.where, tuple(tokens.input_ids), tuple(tokens.loss_weights))

    def longest_answer(self, train: Sequence[Example]) -> int:
        """The tokens of the longest middle and its stop token; of the longest text where none was cut."""
        marks = self.infill.asked.tokens
        middles = [example for example in train if not marks.isdisjoint(example.input_ids)]
        return super().longest_answer(middles or train)

    def primary(self, train: Sequence[Record]) -> str:
        """`exact_match` for short middles, else `edit_similarity`."""
        usual = super().primary(train)
        return EDITS if usual == CHRF else usual

    def question(self, values: Mapping[str, Any]) -> Content | None:
        """A row's text, whose own middle is asked for, or what stands between its `prompt` and its `suffix`.

        Without a suffix that is where the prompt has the mark, or its end.
        """
        whole = self.recipe.data.column("text")
        if whole in values:
            return PlainText(text(values, whole))
        if "prompt" not in values:
            return None
        prompt, suffix = text(values, "prompt"), text(values, "suffix") if values.get("suffix") is not None else None
        if suffix is None:
            prompt, _, suffix = prompt.partition(MARK)
        return PlainText(prompt + suffix, (len(prompt), len(prompt)))

    def typed(self, text: str) -> Mapping[str, Any]:
        """The text as a prompt, with or without the mark."""
        return {"prompt": text}

    def _parts(self, record: Record) -> Cut:
        return cut(_content(record))

    def prompt(self, record: Record, shots: Sequence[Record]) -> list[int]:
        """What stands around the middle, with other texts before it."""
        return self._hole(self.infill.asked, record, shots)

    def _hole(self, form: Form, record: Record, shots: Sequence[Record]) -> list[int]:
        parts = self._parts(record)
        before = "".join(_content(shot).text + SEPARATOR for shot in shots)
        return self.renderer.hole(form, before + parts.prefix, parts.suffix)

    def shown(self, record: Record) -> str:
        """The text with a mark in the place of its middle."""
        parts = self._parts(record)
        return f"{parts.prefix}{MARK}{parts.suffix}"

    def reference(self, record: Record) -> str:
        """The middle."""
        return self._parts(record).middle

    def beside(self, record: Record) -> Mapping[str, Any]:
        """What stands around the middle."""
        parts = self._parts(record)
        return {"around": [parts.prefix, parts.suffix]}

    def following(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, advance: Advance
    ) -> Predictions:
        """The same; None behind a prompt that is longer than the model's positions.

        A text that just fits when it is learnt whole can be a few tokens longer cut in pieces.
        """
        fitting = [index for index, prompt in enumerate(prompts) if room(model, prompt) > 0]
        advance(len(prompts) - len(fitting))
        found = super().following(model, [prompts[index] for index in fitting], max_new_tokens, advance)
        said = dict(zip(fitting, found.answers, strict=True))
        return replace(found, answers=tuple(map(said.get, range(len(prompts)))))

    def ask(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record],
        max_new_tokens: int,
        advance: Advance,
    ) -> Predictions:
        """As the tuned model is asked; from left to right where the tokens for the other were added."""
        if not self.added:
            return super().ask(model, records, shots=shots, max_new_tokens=max_new_tokens, advance=advance)
        nothing = [int(self.renderer.tokenizer.eos_token_id)]  # to go on from, where no text stands before the middle
        prompts = [self._hole(LEFT_TO_RIGHT, record, shots) or nothing for record in records]
        given = self.following(model, prompts, max_new_tokens, advance)
        ended = (_before(answer, self._parts(r).suffix) for answer, r in zip(given.answers, records, strict=True))
        return replace(given, answers=tuple(ended))

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The last whole line before the middle; the first behind it where there is none; else nothing."""
        return Predictions(tuple(_nearest_line(self._parts(record)) for record in test))


def _infill(renderer: Renderer, settings: Settings) -> Infill:
    """How the model is asked for a middle. Raises RecipeError where it cannot be, or not as the recipe wants it."""
    infill = infill_of(renderer.tokenizer)
    if infill is None:
        cure = 'add them: model: {name: ..., add_tokens: ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]}'
        raise RecipeError("the tokenizer has no tokens to ask for a middle with", where="task.fim_rate", cure=cure)
    if infill.spm is None and settings.fim_spm_rate > 0:
        what = f"the makers of {', '.join(infill.names)} did not say how the suffix would stand first"
        raise RecipeError(what, where="task.fim_spm_rate", cure="leave it away: the prefix stands first")
    if infill.psm is None and settings.fim_spm_rate < 1:
        what = f"with {', '.join(infill.names)} the suffix always stands first"
        raise RecipeError(what, where="task.fim_spm_rate", cure="set it to 1")
    return infill


def _content(record: Record) -> PlainText:
    assert isinstance(record.content, PlainText)
    return record.content


def _before(answer: str | None, suffix: str) -> str | None:
    """An answer up to where it says the first line of the suffix that is not blank: there the middle is over."""
    line = next((line for line in suffix.split("\n") if line.strip()), "")
    return answer.partition(line)[0] if answer and line else answer


def _nearest_line(parts: Cut) -> str:
    """A whole line beside the middle; those in which it begins and ends are no whole ones."""
    before, behind = parts.prefix.split("\n")[:-1], parts.suffix.split("\n")[1:]
    found = [line for line in (*reversed(before), *behind) if line.strip()]
    return found[0] if found else ""
