"""A folder in the hub's layout <-> (module, tokenizer). The only room that knows Transformers' loading.

safetensors only, no code from a model's repository. Weights that the checkpoint does not hold are an error, unless
they belong to a head that the task adds and trains.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from pegbox.errors import RecipeError
from pegbox.kernels import linear, noise
from pegbox.kernels.attention import IMPLEMENTATION
from pegbox.models import new_tokens
from pegbox.models import quantization as bits
from pegbox.models.heads import head_weights, is_bare, is_head
from pegbox.models.language_codes import CODED
from pegbox.models.positions import readable, writable

log = logging.getLogger("pegbox")

HEADS: Mapping[str, Any] = {
    "causal_lm": AutoModelForCausalLM,
    "masked_lm": AutoModelForMaskedLM,
    "embedding": AutoModel,
    "seq2seq": AutoModelForSeq2SeqLM,
    "sequence_classification": AutoModelForSequenceClassification,
    "token_classification": AutoModelForTokenClassification,
}
NO_LIMIT = 1_000_000  # tokens
# how the names of Transformers' classes end that have a head of the kind
BROUGHT = {"ForCausalLM": "causal_lm", "LMHeadModel": "causal_lm", "ForMaskedLM": "masked_lm"}
BROUGHT |= {"ForConditionalGeneration": "seq2seq", "MTModel": "seq2seq", "BertForPreTraining": "masked_lm"}


def load_tokenizer(folder: Path, add_tokens: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """The folder's tokenizer with new special tokens; without a padding token it pads with its end-of-text token.

    Raises RecipeError.
    """
    try:
        with warnings.catch_warnings():
            # Marian's asks for a package that normalises punctuation, and never calls it
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            loaded = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise RecipeError(f"the tokenizer cannot be loaded: {error}", where="model") from None
    except ImportError as error:
        lacking = str(error).strip().partition(".")[0]
        cure = "install that package; for SentencePiece: pip install 'pegbox[sentencepiece]'"
        raise RecipeError(f"the tokenizer cannot be loaded: {lacking}", where="model", cure=cure) from None
    tokenizer: PreTrainedTokenizerBase = _as_published(loaded, folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        cure = "name a pad_token in its tokenizer_config.json"
        raise RecipeError("the tokenizer has no padding and no end-of-text token", where="model", cure=cure)
    if add_tokens:
        new_tokens.add(tokenizer, add_tokens)
    return tokenizer


def _as_published(tokenizer: Any, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer with the pre-tokenizer of its `tokenizer.json`.

    A class of Transformers that is named in `tokenizer_config.json` may rebuild its own and cut texts otherwise than the
    model was trained on (GPT2Tokenizer does, for SmolLM2's digits); no round trip of a text notices.
    """
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    file = folder / "tokenizer.json"
    if not file.is_file() or not tokenizer.is_fast:
        return tokenizer
    published = json.loads(file.read_text(encoding="utf-8"))
    rebuilt = json.loads(tokenizer.backend_tokenizer.to_str())
    if all(rebuilt.get(part) == published.get(part) for part in ("normalizer", "pre_tokenizer")):
        return tokenizer
    if isinstance(tokenizer, CODED):  # only its own class knows where the token of a language stands
        core, whole = tokenizer.backend_tokenizer, Tokenizer.from_file(str(file))
        core.normalizer, core.pre_tokenizer = whole.normalizer, whole.pre_tokenizer
        return tokenizer
    generic: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(str(folder))
    generic.model_input_names = tokenizer.model_input_names
    return generic


