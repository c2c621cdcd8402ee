"""The only place where a conversation becomes tokens: for training, evaluation, preview and serving alike.

*Serving is the reference.* A conversation is cut into segments: the text up to an assistant's turn, that turn's
content, the text up to the next one, and so on. Each segment is tokenised by itself, so

    training ids = the served prompt's ids + the answer's ids + the stop token + ...

holds by construction, and a later turn sees exactly the ids that an earlier turn was trained on. The template is only
asked for the text *between* the assistant's contents: it is rendered for every prefix of the conversation, and a
template whose rendering of a prefix is not a prefix of its rendering of the whole is refused, as is one that drops or
rewrites an answer. Stock templates lack `{% generation %}` markers; nothing here needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from pegbox.data.records import Conversation, Message, PromptCompletion
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


class Renderer:
    """A tokenizer, its chat template, and the rules above. `stop_ids` are the tokens that end an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int] = ()) -> None:
        if not tokenizer.is_fast:
            raise RecipeError("the model has no fast tokenizer", where="model", cure="give a model with tokenizer.json")
        self.tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids) | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
        self._special = frozenset(tokenizer.all_special_ids) | self.stop_ids
        self._special_names = tuple(str(token) for token in tokenizer.added_tokens_decoder.values())
        self._anchor = self._find_anchor()

    def _find_anchor(self) -> list[int]:
        """Ids to put before a segment and take away again, so that the tokenizer adds nothing of its own.

        A SentencePiece tokenizer puts a space before a text; behind a special token it does not. Empty for the others.
        """
        probes = (" a", "a", "\na", "  a\n")
        for anchor in ("", self.tokenizer.eos_token or "", self.tokenizer.bos_token or ""):
            ids = self.tokenizer.encode(anchor, add_special_tokens=False) if anchor else []
            if len(ids) == (1 if anchor else 0) and all(self._is_faithful(anchor, ids, probe) for probe in probes):
                return ids
        raise RecipeError(
            "the tokenizer cannot encode an answer apart from its prompt without changing it",
            where="model",
            cure="use a tokenizer that keeps white space (byte-level BPE, or SentencePiece with special tokens)",
        )

    def _is_faithful(self, anchor: str, ids: list[int], text: str) -> bool:
        got = self.tokenizer.encode(anchor + text, add_special_tokens=False)
        return got[: len(ids)] == ids and self.decode(got[len(ids) :]) == text

    def encode(self, text: str, *, verbatim: bool = False) -> list[int]:
        """The ids of a text by itself, nothing added.

        `verbatim`: a special token's name in it is plain text and not a control, so that an answer has one stop token.
        """
        if not text:
            return []
        if verbatim and any(name in text for name in self._special_names):
            return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        anchored = self.tokenizer.decode(self._anchor) + text if self._anchor else text
        return list(self.tokenizer.encode(anchored, add_special_tokens=False)[len(self._anchor) :])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, to the byte: nothing stripped, nothing cleaned up."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def answer(self, ids: Sequence[int]) -> str:
        """What a model said: the text of its ids without the stop token, unstripped."""
        return self.decode([token for token in ids if token not in self._special])

    # ---- conversations -------------------------------------------------------------------------------------------

    def conversation(self, content: Conversation) -> Tokens:
        """A whole conversation, each trained turn with its content and its stop token trained."""
        return self._render(content.messages, add_generation_prompt=False)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids to serve: the conversation so far, and the opening of the assistant's turn."""
        return self._render(messages, add_generation_prompt=True).input_ids

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> Tokens:
        tokens, told = Tokens(), ""
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            opened = self._template(messages[:index], True)
            tokens.add(self._between(told, opened))
            closed = self._template(messages[: index + 1], False)
            stop_ids, told = self._ending(opened, message.content, closed)
            tokens.add(self.encode(message.content, verbatim=True) + stop_ids, message.weight)
        if add_generation_prompt:
            tokens.add(self._between(told, self._template(messages, True)))
        return tokens

    def _between(self, told: str, text: str) -> list[int]:
        """The ids of what the template says after what has been told already."""
        if not text.startswith(told):
            raise self._refusal("changes what came before when a turn is added (it is not prefix-stable)")
        return self.encode(text[len(told) :])

    def _ending(self, opened: str, content: str, closed: str) -> tuple[list[int], str]:
        """The ids with which the template ends an answer, up to its stop token, and the text told up to there."""
        if not closed.startswith(opened):
            raise self._refusal("does not begin an answer as its generation prompt says")
        rest = closed[len(opened) :]
        said = next((text for text in (content, content.strip()) if rest.startswith(text)), None)
        if said is None:
            raise self._refusal("drops or rewrites an assistant's answer")
        tail = rest[len(said) :]
        encoded = self.tokenizer(tail, add_special_tokens=False, return_offsets_mapping=True)
        for position, (token, (_, end)) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
            if token in self._special:
                return list(encoded["input_ids"][: position + 1]), opened + said + tail[:end]
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
        except TemplateError as error:
            raise ValueError(f"the model's chat template refuses the conversation: {error}") from None
        assert isinstance(text, str)
        return text

    def _refusal(self, does: str) -> RecipeError:
        cure = "use another chat template (tokenizer.chat_template), or task: completion"
        return RecipeError(f"the model's chat template {does}", where="model", cure=cure)

    # ---- completions ---------------------------------------------------------------------------------------------

    def completion_prompt(self, prompt: str) -> list[int]:
        """The ids to serve for a plain prompt: what the tokenizer puts before a text (a BOS), and the text."""
        return self._opening() + self.encode(prompt)

    def prompt_completion(self, content: PromptCompletion) -> Tokens:
        """Prompt untrained, completion and stop token trained."""
        tokens = Tokens()
        tokens.add(self.completion_prompt(content.prompt))
        tokens.add(self.encode(content.completion, verbatim=True) + self._closing(), 1.0)
        return tokens

    def plain_text(self, text: str) -> Tokens:
        """A text learnt whole, with its stop token; what the tokenizer puts before it is not trained."""
        tokens = Tokens()
        tokens.add(self._opening())
        tokens.add(self.encode(text, verbatim=True) + self._closing(), 1.0)
        return tokens

    def _opening(self) -> list[int]:
        """What the tokenizer itself puts before a text."""
        marked, bare = self.tokenizer.encode("a"), self.tokenizer.encode("a", add_special_tokens=False)
        return list(marked[: marked.index(bare[0])])

    def _closing(self) -> list[int]:
        if self.tokenizer.eos_token_id is None:
            raise RecipeError("the tokenizer has no end-of-text token", where="model", cure="use one that has")
        return [int(self.tokenizer.eos_token_id)]
