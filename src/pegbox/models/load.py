"""A folder in the hub's layout <-> (module, tokenizer). The only room that knows Transformers' loading.

safetensors only, no code from a model's repository. Weights that the checkpoint does not hold are an error, unless
they belong to a head that the task adds and trains.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from pegbox.data.records import Example
from pegbox.errors import RecipeError
from pegbox.kernels.attention import IMPLEMENTATION, register
from pegbox.models.batch import learnt_logits, pack

HEADS: Mapping[str, Any] = {
    "causal_lm": AutoModelForCausalLM,
    "sequence_classification": AutoModelForSequenceClassification,
}
# parameters of a new head, by Transformers' names: the only ones a checkpoint may lack
NEW_HEAD = ("classifier.", "score.", "classification_head.", "pre_classifier.", "pooler.", "bert.pooler.")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; one without a padding token pads with its end-of-text token."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def load_model(
    folder: Path,
    head: str,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> PreTrainedModel:
    """The folder's model with a head of the kind named, in eval mode. `labels` name the classes of a new head.

    Raises RecipeError where the model cannot have the head or its checkpoint lacks weights.
    """
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    if labels:
        options["id2label"] = dict(enumerate(labels))
        options["label2id"] = {label: index for index, label in enumerate(labels)}
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # draws the new head
        try:
            model, info = HEADS[head].from_pretrained(str(folder), output_loading_info=True, **options)
        except (ValueError, OSError) as error:
            raise RecipeError(f"the model cannot be loaded as {head}: {error}", where="model") from None
        finally:
            transformers_logging.set_verbosity(verbosity)
    lacking = [name for name in info["missing_keys"] if not (labels and name.startswith(NEW_HEAD))]
    if lacking or info["mismatched_keys"]:
        names = ", ".join(sorted(map(str, [*lacking, *info["mismatched_keys"]]))[:5])
        cure = f"give a checkpoint made for {head}"
        raise RecipeError(f"the checkpoint lacks weights that would be random: {names}", where="model", cure=cure)
    assert isinstance(model, PreTrainedModel)
    return model.to(device or torch.device("cpu")).eval()


def max_length(folder: Path) -> int:
    """The most tokens that the model's positions allow; a million where it has no limit."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1_000_000)


def stop_ids(folder: Path) -> list[int]:
    """The tokens that end an answer, by the folder's generation config; none where it has no such file."""
    if not (folder / "generation_config.json").is_file():
        return []
    eos = GenerationConfig.from_pretrained(str(folder)).eos_token_id
    return [eos] if isinstance(eos, int) else list(eos or [])


def save_serving(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, stops: Sequence[int], folder: Path
) -> None:
    """Beside a model's weights: tokenizer, chat template, and a generation config that stops where training did."""
    tokenizer.save_pretrained(folder)
    if model.can_generate():
        config = copy.deepcopy(model.generation_config)
        config.eos_token_id = list(stops)
        config.save_pretrained(folder)


def has_dropout(model: PreTrainedModel) -> bool:
    """True when training draws noise, so that examples must not share a computation."""
    drops = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return drops or bool(getattr(model.config, "attention_dropout", 0.0))


@torch.no_grad()
def enable_packing(model: PreTrainedModel, examples: Sequence[Example]) -> bool:
    """Switch the model to pegbox's packed attention if that gives this model's own logits on these examples.

    Each example is computed alone by the model as it was, then all of them in a pack. A model whose layers mix
    positions otherwise (recurrent, convolutional, relative biases) differs, is left as it was, and gets padded rows.
    """
    probes = [example for example in sorted(examples, key=len)[:4] if example.loss_weights]
    before = model.config._attn_implementation
    if not probes or not getattr(model, "_supports_attention_backend", False):
        return False
    register()
    device = model.device
    alone = [model(torch.tensor([e.input_ids], device=device), use_cache=False).logits[0] for e in probes]
    try:
        model.set_attn_implementation(IMPLEMENTATION)
        batch = pack(probes, share_prefix=True).to(device)
        packed = learnt_logits(model, batch)
    except (TypeError, ValueError, RuntimeError):
        model.set_attn_implementation(before)
        return False
    wanted = torch.cat([
        logits[[t - 1 for t in range(1, len(e)) if e.loss_weights[t] > 0]] for logits, e in zip(alone, probes, strict=True)
    ])
    tolerance = 1e-3 if wanted.dtype == torch.float32 else 0.15
    if (packed - wanted).abs().max() > tolerance:
        model.set_attn_implementation(before)
        return False
    return True
