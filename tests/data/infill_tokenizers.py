"""Small tokenizers with the tokens of a family of models that fill in middles."""

from __future__ import annotations

from collections.abc import Sequence

from small_tokenizers import tokenizer
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from pegbox.data.infill import USUAL

# by the makers' models: the tokens that their tokenizer has for it, the one that ends a middle among them
MAKERS: dict[str, tuple[str, ...]] = {
    "starcoder": USUAL,
    "santacoder": ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    "code llama": ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    "deepseek": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001
    "qwen": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    "codestral": ("[PREFIX]", "[MIDDLE]", "[SUFFIX]"),
}


def with_tokens(kind: str, names: Sequence[str], *, special: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer that segments text in its own way, and knows these tokens."""
    made = tokenizer(kind)
    made.add_tokens([AddedToken(name, special=special, normalized=False) for name in names])
    return made
