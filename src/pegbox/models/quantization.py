"""A frozen base model held in 4 or 8 bits, by bitsandbytes.

    nf4    w = absmax of 64 neighbours * one of 16 levels      half a byte a weight, and 0.13 bits for the absmax
    int8   w = absmax of its row * k / 127, k = -127 .. 127    a byte a weight, and 4 bytes a row

NF4, whose levels are quantiles of a normal distribution and whose absmax is held in 8 bits ("double quantization"):
Dettmers et al. 2023 (QLoRA, arXiv 2305.14314). int8: Dettmers et al. 2022 (LLM.int8(), arXiv 2208.07339), of which the
weights alone are taken. The paper rounds the inputs, too, and takes columns of outliers out of the whole batch: an answer
would depend on the rows that it is computed with, and, as bitsandbytes leaves both away in training on a CPU, a model
would be trained as another than it is used. Here it is `y = x D(q)^T + b` with the dequantized weight `D(q)`, always.

Quantized are the linear layers of the base model. Its embeddings, norms and output layer stay as they are; so do new
heads, which learn, and experts that a model keeps in one tensor.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, TypeGuard

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.import_utils import is_accelerate_available

from pegbox import runtime
from pegbox.errors import RecipeError
from pegbox.models.heads import output_layer

LARGEST = 127  # of the whole numbers in int8
KEY = "model.quantization"


def is_quantized(module: nn.Module) -> TypeGuard[nn.Linear]:
    """True for a linear layer whose weight is held in 4 or 8 bits: `dequantized` gives it in full."""
    return isinstance(module, nn.Linear) and not module.weight.is_floating_point()


@torch.no_grad()
def dequantized(module: nn.Module) -> torch.Tensor:
    """The weight float32 [out, in] that a quantized linear layer multiplies by, made anew at each call."""
    assert is_quantized(module)
    weight: Any = module.weight
    if weight.dtype == torch.int8:
        full: torch.Tensor = weight.data.float().mul_((weight.SCB.float() / LARGEST)[:, None])
        return full
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state).float()


@torch.no_grad()
def expand(model: PreTrainedModel) -> None:
    """Put a plain layer of the dequantized weight in the place of each quantized one, and forget that any was."""
    quantized = [(name, module) for name, module in model.named_modules() if is_quantized(module)]
    for name, module in quantized:
        plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
        plain.weight, plain.bias = nn.Parameter(dequantized(module), requires_grad=False), module.bias
        model.set_submodule(name, plain.train(module.training))
    if (quantizer := vars(model).pop("hf_quantizer", None)) is not None:
        quantizer.remove_quantization_config(model)
        for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):  # that PEFT looks at
            vars(model).pop(flag, None)


def count(parameter: nn.Parameter) -> int:
    """How many numbers a weight has, however many share a byte."""
    held: Any = parameter
    return int(held.quant_state.shape.numel()) if parameter.dtype == torch.uint8 else parameter.numel()


def size(parameter: nn.Parameter) -> int:
    """How many bytes a weight is held in, its scales included."""
    held: Any = parameter
    tensors = [parameter]
    if parameter.dtype == torch.uint8:
        tensors += [held.quant_state.absmax, held.quant_state.state2.absmax]
    elif parameter.dtype == torch.int8:
        tensors += [held.SCB]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# ---- loading ----------------------------------------------------------------------------------------------------------


def config(kind: str, device: torch.device) -> BitsAndBytesConfig:
    """How Transformers is to load the model; `kind` is nf4 or int8.

    Products with nf4's weights are computed in float32 on a CPU, in bfloat16 on a GPU that can.
    Raises RecipeError where bitsandbytes is not installed, or cannot compute on the device.
    """
    able = sorted(_bitsandbytes().supported_torch_devices)
    if device.type not in able:
        what = f"bitsandbytes cannot compute on {device.type}, but on {', '.join(able)}"
        raise RecipeError(what, where=KEY, cure=f"leave {KEY} away")
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if runtime.use_bf16(device, None) else torch.float32,
    )


def loading_options(kind: str, skeleton: PreTrainedModel, device: torch.device) -> Mapping[str, Any]:
    """What `from_pretrained` needs for it; `skeleton` is the model without weights.

    The weights are quantized from float32, so that they are the same whatever type the rest is held in.
    """
    settings = config(kind, device)
    # Transformers takes these for regular expressions that begin a name, or for the ends of names
    settings.llm_int8_skip_modules = [f"^{name}$" for name in _whole(skeleton)]
    return {"quantization_config": settings, "device_map": {"": device}, "dtype": torch.float32}


def _whole(skeleton: PreTrainedModel) -> Iterator[str]:
    """The names of layers that Transformers would quantize and that stay: outside the base model, poolers, the output.

    So does GPT-2's kind of linear layer, whose weight is [in, out]: it would become one of another kind.
    """
    base, output = skeleton.base_model, output_layer(skeleton)
    inside = "" if base is skeleton else f"{skeleton.base_model_prefix}."
    for name, module in skeleton.named_modules():
        of_base = name.startswith(inside) and not name.startswith(f"{inside}pooler.")
        if isinstance(module, Conv1D) or (type(module) is nn.Linear and (module is output or not of_base)):
            yield name


def settle(model: PreTrainedModel, dtype: torch.dtype, *, fast: bool) -> None:
    """Let the quantized layers of a loaded model compute as they should; hold the rest in `dtype`.

    `fast`: by `kernels.linear`. Raises RecipeError where no layer is quantized, or the model does more with its layers
    than call them.
    """
    from pegbox.models.quantized_layers import adopt

    layers = [module for module in model.modules() if is_quantized(module)]
    if not layers:
        what = "the model has no linear layers of the kind that bitsandbytes takes"
        raise RecipeError(what, where=KEY, cure=f"leave {KEY} away")
    for layer in layers:
        adopt(layer, fast=fast)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    _refuse_readers(model)


@torch.no_grad()
def _refuse_readers(model: PreTrainedModel) -> None:
    """Raise RecipeError for a model that reads the weights of its linear layers, as Mamba does: found out by trying."""
    ids = torch.ones(1, 2, dtype=torch.long, device=model.device)
    try:
        model(input_ids=ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}))
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"the model cannot compute with quantized layers: {error}"
        raise RecipeError(what, where=KEY, cure=f"leave {KEY} away") from None


def refuse_quantized(checkpoint: Any) -> None:
    """Raise RecipeError where a checkpoint, by its config, is held in few bits already."""
    told = getattr(checkpoint, "quantization_config", None)
    if told:
        method = told.get("quant_method", "some method")
        cure = f"give the model that it was made from, and say {KEY}: nf4 or int8"
        raise RecipeError(f"the checkpoint is quantized already, by {method}", where="model", cure=cure)


def _bitsandbytes() -> Any:
    """The library. Raises RecipeError where it is not installed, or what Transformers needs beside it."""
    try:
        with no_code_from_the_hub():
            import bitsandbytes
    except ImportError:
        raise _not_installed("bitsandbytes") from None
    if not is_accelerate_available():
        raise _not_installed("accelerate")
    return bitsandbytes


def _not_installed(package: str) -> RecipeError:
    return RecipeError(f"it needs `{package}`", where=KEY, cure="pip install 'pegbox[quantization]'")


@contextlib.contextmanager
def no_code_from_the_hub() -> Iterator[None]:
    """While bitsandbytes is imported: on some CPUs it has the package `kernels` fetch compiled code, which it would run.

    It finds another package of that name, with nothing to give.
    """
    stand_in, kept = ModuleType("kernels"), sys.modules.get("kernels")
    vars(stand_in)["get_kernel"] = lambda *_, **__: SimpleNamespace(gemm_4bit_forward=None)
    sys.modules["kernels"] = stand_in
    try:
        yield
    finally:
        del sys.modules["kernels"]
        if kept is not None:
            sys.modules["kernels"] = kept
