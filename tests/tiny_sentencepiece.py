"""Tiny Marian and M2M100 models with tokenizers as they are published: written in Python, around SentencePiece's models."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    PreTrainedModel,
)

CONTROLS = ("<s>", "</s>", "<unk>")


def pieces(file: Path, texts: Sequence[str], size: int = 60) -> list[str]:
    """Train a SentencePiece model of all letters of some texts, write it down, and tell its pieces but the controls."""
    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=trained,
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    file.write_bytes(trained.getvalue())
    model = SentencePieceProcessor(model_proto=trained.getvalue())
    every = [model.id_to_piece(index) for index in range(model.get_piece_size())]
    return [piece for piece in every if piece not in CONTROLS]


def _vocabulary(file: Path, tokens: Sequence[str]) -> str:
    file.write_text(json.dumps({token: index for index, token in enumerate(dict.fromkeys(tokens))}), encoding="utf-8")
    return str(file)


def _sizes(**more: Any) -> dict[str, Any]:
    sizes: dict[str, Any] = {"d_model": 32, "max_position_embeddings": 64, "dropout": 0.0, "init_std": 0.1}
    sizes |= {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    return sizes | {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")} | {"tie_word_embeddings": False} | more


def marian_folder(folder: Path, sources: Sequence[str], targets: Sequence[str]) -> Path:
    """One vocabulary for both languages, each of which has pieces of its own; it begins with the padding token."""
    folder.mkdir(parents=True)
    parts, draft = [folder / "source.spm", folder / "target.spm"], folder / "vocab.json"
    learnt = [piece for file, texts in zip(parts, (sources, targets), strict=True) for piece in pieces(file, texts)]
    vocabulary = _vocabulary(draft, ["</s>", "<unk>", *learnt, "<pad>"])
    made = MarianTokenizer(*map(str, parts), vocabulary, source_lang="en", target_lang="de")
    pad = made.pad_token_id
    ids = {"vocab_size": pad + 1, "pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": 0}
    return _saved(MarianMTModel, MarianConfig(**_sizes(**ids, forced_eos_token_id=None)), made, folder)


def m2m100_folder(folder: Path, texts: Sequence[str]) -> Path:
    """The tokens of its hundred languages stand behind the vocabulary."""
    folder.mkdir(parents=True)
    learnt = pieces(folder / "sentencepiece.bpe.model", texts)
    vocabulary = _vocabulary(folder / "vocab.json", ["<s>", "<pad>", "</s>", "<unk>", *learnt])
    made = M2M100Tokenizer(vocabulary, str(folder / "sentencepiece.bpe.model"))
    size = made.encoder_size + len(made.lang_token_to_id)
    return _saved(M2M100ForConditionalGeneration, M2M100Config(**_sizes(vocab_size=size)), made, folder)


def _saved(kind: type[PreTrainedModel], config: Any, tokenizer: Any, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole: Any = kind(config)
        torch.nn.init.normal_(whole.get_output_embeddings().weight)
        whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
