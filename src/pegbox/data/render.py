"""The only place where a conversation becomes tokens: for training, evaluation, preview and serving alike.

*Serving is the reference.* A conversation is cut into segments: the text up to an assistant's turn, what the assistant
says there, the text up to the next such turn, and so on. Each segment is tokenised by itself, so

    training ids = the served prompt's ids + the answer's ids + the stop token + ...

holds by construction, and a later turn sees exactly the ids that an earlier turn was trained on. The template is
rendered for every prefix of the conversation; stock templates lack `{% generation %}` markers, and nothing here needs
them. It must be prefix-stable and keep every turn: a template that cannot frame a single answer is refused
(RecipeError), a conversation that it changes or refuses is refused by itself (ValueError).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from pegbox.data.codec import Codec
from pegbox.data.foreseen import asked_of
from pegbox.data.infill import Cut, Form, Part, refuse_tokens
from pegbox.data.masks import marks
from pegbox.data.records import Content, Conversation, Message, PromptCompletion, Spans
from pegbox.data.template import Template, UnstableTemplate, refuse_lost
from pegbox.errors import RecipeError


@dataclass
class Tokens:
    """Ids with the loss weight of each *as a target*; built from left to right."""

    input_ids: list[int] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float = 0.0) -> None:
        """Append `ids`, each with the same loss weight."""
        self.input_ids.extend(ids)
        self.loss_weights.extend([weight] * len(ids))

    def add_each(self, ids: Sequence[int], weights: Sequence[float]) -> None:
        """Append `ids`, each with its own loss weight."""
        self.input_ids.extend(ids)
        self.loss_weights.extend(weights)


class Within(NamedTuple):
    """A text within what is said: what stands before it, how many of its first characters the template stripped, its spans."""

    lead: str
    text: str
    stripped: int
    trained: Spans | None


class Renderer:
    """A tokenizer, its chat template, and the rules above."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._codec = Codec(tokenizer)
        eos = tokenizer.eos_token_id
        self._model_stops = frozenset(stop_ids) | (frozenset() if eos is None else {eos})
        self._special = self._codec.special | self._model_stops
        self._chat = Template(self._codec, self._special)

    @property
    def fingerprint(self) -> list[Any]:
        """Everything that decides which tokens a text or a conversation becomes."""
        tokenizer = self.tokenizer
        template = tokenizer.chat_template
        return [self._codec.parts, template, tokenizer.special_tokens_map, sorted(self._special)]

    @property
    def special(self) -> frozenset[int]:
        """The tokens that are never part of a text that a person reads."""
        return self._special

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the model's own, and the one with which its chat template ends a turn."""
        with suppress(RecipeError):  # where the template is of no use, no conversation is rendered
            return self._model_stops | {self._chat.frame.stop}
        return self._model_stops

    def encode(self, text: str) -> list[int]:
        """The ids of a text by itself, without what the tokenizer puts before and behind (BOS, EOS)."""
        return self._codec.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, to the byte: nothing stripped, nothing cleaned up."""
        return self._codec.decode(ids)

    def answer(self, ids: Sequence[int], *, whole: bool = True) -> str:
        """What a model said: the text of its ids without the stop token, unstripped.

        `whole=False`: ids may follow; what they can still change is left away.
        """
        said = [token for token in ids if token not in self._special]
        return self.decode(said) if whole else self._codec.settled(said)

    def reply(self, ids: Sequence[int], *, whole: bool = True) -> str:
        """What a model said in a conversation: its answer without what the chat template puts around each."""
        text, lead, trail = self.answer(ids, whole=whole), self._chat.frame.lead, self._chat.frame.trail
        if whole:
            return text.removeprefix(lead).removesuffix(trail)
        if lead.startswith(text):
            return ""
        begun = max(size for size in range(len(trail) + 1) if text.endswith(trail[:size]))
        return text.removeprefix(lead)[: -begun or None]

    def _without_stop(self, ids: list[int]) -> list[int]:
        if not self.stop_ids.isdisjoint(ids):
            raise ValueError("holds the model's stop token within a text that is learnt")
        return ids

    def foresee(self, contents: Iterable[Content]) -> None:
        """Look ahead at a block of rows that will be encoded next; what was foreseen before is forgotten."""
        self._chat.forget()
        self._codec.look_ahead(*asked_of(self._chat, contents))

    # ---- conversations -------------------------------------------------------------------------------------------

    def conversation(self, content: Conversation) -> Tokens:
        """A whole conversation up to its last answer, each trained turn with its content and its stop token trained.

        Raises ValueError where the template changes or refuses it, RecipeError where no answer can be rendered at all.
        """
        try:
            return self._render(content.messages, content.tools)[0]
        except UnstableTemplate:  # what is served before the last answer can be learnt from all the same
            *before, last = [place for place, m in enumerate(content.messages) if m.role == "assistant"]
            if any(content.messages[place].weight for place in before):
                raise
            tokens = Tokens()
            tokens.add(self.prompt(content.messages[:last], content.tools))
            opened = self._template(content.messages[:last], True, content.tools)
            self._answer(tokens, opened, content.messages[: last + 1], content.tools)
            return tokens

    def prompt(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> list[int]:
        """The ids to serve: the conversation so far, and the opening of the assistant's turn. Raises likewise.

        A conversation that the template shows otherwise as it goes on is never trained: it is served in one piece.
        """
        opened = self._template(messages, True, tools)
        try:
            tokens, told, begun = self._render(messages, tools)
            tokens.add(self._between(told, opened, messages[begun:]))
        except UnstableTemplate:
            return self._between("", opened, [message for message in messages if message.role != "assistant"])
        return tokens.input_ids

    def turn(self, content: Conversation, index: int) -> str:
        """An assistant's turn as `reply` reads it: its content, or how the template writes its calls of tools."""
        message = content.messages[index]
        if not message.tool_calls:
            return message.content
        tokens, opened = Tokens(), self._template(content.messages[:index], True, content.tools)
        self._answer(tokens, opened, content.messages[: index + 1], content.tools)
        return self.reply(tokens.input_ids)

    def _render(self, messages: Sequence[Message], tools: Sequence[str]) -> tuple[Tokens, str, int]:
        """The tokens up to the last assistant's stop token, the text told by then, and the index of the next turn."""
        tokens, told, begun = Tokens(), "", 0
        for index, message in enumerate(messages):
            if message.role == "assistant":
                frame = self._chat.frame  # first of all: a template that frames no answer is refused as a whole
                opened = self._template(messages[:index], True, tools)
                tokens.add(self._between(told, opened, messages[begun:index]))
                said = self._answer(tokens, opened, messages[: index + 1], tools)
                told, begun = opened + said + frame.end, index + 1
        return tokens, told, begun

    def _answer(self, tokens: Tokens, opened: str, messages: Sequence[Message], tools: Sequence[str]) -> str:
        """Append the last turn, an answer to what is `opened`, and its stop token; the text that is said."""
        message, frame, closed = messages[-1], self._chat.frame, self._template(messages, False, tools)
        if message.tool_calls:
            said = self._chat.called(opened, message, closed)
            tokens.add([*self._without_stop(self._codec.learnt_call(said)), frame.stop], message.weight)
            return said
        lead, text = self._chat.said(opened, message.content, closed)
        said = lead + text + frame.trail
        within = Within(lead, text, message.content.find(text), message.trained)
        self._learn(tokens, said, frame.stop, message.weight, within)
        return said

    def _learn(self, tokens: Tokens, said: str, stop: int, weight: float, within: Within) -> None:
        """Append what is said and the stop token, trained with the weight: all of it, or the spans of a text within it.

        A token is trained where any of its characters is. What frames the text goes with its ends: the stop token is
        trained where the last character is.
        """
        ids = [*self._without_stop(self._codec.learnt_behind(said)), stop]
        if within.trained is None:
            tokens.add(ids, weight)
            return
        inside = marks(within.trained, len(within.text), within.stripped)
        first, last = (inside[0], inside[-1]) if inside else (False, False)
        behind = len(said) - len(within.lead) - len(within.text)
        whole = [first] * len(within.lead) + inside + [last] * behind
        learnt = [any(whole[start:end]) for start, end in self._codec.characters(said)]
        tokens.add_each(ids, [weight * mark for mark in (*learnt, last)])

    def _between(self, told: str, text: str, messages: Sequence[Message]) -> list[int]:
        """The ids of what the template says after what has been told already: the turns of others, and an opening."""
        if not text.startswith(told):
            raise UnstableTemplate(
                "the chat template changes earlier turns when one is added (it is not prefix-stable);"
                " only the last answer can be trained here (weight: 0 for those before it)"
            )
        refuse_lost(messages, text, len(told))
        if not told:
            return self.encode(text)
        return self.encode(self._chat.frame.end + text[len(told) :])[1:]  # as it stands behind the stop token

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[str] = ()) -> str:
        return self._chat.rendered(messages, add_generation_prompt, tools)

    # ---- completions ---------------------------------------------------------------------------------------------

    def completion_prompt(self, prompt: str) -> list[int]:
        """The ids to serve for a plain prompt: what the tokenizer puts before a text (a BOS, once), and the text.

        Raises ValueError where there is nothing to go on from.
        """
        opening, ids = self._codec.opening, self.encode(prompt)
        if not opening and not ids:
            raise ValueError("the prompt is empty, and the tokenizer puts nothing before it")
        return ids if opening and ids[: len(opening)] == opening else opening + ids

    def prompt_completion(self, content: PromptCompletion) -> Tokens:
        """Prompt untrained, completion and stop token trained (or the characters of it that are trained)."""
        tokens = Tokens()
        tokens.add(self.completion_prompt(content.prompt))
        said = content.completion
        self._learn(tokens, said, self._closing(), 1.0, Within("", said, 0, content.trained))
        return tokens

    def plain_text(self, text: str) -> Tokens:
        """A text learnt whole, with its stop token; what the tokenizer puts before it is not trained."""
        tokens = Tokens()
        tokens.add(self._codec.opening)
        tokens.add([*self._without_stop(self._codec.learnt(text)), self._closing()], 1.0)
        return tokens

    def hole(self, form: Form, prefix: str, suffix: str) -> list[int]:
        """The ids to serve for what stands between two texts: what the tokenizer puts before a text, and the form's parts.

        The texts are tokenised each by itself, and names of controls in them are text. Raises ValueError where that fails.
        """
        texts = {Part.PREFIX: form.lead * bool(prefix) + prefix, Part.SUFFIX: suffix}
        ids = list(self._codec.opening)
        for part in form.parts:
            ids += [part] if isinstance(part, int) else refuse_tokens(self._codec.learnt_behind(texts[part]), form)
        return ids

    def hole_in_words(self, form: Form) -> dict[str, Any]:
        """What it takes to make a hole's ids elsewhere: the parts by their names, and whether one text of them will do."""
        names = self.tokenizer.convert_ids_to_tokens
        parts = [str(names(part)) if isinstance(part, int) else f"{{{part.value}}}" for part in form.parts]
        tried = "".join(parts).format(prefix="a\nb", suffix="c")
        as_text = self.tokenizer(tried)["input_ids"] == self.hole(form, "a\nb", "c")
        return {"parts": parts, "lead": form.lead, "opening": self._codec.opening, "as_text": as_text}

    def filled(self, form: Form, cut: Cut) -> Tokens:
        """A text with its middle last: that and its stop token are trained. Raises likewise."""
        tokens = Tokens()
        tokens.add(self.hole(form, cut.prefix, cut.suffix))
        middle = self._without_stop(self._codec.learnt_behind(cut.middle))
        tokens.add([*refuse_tokens(middle, form), self._closing() if form.end is None else form.end], 1.0)
        return tokens

    # ---- a source and its target -------------------------------------------------------------------------------------

    def source(self, text: str) -> list[int]:
        """The ids of a text that an encoder reads: as the tokenizer has it, with all that it puts around a text."""
        return list(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def target(self, text: str) -> list[int]:
        """The ids of a text that a decoder of its own writes, at the beginning of a sequence, and the stop token.

        Raises ValueError where a character would be lost.
        """
        return [*self._without_stop(self._codec.learnt(text, "text_target")), self._closing()]

    def written(self, ids: Sequence[int]) -> str:
        """The text of ids that such a decoder wrote, without the stop token."""
        return self._codec.at_the_beginning([token for token in ids if token not in self._special])

    def around_target(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and behind a text that is a target: tokens for languages, or of its own."""
        marked, bare = list(self.tokenizer(text_target="a")["input_ids"]), self._codec.learnt("a", "text_target")
        begin = marked.index(bare[0])
        return marked[:begin], marked[begin + len(bare) :]

    def _closing(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise RecipeError("the tokenizer has no end-of-text token", where="model", cure="use one that has")
        return int(self.tokenizer.eos_token_id)
