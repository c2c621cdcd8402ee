"""The peers: Transformers' Trainer with PEFT's adapters, and TRL's SFTTrainer, each through its own `train()`.

They get the rows in tokens, in the order of pegbox's updates, and compute the same update: the loss is that of the trained
tokens alone, over the number of them in the update. None recomputes activations, all compute in float32 on a CPU (in
bfloat16 on a GPU), and their process has the allocator's settings that pegbox makes for its own.

    padded  rows of `at_once`, as they come
    sorted  the update's rows by length, so that those beside one another are padded less
    packed  TRL's own best-fit packing of the update's rows (`packing`)

TRL computes a pack with Transformers' sdpa attention under a dense mask of blocks where there is no FlashAttention, which
rows do not see each other through: the maths is exact (tests/speed). A pack's mask costs the square of its length, so
several short packs are faster than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from speed.given import Row, row
from speed.peer import Asked, Training
from speed.workloads import MAX_GRAD_NORM, WEIGHT_DECAY
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from pegbox import runtime
from pegbox.data.records import Example


def trainer(asked: Asked, *, by_length: bool = False, **more: Any) -> Training:
    """Transformers' Trainer. `more`: other arguments of it."""
    tokenizer = AutoTokenizer.from_pretrained(asked.given.start)
    classifies = asked.workload.task == "classification"
    made = Trainer(
        model=started(asked),
        args=TrainingArguments(**arguments(asked, asked.workload.at_once, asked.workload.batch_size), **more),
        train_dataset=Dataset.from_list(rows(asked, by_length=by_length)),
        data_collator=DataCollatorWithPadding(tokenizer) if classifies else DataCollatorForSeq2Seq(tokenizer),
    )
    return Training(made.model, made.train)


def trl(asked: Asked, *, packed: bool = False, **more: Any) -> Training:
    """TRL's SFTTrainer. `more`: other arguments of it."""
    return under_trl(asked, started(asked), AutoTokenizer.from_pretrained(asked.given.start), packed=packed, **more)


def under_trl(asked: Asked, model: Any, tokenizer: Any, *, packed: bool = False, **more: Any) -> Training:
    """Any model under it."""
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    parts, at_once = (asked.workload.packs, 1) if packed else (asked.workload.batch_size, asked.workload.at_once)
    settings = arguments(asked, at_once, parts) | {"max_length": None, "packing": packed}
    made = SFTTrainer(
        model=model,
        args=SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True}, **more),
        train_dataset=Dataset.from_list(asked.given.packs if packed else rows(asked)),
        processing_class=tokenizer,
    )
    return Training(made.model, made.train)


def started(asked: Asked) -> PreTrainedModel | PeftModel:
    """The model with the weights that everybody starts from, as Transformers and PEFT load them."""
    device = runtime.find_device()
    dtype = (
        torch.bfloat16 if runtime.use_bf16(device, None) and asked.workload.method["kind"] == "lora" else torch.float32
    )
    classifies = asked.workload.task == "classification"
    kind = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    if asked.workload.method["kind"] == "full":
        return kind.from_pretrained(asked.given.start, dtype=dtype)
    head = {"num_labels": asked.given.labels} if classifies else {}
    base = kind.from_pretrained(asked.given.base, dtype=dtype, **head)
    return PeftModel.from_pretrained(base, asked.given.start, is_trainable=True)


def arguments(asked: Asked, at_once: int, parts: int) -> dict[str, Any]:
    """Transformers' arguments of the update that everybody takes, `at_once` of its `parts` (rows, packs) at a time."""
    device, one = runtime.find_device(), asked.workload
    return {
        "output_dir": str(asked.work / "output"),
        "max_steps": one.steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": parts // at_once,
        "learning_rate": one.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": runtime.use_bf16(device, None),
        "use_cpu": device.type == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": asked.seed,
    }


def rows(asked: Asked, *, by_length: bool = False) -> list[Row]:
    """The rows of all updates, one update behind another."""
    updates: Sequence[Sequence[Example]] = asked.given.updates
    if by_length:
        updates = [sorted(update, key=len) for update in updates]
    return [row(example) for update in updates for example in update]
