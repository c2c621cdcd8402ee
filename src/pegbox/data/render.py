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

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from pegbox.data.codec import Codec
from pegbox.data.records import Conversation, Message, PromptCompletion
from pegbox.errors import RecipeError

PROBE = "pegbox"  # an answer that no template says by itself


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
    """What a template puts around each answer, behind its generation prompt.

    `lead` and `trail` are said by the model like the answer itself (Llama 2 has a space on either side); `end` is the
    text of the stop token `stop`, with the white space that the token swallows.
    """

    lead: str
    trail: str
    end: str
    stop: int


class UnstableTemplate(ValueError):
    """A conversation whose earlier turns the template shows otherwise when a turn is added."""


class Renderer:
    """A tokenizer, its chat template, and the rules above."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._codec = Codec(tokenizer)
        eos = tokenizer.eos_token_id
        self._model_stops = frozenset(stop_ids) | (frozenset() if eos is None else {eos})
        self._special = self._codec.special | self._model_stops

    @property
    def special(self) -> frozenset[int]:
        """The tokens that are never part of a text that a person reads."""
        return self._special

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the model's own, and the one with which its chat template ends a turn."""
        with suppress(RecipeError):  # where the template is of no use, no conversation is rendered
            return self._model_stops | {self._frame.stop}
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
        text, lead, trail = self.answer(ids, whole=whole), self._frame.lead, self._frame.trail
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

    # ---- conversations -------------------------------------------------------------------------------------------

    def conversation(self, content: Conversation) -> Tokens:
        """A whole conversation up to its last answer, each trained turn with its content and its stop token trained.

        Raises ValueError where the template changes or refuses it, RecipeError where no answer can be rendered at all.
        """
        return self._render(content.messages)[0]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids to serve: the conversation so far, and the opening of the assistant's turn. Raises likewise.

        A conversation that the template shows otherwise as it goes on is never trained: it is served in one piece.
        """
        opened = self._template(messages, True)
        try:
            tokens, told, begun = self._render(messages)
            tokens.add(self._between(told, opened, messages[begun:]))
        except UnstableTemplate:
            return self._between("", opened, [message for message in messages if message.role != "assistant"])
        return tokens.input_ids

    def _render(self, messages: Sequence[Message]) -> tuple[Tokens, str, int]:
        """The tokens up to the last assistant's stop token, the text told by then, and the index of the next turn."""
        tokens, told, begun = Tokens(), "", 0
        for index, message in enumerate(messages):
            if message.role == "assistant":
                frame = self._frame  # first of all: a template that frames no answer is refused as a whole
                opened = self._template(messages[:index], True)
                tokens.add(self._between(told, opened, messages[begun:index]))
                said = self._said(opened, message.content, self._template(messages[: index + 1], False))
                ids = self._without_stop(self._codec.learnt_behind(said))
                tokens.add([*ids, frame.stop], message.weight)
                told, begun = opened + said + frame.end, index + 1
        return tokens, told, begun

    def _between(self, told: str, text: str, messages: Sequence[Message]) -> list[int]:
        """The ids of what the template says after what has been told already: the turns of others, and an opening."""
        if not text.startswith(told):
            raise UnstableTemplate(
                "the chat template changes earlier turns when one is added (it is not prefix-stable)"
            )
        place = len(told)
        for message in messages:
            content = "" if message.role == "tool" else message.content.strip()  # a tool's may be rendered as JSON
            found = text.find(content, place)
            if found < 0:
                raise ValueError(f"the chat template drops, moves or rewrites the turn of the {message.role}")
            place = found + len(content)
        if not told:
            return self.encode(text)
        return self.encode(self._frame.end + text[len(told) :])[1:]  # as it stands behind the stop token

    def _said(self, opened: str, content: str, closed: str) -> str:
        """What the model is to say for an answer, up to its stop token.

        A template may strip the content, and leave its lead away where the content has one of its own (a thought).
        """
        frame = self._frame
        for lead in (frame.lead, ""):
            for text in (content, content.strip()):
                said = lead + text + frame.trail
                if closed.startswith(opened + said + frame.end):
                    return said
        raise ValueError("the chat template rewrites an answer, or what stands before it")

    @cached_property
    def _frame(self) -> Frame:
        """Found by rendering the shortest conversation. Raises RecipeError where the template cannot be used."""
        asked = [Message("user", "question")]
        try:
            opened = self._template(asked, True)
            closed = self._template([*asked, Message("assistant", PROBE)], False)
        except ValueError as error:
            raise self._refusal(f"fails on a question and its answer: {error}") from None
        if not closed.startswith(opened):
            raise self._refusal("does not begin an answer as its generation prompt says (it is not prefix-stable)")
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
        render = self.tokenizer.apply_chat_template
        try:
            return str(render(turns, tokenize=False, add_generation_prompt=add_generation_prompt))
        except Exception as error:  # a template is a stranger's program: whatever it raises, it refuses
            raise ValueError(f"the chat template refuses the conversation: {error}") from None

    def _refusal(self, does: str) -> RecipeError:
        cure = "use another chat template (tokenizer.chat_template), or task: completion"
        return RecipeError(f"the model's chat template {does}", where="model", cure=cure)

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
        """Prompt untrained, completion and stop token trained."""
        tokens = Tokens()
        tokens.add(self.completion_prompt(content.prompt))
        tokens.add([*self._without_stop(self._codec.learnt_behind(content.completion)), self._closing()], 1.0)
        return tokens

    def plain_text(self, text: str) -> Tokens:
        """A text learnt whole, with its stop token; what the tokenizer puts before it is not trained."""
        tokens = Tokens()
        tokens.add(self._codec.opening)
        tokens.add([*self._without_stop(self._codec.learnt(text)), self._closing()], 1.0)
        return tokens

    def _closing(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise RecipeError("the tokenizer has no end-of-text token", where="model", cure="use one that has")
        return int(self.tokenizer.eos_token_id)
