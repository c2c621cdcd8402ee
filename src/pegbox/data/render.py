"""The only place where a conversation becomes tokens: for training, evaluation, preview and serving alike.

*Serving is the reference.* A conversation is cut into segments: the text up to an assistant's turn, what the assistant
says there, the text up to the next such turn, and so on. Each segment is tokenised by itself, so

    training ids = the served prompt's ids + the answer's ids + the stop token + ...

holds by construction, and a later turn sees exactly the ids that an earlier turn was trained on. The template is
rendered for every prefix of the conversation; stock templates lack `{% generation %}` markers, and nothing here needs
them. A template must be prefix-stable and keep every turn: one that cannot frame a single answer is refused (RecipeError),
a conversation that it changes or refuses is refused by itself (ValueError).

Three ways to tokenise a segment, for SentencePiece puts a space before a text, and a byte-level tokenizer does not:
a prompt as the tokenizer has it; what stands behind an answer, behind its stop token; an answer, exactly its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from pegbox.data.records import Conversation, Message, PromptCompletion
from pegbox.errors import RecipeError

PROBE = "pegbox"  # an answer that no template contains


@dataclass
class Tokens:
    """Ids with the loss weight of each *as a target*; built from left to right."""

    input_ids: list[int] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float = 0.0) -> None:
        """Append `ids`, each with the same loss weight."""
        self.input_ids.extend(ids)
        self.loss_weights.extend([weight] * len(ids))


@dataclass(frozen=True)
class Frame:
    """What a template puts around each answer behind its generation prompt.

    `lead` and `trail` are said by the model like the answer itself (Llama 2 puts a space on either side); `end` is the
    text of the stop token `stop`, with the white space that the token swallows.
    """

    lead: str
    trail: str
    end: str
    stop: int


class Renderer:
    """A tokenizer, its chat template, and the rules above."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = ()) -> None:
        if not tokenizer.is_fast:
            raise RecipeError("the model has no fast tokenizer", where="model", cure="give a model with tokenizer.json")
        self.tokenizer = tokenizer
        added = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._own_stops = frozenset(stop_ids) | {i for i in (tokenizer.eos_token_id,) if i is not None}
        self._special = frozenset(tokenizer.all_special_ids) | self._own_stops | added.keys()
        self._special_names = tuple(added.values())

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the model's own, and the one with which its chat template ends a turn."""
        with suppress(RecipeError):  # without a template that works no conversation is rendered
            return self._own_stops | {self._frame.stop}
        return self._own_stops

    # ---- text <-> ids --------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """The ids of a text as the tokenizer has it, without what it puts before and behind (BOS, EOS)."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids within a longer text: nothing stripped, nothing cleaned up."""
        anchor = self._anchor or []
        return self._decoded([*anchor, *ids])[len(self._decoded(anchor)) :]

    def answer(self, ids: Sequence[int]) -> str:
        """What a model said: the text of its ids without the stop token, unstripped."""
        return self.decode([token for token in ids if token not in self._special])

    def reply(self, ids: Sequence[int]) -> str:
        """What a model said in a conversation: its answer without what the chat template puts around each."""
        return self.answer(ids).removeprefix(self._frame.lead).removesuffix(self._frame.trail)

    def _decoded(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    @cached_property
    def _anchor(self) -> list[int] | None:
        """Ids before a text behind which the tokenizer neither adds nor loses anything; None where there are none.

        Empty for a byte-level tokenizer; a line break for SentencePiece, which merges with nothing and keeps the space
        before a text away. WordPiece loses white space and case: it cannot write answers.
        """
        probes = ("a", " a", "\na", "  a\n", "A b")
        for anchor in ("", "\n"):
            ids = self.encode(anchor)
            text = self._decoded(ids)
            behind = [self.encode(anchor + probe) for probe in probes]
            if all(
                got[: len(ids)] == ids and self._decoded(got) == text + probe
                for got, probe in zip(behind, probes, strict=True)
            ):
                return ids
        return None

    def _exactly(self, text: str) -> list[int]:
        """The ids of an answer: its text and nothing else, the name of a special token in it being plain text."""
        anchor = self._anchor
        if anchor is None:
            cure = "use a tokenizer that keeps white space (byte-level BPE, or SentencePiece with a line break)"
            raise RecipeError("the tokenizer changes an answer's text", where="model", cure=cure)
        ids = self._plain(self._decoded(anchor).lstrip(" ") + text)
        if ids[: len(anchor)] != anchor:
            raise ValueError("holds an answer that the tokenizer merges with what stands before it")
        return ids[len(anchor) :]

    def _plain(self, text: str) -> list[int]:
        """The ids of a text that is learnt. Raises ValueError where it would hold a stop token, or lose a character."""
        named = any(name in text for name in self._special_names)
        ids = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=named)["input_ids"])
        if not self.stop_ids.isdisjoint(ids):
            raise ValueError("holds the model's stop token within a text that is learnt")
        if self.tokenizer.unk_token_id in ids:
            raise ValueError("holds a character that the tokenizer does not know, in a text that is learnt")
        return ids

    # ---- conversations -------------------------------------------------------------------------------------------

    def conversation(self, content: Conversation) -> Tokens:
        """A whole conversation, each trained turn with its content and its stop token trained.

        Raises ValueError where the template changes or refuses it, RecipeError where no answer can be rendered at all.
        """
        return self._render(content.messages)[0]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids to serve: the conversation so far, and the opening of the assistant's turn."""
        tokens, told, begun = self._render(messages)
        tokens.add(self._between(told, self._template(messages, True), messages[begun:]))
        return tokens.input_ids

    def _render(self, messages: Sequence[Message]) -> tuple[Tokens, str, int]:
        """The tokens up to the last assistant's stop token, the text told so far, and the index of the next turn."""
        tokens, told, begun = Tokens(), "", 0
        for index, message in enumerate(messages):
            if message.role == "assistant":
                opened = self._template(messages[:index], True)
                tokens.add(self._between(told, opened, messages[begun:index]))
                said = self._said(opened, message.content, self._template(messages[: index + 1], False))
                tokens.add([*self._exactly(said), self._frame.stop], message.weight)
                told, begun = opened + said + self._frame.end, index + 1
        return tokens, told, begun

    def _between(self, told: str, text: str, messages: Sequence[Message]) -> list[int]:
        """The ids of what the template says after what has been told already: the turns of others, and an opening."""
        if not text.startswith(told):
            raise ValueError("the chat template changes earlier turns when one is added (it is not prefix-stable)")
        place = len(told)
        for message in messages:
            place = text.find(message.content.strip(), place) if message.role != "tool" else place
            if place < 0:
                raise ValueError(f"the chat template drops, moves or rewrites the turn of the {message.role}")
        if not told:
            return self.encode(text)
        return self.encode(self._frame.end + text[len(told) :])[1:]

    def _said(self, opened: str, content: str, closed: str) -> str:
        """What the model is to say for an answer, up to its stop token."""
        frame = self._frame
        for text in (content, content.strip()):
            said = frame.lead + text + frame.trail
            if closed.startswith(opened + said + frame.end):
                return said
        raise ValueError("the chat template rewrites an answer, or its generation prompt")

    @cached_property
    def _frame(self) -> Frame:
        """Found by asking for the shortest conversation. Raises RecipeError where the template cannot be used."""
        asked = [Message("user", "question")]
        try:
            opened = self._template(asked, True)
            closed = self._template([*asked, Message("assistant", PROBE)], False)
        except ValueError as error:
            raise self._refusal(f"fails on a question and an answer: {error}") from None
        if not closed.startswith(opened):
            raise self._refusal("does not begin an answer as its generation prompt says")
        lead, said, rest = closed[len(opened) :].partition(PROBE)
        if not said:
            raise self._refusal("drops or rewrites an assistant's answer")
        if not self._special.isdisjoint(self.encode(lead)):
            raise self._refusal("has no generation prompt that opens the assistant's turn")
        found = self.tokenizer(rest, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            if token in self._special:
                return Frame(lead, rest[:start], rest[start:end], token)
        raise self._refusal("ends an assistant's answer without a stop token")

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if self.tokenizer.chat_template is None:
            cure = "use an instruction-tuned model, or task: completion"
            raise RecipeError("the model has no chat template", where="model", cure=cure)
        if not turns:
            raise ValueError("a conversation must begin with a turn that is not the assistant's")
        try:
            text: Any = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, TypeError) as error:
            raise ValueError(f"the chat template refuses the conversation: {error}") from None
        assert isinstance(text, str)
        return text

    def _refusal(self, does: str) -> RecipeError:
        cure = "use another chat template (tokenizer.chat_template), or task: completion"
        return RecipeError(f"the model's chat template {does}", where="model", cure=cure)

    # ---- completions ---------------------------------------------------------------------------------------------

    def completion_prompt(self, prompt: str) -> list[int]:
        """The ids to serve for a plain prompt: what the tokenizer puts before a text (a BOS, never twice), and the text.

        Raises ValueError where there is nothing to go on.
        """
        ids, opening = self.encode(prompt), self._opening
        if not ids and not opening:
            raise ValueError("the prompt is empty, and the tokenizer puts nothing before it")
        return ids if opening and ids[: len(opening)] == opening else opening + ids

    def prompt_completion(self, content: PromptCompletion) -> Tokens:
        """Prompt untrained, completion and stop token trained."""
        tokens = Tokens()
        tokens.add(self.completion_prompt(content.prompt))
        tokens.add([*self._exactly(content.completion), self._closing], 1.0)
        return tokens

    def plain_text(self, text: str) -> Tokens:
        """A text learnt whole, with its stop token; what the tokenizer puts before it is not trained."""
        tokens = Tokens()
        tokens.add(self._opening)
        tokens.add([*self._plain(text), self._closing], 1.0)
        return tokens

    @cached_property
    def _opening(self) -> list[int]:
        """What the tokenizer itself puts before a text."""
        marked, bare = self.tokenizer.encode("a"), self.encode("a")
        return list(marked[: marked.index(bare[0])])

    @cached_property
    def _closing(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise RecipeError("the tokenizer has no end-of-text token", where="model", cure="use one that has")
        return int(self.tokenizer.eos_token_id)
