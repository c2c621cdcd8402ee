"""What a recipe asks of PEFT, as PEFT's own configuration: which method, its options, and which modules it changes.

Every option of PEFT's is known here by the fields of its class alone, so that a method that PEFT gains needs no line. What
cannot work in a loop that knows gradients and nothing else is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel

from pegbox.errors import RecipeError, meant
from pegbox.methods import lora
from pegbox.methods.targets import is_called
from pegbox.models.heads import is_bare, new_heads, output_layer
from pegbox.recipe import Lora, Peft

if TYPE_CHECKING:
    from peft import PeftConfig

REFUSED: Mapping[str, str] = {
    "LORA": "is `method: {kind: lora}` here, which is faster",
    "ADALORA": "moves ranks between layers after each update, which needs more than gradients",
    "CARTRIDGE": "starts from the keys and values of a text and learns what the untouched model says of it",
    "CPT": "has a loss of its own, over the tokens of its prompt",
    "LILY": "averages over all tokens of a batch, so that an answer hangs on the rows beside it",
    "MULTITASK_PROMPT_TUNING": "needs the number of a task with every row",
    "POLY": "needs the number of a task with every row",
    "SHADOW": "trains a second model beside the first, by a loss of its own",
    "XLORA": "mixes LoRA adapters that were trained before",
}
# those that were seen to compute over layers in 4 and 8 bits what they compute over the same weights in full
OVER_QUANTIZED = {
    *("ADAPTION_PROMPT", "BEFT", "BOFT", "FOURIERFT", "HIRA", "IA3", "LN_TUNING", "MISS", "OFT"),
    *("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "RANDLORA", "ROAD", "SHIRA", "TRAINABLE_TOKENS"),
    *("VBLORA", "VERA", "WAVEFT"),
}
OURS = {  # what pegbox sets itself, or what would fetch something
    *("peft_type", "task_type", "inference_mode", "modules_to_save", "base_model_name_or_path", "revision"),
    *("auto_mapping", "peft_version", "tokenizer_name_or_path", "tokenizer_kwargs"),
}
VIRTUAL_TOKENS = 20  # where the recipe names no number; more hardly gained in Lester et al. 2021 (figure 3b)
PATTERNS = {"target_modules", "exclude_modules", "feedforward_modules"}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "ADAPTION_PROMPT": ("adapter_len", "adapter_layers"),
    "TRAINABLE_TOKENS": ("token_indices",),
}
OWN_TARGETS = {"ADAPTION_PROMPT", "TRAINABLE_TOKENS"}  # attention and embeddings, which PEFT finds by itself
# how the last layer of a feed-forward block is called, for IA3 in architectures that PEFT does not know
DOWN = ("down_proj", "fc2", "wo", "w2", "lin2", "fc_out", "dense_4h_to_h", "mlp.c_proj", "mlp.Wo", "ffn_output")


def find_type(name: str) -> str:
    """PEFT's name of a method, however it is written. Raises RecipeError for one that is unknown, or cannot work here."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    kind, known = name.upper(), [str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING]
    where = "method.peft_type"
    if kind in REFUSED:
        cure = "take another method, of PEFT's or of pegbox's"
        raise RecipeError(f"{kind} cannot be trained here: it {REFUSED[kind]}", where=where, cure=cure)
    if kind not in known:
        raise RecipeError(f"PEFT has no method '{name}'", where=where, cure=_meant(kind, sorted({*known} - {*REFUSED})))
    return kind


def _meant(written: str, known: Sequence[str]) -> str:
    return meant(written, known) or f"known are {', '.join(known)}"


def config_of(settings: Peft, model: PreTrainedModel) -> PeftConfig:
    """PEFT's configuration with the options of the recipe. Raises RecipeError for an option that is unknown or wrong."""
    kind = find_type(settings.peft_type)
    options = _checked(kind, settings.options)
    if missing := [key for key in NEEDED.get(kind, ()) if not options.get(key)]:
        raise RecipeError(f"{kind} needs {' and '.join(missing)}", where="method", cure="give it, as PEFT describes it")
    if options.get("prompt_tuning_init") == "TEXT":  # the model's own tokenizer cuts the text to start from
        options["tokenizer_name_or_path"] = model.name_or_path
    return _build(kind, options, "method")