def load_model(
    folder: Path,
    head: str,
    *,
    labels: Sequence[str] = (),
    problem_type: str | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    kernels: bool = True,
    quantization: str | None = None,
    add_tokens: Sequence[str] = (),
    apart: bool = False,
) -> PreTrainedModel:
    """The folder's model with a head of the kind named, in eval mode.

    `labels` name the outputs of a new head, `problem_type` says (in the config) what they mean.

    A classifier that the folder has already is kept where it has as many classes, else drawn anew; so is the whole
    head of a masked language model. `kernels=False` leaves every operation to Transformers and PyTorch.
    `quantization`, nf4 or int8, holds the base model's linear layers in that, and what is left in `dtype`.
    `add_tokens` are rows of the vocabulary that the folder has not; `apart`: they alone of the vocabulary shall learn.
    Raises RecipeError where the model cannot have the head, its checkpoint lacks weights, or it cannot be quantized.
    """
    device, complaint = device or torch.device("cpu"), f"the model cannot be loaded as {head}"
    options: dict[str, Any] = {"dtype": dtype, "ignore_mismatched_sizes": True}
    if head == "embedding":
        _refuse_two_parts(folder)
    with _told(complaint):
        options |= {**_quantizing(quantization, folder, head, device), **_without_pooler(folder, head)}
    if labels:
        options["id2label"] = dict(enumerate(labels))
        options["label2id"] = {label: index for index, label in enumerate(labels)}
        options["problem_type"] = problem_type
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # draws the new head
        model, lacking, _ = _load(HEADS[head], folder, options, complaint)
    _copy_out(model)
    _refuse_random(model, head, lacking, learns=bool(labels))
    if head == "masked_lm":
        _refuse_unknown_tokens(model, load_tokenizer(folder))
    if head == "sequence_classification":  # decoders are pooled at the last token that is not this one
        model.config.get_text_config().pad_token_id = load_tokenizer(folder).pad_token_id
    if quantization is not None:
        bits.settle(model, dtype, fast=kernels)
    if add_tokens:
        new_tokens.grow(model, load_tokenizer(folder), load_tokenizer(folder, add_tokens), apart=apart)
    if kernels:
        linear.install(model)
        noise.install(model)
    model.to(device)  # type: ignore[arg-type]  # its decorator hides what it takes
    model.train(False)
    return model


def kernels_of(model: PreTrainedModel, *, bf16: bool = False) -> dict[str, str]:
    """Which form of each operation the model computes by, in bfloat16 or float32, for the receipt."""
    attention, on_cpu = model.config._attn_implementation, model.device.type == "cpu"
    fast = on_cpu and not bf16 and linear.ONEDNN and _has(model, linear.FastLinear)
    found = {
        "attention": "packed" if attention == IMPLEMENTATION else str(attention),
        "linear": "onednn" if fast else "plain",
    }
    return found | {"dropout": "16 bits"} if on_cpu and _has(model, noise.FastDropout) else found


def _has(model: PreTrainedModel, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in model.modules())


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights that `save_pretrained` wrote for a model of this class over the model's own.

    Raises RecipeError unless the folder holds every weight of the model and no other.
    """
    options: dict[str, Any] = {"dtype": model.dtype}
    if is_bare(model):
        options |= _without_pooler(folder, "embedding")
    saved, lacking, beyond = _load(type(model), folder, options, "the saved model cannot be loaded")
    if odd := lacking + beyond:
        raise RecipeError(f"the saved weights do not fit the model: {', '.join(odd[:5])}", where=str(folder))
    model.load_state_dict(saved.state_dict())


def _refuse_random(model: PreTrainedModel, head: str, lacking: Sequence[str], *, learns: bool) -> None:
    """Raise RecipeError where weights are random that no task draws anew; say which are drawn, where it is unusual.

    `learns`: the head is one for new labels. A masked language model's is drawn whole, or it comes with the checkpoint.
    """
    masked = head == "masked_lm"
    if masked and not lacking:
        model.config.architectures = [type(model).__name__]  # whatever class it was saved by: its head is here
    new = {name for name in lacking if (learns or masked) and is_head(model, name)}
    if masked and not head_weights(model).keys() <= new:
        new = set()
    if names := [name for name in lacking if name not in new]:
        what = f"the checkpoint lacks weights that would be random: {', '.join(names[:5])}"
        raise RecipeError(what, where="model", cure=f"give a checkpoint made for {head}")
    if masked and new:
        log.info("the checkpoint has no head for masked tokens: a new one is drawn")
    elif any(name.startswith(f"{model.base_model_prefix}.") for name in new):
        log.info("the checkpoint has no pooler: it is drawn anew, as part of the head")


def _refuse_two_parts(folder: Path) -> None:
    """Raise RecipeError for an encoder-decoder, whichever of its parts the folder has: no vector is that of both."""
    if AutoConfig.from_pretrained(str(folder), trust_remote_code=False).is_encoder_decoder:
        cure = "give an encoder (BERT and its kin), or a model that writes from left to right"
        raise RecipeError("the model reads by one part and writes by another", where="model", cure=cure)


def _without_pooler(folder: Path, head: str) -> dict[str, Any]:
    """The option of loading that leaves out what no vector of a token goes through, where the model has it."""
    if head != "embedding":
        return {}
    with _quiet(), torch.device("meta"):
        kind = type(AutoModel.from_config(AutoConfig.from_pretrained(str(folder), trust_remote_code=False)))
    takes = inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def _refuse_unknown_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise RecipeError where the tokenizer has tokens that the model does not know: any of them may be drawn."""
    known, highest = int(model.config.get_text_config().vocab_size), max(tokenizer.get_vocab().values())
    if highest >= known:
        what = f"the tokenizer has the token {highest} ({tokenizer.convert_ids_to_tokens(highest)})"
        cure = "give the model with the tokenizer that it was trained with"
        raise RecipeError(f"{what}, and the model knows {known} tokens", where="model", cure=cure)


