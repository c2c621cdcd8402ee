"""Fill-in-the-middle: a text cut in three, and the tokens by which a model is asked for what stands in the middle.

    PSM   <PRE> prefix <SUF> suffix <MID> middle <END>
    SPM   <PRE> <SUF> suffix <MID> prefix middle <END>      the second of the paper's two variants

Bavarian et al. 2022 (arXiv 2207.14255). What stands for these tokens, and whether there is an SPM, is for the makers of a
model to say. `FAMILIES` holds what they published: BigCode's training code (StarCoder and what shares its tokens), Code
Llama's `infilling_prompt_tokens`, mistral-common's `encode_fim` for Codestral (the suffix first, and that alone), the model
cards of DeepSeek-Coder, Qwen2.5-Coder, CodeGemma (PSM alone: of an SPM none of them gives the form).

A text is cut at two different boundaries between characters, each pair as likely as any other: so do StarCoder and Code
Llama. Bavarian et al. compare cuts at lines, tokens and characters; whoever learns of lines or tokens alone does poorly
where a cut falls within one, as in an editor it does, and whoever learns of characters does well everywhere. A middle is
never empty here, as it may be there: it would teach nothing but to stop.

Where a text is cut hangs on the text alone, so that the same question is put in every run, whatever its seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from pegbox.data.records import PlainText


class Part(Enum):
    """A text's place among the tokens of a form."""

    PREFIX = "prefix"
    SUFFIX = "suffix"


@dataclass(frozen=True)
class Form:
    """An order in which a middle is asked for, in a tokenizer's ids.

    `end`: the token that ends a middle, None where it is the one that ends any text; `lead`: what stands before a prefix
    that is not empty.
    """

    parts: tuple[int | Part, ...]
    end: int | None = None
    lead: str = ""

    @property
    def tokens(self) -> frozenset[int]:
        """The tokens that are no text."""
        return frozenset(part for part in self.parts if isinstance(part, int))


LEFT_TO_RIGHT = Form((Part.PREFIX,))  # for a model that knows no such tokens: what comes behind the prefix


@dataclass(frozen=True)
class Family:
    """What the makers of some models defined, tokens by their names; `end` where the tokenizer has it."""

    psm: tuple[str | Part, ...] | None
    spm: tuple[str | Part, ...] | None
    end: str = ""
    lead: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The tokens that a tokenizer of the family has."""
        return tuple(dict.fromkeys(part for part in (*(self.psm or ()), *(self.spm or ())) if isinstance(part, str)))

    def form(self, parts: tuple[str | Part, ...] | None, ids: dict[str, int]) -> Form | None:
        """One of its two forms in ids."""
        if parts is None:
            return None
        return Form(tuple(p if isinstance(p, Part) else ids[p] for p in parts), ids.get(self.end), self.lead)


def _psm(before: str, behind: str, middle: str) -> tuple[str | Part, ...]:
    return (before, Part.PREFIX, behind, Part.SUFFIX, middle)


def _spm(before: str, behind: str, middle: str) -> tuple[str | Part, ...]:
    return (before, behind, Part.SUFFIX, middle, Part.PREFIX)


USUAL = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
SANTA = ("<fim-prefix>", "<fim-suffix>", "<fim-middle>")
LLAMA = ("▁<PRE>", "▁<SUF>", "▁<MID>")
DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")  # noqa: RUF001, the makers' own letters
QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
SPACE = " "  # SentencePiece puts one before a text, and its users' code before a prefix, but before no suffix or middle

FAMILIES = (
    Family(_psm(*USUAL), _spm(*USUAL)),  # StarCoder, StarCoder 2, Granite Code, StableCode
    Family(_psm(*SANTA), _spm(*SANTA)),  # SantaCoder
    Family(_psm(*LLAMA), _spm(*LLAMA), end="▁<EOT>", lead=SPACE),  # Code Llama
    Family(_psm(*DEEPSEEK), None),  # DeepSeek-Coder
    Family(_psm(*QWEN), None, end="<|endoftext|>"),  # Qwen2.5-Coder, which has it; CodeGemma, Granite 4, which have not
    Family(None, ("[SUFFIX]", Part.SUFFIX, "[PREFIX]", Part.PREFIX), lead=SPACE),  # Codestral
)


class Infill(NamedTuple):
    """How a tokenizer asks for a middle: its tokens' names, and the forms that its makers defined, one of them at least."""

    names: tuple[str, ...]
    psm: Form | None
    spm: Form | None

    @property
    def asked(self) -> Form:
        """The form in which a model is asked for its use: PSM where there is one."""
        form = self.psm or self.spm
        assert form is not None
        return form


def infill_of(tokenizer: PreTrainedTokenizerBase) -> Infill | None:
    """How the tokenizer's makers ask for a middle; None where it has no tokens for that."""
    ids = tokenizer.get_vocab()
    for family in FAMILIES:
        if ids.keys() >= set(family.names):
            return Infill(family.names, family.form(family.psm, ids), family.form(family.spm, ids))
    return None


def refuse_tokens(ids: Sequence[int], form: Form) -> Sequence[int]:
    """The ids of a text. Raises ValueError where its tokenizer has taken a name in it for a token of the form."""
    if not form.tokens.isdisjoint(ids):
        raise ValueError("holds the name of a token that asks for a middle")
    return ids


class Cut(NamedTuple):
    """A text in three; the middle is what is asked for."""

    prefix: str
    middle: str
    suffix: str


def cut(content: PlainText) -> Cut:
    """Where the text says, or else at two boundaries that the text alone fixes. Raises ValueError for an empty one."""
    text = content.text
    if content.asked is not None:
        begin, end = content.asked
    elif text:
        begin, end = sorted(_generator("cut", text).sample(range(len(text) + 1), 2))
    else:
        raise ValueError("is empty, and nothing can be left out of it")
    return Cut(text[:begin], text[begin:end], text[end:])


def lots(text: str, seed: int) -> tuple[float, float]:
    """Two numbers in [0, 1) that a seed and the text fix: by them it is cut or not, and told suffix first or not."""
    draw = _generator(f"lots {seed}", text)
    return draw.random(), draw.random()


def _generator(purpose: str, text: str) -> Random:
    digest = hashlib.sha256(f"{purpose}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return Random(int.from_bytes(digest[:8], "big"))
