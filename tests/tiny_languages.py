"""Tiny models of the kinds that put a token for a text's language beside it, with Transformers' own tokenizers."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
)
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
PIECES += [(f"{mark}{letter}", -3.0) for mark in ("", "▁") for letter in string.ascii_letters]
CODES: Mapping[str, tuple[str, str]] = {
    "mbart": ("en_XX", "de_DE"),
    "mbart50": ("en_XX", "de_DE"),
    "nllb": ("eng_Latn", "deu_Latn"),
}


def coded_tokenizer(kind: str) -> Any:
    """Letters, and the codes of all the languages that the kind knows."""
    if kind == "nllb":
        return NllbTokenizer(vocab={piece: index for index, (piece, _) in enumerate(PIECES)}, merges=[])
    if kind == "mbart50":
        return MBart50Tokenizer(vocab=PIECES)
    return MBartTokenizer(vocab=[*PIECES, *((code, 0.0) for code in FAIRSEQ_LANGUAGE_CODES), ("<mask>", 0.0)])


def coded_folder(folder: Path, kind: str) -> Path:
    """Two layers each side, with a head of its own by which logits can be large."""
    made = coded_tokenizer(kind)
    sizes: dict[str, Any] = {"vocab_size": len(made), "d_model": 32, "max_position_embeddings": 64, "dropout": 0.0}
    sizes |= {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": False, "init_std": 0.1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole: Any
        if kind == "nllb":
            whole = M2M100ForConditionalGeneration(M2M100Config(**sizes, **ids, decoder_start_token_id=2))
        else:
            start = {} if kind == "mbart" else {"decoder_start_token_id": 2}
            whole = MBartForConditionalGeneration(MBartConfig(**sizes, **ids, **start))
        torch.nn.init.normal_(whole.get_output_embeddings().weight)
        whole.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
