"""Every method with settings of its own, and every kind of model that it must serve: what the battery is run over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pegbox.methods import METHODS
from pegbox.models.load import load_model
from pegbox.recipe import Adapter, Freeze, Full, Lora, Peft
from tiny_folder import causal_folder, encoder_decoder_folder, encoder_folder

LABELS = ("no", "perhaps", "yes")
WRITERS = ("t5", "bart, untied")


@dataclass(frozen=True)
class Case:
    """A method's settings, and what is promised of them.

    `start`: how far the prepared model may be from the base (None: nothing is promised); `merges`: into plain weights;
    `learns`: how the names end of what learns beside new heads ("" is all); `models`: the kinds that it serves. Two kinds
    write by a decoder beside an encoder: T5, whose head is tied to the embeddings, and BART with a head of its own.
    """

    settings: Any
    learns: tuple[str, ...]
    start: float | None = 0.0
    merges: bool = True
    models: tuple[str, ...] = ("encoder", "decoder", "encoder-decoder", *WRITERS)

    @property
    def method(self) -> Any:
        """The module of the method."""
        return METHODS[self.settings.kind]


AB = (".lora_A", ".lora_B")
BOTTLENECK = (".down.weight", ".down.bias", ".up.weight", ".up.bias")
CASES: Mapping[str, Case] = {
    "full": Case(Full(), ("",)),
    "head": Case(Freeze(), (), models=("encoder", "encoder-decoder")),
    "top layer": Case(Freeze(top_layers=1), ()),
    "norms": Case(Freeze(parts=("norms",)), ()),
    "lora": Case(Lora(r=4), AB),
    "rslora": Case(Lora(r=4, use_rslora=True), AB),
    "dora": Case(Lora(r=4, use_dora=True), (*AB, ".lora_magnitude_vector"), start=1e-5),
    "pissa": Case(Lora(r=4, init_lora_weights="pissa"), AB, start=1e-5),
    "gaussian": Case(Lora(r=4, init_lora_weights="gaussian"), AB),
    "houlsby": Case(Adapter(bottleneck_size=4), BOTTLENECK, merges=False),
    "pfeiffer": Case(Adapter(bottleneck_size=4, variant="pfeiffer", non_linearity="gelu"), BOTTLENECK, merges=False),
    "ia3": Case(Peft(peft_type="IA3"), (".ia3_l.default",)),
    "loha": Case(Peft(peft_type="LOHA", r=2), ("_a.default", "_b.default")),
    "prompt": Case(
        Peft(peft_type="PROMPT_TUNING", num_virtual_tokens=3), ("embedding.weight",), None, False, ("decoder",)
    ),
    "prefix": Case(
        Peft(peft_type="PREFIX_TUNING", num_virtual_tokens=3), ("embedding.weight",), None, False, ("decoder",)
    ),
}
FOLDERS: Mapping[str, Any] = {
    "encoder": lambda folder: encoder_folder(folder, spread=0.3),
    "decoder": lambda folder: causal_folder(folder, spread=0.2),
    "encoder-decoder": lambda folder: encoder_decoder_folder(folder, "bart"),
    "t5": encoder_decoder_folder,
    "bart, untied": lambda folder: encoder_decoder_folder(folder, "bart", tied=False),
}
PAIRS = [(name, kind) for name, case in CASES.items() for kind in case.models]


def base(kind: str, root: Path) -> Path:
    """The folder of a kind of model, made once below `root`."""
    if not (root / kind).exists():
        FOLDERS[kind](root / kind)
    return root / kind


HEADS = {"decoder": "causal_lm", **dict.fromkeys(WRITERS, "seq2seq")}


def head_of(kind: str) -> tuple[str, tuple[str, ...]]:
    """The head of a kind, and its labels: some kinds write, the others have a new head."""
    return (HEADS[kind], ()) if kind in HEADS else ("sequence_classification", LABELS)


def loaded(kind: str, root: Path, *, seed: int = 4, kernels: bool = True) -> Any:
    """The untouched model."""
    head, labels = head_of(kind)
    return load_model(base(kind, root), head, labels=labels, seed=seed, kernels=kernels)


def ids(model: Any) -> torch.Tensor:
    """Two rows; those for an encoder-decoder end in its end-of-text token, which its head looks for."""
    drawn = torch.randint(6, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    if model.config.is_encoder_decoder:
        drawn[:, -1] = model.config.eos_token_id
    return drawn


def said(model: Any) -> torch.Tensor:
    """The logits that a model has for the rows; one that writes by a decoder of its own is given them there, too."""
    given = ids(model)
    more = {"decoder_input_ids": given.flip(1)} if model.config.is_encoder_decoder and model.can_generate() else {}
    out: torch.Tensor = model(given, **more).logits
    return out


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """What a model says to the rows."""
    return said(model)


def prepared(name: str, kind: str, root: Path) -> Any:
    """The model with the weights of a method, which learn."""
    model = loaded(kind, root)
    CASES[name].method.prepare(model, CASES[name].settings, 0)
    return model


def trained(name: str, kind: str, root: Path, steps: int = 2) -> Any:
    """After a few steps, in eval mode."""
    model = prepared(name, kind, root)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        said(model).logsumexp(-1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model
