"""Tiny random models of every family that GGUF is written for, in folders of the hub's layout, and readers of the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType as Form
from gguf import GGUFReader
from gguf.quants import dequantize
from small_tokenizers import CHATML, CONTROLS, SENTENCES, tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from pegbox.export import gguf as export
from pegbox.models.gguf_tokenizer import PRE_RULES, pre_tokenizer

SPACE = "\u2581"
WINDOW = 6  # of Gemma 2 and 3: shorter than IDS
IDS = torch.tensor([[5, 40, 7, 100, 260, 3, 77, 31, 8, 9, 41, 12]])

_sizes = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
# Transformers' reader takes Qwen 3's head size, and Gemma's scalar, from the defaults of the class
_large = {**_sizes, "num_attention_heads": 2, "num_key_value_heads": 1}
_gemma = {**_large, "head_dim": 256, "sliding_window": WINDOW}
_two_ropes = {
    "full_attention": {"rope_type": "default", "rope_theta": 900.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},  # it does not read the window's either
}
CONFIGS: Mapping[str, Callable[..., PreTrainedConfig]] = {
    "llama": lambda **o: LlamaConfig(**{**_sizes, **o}),
    "mistral": lambda **o: MistralConfig(**{**_sizes, "sliding_window": None, **o}),
    "qwen2": lambda **o: Qwen2Config(**{**_sizes, **o}),
    "qwen3": lambda **o: Qwen3Config(**{**_large, "head_dim": 128, **o}),
    "gemma": lambda **o: GemmaConfig(**{**_sizes, "head_dim": 32, **o}),
    "gemma2": lambda **o: Gemma2Config(**{**_gemma, **o}),
    "gemma3": lambda **o: Gemma3TextConfig(
        **{**_gemma, "num_hidden_layers": 7, "rope_parameters": _two_ropes, **o},
    ),
}


def byte_level(pre: str = "smollm", *, bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE that cuts text by this rule; with `bos`, every text begins with <s>."""
    made = tokenizer("byte_level")
    rule, backend = PRE_RULES[pre], made.backend_tokenizer
    told = json.loads(backend.to_str())
    told["model"]["ignore_merges"] = rule.ignore_merges
    backend = Tokenizer.from_str(json.dumps(told))
    backend.pre_tokenizer = pre_tokenizer(rule)
    if rule.nfc:
        backend.normalizer = normalizers.NFC()
    return _whole(backend, "<s>" if bos else None, unk_token=None)


def sentence_piece(*, prefix: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece's BPE as Transformers converts it: every pair that makes up a token is a merge.

    With `prefix` it is Llama 2's, without it Gemma's.
    """
    learnt = [name for name in tokenizer("prefix_by_normalizer").get_vocab() if len(name) > 1 and "<" not in name]
    letters = sorted({SPACE, *"".join(SENTENCES).replace(" ", SPACE)})
    pieces = sorted({*learnt, SPACE * 2, SPACE * 4}, key=lambda piece: (len(piece), piece))
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *letters]
    ids = {name: index for index, name in enumerate(dict.fromkeys(names))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    backend = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if prefix else replace
    if not prefix:  # as Gemma has it: no space is left to cut at
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>", *CONTROLS)])
    return _whole(backend, "<s>", unk_token="<unk>")


def _whole(backend: Tokenizer, bos: str | None, **roles: Any) -> PreTrainedTokenizerFast:
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>", **roles
    )
    made.chat_template = CHATML
    return made


def drawn(config: PreTrainedConfig) -> Any:
    """The model with every weight drawn at random, norms and biases too, so that each shows in the logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.2)
    return model.eval()


def folder_of(
    folder: Path,
    family: str,
    *,
    made: PreTrainedTokenizerFast | None = None,
    stops: int | list[int] | None = None,
    dtype: torch.dtype = torch.float32,
    shards: str = "1GB",
    **settings: Any,
) -> Path:
    """A model of the family in the folder; `settings` change its config, `stops` are its generation's."""
    made = made or (sentence_piece(prefix=False) if "gemma" in family else byte_level())
    roles = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    model = drawn(CONFIGS[family](**{"vocab_size": len(made), **roles, **settings})).to(dtype)
    model.generation_config = GenerationConfig(eos_token_id=made.eos_token_id if stops is None else stops)
    model.save_pretrained(folder, max_shard_size=shards)
    made.save_pretrained(folder)
    return folder


def change_config(folder: Path, **changes: Any) -> Path:
    """Keys of config.json set to other values, by hand."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def exported(folder: Path, kind: str = "f32") -> Path:
    export.write(folder, folder / "model.gguf", kind)
    return folder / "model.gguf"


def keys_of(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


def tensors_of(path: Path) -> dict[str, tuple[Form, np.ndarray]]:
    return {t.name: (t.tensor_type, np.array(dequantize(t.data, t.tensor_type))) for t in GGUFReader(path).tensors}


@torch.no_grad()
def logits(folder: Path, **where: Any) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **where)
    return model.eval()(IDS).logits


def check_transformers_reads_the_same_model(folder: Path, kind: str, tolerance: float) -> None:
    """Transformers' own reader of GGUF, which knows nothing of ours, gives the folder's logits."""
    exported(folder, kind)
    ours, theirs = logits(folder), logits(folder, gguf_file="model.gguf")
    assert (theirs - ours).abs().max() <= tolerance * ours.abs().max(), "the file holds another model"
