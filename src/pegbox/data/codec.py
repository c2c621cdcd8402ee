"""Text <-> ids of one tokenizer, to the byte.

Tokenizers differ in what they do to a text by itself: SentencePiece puts a space before it (and takes one away when it
decodes), byte-level BPE does not. A prompt is encoded as the tokenizer has it, for so do all servers; an answer must be
exactly its text, whatever stands before it. To that end it is encoded behind an *anchor*, whose ids are cut off again.
Whether its ids decode to the text is looked at each time, but where the tokenizer's parts prove it for every text.

The tokenizer's core is called as Transformers calls it, without what Transformers wraps around each call; one that is
written in Python (around SentencePiece, for Marian and M2M100) has none, and tells no places of tokens in a text. Text between
controls is encoded by itself in any case; those few parts that come again and again (a system message, the opening of a
turn) are remembered. Many texts may be encoded ahead, at once and on all cores; the ids are the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from unicodedata import normalize

from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pegbox.errors import RecipeError

ANCHORS = ("", "\n")  # byte-level tokenizers need none; in SentencePiece a line break merges with nothing
LOST = "holds a character that the tokenizer cannot write, in a text that is learnt"
BEGUN = "\N{REPLACEMENT CHARACTER}"  # one for the first bytes of a character, however many there are of them
BYTE = re.compile("<0x[0-9A-F]{2}>")  # SentencePiece's token for a byte: a run of them is read as a whole
REMEMBERED = 64  # parts of prompts; long ones must not add up
PROBES = ("a", " a", "\na", "  a\n", "A b")
Role = Literal["text", "text_target"]  # Transformers' names; a target may have pieces of its own


class Codec:
    """A tokenizer, and the tokens that are controls. `special`: never part of a text that a person reads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._core: Tokenizer | None = None
        if tokenizer.is_fast:
            assert isinstance(tokenizer, PreTrainedTokenizerFast)
            self._core = tokenizer.backend_tokenizer
        added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special = frozenset(tokenizer.all_special_ids) | added
        self._unknown = tokenizer.unk_token_id
        self._ahead: dict[tuple[str, bool], list[int]] = {}  # by a text, and whether it is plain
        self._remembered = lru_cache(REMEMBERED)(lambda part: tuple(self._ids(part, plain=False)))

    @property
    def parts(self) -> str:
        """What the tokenizer is made of; of one in Python the hashes of its files."""
        if self._core is not None:
            return self._core.to_str()
        with TemporaryDirectory() as folder:
            files = sorted(Path(folder, name) for name in self.tokenizer.save_vocabulary(folder))
            digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        return json.dumps([type(self.tokenizer).__name__, sorted(self.tokenizer.get_vocab().items()), digests])

    def encode(self, text: str) -> list[int]:
        """The ids of a text as the tokenizer has it, without what it puts before and behind (BOS, EOS)."""
        if self._controls is None:
            return self._ids(text, plain=False)
        return list(chain.from_iterable(map(self._remembered, self._parts(text))))

    def _parts(self, text: str) -> list[str]:
        """What of a text is encoded by itself: its controls, and what stands between them."""
        return [text] if self._controls is None else [part for part in self._controls.split(text) if part]

    def look_ahead(self, served: Iterable[str], behind: Iterable[str], learnt: Iterable[str]) -> None:
        """Encode at once what `encode`, `learnt_behind` and `learnt` will be asked; what was so before is forgotten."""
        self._ahead = {}
        if self._core is None:
            return
        anchor = "" if self._exact or self._anchor is None else self._anchor[0]
        asked = {
            False: dict.fromkeys(part for text in served for part in self._parts(text)),
            True: dict.fromkeys(chain((anchor + text for text in behind), learnt)),
        }
        for plain, texts in asked.items():
            found = self._ready_core(plain).encode_batch_fast(list(texts), add_special_tokens=False)
            self._ahead |= {(text, plain): one.ids for text, one in zip(texts, found, strict=True)}

    def _ids(self, text: str, *, plain: bool, role: Role = "text") -> list[int]:
        """The ids of a text; `plain`: the name of a control in it is text."""
        if (known := self._ahead.get((text, plain))) is not None:  # never there for a tokenizer without a core
            return list(known)
        if self._core is not None:
            return self._encoding(text, plain=plain).ids
        told = self.tokenizer(**{role: text}, add_special_tokens=False, split_special_tokens=plain, verbose=False)
        return list(told["input_ids"])

    def _encoding(self, text: str, *, plain: bool) -> Encoding:
        """The tokens of a text and their places in it."""
        return self._ready_core(plain).encode(text, add_special_tokens=False)

    def _ready_core(self, plain: bool) -> Tokenizer:
        """The core, told what controls are, and with nothing left of what another call may have set."""
        core = self._core
        assert core is not None, "a task that needs places has refused such a tokenizer"
        core.encode_special_tokens = plain
        if core.truncation is not None or core.padding is not None:
            core.no_truncation()
            core.no_padding()
        return core

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids within a longer text: nothing stripped, nothing cleaned up."""
        _, anchor = self._anchor or ("", [])
        return self._decoded([*anchor, *ids])[len(self._decoded(anchor)) :]

    def at_the_beginning(self, ids: Sequence[int]) -> str:
        """The text of ids with which a sequence begins: nothing cleaned up."""
        return self._decoded(ids)

    def settled(self, ids: Sequence[int]) -> str:
        """The text of ids as far as no id behind them can change it: not a character that has only begun."""
        names = self.tokenizer.convert_ids_to_tokens(list(ids))
        end = next((end for end in range(len(ids), 0, -1) if not BYTE.fullmatch(names[end - 1])), 0)
        return self.decode(ids[:end]).removesuffix(BEGUN)

    def learnt(self, text: str, role: Role = "text") -> list[int]:
        """The ids of a text that is learnt, at the beginning of a sequence: the name of a control in it is plain text.

        Raises ValueError where a character would be lost.
        """
        ids = self._plain(text, role)
        if self._exact:
            return ids
        if self._anchor is not None and _form(self._decoded(ids).lstrip(" ")) != _form(text.lstrip(" ")):
            raise ValueError(LOST)
        return ids

    def learnt_behind(self, text: str) -> list[int]:
        """The ids of a text that is learnt, behind any other: what they decode to is the text.

        Raises ValueError where this text cannot be so written, RecipeError where none can.
        """
        if not text:
            return []
        if self._exact:
            return self._plain(text)
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

    def learnt_call(self, text: str) -> list[int]:
        """The ids of a text that a template wrote and that is learnt: controls in it are controls. Raises likewise."""
        found = self._encoding(text, plain=False)
        ids: list[int] = []
        place = 0
        for token, (start, end) in zip(found.ids, found.offsets, strict=True):
            if token in self.special:
                ids += [*self.learnt_behind(text[place:start]), token]
                place = end
        return ids + self.learnt_behind(text[place:])

    def characters(self, text: str) -> list[tuple[int, int]]:
        """For each id of `learnt_behind(text)` the characters that it writes any byte of: the first, one past the last.

        A tokenizer may leave the space at a token's beginning out of its offsets: what lies between two tokens belongs
        to the second. Of bytes that stand for themselves it may give the first ones of a character none, and each of
        several characters all of them: these are told apart by counting.
        """
        anchor, anchor_ids = ("", []) if self._exact else self._anchor or ("", [])
        offsets = self._encoding(anchor + text, plain=True).offsets[len(anchor_ids) :]
        places: list[tuple[int, int]] = []
        for (start, stop), same in groupby(offsets):
            count = len(list(same))
            begin = min(max(start - len(anchor), 0), places[-1][1] if places else 0)
            end = max(stop - len(anchor), begin + 1)
            owners = [begin + place for place, letter in enumerate(text[begin:end]) for _ in letter.encode()]
            places += [(at, at + 1) for at in owners] if count == len(owners) else [(begin, end)] * count
        return places

    def _plain(self, text: str, role: Role = "text") -> list[int]:
        ids = self._ids(text, plain=True, role=role)
        if self._unknown is not None and self._unknown in ids:
            raise ValueError(LOST)
        return ids

    @cached_property
    def _exact(self) -> bool:
        """True where the ids of any text surely decode to it: byte-level BPE that knows every byte and drops nothing."""
        if (core := self._core) is None:
            return False
        model, own = core.model, [t for t in self.tokenizer.added_tokens_decoder.values() if not t.special]
        if not isinstance(model, BPE) or core.normalizer is not None or core.pre_tokenizer is None:
            return False
        if model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix or core.decoder is None:
            return False
        cuts = _steps(core.pre_tokenizer)
        kept = all(cut["type"] == "Digits" or cut.get("behavior", "Removed") != "Removed" for cut in cuts[:-1])
        return (
            kept
            and cuts[-1]["type"] == "ByteLevel"
            and not cuts[-1]["add_prefix_space"]
            and [step["type"] for step in _steps(core.decoder)] == ["ByteLevel"]
            and all(core.token_to_id(byte) is not None for byte in ByteLevel.alphabet())
            and all(token.content.isascii() and not (token.lstrip or token.rstrip) for token in own)
        )

    @cached_property
    def _controls(self) -> re.Pattern[str] | None:
        """What finds the added tokens as the tokenizer does (the leftmost, of these the longest); None if none surely does."""
        added = [token for token in self.tokenizer.added_tokens_decoder.values() if not token.normalized]
        if not self._exact or not added or any(t.lstrip or t.rstrip or t.single_word for t in added):
            return None
        names = sorted((re.escape(token.content) for token in added), key=len, reverse=True)
        return re.compile(f"({'|'.join(names)})")

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


def _steps(part: Any) -> list[dict[str, Any]]:
    """What a part of a tokenizer does, step by step, as its file has it."""
    told = json.loads(part.__getstate__())
    return list(told.get("pretokenizers") or told.get("decoders") or [told])


def _form(text: str) -> str:
    """Unicode's form C: some tokenizers compose characters, which changes no reader's text."""
    return normalize("NFC", text)
