"""A chat template: a stranger's program that turns a conversation into text, and what must be known of it to train on it.

It is rendered by Transformers (Jinja's immutable sandbox), never looked into: what it puts around an answer is found by
rendering the shortest conversation, whether it can show tools by giving it one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pegbox.data.codec import Codec
from pegbox.data.records import Message
from pegbox.data.turns import PROBE, PROBE_TOOL, forms_in_a_template, template_turn
from pegbox.errors import RecipeError


@dataclass(frozen=True)
class Frame:
    """What a template puts around each answer, behind its generation prompt.

    `lead` and `trail` are said by the model like the answer itself (Llama 2 has a space on either side); `end` is the
    text of the stop token `stop`, with the white space that the token swallows; `rest` is what follows the last one.
    """

    lead: str
    trail: str
    end: str
    stop: int
    rest: str


class UnstableTemplate(ValueError):
    """A conversation whose earlier turns the template shows otherwise when a turn is added."""


class Template:
    """The chat template of a tokenizer. `special`: the tokens that are never part of a text."""

    def __init__(self, codec: Codec, special: frozenset[int]) -> None:
        self.tokenizer, self._codec, self._special = codec.tokenizer, codec, special
        self._ahead: dict[tuple[tuple[Message, ...], bool], str] = {}

    def said(self, opened: str, content: str, closed: str) -> tuple[str, str]:
        """What the model is to say for an answer, up to its trail and its stop token: a lead, and the text.

        A template may strip the content, and leave its lead away where the content has one of its own (a thought).
        """
        frame = self.frame
        for lead in (frame.lead, ""):
            for text in (content, content.strip(), content.lstrip("\n")):
                if closed.startswith(opened + lead + text + frame.trail + frame.end):
                    return lead, text
        raise ValueError("the chat template rewrites an answer, or what stands before it")

    def called(self, opened: str, message: Message, closed: str) -> str:
        """What the model is to say for calls of tools, up to its stop token: all that the template writes for them."""
        end = self.frame.end + self.frame.rest
        said = closed[len(opened) : -len(end)]
        if opened + said + end != closed or not all(call.name in said for call in message.tool_calls):
            raise ValueError(
                "the chat template does not show the calls of tools, or ends them otherwise than an answer"
            )
        for text in (message.content, *(part for call in message.tool_calls for part in (call.name, call.arguments))):
            if not self._special.isdisjoint(self._codec.encode(text)):
                raise ValueError("holds the name of a control token in a turn that calls tools")
        return said

    @cached_property
    def frame(self) -> Frame:
        """Found by rendering the shortest conversation. Raises RecipeError where the template cannot be used."""
        asked = [Message("user", "question")]
        try:
            opened = self.rendered(asked, True)
            closed = self.rendered([*asked, Message("assistant", PROBE)], False)
        except ValueError as error:
            raise self._refusal(f"fails on a question and its answer: {error}") from None
        if not closed.startswith(opened):
            raise self._refusal("does not begin an answer as its generation prompt says (it is not prefix-stable)")
        lead, said, rest = closed[len(opened) :].partition(PROBE)
        if not said:
            raise self._refusal("drops or rewrites an assistant's answer")
        if not self._special.isdisjoint(self._codec.encode(lead)):
            raise self._refusal("has no generation prompt that opens the assistant's turn")
        found = self.tokenizer(rest, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            if token in self._special:
                return Frame(lead, rest[:start], rest[start:end], token, rest[end:])
        raise self._refusal("ends an assistant's answer without a stop token")

    @cached_property
    def _shows_tools(self) -> bool:
        try:
            return PROBE in self._raw([Message("user", "question")], True, [PROBE_TOOL])
        except ValueError:
            return False

    def rendered(self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[str] = ()) -> str:
        """The conversation as a text. Raises ValueError where the template refuses it, RecipeError without a template."""
        if tools and not self._shows_tools:
            raise ValueError("the model's chat template cannot show tools; leave 'tools' away, or use another model")
        if (
            self._ahead
            and not tools
            and (known := self._ahead.get((tuple(messages), add_generation_prompt))) is not None
        ):
            return known
        return self._raw(messages, add_generation_prompt, tools)

    def ahead(self, messages: tuple[Message, ...], add_generation_prompt: bool) -> str:
        """Render what will be asked for next, and remember it until `forget`. Raises likewise."""
        said = self._ahead[messages, add_generation_prompt] = self.rendered(messages, add_generation_prompt)
        return said

    def forget(self) -> None:
        """Forget what was rendered ahead."""
        self._ahead = {}

    def _raw(self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[str]) -> str:
        if self.tokenizer.chat_template is None:
            cure = "use an instruction-tuned model, or task: completion"
            raise RecipeError("the model has no chat template", where="model", cure=cure)
        if not messages:
            raise ValueError("a conversation must begin with a turn that is not the assistant's")
        turns = [template_turn(message) for message in messages]
        shown = [json.loads(tool) for tool in tools] or None
        render = self.tokenizer.apply_chat_template
        try:
            return str(render(turns, tools=shown, tokenize=False, add_generation_prompt=add_generation_prompt))
        except Exception as error:  # a template is a stranger's program: whatever it raises, it refuses
            raise ValueError(f"the chat template refuses the conversation: {error}") from None

    def _refusal(self, does: str) -> RecipeError:
        cure = "use another chat template (tokenizer.chat_template), or task: completion"
        return RecipeError(f"the model's chat template {does}", where="model", cure=cure)


def refuse_lost(messages: Sequence[Message], text: str, place: int) -> None:
    """Raise ValueError where a text does not show these turns, each behind the other, from a place on."""
    for message in messages:
        found = [at + len(form) for form in forms_in_a_template(message) if (at := text.find(form, place)) >= 0]
        if not found:
            raise ValueError(f"the chat template drops, moves or rewrites the turn of the {message.role}")
        place = found[0]
