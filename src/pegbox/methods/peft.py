"""The bridge to PEFT: its long tail of methods, by its own layers and modules and on disk in its own layout.

All else in pegbox works on the model that Transformers made, and so PEFT's wrapper is never handed out: PEFT puts its layers
into the model in place, and the wrapper is kept aside for what it alone can do, to read and write its tensors and to merge.
Methods whose vectors stand before the text would need the wrapper's own forward pass; they get hooks (`virtual_tokens`).
New heads stay what they are and learn as they are. PEFT would learn a copy of each, and has the same tensors on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.errors import RecipeError
from pegbox.methods import saved, virtual_tokens
from pegbox.methods.lora_files import CONFIG, WEIGHTS
from pegbox.methods.peft_settings import OVER_QUANTIZED, config_of, config_on_disk, set_targets, task_type
from pegbox.methods.virtual_cache import four_tokens
from pegbox.models import quantization
from pegbox.models.heads import let_new_parts_learn, new_heads
from pegbox.models.new_tokens import new_rows
from pegbox.models.quantization import is_quantized
from pegbox.recipe import Peft

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

FREEZES = True
ADAPTER, KEPT = "default", "peft_wrapper"
# AdamW's rate where the recipe names none; other methods learn small factors from zero, much as LoRA does
RATES: Mapping[str, float] = {
    "IA3": 3e-3,  # Liu et al. 2022, arXiv 2205.05638
    "VERA": 4e-3,  # Kopiczko et al. 2023, arXiv 2310.11454: for instruction tuning
    "PROMPT_TUNING": 3e-2,  # usual with AdamW in PEFT's examples; Lester et al. 2021, arXiv 2104.08691: 0.3 with Adafactor
    "PREFIX_TUNING": 1e-2,  # usual in PEFT's examples; Li & Liang 2021, arXiv 2101.00190: 5e-5 on a network that makes them
    "OSF": 2e-5,  # whole matrices learn, as in full fine-tuning
}
RATE = 1e-3


def learning_rate(settings: Peft) -> float:
    """By the method: vectors that scale, or that stand alone, learn faster than matrices."""
    return RATES.get(settings.peft_type.upper(), RATE)


def rate_factor(settings: Peft, name: str) -> float:
    """All that learns learns alike."""
    return 1.0


def prepare(model: PreTrainedModel, settings: Peft, seed: int) -> None:
    """Freeze the model, put what PEFT's method learns into it, and let new heads learn. Raises RecipeError."""
    _refuse_missing()
    if new_rows(model):
        what = "PEFT has no place for new tokens in this method"
        raise RecipeError(what, where="model.add_tokens", cure="take method: lora or method: full")
    _insert(model, config_of(settings, model), seed, "method")


def _refuse_missing() -> None:
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError as error:
        cure = "pip install 'pegbox[peft]'"
        raise RecipeError(f"the package {error.name} is not there", where="method", cure=cure) from None


def _insert(model: PreTrainedModel, config: PeftConfig, seed: int, where: str) -> None:
    """Change the model in place. Seeded, and the caller's generators stay as they were."""
    _refuse_quantized(model, config)
    model.requires_grad_(False)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if config.is_prompt_learning:
            virtual_tokens.attach(model, config)
        else:
            _wrap(model, config, where)
    let_new_parts_learn(model)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))


def _refuse_quantized(model: PreTrainedModel, config: Any) -> None:
    if config.peft_type not in OVER_QUANTIZED and any(map(is_quantized, model.modules())):
        what = f"{config.peft_type.value} does not compute over layers in 4 or 8 bits what it should"
        cure = f"leave it away, or take one of {', '.join(sorted(OVER_QUANTIZED))}"
        raise RecipeError(what, where="model.quantization", cure=cure)


def _wrap(model: PreTrainedModel, config: PeftConfig, where: str) -> None:
    """Let PEFT put its layers into the model, and keep its wrapper."""
    from peft import PeftModel

    set_targets(model, config, "method.target_modules" if where == "method" else where)
    training, config.inference_mode = model.training, False  # what was learnt may learn on
    try:
        wrapper = PeftModel(model, config, ADAPTER)
        _try(model)
    except Exception as error:  # whatever PEFT raises, it raises over the options: there is no list of what
        what = f"PEFT refuses this: {str(error) or type(error).__name__}"
        raise RecipeError(what, where=where, cure="change the options of the method to what PEFT asks for") from error
    model.train(training)
    del wrapper.base_model.model
    vars(model)[KEPT] = wrapper  # past nn.Module, for which it would be a part of the model


@torch.no_grad()
def _try(model: PreTrainedModel) -> None:
    """Give a model a few tokens: some methods ask for more than that only now."""
    reader: Any = model.get_encoder() if model.config.is_encoder_decoder else model
    with runtime.autocast(model.device, model.dtype == torch.bfloat16):
        reader(input_ids=four_tokens(reader))