def _load(
    kind: Any, folder: Path, options: Mapping[str, Any], complaint: str
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """The model, the names of weights that the folder lacks (or has in another shape), and of those beyond it."""
    with _told(complaint):
        model, info = kind.from_pretrained(
            str(folder), output_loading_info=True, trust_remote_code=False, use_safetensors=True, **options
        )
    assert isinstance(model, PreTrainedModel)
    lacking = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    return model, sorted(lacking), sorted(info["unexpected_keys"])


def _copy_out(model: PreTrainedModel) -> None:
    """Weights in memory of their own, each at the start of a cache line; tied ones stay tied.

    As loaded they are a view of the file, wherever its header ends: a file that is rewritten would change them.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def _quantizing(kind: str | None, folder: Path, head: str, device: torch.device) -> Mapping[str, Any]:
    """The options of loading that quantize, if that is asked for. Raises RecipeError where the folder's weights are it."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    bits.refuse_quantized(config)
    if kind is None:
        return {}
    with torch.device("meta"):
        return bits.loading_options(kind, HEADS[head].from_config(config), device)


@contextlib.contextmanager
def _told(complaint: str) -> Iterator[None]:
    """Quietly; what Transformers cannot load is a RecipeError that begins with the complaint."""
    try:
        with _quiet():
            yield
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        told = str(error).partition("\nModel type should be one of")[0]  # behind it stand the hundreds that it could be
        raise RecipeError(f"{complaint}: {told}", where="model") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Transformers' report of what it loaded: pegbox reads that itself. Its progress bars stay off."""
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def max_length(folder: Path) -> int:
    """The most tokens of a text that the model's positions allow; a million where it has no limit.

    RoBERTa and its kin count positions from behind the padding token's id, so that many of the table are never used.
    """
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    limit = readable(config)
    if limit is None:
        return NO_LIMIT
    with _quiet(), torch.device("meta"):
        model = AutoModel.from_config(config)
    tables = (table for name, table in model.named_modules() if name.endswith("position_embeddings"))
    unused = [t.padding_idx + 1 for t in tables if isinstance(t, nn.Embedding) and t.padding_idx is not None]
    return limit - max(unused, default=0)


def max_written(folder: Path) -> int:
    """The most tokens of a target that a decoder beside an encoder can be given; a million where it has no limit."""
    return writable(AutoConfig.from_pretrained(str(folder), trust_remote_code=False)) or NO_LIMIT


def vocabulary(folder: Path) -> int:
    """How many token ids the model knows."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    return int(config.get_text_config().vocab_size)


def heads_of(folder: Path) -> frozenset[str]:
    """The kinds of heads that the folder's checkpoint brings along, by the name of its architecture."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    names = config.architectures or ()
    found = {head for name in names for end, head in BROUGHT.items() if name.endswith(end)}
    if config.is_encoder_decoder:
        return frozenset({"seq2seq"} if found else ())  # whatever the class is called
    return frozenset(found - {"seq2seq"})  # models of images use that name, too


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
        # not `save_pretrained`, which refuses what many published models have: a temperature without do_sample
        config.to_json_file(folder / "generation_config.json")


def has_dropout(model: PreTrainedModel) -> bool:
    """True when training draws noise, so that examples must not share a computation.

    Besides dropout modules that is any positive number which a module keeps under a name with "drop" or "jitter" in it:
    attention, residual and layer dropout are often applied by a function.
    """
    modules = list(model.modules())
    numbers = ((name, value) for module in modules for name, value in vars(module).items() if isinstance(value, float))
    return any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules) or any(
        value > 0 and ("drop" in name or "jitter" in name) for name, value in numbers
    )
