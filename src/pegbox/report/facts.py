"""What was trained, how, and what it cost: the receipt as lines of name and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pegbox.recipe import Adapter, Freeze, Lora, Peft, Recipe
from pegbox.report import loss_words, wording

NAMED = 8  # rows of a finding that are named


def about(receipt: Mapping[str, Any], recipe: Recipe) -> str:
    """The run in a line: task, method, when it began."""
    began = str(receipt["began"]).replace("T", " ").removesuffix("+00:00") + " UTC"
    return f"{recipe.task.kind} · {method(recipe)} · {began}"


def method(recipe: Recipe) -> str:
    """The method with what matters most about it."""
    match recipe.method:
        case Lora() as lora:
            return _lora(lora)
        case Freeze() as freeze:
            learnt = [f"the top {freeze.top_layers} layers"] * bool(freeze.top_layers) + list(freeze.parts)
            return f"partial fine-tuning: {', '.join(learnt) or 'the head alone'}"
        case Adapter() as adapter:
            return f"bottleneck adapters ({adapter.variant or 'houlsby'}), size {adapter.bottleneck_size}"
        case Peft() as peft:
            return f"{peft.peft_type.upper()} by PEFT"
        case _:
            return "full fine-tuning"


def base(recipe: Recipe) -> str:
    """How the base model was held, and what was added to it; empty where it was as it is."""
    model = recipe.model
    held = [f"held in {model.quantization}"] if model.quantization else []
    return ", ".join([*held, *([f"{len(model.add_tokens)} new tokens"] if model.add_tokens else [])])


def _lora(chosen: Lora) -> str:
    kind = f"{'rs' * chosen.use_rslora}{'DoRA' if chosen.use_dora else 'LoRA'}"
    start = "" if chosen.init_lora_weights is True else f", started by {chosen.init_lora_weights}"
    alpha = 2.0 * chosen.r if chosen.lora_alpha is None else chosen.lora_alpha
    return f"{kind}, r {chosen.r}, lora_alpha {alpha:g}{start}"


def _best(best: Mapping[str, Any], recipe: Recipe) -> str:
    name, value = best["metric"], best["value"]
    if value is None:
        return f"no validation {name} was finite"
    unit = f" {loss_words.unit(recipe)}" if name == "loss" else ""
    return f"validation {name} {value:.4g}{unit}, the {'highest' if best['greater_is_better'] else 'lowest'}"


def training(log: Sequence[Mapping[str, Any]], receipt: Mapping[str, Any], recipe: Recipe) -> list[tuple[str, str]]:
    """What was trained, and how."""
    plan, train = receipt["plan"], recipe.train
    done = max((line["step"] for line in log), default=0)
    share = 100 * plan["trainable_parameters"] / plan["parameters"]
    return [
        ("Method", method(recipe)),
        *([("Base model", told)] if (told := base(recipe)) else []),
        ("Parameters that learnt", f"{plan['trainable_parameters']:,} of {plan['parameters']:,} ({share:.3g} %)"),
        ("Loss", loss_words.told(recipe)),
        ("Updates", f"{done:,} of {plan['updates']:,} planned, {train.batch_size} rows each"),
        ("Learning rate", f"{train.learning_rate:g}, {train.lr_scheduler_type}"),
        ("Chosen checkpoint", f"update {receipt['chosen_step']:,} ({_best(receipt['best_validation'], recipe)})"),
    ]


def costs(receipt: Mapping[str, Any], timing: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Time, tokens, memory, energy, machine; predicted and measured where both are known."""
    spent, memory, hardware = receipt["seconds"], receipt["peak_memory"], receipt["hardware"]
    updates = sum(line["seconds"] for line in timing)
    speed = f", {receipt['tokens'] / updates:,.0f} a second in updates" if updates else ""
    planned = (
        f"predicted: {wording.seconds(receipt['plan']['seconds'])}{_off(receipt['plan']['seconds'], spent['training'])}"
    )
    resumed = f"; from update {receipt['resumed_at']:,} on, where the run was resumed" if receipt["resumed_at"] else ""
    gpu = f"{hardware['gpu']}, " if "gpu" in hardware else ""
    ranks = f", {hardware['ranks']} processes" if hardware["ranks"] > 1 else ""
    return [
        ("Training", f"{wording.seconds(spent['training'])} ({planned}{resumed})"),
        ("Evaluation", wording.seconds(spent["evaluation"])),
        ("Tokens trained on", f"{receipt['tokens']:,} (predicted: {receipt['plan']['tokens']:,}){speed}"),
        (
            "Peak memory",
            f"{wording.gigabytes(memory['measured'])} (predicted: {wording.gigabytes(memory['predicted'])}"
            f"{_off(memory['predicted'], memory['measured'])})",
        ),
        ("Energy of training", energy(receipt["energy"])),
        ("Precision", precision(receipt["precision"])),
        ("Device", f"{hardware['device']}, {gpu}{hardware['cores']} cores{ranks}; {hardware['platform']}"),
        ("Model from", f"{receipt['model']['name']} ({receipt['model']['source']})"),
    ]


def _off(predicted: float, measured: float) -> str:
    """How far a prediction was off, as a share of what was measured."""
    return f", {100 * (predicted - measured) / measured:+.0f} %" if measured else ""


def precision(found: Mapping[str, Any]) -> str:
    """What was computed in, what the weights are held in, and what that does to the loss where it was measured."""
    told, gap = f"computed in {found['computed']}, weights in {' and '.join(found['held'])}", found["validation_loss"]
    if gap is None:
        return told
    return f"{told}; validation loss {gap['bfloat16']:.5g}, and {gap['float32']:.5g} all in float32"


def energy(found: Mapping[str, Any]) -> str:
    """Joules and watt-hours with what they cover, or why they are not known."""
    joules, source = found["joules"], found["source"]
    if joules is None:
        return f"not measured: {source}"
    return f"{joules:,.0f} J ({joules / 3600:,.2f} Wh) by {source}: all that ran on it, not this process alone"


def finding(found: Mapping[str, Any]) -> dict[str, Any]:
    """A finding of the doctor for the page."""
    named = wording.some(found["rows"], NAMED)
    return {**found, "check": found["check"].replace("_", " "), "named": named}