@contextmanager
def _wrapped(model: PreTrainedModel) -> Iterator[PeftModel]:
    """PEFT's wrapper around the model.

    It is kept without the model, for a ring of references would hold the weights until Python looks for rings.
    """
    wrapper: PeftModel = vars(model)[KEPT]
    tuner: Any = wrapper.base_model
    tuner.model = model
    try:
        yield wrapper
    finally:
        del tuner.model


def _adapter(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What the method has learnt, by PEFT's names on disk."""
    from peft import get_peft_model_state_dict

    if (virtual := virtual_tokens.find(model)) is not None:
        return {"prompt_embeddings": virtual.learnt()}
    with _wrapped(model) as wrapper:  # `save_embedding_layers` would ask the hub how many tokens the base model has
        found: dict[str, torch.Tensor] = get_peft_model_state_dict(wrapper, save_embedding_layers=False)
        return found


def _heads(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors of new heads, by PEFT's names on disk."""
    return saved.new_weights(model, "base_model." if virtual_tokens.find(model) is not None else "base_model.model.")


def save(model: PreTrainedModel, settings: Peft, folder: Path, base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT does. `base` names the untouched model."""
    virtual = virtual_tokens.find(model)
    config = virtual.config if virtual is not None else vars(model)[KEPT].peft_config[ADAPTER]
    told: dict[str, Any] = config.to_dict() | {
        "task_type": task_type(model),
        "base_model_name_or_path": base,
        "inference_mode": True,
    }
    if "modules_to_save" in told:
        told["modules_to_save"] = list(new_heads(model)) or None
    if told.get("tokenizer_name_or_path"):
        told["tokenizer_name_or_path"] = base
    text = json.dumps(told, indent=2, sort_keys=True, default=sorted)  # sets, in an order that is the same each time
    saved.write(folder, (CONFIG, text), WEIGHTS, _adapter(model) | _heads(model))


def restore(model: PreTrainedModel, settings: Peft | None, folder: Path) -> None:
    """Put a saved adapter, ours or PEFT's, into a base model. The folder says what it is; `settings` are not needed.

    Raises RecipeError unless every tensor on disk has its place in the model, and every place its tensor.
    """
    _refuse_missing()
    text, tensors = saved.read(folder, CONFIG, WEIGHTS)
    config = config_on_disk(text, str(folder / CONFIG))
    config.inference_mode = True  # as PEFT always writes it
    _insert(model, config, 0, str(folder))
    heads, adapter = _heads(model), _adapter(model)
    saved.refuse_misfit(tensors, heads | adapter, folder)
    for name, place in heads.items():
        place.copy_(tensors[name])
    _fill(model, {name: tensors[name] for name in adapter})


def _fill(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put the adapter's tensors, by PEFT's names, into their places."""
    from peft import set_peft_model_state_dict

    if (virtual := virtual_tokens.find(model)) is not None:
        virtual.fill(tensors["prompt_embeddings"])
        return
    with _wrapped(model) as wrapper:
        loaded: Any = set_peft_model_state_dict(wrapper, dict(tensors))
    assert not loaded.unexpected_keys


def merge(model: PreTrainedModel, settings: Peft | None) -> None:
    """Let PEFT write the adapter into the weights and take its layers out. Raises RecipeError where it cannot."""
    if virtual_tokens.find(model) is not None:
        what = "virtual tokens stand before the text and cannot be written into the model's weights"
        raise RecipeError(what, where="method.peft_type", cure="keep the adapter, and load it with PEFT or pegbox")
    kind = vars(model)[KEPT].peft_config[ADAPTER].peft_type.value
    try:
        if any(map(is_quantized, model.modules())):
            _expand(model)
        with _wrapped(model) as wrapper:
            tuner: Any = wrapper.base_model
            tuner.merge_and_unload()
    except (ValueError, RuntimeError, AttributeError, TypeError) as error:
        reason = "it has no merge" if isinstance(error, AttributeError) else error
        cure = "keep the adapter, and load it with PEFT or pegbox"
        what = f"PEFT cannot write {kind} into the model's weights: {reason}"
        raise RecipeError(what, where="method.peft_type", cure=cure) from error
    del vars(model)[KEPT]


def _expand(model: PreTrainedModel) -> None:
    """Hold the base model's weights in full under the same adapter: PEFT would write into rounded ones."""
    learnt, wrapper = _adapter(model), vars(model)[KEPT]
    quantization.expand(model)  # first: some of PEFT's methods refuse to be taken out of a quantized model
    with _wrapped(model):
        wrapper.base_model.unload()
    config = wrapper.peft_config[ADAPTER]
    config.inference_mode = True
    _insert(model, config, 0, "method")
    _fill(model, learnt)
