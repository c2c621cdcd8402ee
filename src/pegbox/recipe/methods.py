"""The methods that a recipe can ask for: which weights learn. The layers are in `pegbox.methods`, one file each."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from pegbox.recipe.values import AllLinearOrNames, Amount, Count, Frozen, Names, Number, Whole, must_be

SavedAs = Literal["model", "peft", "pegbox"]  # a whole model; an adapter as PEFT has it; one in pegbox's own format


class Full(Frozen):
    """Every weight learns."""

    saved_as: ClassVar[SavedAs] = "model"
    kind: Literal["full"] = "full"


Part = Literal["norms", "biases", "embeddings", "output"]


class Freeze(Frozen):
    """Some of the model's own weights learn, all others stay; a new head always learns. Alone it trains just that head."""

    saved_as: ClassVar[SavedAs] = "model"
    kind: Literal["freeze"] = "freeze"
    top_layers: Whole = Field(default=0, ge=0, description="how many of the layers nearest to the output learn")
    parts: tuple[Part, ...] = Field(
        default=(), description="what learns in every layer; biases alone is BitFit (arXiv 2106.10199)"
    )


PISSA = r"pissa(_niter_[1-9]\d*)?"


def _is_pissa(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(PISSA, value) is not None


InitLoraWeights = Annotated[
    Literal[True] | Literal["gaussian"] | Annotated[str, Field(pattern=f"^{PISSA}$")],
    must_be(
        "true, gaussian, pissa or pissa_niter_4 (any number)",
        lambda value: value is True or value == "gaussian" or _is_pissa(value),
    ),
]


class Lora(Frozen):
    """Low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685); names as in PEFT."""

    saved_as: ClassVar[SavedAs] = "peft"
    kind: Literal["lora"] = "lora"
    r: Count = Field(default=16, description="the rank of the update")
    lora_alpha: Amount | None = Field(default=None, description="the update is scaled by lora_alpha / r; default: 2 r")
    lora_dropout: Number = Field(default=0.0, ge=0, lt=1, description="on the input of the update, in training")
    use_rslora: bool = Field(default=False, description="scale by lora_alpha / sqrt(r) (arXiv 2312.03732)")
    use_dora: bool = Field(
        default=False, description="learn the length of each row of the weight beside its direction (arXiv 2402.09353)"
    )
    init_lora_weights: InitLoraWeights = Field(
        default=True,
        description="how A and B start; pissa: from the largest singular values (arXiv 2404.02948), pissa_niter_4: by a"
        " faster approximation",
    )
    loraplus_lr_ratio: Amount | None = Field(
        default=None, description="B learns this many times as fast as A (LoRA+, arXiv 2402.12354); default: alike"
    )
    target_modules: AllLinearOrNames = Field(default="all-linear", description="the linear layers that get an update")


class Adapter(Frozen):
    """Small bottleneck layers behind frozen ones (Houlsby et al. 2019, arXiv 1902.00751)."""

    saved_as: ClassVar[SavedAs] = "pegbox"
    kind: Literal["adapter"] = "adapter"
    variant: Literal["houlsby", "pfeiffer"] | None = Field(
        default=None,
        description="behind attention and feed-forward layers, or behind the feed-forward ones alone (arXiv 2005.00247);"
        " default: houlsby",
    )
    bottleneck_size: Count = Field(default=64, description="the width inside")
    non_linearity: Literal["relu", "gelu", "silu"] = Field(default="relu", description="between down and up")
    target_modules: Names | None = Field(
        default=None, description="the layers that get an adapter behind them; default: found by their names"
    )

    @model_validator(mode="after")
    def _the_variant_has_an_effect(self) -> Adapter:
        if self.variant is not None and self.target_modules is not None:
            what = "method.variant has no effect beside method.target_modules, which names the layers"
            raise ValueError(f"{what}: leave one away")
        return self


class Peft(Frozen):
    """Any other method of PEFT, by its name there; all further keys go to its configuration in PEFT."""

    model_config = ConfigDict(extra="allow")
    saved_as: ClassVar[SavedAs] = "peft"
    kind: Literal["peft"] = "peft"
    peft_type: str = Field(
        min_length=1, description="PEFT's name of the method: IA3, PREFIX_TUNING, PROMPT_TUNING, ..."
    )

    @property
    def options(self) -> dict[str, Any]:
        """The keys for PEFT."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _is_not_one_of_ours(self) -> Peft:
        if self.peft_type.upper() == "LORA":
            raise ValueError("method.peft_type: LORA is `method: {kind: lora}`, which is faster")
        return self


Method = Annotated[Full | Freeze | Lora | Adapter | Peft, Field(discriminator="kind")]
