"""The floor under an update: the seconds that its bare matrix products take on this machine, and nothing else.

For N tokens that are not padding, and for every linear layer W [out, in] of the model, with x [N, in] and g [N, out]:

    y = x W^T     dx = g W     and, where the layer itself learns, dW = g^T x
    LoRA:  z = x A^T   z B^T   dz = g B   dz A   dA = dz^T x   dB = g^T z
    the head of a language model: y and dx, for the tokens alone that are learnt

No update of that maths on N tokens can be faster: attention, norms, activations, the loss and the optimizer come on top.
(Tokens that many rows share may be computed once; whoever does so may come nearer to the floor, and under it.) Each product
is taken in the fastest form that torch has for it here, oneDNN's or MKL's, found by shape; every layer has weights of its
own, so that these come from memory as in an update. Heads on whole texts, a row for every text, are left out.

`make bench` measures it in the same run as everybody else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import nn

from pegbox.kernels.linear import applies, product
from pegbox.models.heads import output_layer

REPETITIONS = 3
Pair = tuple[torch.Tensor, torch.Tensor]  # a [n, k], b [m, k], of which a b^T [n, m] is wanted
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def plain(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b^T by torch's own product: MKL's on a CPU."""
    return a @ b.t()


class Fastest:
    """a b^T, by whichever form was faster for such shapes when they were seen first."""

    def __init__(self) -> None:
        self.chosen: dict[Any, Product] = {}

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        key = (a.shape, b.shape, a.is_contiguous(), b.is_contiguous())
        if key not in self.chosen:
            forms: list[Product] = [product, plain] if applies(a, b) else [plain]
            self.chosen[key] = min(forms, key=lambda form: seconds(lambda: form(a, b)))
        self.chosen[key](a, b)


@torch.no_grad()
def measure(model: Any, tokens: int, learnt: int, rank: int | None) -> dict[str, Any]:
    """Seconds of the products of an update on so many tokens, and the tokens a second that they would allow.

    `learnt`: how many of the tokens are predicted; `rank`: LoRA's; None: the layers themselves learn.
    """
    pairs, fastest = list(every_product(model, tokens, learnt, rank)), Fastest()

    def once() -> None:
        for a, b in pairs:
            fastest(a, b)

    once()
    found = [seconds(once) for _ in range(REPETITIONS)]
    work = sum(2 * len(a) * a.shape[1] * len(b) for a, b in pairs)
    median = statistics.median(found)
    return {"seconds": found, "tokens": tokens, "tokens_per_second": tokens / median, "flops_per_second": work / median}


def every_product(model: Any, tokens: int, learnt: int, rank: int | None) -> Iterator[Pair]:
    """Those of every linear layer that reads tokens, and of the head of a language model."""
    head = output_layer(model)

    @cache  # the weights are each layer's own, the inputs are shared
    def drawn(rows: int, width: int) -> torch.Tensor:
        return torch.randn(rows, width, device=model.device, dtype=model.dtype)

    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.Linear) and module is not head and not name.startswith("pooler"):
            weight = module.weight.detach()
            x, g = drawn(tokens, module.in_features), drawn(tokens, module.out_features)
            yield from _frozen(weight, x, g)
            yield from (
                [(g.t(), x.t())] if rank is None else _lora(x, g, drawn(rank, x.shape[1]), drawn(rank, g.shape[1]))
            )
    if isinstance(head, nn.Linear):
        yield from _frozen(head.weight.detach(), drawn(learnt, head.in_features), drawn(learnt, head.out_features))


def _frozen(weight: torch.Tensor, x: torch.Tensor, g: torch.Tensor) -> Iterator[Pair]:
    """y and dx."""
    yield x, weight
    yield g, weight.t()


def _lora(x: torch.Tensor, g: torch.Tensor, lora_a: torch.Tensor, b_transposed: torch.Tensor) -> Iterator[Pair]:
    """z, y, dz, dx, dA and dB, the last laid out so that the small factor is the one that is turned."""
    z = x[:, : len(lora_a)].contiguous()
    yield x, lora_a
    yield z, b_transposed.t().contiguous()
    yield g, b_transposed
    yield z, lora_a.t()
    yield z.t(), x.t()
    yield z.t(), g.t()


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes, on whatever device."""
    wait()
    began = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - began


def wait() -> None:
    """Return when the GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
