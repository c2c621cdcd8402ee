"""A slow byte-level BPE, written from its description, as the oracle of the converted tokenizers.

Text is cut into pieces (digits alone where the model does so, then the pattern's matches), each piece becomes its UTF-8
bytes written as letters, and within a piece the pair of neighbours with the lowest rank is merged until none has a rank.
Letters that the vocabulary lacks vanish before any merge, as published (no unknown token, no byte fallback).
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise

import regex

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUBLISHED = {"smollm": (True, GPT2), "gpt-2": (False, GPT2), "llama-bpe": (False, LLAMA3), "qwen2": (False, QWEN2)}

PARTS = (
    *("the", "House", "don't", "WE'LL", "I'm", "x"),
    *("naïve", "straße", "日本語", "Привет", "العربية", "हिन्दी", "e\u0301"),
    *("1", "42", "2024", "3.1416", "1,000,000", "0x1F", "٣٤", "½", "x²", "Ⅷ", "\uff11\uff12"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u2028", "    "),
    *(".", ",", "...", "!?", "(", ")", "—", "“", "'", "'s", "€", "<tag>", "😀", "👩‍💻", "🇫🇷"),
    *("def f(n):\n    return n + 1\n", "for i in range(10):", "a[0] = {'k': 7}", "//  todo 12\n", "SELECT *", "$x=5;"),
)


def letters() -> dict[int, str]:
    """Byte -> the letter that byte-level BPE writes for it: itself where it prints, else one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


LETTERS = letters()


def pieces(text: str, pre: str) -> list[str]:
    """The pieces of `text` under the published rule named `pre`, written in letters."""
    digits, pattern = PUBLISHED[pre]
    text = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
    stretches = regex.split(r"(\p{N})", text) if digits else [text]
    cut = [piece for stretch in stretches for piece in regex.findall(pattern, stretch)]
    return ["".join(LETTERS[byte] for byte in piece.encode("utf-8")) for piece in cut]


def encode(text: str, pre: str, vocabulary: Mapping[str, int], ranks: Mapping[tuple[str, str], int]) -> list[int]:
    """The ids of `text`, special tokens apart."""
    ids = []
    for piece in pieces(text, pre):
        parts = [letter for letter in piece if letter in vocabulary]
        while pairs := [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]:
            _, i = min(pairs)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [vocabulary[part] for part in parts]
    return ids


def ranks_of(merges: Sequence[str | Sequence[str]]) -> dict[tuple[str, str], int]:
    """Pair -> rank, from merges written as "a b" or as [a, b]."""
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    return {(left, right): rank for rank, (left, right) in enumerate(pairs)}


def strings(count: int, seed: int = 0) -> list[str]:
    """Seeded texts of words, digits, runs of spaces, newlines, code and other scripts, glued at random."""
    draw = random.Random(seed)
    return ["".join(draw.choice(PARTS) for _ in range(draw.randint(1, 14))) for _ in range(count)]
