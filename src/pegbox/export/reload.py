"""`python -m pegbox.export.reload JOB`: load an export in a process of its own and write down what it says.

It is loaded as somebody without pegbox would load it: by Transformers, PEFT or onnxruntime, computed in float32. Only an
adapter in pegbox's own format needs pegbox.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from pegbox.export import onnx
from pegbox.export.probe import Job, Said, at_places
from pegbox.methods import METHODS
from pegbox.models import load as models
from pegbox.models import new_tokens
from pegbox.models.gguf_tokenizer import build_tokenizer, special_id
from pegbox.tasks.asked import Asked


def main(folder: Path) -> None:
    """Do the job of a folder."""
    job = Job.read(folder)
    said = _by_onnxruntime(job) if job.way == "onnx" else _by_transformers(job)
    said.write(folder)


def load(job: Job) -> PreTrainedModel:
    """The export as a model of Transformers', in float32 and eval mode; not for onnx."""
    model = LOADED[job.way](job)
    model.train(False)
    return model


def _by_transformers(job: Job) -> Said:
    model = load(job)
    answers = [_answer(model, row, job) for row in job.rows] if job.max_new_tokens else []
    return Said([logits(model, row) for row in job.rows], answers, SERVED[job.way](job))


@torch.inference_mode()
def logits(model: PreTrainedModel, row: Asked) -> torch.Tensor:
    """What a model computes for a row by itself, at the places asked for (see `at_places`)."""
    inputs = {"input_ids": torch.tensor([row.input_ids], device=model.device)}
    if row.token_type_ids:
        inputs["token_type_ids"] = torch.tensor([row.token_type_ids], device=model.device)
    if row.given:
        inputs["decoder_input_ids"] = torch.tensor([row.given], device=model.device)
    told = model(**inputs)
    out: torch.Tensor = told["logits"] if "logits" in told else told["last_hidden_state"]
    return at_places(out[0] if row.places else out, row)


def _answer(model: PreTrainedModel, row: Asked, job: Job) -> list[int]:
    """The greedy answer by Transformers' own loop, without the token that ends it."""
    prompt, stops = torch.tensor([row.prompt], device=model.device), list(job.stop_ids)
    ids = torch.tensor([row.input_ids], device=model.device) if row.given else prompt
    begun = {"decoder_input_ids": prompt, "decoder_start_token_id": row.prompt[0]} if row.given else {}
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=job.max_new_tokens,
        eos_token_id=stops,
        pad_token_id=stops[0],
        suppress_tokens=list(job.never) or None,
    )
    out = model.generate(  # type: ignore[operator]
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, **begun
    )
    said: list[int] = out[0, len(row.prompt) :].tolist()
    return said[:-1] if said and said[-1] in stops else said


# ---- the ways to load -------------------------------------------------------------------------------------------------


def _whole(job: Job) -> PreTrainedModel:
    model: PreTrainedModel = models.HEADS[job.head].from_pretrained(job.export, dtype=torch.float32)
    return model


def _gguf(job: Job) -> PreTrainedModel:
    """The file's weights by Transformers' own reader; and what it reads of the file's keys, where it reads them all."""
    file = Path(job.export)
    read = AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name)
    config = AutoConfig.from_pretrained(job.base)
    if _is_overlooked(config):
        config.vocab_size = read.vocab_size  # new tokens are in the file
        read = config
    model: PreTrainedModel = models.HEADS[job.head].from_pretrained(
        str(file.parent), gguf_file=file.name, config=read, dtype=torch.float32
    )
    return model


def _is_overlooked(config: Any) -> bool:
    """Whether Transformers' reader passes over keys of such a model: scaled rotary positions, Gemma's caps, other heads."""
    scaled = (config.rope_parameters or {}).get("rope_type", "default") != "default"
    heads = config.model_type == "qwen3" and config.head_dim != 128
    return scaled or heads or config.model_type in ("gemma2", "gemma3_text")


def _peft(job: Job) -> PreTrainedModel:
    from peft import PeftModel

    base = _base(job)
    tokenizer = models.load_tokenizer(Path(job.export))
    if len(tokenizer) > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    base.config.pad_token_id = tokenizer.pad_token_id
    return PeftModel.from_pretrained(base, job.export)  # type: ignore[return-value]  # it forwards all that is asked


def _base(job: Job) -> Any:
    """The untouched model. One of 4 or 8 bits as pegbox holds it: bitsandbytes' own layers round in other places."""
    if job.quantization is not None:
        return models.load_model(
            Path(job.base), job.head, labels=job.labels, quantization=job.quantization, kernels=False
        )
    options = {"num_labels": len(job.labels)} if job.labels else {}
    return models.HEADS[job.head].from_pretrained(job.base, dtype=torch.float32, **options)


def _own(job: Job) -> PreTrainedModel:
    before, after = (models.load_tokenizer(Path(folder)) for folder in (job.base, job.export))
    tokens = new_tokens.added(before, after)
    options: dict[str, Any] = {"add_tokens": tokens, "apart": True, "quantization": job.quantization}
    model = models.load_model(Path(job.base), job.head, labels=job.labels, **options)
    METHODS["adapter"].restore(model, None, Path(job.export))
    return model


def _by_onnxruntime(job: Job) -> Said:
    """Answers of a session of onnxruntime."""
    answer, found = onnx.load(Path(job.export)), []
    for row in job.rows:
        batch = {
            "input_ids": np.array([row.input_ids]),
            "attention_mask": np.ones((1, len(row.input_ids)), dtype=np.int64),
        }
        if row.token_type_ids:
            batch["token_type_ids"] = np.array([row.token_type_ids])
        out = torch.from_numpy(answer(batch))
        found.append(at_places(out[0] if row.places else out, row))
    return Said(found, serving=_served_by_files(job))


# ---- what it is served with -------------------------------------------------------------------------------------------


def served(tokenizer: Any, stop_ids: list[int], texts: list[str]) -> dict[str, Any]:
    """How texts become tokens, the chat template, and the tokens that end an answer."""
    tokens = [list(map(int, tokenizer(text)["input_ids"])) for text in texts]
    return {"tokens": tokens, "template": tokenizer.chat_template, "stop_ids": sorted(stop_ids)}


def _served_by_files(job: Job) -> dict[str, Any]:
    folder = Path(job.export)
    return served(AutoTokenizer.from_pretrained(folder), models.stop_ids(folder), list(job.texts))


def _served_by_gguf(job: Job) -> dict[str, Any]:
    """By pegbox's own reading of the file, where the tokenizer is of a kind that it reads; else by Transformers'."""
    from gguf import GGUFReader

    file = Path(job.export)
    fields = {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    if fields["tokenizer.ggml.model"] == "gpt2":
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(fields))
    else:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    stops = [special_id(fields, role) for role in ("eos", "eot", "eom")]
    return served(tokenizer, [stop for stop in stops if stop is not None], list(job.texts))


SERVED: Mapping[str, Callable[[Job], dict[str, Any]]] = {
    "whole": _served_by_files,
    "peft": _served_by_files,
    "own": _served_by_files,
    "gguf": _served_by_gguf,
}
LOADED: Mapping[str, Callable[[Job], PreTrainedModel]] = {"whole": _whole, "peft": _peft, "own": _own, "gguf": _gguf}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
