"""Text <-> ids of one tokenizer, to the byte.

Tokenizers differ in what they do to a text by itself: SentencePiece puts a space before it (and takes one away when it
decodes), byte-level BPE does not. A prompt is encoded as the tokenizer has it, for so do all servers; an answer must be
exactly its text, whatever stands before it. To that end it is encoded behind an *anchor*, whose ids are cut off again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from unicodedata import normalize

from transformers import PreTrainedTokenizerBase

from pegbox.errors import RecipeError

ANCHORS = ("", "\n")  # byte-level tokenizers need none; in SentencePiece a line break merges with nothing
LOST = "holds a character that the tokenizer cannot write, in a text that is learnt"
BEGUN = "\N{REPLACEMENT CHARACTER}"  # one for the first bytes of a character, however many there are of them
BYTE = re.compile("<0x[0-9A-F]{2}>")  # SentencePiece's token for a byte: a run of them is read as a whole
PROBES = ("a", " a", "\na", "  a\n", "A b")


class Codec:
    """A tokenizer, and the tokens that are controls. `special`: never part of a text that a person reads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise RecipeError("the model has no fast tokenizer", where="model", cure="give a model with tokenizer.json")
        self.tokenizer = tokenizer
        added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special = frozenset(tokenizer.all_special_ids) | added

    def encode(self, text: str) -> list[int]:
        """The ids of a text as the tokenizer has it, without what it puts before and behind (BOS, EOS)."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids within a longer text: nothing stripped, nothing cleaned up."""
        _, anchor = self._anchor or ("", [])
        return self._decoded([*anchor, *ids])[len(self._decoded(anchor)) :]

    def settled(self, ids: Sequence[int]) -> str:
        """The text of ids as far as no id behind them can change it: not a character that has only begun."""
        names = self.tokenizer.convert_ids_to_tokens(list(ids))
        end = next((end for end in range(len(ids), 0, -1) if not BYTE.fullmatch(names[end - 1])), 0)
        return self.decode(ids[:end]).removesuffix(BEGUN)

    def learnt(self, text: str) -> list[int]:
        """The ids of a text that is learnt, at the beginning of a sequence: the name of a control in it is plain text.

        Raises ValueError where a character would be lost.
        """
        ids = self._plain(text)
        if self._anchor is not None and _form(self._decoded(ids).lstrip(" ")) != _form(text.lstrip(" ")):
            raise ValueError(LOST)
        return ids

    def learnt_behind(self, text: str) -> list[int]:
        """The ids of a text that is learnt, behind any other: what they decode to is the text.

        Raises ValueError where this text cannot be so written, RecipeError where none can.
        """
        if not text:
            return []
        if self._anchor is None:
            cure = (
                "use a tokenizer that keeps white space and case (byte-level BPE, or SentencePiece with a line break)"
            )
            raise RecipeError("the tokenizer changes the text of an answer", where="model", cure=cure)
        anchor, anchor_ids = self._anchor
        ids = self._plain(anchor + text)
        behind = ids[len(anchor_ids) :]
        if ids[: len(anchor_ids)] != anchor_ids or _form(self.decode(behind)) != _form(text):
            raise ValueError(LOST)
        return behind

    def _plain(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        if self.tokenizer.unk_token_id in ids:
            raise ValueError(LOST)
        return ids

    @cached_property
    def opening(self) -> list[int]:
        """What the tokenizer itself puts before a text."""
        marked, bare = self.tokenizer.encode("a"), self.encode("a")
        return list(marked[: marked.index(bare[0])])

    @cached_property
    def _anchor(self) -> tuple[str, list[int]] | None:
        """A text, and its ids, behind which the tokenizer neither adds nor loses anything; None where there is none.

        Shown on texts whose ids, cut off behind the anchor, are put behind other ids: by itself the space that
        SentencePiece adds would go unnoticed, for it is taken away again where a text begins.
        """
        others = self.encode("b")
        for anchor in ANCHORS:
            ids = self.encode(anchor)
            found = [self.encode(anchor + probe) for probe in PROBES]
            if all(
                got[: len(ids)] == ids and self._decoded([*others, *got[len(ids) :]]) == self._decoded(others) + probe
                for got, probe in zip(found, PROBES, strict=True)
            ):
                return anchor, ids
        return None

    def _decoded(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def _form(text: str) -> str:
    """Unicode's form C: some tokenizers compose characters, which changes no reader's text."""
    return normalize("NFC", text)