def config_on_disk(text: str, where: str) -> PeftConfig:
    """The configuration that PEFT or pegbox saved with an adapter. Raises RecipeError where it is none."""
    try:
        told = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"the adapter cannot be read: {error}", where=where) from None
    kind = find_type(str(told.get("peft_type")))
    known = {field.name for field in fields(_class_of(kind))}
    if odd := sorted(told.keys() - known):
        raise RecipeError(f"this version of PEFT does not know {', '.join(odd)}", where=where, cure="update PEFT")
    return _build(kind, {**told, "modules_to_save": None} if "modules_to_save" in known else told, where)


def _class_of(kind: str) -> type[PeftConfig]:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]


def _build(kind: str, options: Mapping[str, Any], where: str) -> PeftConfig:
    try:
        return _class_of(kind)(**options)
    except (ValueError, TypeError) as error:
        cure = "change what PEFT names"
        raise RecipeError(f"PEFT refuses these options of {kind}: {error}", where=where, cure=cure) from None


def _checked(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with values of the types that PEFT declares, which it does not check itself."""
    types = get_type_hints(_class_of(kind))
    known = sorted({field.name for field in fields(_class_of(kind))} - OURS)
    checked = {}
    for key, value in options.items():
        if key in OURS:
            raise RecipeError("is set by pegbox", where=f"method.{key}", cure="leave it away")
        if key not in known:
            raise RecipeError(f"{kind} has no option '{key}'", where=f"method.{key}", cure=_meant(key, known))
        checked[key] = _value(key, value, types[key])
    if checked.get("use_asa"):
        what = "the number of subspaces would have to be changed after each update, which needs more than gradients"
        raise RecipeError(what, where="method.use_asa", cure="leave it away")
    return checked


def _value(key: str, value: Any, declared: Any) -> Any:
    """A value as PEFT declares it. Where that is one of a few words or any, it must be one of them; patterns must be some."""
    few = [kind for kind in get_args(declared) if isinstance(kind, type) and issubclass(kind, Enum)]
    try:
        checked = TypeAdapter(few[0] if few else declared).validate_python(value)
        if key in PATTERNS and isinstance(checked, str):
            re.compile(checked)
    except ValidationError as error:
        said = "; or ".join(dict.fromkeys(str(entry["msg"]) for entry in error.errors(include_url=False)))
        raise RecipeError(f"{value!r} is no value for it", where=f"method.{key}", cure=said) from None
    except re.error as error:
        cure = "give a list of names, or a regular expression"
        raise RecipeError(f"{value!r} is no pattern: {error}", where=f"method.{key}", cure=cure) from None
    return checked


def set_targets(model: PreTrainedModel, config: Any, where: str) -> None:
    """Write into the configuration which modules get an adapter: never the output layer or what new heads have.

    Where none are given they are those that PEFT knows for the architecture, else all linear layers. Names stay as short
    as they may be, for what shares one name may share weights. Raises RecipeError where a name is no module's; an adapter
    from disk (`inference_mode`) may name more than this model has.
    """
    if config.peft_type in OWN_TARGETS or "target_modules" not in vars(config):
        return
    wanted = config.target_modules
    if wanted is None:
        config.target_modules = _usual(model, config)
    elif wanted == "all-linear":
        config.target_modules = _short(model, lora.targets(model, Lora()))
    matching = _matching(model, config)
    found = _apart_from_heads(model, matching)
    named = wanted if isinstance(wanted, set | list) and not config.inference_mode else ()
    missed = sorted(name for name in named if not any(is_called(module, name) for module in found))
    if missed or not found:
        what = f"no module of the model is called {', '.join(missed) or wanted}"
        raise RecipeError(what, where=where, cure=f"choose among {', '.join(_candidates(model))}")
    if len(found) < len(matching) or config.peft_type == "IA3":
        config.target_modules = set(found)
    if config.peft_type == "IA3":
        config.feedforward_modules = set(_feed_forward(model, config, found, chosen=wanted is not None))


def _usual(model: PreTrainedModel, config: Any) -> Any:
    """What PEFT changes in a model of this architecture (names, or a pattern); where it knows none, all linear layers."""
    from peft import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING

    known: Mapping[str, Any] = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    if config.peft_type != "IA3":
        known = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type].target_module_mapping
    if usual := known.get(model.config.model_type):
        return usual if isinstance(usual, str) else set(usual)
    if config.peft_type == "LN_TUNING":
        return _short(model, [name for name, part in model.named_modules() if "norm" in type(part).__name__.lower()])
    return _short(model, lora.targets(model, Lora()))


def _short(model: PreTrainedModel, names: Sequence[str]) -> set[str]:
    """The last parts of the names, where no other module has them; else the names."""
    last = {_last(name) for name in names}
    return last if sum(_last(name) in last for name, _ in model.named_modules()) == len(names) else set(names)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _matching(model: PreTrainedModel, config: Any) -> list[str]:
    """The names of the modules that PEFT would change, by its own rule."""
    from peft.tuners.tuners_utils import check_target_module_exists

    return [name for name, _ in model.named_modules() if name and check_target_module_exists(config, name)]


def _apart_from_heads(model: PreTrainedModel, names: Sequence[str]) -> list[str]:
    """The names without those of the output layer and of what new heads have."""
    apart = [*new_heads(model).values(), *filter(None, [output_layer(model)])]
    left_out = {module for part in apart for module in part.modules()}
    return [name for name in names if model.get_submodule(name) not in left_out]


def _candidates(model: PreTrainedModel) -> list[str]:
    """The last parts of the names of modules that hold weights of their own."""
    holders = [name for name, part in model.named_modules() if name and any(True for _ in part.parameters(False))]
    return sorted({_last(name) for name in _apart_from_heads(model, holders)})


def _feed_forward(model: PreTrainedModel, config: Any, found: Sequence[str], *, chosen: bool) -> list[str]:
    """Of the modules found, those whose input IA3 scales and not their output; `chosen`: they were named in the recipe."""
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as KNOWN

    wanted, where = config.feedforward_modules, "method.feedforward_modules"
    last = ", ".join(sorted({_last(module) for module in found}))
    if wanted is None:
        names = KNOWN.get(model.config.model_type, DOWN)
        layers = [module for module in found if any(is_called(module, name) for name in names)]
        if not layers and not chosen and model.config.model_type not in KNOWN:
            cure = f"name them, among {last}"
            raise RecipeError("it is not known which layers end a feed-forward block", where=where, cure=cure)
        return layers
    if isinstance(wanted, str):
        return [module for module in found if re.fullmatch(wanted, module) or is_called(module, wanted)]
    missed = sorted(name for name in wanted if not any(is_called(module, name) for module in found))
    if missed and not config.inference_mode:
        what = f"no target is called {', '.join(missed)}"
        raise RecipeError(what, where=where, cure=f"choose among the targets: {last}")
    return [module for module in found if any(is_called(module, name) for name in wanted)]


def set_sizes(model: PreTrainedModel, config: Any) -> None:
    """Write how many virtual tokens there are, and the model's sizes, into the configuration where it has none.

    Raises RecipeError where they are none.
    """
    sizes: Any = model.config.get_text_config()
    if config.num_virtual_tokens is None:
        config.num_virtual_tokens = VIRTUAL_TOKENS
    if config.num_virtual_tokens < 1:
        cure = f"leave it away for {VIRTUAL_TOKENS}"
        raise RecipeError("must be at least 1", where="method.num_virtual_tokens", cure=cure)
    config.num_transformer_submodules = 1
    config.num_layers = config.num_layers or sizes.num_hidden_layers
    heads = sizes.num_attention_heads
    if config.peft_type == "PREFIX_TUNING":
        width = getattr(sizes, "head_dim", None) or sizes.hidden_size // heads
        heads = getattr(sizes, "num_key_value_heads", None) or heads
        config.token_dim = config.token_dim or width * heads
    config.num_attention_heads = config.num_attention_heads or heads
    embedding: Any = model.get_input_embeddings()
    config.token_dim = config.token_dim or embedding.weight.shape[1]
    if "encoder_hidden_size" in vars(config):
        config.encoder_hidden_size = config.encoder_hidden_size or config.token_dim


def task_type(model: PreTrainedModel) -> str | None:
    """PEFT's name for what the model does; it has none for masked tokens."""
    if is_bare(model):
        return "FEATURE_EXTRACTION"
    if output_layer(model) is not None and not model.can_generate():
        return None
    if type(model).__name__.endswith("ForTokenClassification"):
        return "TOKEN_CLS"
    if new_heads(model):
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
