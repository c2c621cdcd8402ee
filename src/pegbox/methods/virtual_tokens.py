"""Virtual tokens: vectors that learn and stand before every text, in a model whose weights all stay as they are.

    prompt tuning   embeddings                              Lester et al. 2021, arXiv 2104.08691
    P-tuning        embeddings that a small network makes   Liu et al. 2021, arXiv 2103.10385
    prefix tuning   keys and values in every layer          Li & Liang 2021, arXiv 2101.00190

What learns is PEFT's own module. The model is no PeftModel but itself, with hooks.

In a causal model nothing that follows changes what stands first, and so all that virtual tokens do to real ones goes
through their keys and values. These are handed to each layer by a view of the cache (computed from the embeddings once for
all rows, or learnt as they are), and no virtual token ever stands in the sequence: logits and places keep their places. The
cache that a caller holds has real tokens only, and so may be shared between rows, cut, and gone on with as without them.

    a layer's attention sees [virtual n][the caller's cache][new tokens], positions n, n + 1, ... for the real ones

In an encoder the virtual tokens read the text, too. There the embeddings stand in the sequence, as in PEFT: a classifier
that pools the first place pools the first virtual token, and the logits of tokens are cut behind the virtual ones.

Shapes: B rows, T new tokens, L tokens that the caller's mask counts, n virtual tokens, Hk key heads of width D.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.methods.peft_settings import set_sizes, task_type
from pegbox.methods.virtual_cache import KeysAndValues, View, four_tokens, looks_ahead, read, reads_on
from pegbox.models.batch import attends_only

WHERE = "method.peft_type"
TABLES = ("position_embeddings", "wpe", "embed_positions")  # the usual names of tables of positions


@dataclass(frozen=True)
class Computed:
    """Keys and values of virtual tokens, and the embeddings [n, D] that they are of."""

    vectors: torch.Tensor
    setting: tuple[Any, ...]
    own: KeysAndValues

    def serves(self, vectors: torch.Tensor, setting: tuple[Any, ...]) -> bool:
        """True where they would be computed the same again."""
        return setting == self.setting and torch.equal(vectors, self.vectors)


class VirtualTokens(nn.Module):
    """PEFT's module with the vectors that learn, and what they change in a forward pass."""

    def __init__(self, encoder: nn.Module, config: Any, trunk: PreTrainedModel, *, causal: bool) -> None:
        super().__init__()
        self.encoder, self.config, self.count = encoder, config, int(config.num_virtual_tokens)
        self.causal, self.windows, self.most = causal, _counts_columns(trunk), _most_tokens(trunk)
        self.computed: Computed | None = None
        self.training = trunk.training

    def vectors(self) -> torch.Tensor:
        """What PEFT saves: embeddings [n, D], or for prefix tuning keys and values [n, layers * 2 * Hk * D]."""
        if self.config.inference_mode:  # what the module made when it was saved, and not the module
            return self.encoder.embedding.weight  # type: ignore[union-attr,return-value]
        made: torch.Tensor = self.encoder(torch.arange(self.count, device=next(self.encoder.parameters()).device)[None])
        return made[0]

    @torch.no_grad()
    def learnt(self) -> torch.Tensor:
        """The vectors as they are saved: without the noise of training."""
        training = self.training
        self.train(False)
        made = self.vectors()
        self.train(training)
        return made

    @torch.no_grad()
    def fill(self, vectors: torch.Tensor) -> None:
        """Put saved vectors into their place, which is there with `inference_mode`."""
        self.vectors().copy_(vectors)

    # ---- a causal model, or keys and values in an encoder: the cache ----

    def before_trunk(
        self, trunk: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """A forward pre-hook: the model's arguments with a view of the cache, a longer mask and later positions."""
        given = _named(trunk, args, kwargs)
        kept = given.get("past_key_values")
        if kept is None and self.causal and _uses_cache(trunk, given):
            kept = DynamicCache(config=trunk.config)
        rows = given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]
        mask, before = given.get("attention_mask"), 0 if kept is None else kept.get_seq_length()
        if mask is None:
            mask = rows.new_ones(len(rows), before + rows.shape[1], dtype=torch.long)
        self._refuse_long(mask.shape[1])
        given["attention_mask"], order = self._lengthened(mask)
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"] + self.count
        given["past_key_values"] = View(self._keys_and_values(trunk), kept, order)
        return (), given

    def after_trunk(self, trunk: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """A forward hook: the caller gets the cache back that it gave."""
        if output.get("past_key_values") is not None:
            output["past_key_values"] = kwargs["past_key_values"].kept
        return output

    def _lengthened(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The mask [B, n + L], and the order of columns [B, n + L] where a row begins with padding and windows count it.

        There the virtual tokens stand behind the padding, next to the row's first real token.
        """
        longer = torch.cat([mask.new_ones(len(mask), self.count), mask], dim=1)
        before = (mask.cumsum(1) == 0).sum(1, keepdim=True)  # int64 [B, 1]: the columns of padding on the left
        if not self.windows or not before.any():
            return longer, None
        columns = torch.arange(longer.shape[1], device=mask.device)[None]
        behind = torch.where(columns < before + self.count, columns - before, columns)
        order = torch.where(columns < before, columns + self.count, behind)
        return longer.gather(1, order), order

    def _keys_and_values(self, trunk: Any) -> KeysAndValues:
        """Of each layer, keys and values [1, Hk, n, D]. Those of embeddings are computed once while nothing learns."""
        vectors = self.vectors()
        if self.config.peft_type == "PREFIX_TUNING":
            sizes = (self.config.num_layers, 2, self.config.num_attention_heads, -1)
            layers = vectors.view(self.count, *sizes).permute(1, 2, 3, 0, 4)[:, :, None]  # [layers, 2, 1, Hk, n, D]
            return [(keys, values) for keys, values in layers]
        if torch.is_grad_enabled() or trunk.training:
            return self._read(trunk, vectors)
        kind = vectors.device.type
        setting = (vectors.device, trunk.dtype, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        if self.computed is None or not self.computed.serves(vectors, setting):
            self.computed = Computed(vectors.clone(), setting, self._read(trunk, vectors))
        return self.computed.own

    def _read(self, trunk: Any, vectors: torch.Tensor) -> KeysAndValues:
        """What the model keeps of the embeddings [n, D] alone. Its forward is called past the hooks."""
        return read(trunk, inputs_embeds=vectors.to(trunk.dtype)[None])

    # ---- embeddings in an encoder: the sequence ----

    def before_model(
        self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """A forward pre-hook: the model's arguments with embeddings [B, n + T, D] in the place of the tokens."""
        given = _named(model, args, kwargs)
        rows = model.get_input_embeddings()(given.pop("input_ids"))
        self._refuse_long(rows.shape[1])
        own = self.vectors().to(rows.dtype)[None].expand(len(rows), -1, -1)
        given["inputs_embeds"] = torch.cat([own, rows], dim=1)
        for name, value in (("attention_mask", 1), ("token_type_ids", 0)):
            if (marks := given.get(name)) is not None:
                given[name] = torch.cat([marks.new_full((len(marks), self.count), value), marks], dim=1)
        return (), given

    def after_model(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """A forward hook: logits [B, n + T, K] of tokens are cut behind the virtual ones."""
        if output["logits"].ndim == 3:
            output["logits"] = output["logits"][:, self.count :]
        return output

    def _refuse_long(self, tokens: int) -> None:
        if self.most is not None and self.count + tokens > self.most:
            what = f"{self.count} virtual tokens and {tokens} of a row are more than the {self.most} that the model has places for"
            cure = f"set data.max_length to {self.most - self.count} or less, or take fewer virtual tokens"
            raise RecipeError(what, where="method.num_virtual_tokens", cure=cure)


def _named(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a forward pass by name. Raises ValueError for those before which no virtual tokens can stand."""
    given = dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs
    if given.get("pack") is not None:
        raise ValueError("virtual tokens stand before each row, and a pack is one row")
    if (mask := given.get("attention_mask")) is not None and mask.ndim != 2:
        raise ValueError("virtual tokens need a mask of rows and tokens")
    return given


def _uses_cache(trunk: Any, given: Mapping[str, Any]) -> bool:
    wanted = given.get("use_cache")
    return bool(trunk.config.use_cache if wanted is None else wanted)


def _counts_columns(trunk: PreTrainedModel) -> bool:
    """True for a model with sliding windows."""
    config = trunk.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    return "sliding_attention" in kinds if kinds else getattr(config, "sliding_window", None) is not None


def _most_tokens(trunk: PreTrainedModel) -> int | None:
    """The places of a table of positions, without those that the model never uses; None where it has no table."""
    named = trunk.named_modules()
    tables = [table for name, table in named if isinstance(table, nn.Embedding) and name.endswith(TABLES)]
    used = [t.num_embeddings - (0 if t.padding_idx is None else t.padding_idx + 1) for t in tables]
    limit = getattr(trunk.config.get_text_config(), "max_position_embeddings", None)
    return min([*used, *([limit] if limit else [])]) if used else None


def find(model: PreTrainedModel) -> VirtualTokens | None:
    """The model's virtual tokens, if it has any."""
    return next((module for module in model.modules() if isinstance(module, VirtualTokens)), None)


def attach(model: PreTrainedModel, config: Any) -> None:
    """Put PEFT's module for a configuration into the model, in place. Raises RecipeError where the model cannot have it.

    With `inference_mode` the module has a place for saved vectors only. It is drawn from torch's global generator.
    """
    assert not model.training
    _refuse_kind(model)
    set_sizes(model, config)
    trunk = _trunk(model)
    causal = reads_on(trunk)
    if not causal and (model.can_generate() or not looks_ahead(trunk)):
        what = "the model does not go on from keys and values alone as it does from tokens"
        raise RecipeError(what, where=WHERE, cure="take another method")
    encoder = _encoder(model, config).to(trunk.device, torch.promote_types(trunk.dtype, torch.float32))
    virtual = VirtualTokens(encoder, config, trunk, causal=causal)
    by_cache = causal or config.peft_type == "PREFIX_TUNING"
    trunk.add_module("virtual_tokens", virtual)  # so that it moves, trains and is counted with the model
    if by_cache:
        trunk.register_forward_pre_hook(virtual.before_trunk, with_kwargs=True)
        trunk.register_forward_hook(virtual.after_trunk, with_kwargs=True)
    else:
        model.register_forward_pre_hook(virtual.before_model, with_kwargs=True)
        model.register_forward_hook(virtual.after_model, with_kwargs=True)
    for module in (model, model.base_model) if by_cache else (model,):
        _refuse_deaf(module, virtual)


def _trunk(model: PreTrainedModel) -> Any:
    """The innermost model that looks tokens up, which every forward pass goes through: not OPT's base model, for one."""
    table = model.get_input_embeddings()
    inside = [part for part in model.base_model.modules() if isinstance(part, PreTrainedModel)]
    return [part for part in inside if any(module is table for module in part.modules())][-1]


def _refuse_kind(model: PreTrainedModel) -> None:
    if model.config.is_encoder_decoder:
        what = "virtual tokens are not to be had for encoder-decoders here"
        raise RecipeError(what, where=WHERE, cure="take another method, such as IA3 or LOHA")
    if not attends_only(model):
        what = "the model has layers that are no attention, in which virtual tokens are no keys and values"
        raise RecipeError(what, where=WHERE, cure="take another method")
    if task_type(model) is None:
        what = "PEFT has no virtual tokens for masked language models"
        raise RecipeError(what, where=WHERE, cure="take another method, such as IA3 or LOHA")


def _encoder(model: PreTrainedModel, config: Any) -> nn.Module:
    """PEFT's module."""
    from peft import PrefixEncoder, PromptEmbedding, PromptEncoder

    kinds: Mapping[str, Any] = {
        "PROMPT_TUNING": partial(PromptEmbedding, word_embeddings=model.get_input_embeddings()),
        "P_TUNING": PromptEncoder,
        "PREFIX_TUNING": PrefixEncoder,
    }
    if config.peft_type not in kinds:
        what = f"virtual tokens of the kind {config.peft_type} are not known here"
        raise RecipeError(what, where=WHERE, cure=f"take one of {', '.join(kinds)}")
    try:
        made: nn.Module = kinds[config.peft_type](config)
        return made
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise RecipeError(f"PEFT refuses this: {error}", where="method") from None


@torch.no_grad()
def _refuse_deaf(module: Any, virtual: VirtualTokens) -> None:
    """Raise RecipeError where virtual tokens of these sizes do not fit the model, or where it is the same what they are."""
    ids, start = four_tokens(module), [weight.clone() for weight in virtual.parameters()]
    found = []
    try:
        for _ in range(2):
            found.append(module(input_ids=ids, attention_mask=torch.ones_like(ids))[0])
            for weight in virtual.parameters():
                weight.copy_(torch.randn_like(weight))
        reason = "its attention takes no keys and values from elsewhere" if torch.equal(*found) else ""
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
    if reason:
        raise RecipeError(
            f"the model cannot have such virtual tokens: {reason}", where=WHERE, cure="take another method"
        )
    for weight, first in zip(virtual.parameters(), start, strict=True):
        weight.copy_(first)
