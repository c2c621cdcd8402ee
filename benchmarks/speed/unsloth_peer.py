"""Unsloth, where it can be installed (it needs a GPU): its model and kernels under TRL's trainer, as its users run it."""

from __future__ import annotations

from typing import Any

from speed.peer import Asked, Training

from speed import theirs


def unsloth(asked: Asked) -> Training:
    """Its own model with its own LoRA layers, which start from weights of their own: its loss afterwards is near, not equal."""
    from unsloth import FastLanguageModel  # before TRL, which it changes

    method = asked.workload.method
    longest = max(len(row) for update in asked.given.updates for row in update)
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(asked.given.base), max_seq_length=longest, load_in_4bit=False
    )
    learnt: Any = FastLanguageModel.get_peft_model(
        model,
        r=method["r"],
        lora_alpha=method["lora_alpha"],
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing=False,
        random_state=asked.seed,
    )
    return theirs.under_trl(asked, learnt, tokenizer)
