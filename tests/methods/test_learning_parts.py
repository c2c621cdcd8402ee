"""Two updates of a run change every weight that learns and no other, to the bit (INVARIANTS row 32).

`test_contract` says which weights these are, model by model. Here the run itself takes the updates: with rows that are
packed where they can be, the kernels, clipping and AdamW; the gradients are looked at as it has left them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import CASES, PAIRS, base
from test_contract import named

import pegbox
from pegbox.methods.lora_layers import LoraLinear
from pegbox.training import loop
from tiny_folder import chat_recipe, sums, write_rows

pytestmark = [pytest.mark.filterwarnings("ignore:::peft"), pytest.mark.filterwarnings("ignore:::torch")]
WORDS = {"no": "light off", "perhaps": "dog asleep", "yes": "timer on"}
ROWS = {
    "decoder": ("chat", sums(40)),
    "encoder": (
        "classification",
        [
            {"text": f"{list(WORDS.values())[n % 3]} {row['prompt']}", "label": list(WORDS)[n % 3]}
            for n, row in enumerate(sums(40))
        ],
    ),
}


class TakenError(Exception):
    """Two updates have been taken; what follows is not looked at."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for kind, (_, rows) in ROWS.items():
        write_rows(folder / f"{kind}.jsonl", rows)
    return folder


def digests(model: Any) -> dict[str, str]:
    """SHA-256 of every parameter and buffer."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {n: hashlib.sha256(t.detach().flatten().view(torch.uint8).numpy()).hexdigest() for n, t in tensors.items()}


def check_two_updates_change_what_learns_alone(
    name: str, kind: str, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []
    reached: set[str] = set()
    models: list[Any] = []
    right = loop.take_update

    def watched(job: Any, optimizer: Any, step: int) -> Any:
        seen.append(digests(job.model))
        if step == 2:
            models.append(job.model)
            raise TakenError
        update = right(job, optimizer, step)
        found = {n: p.grad for n, p in job.model.named_parameters() if p.grad is not None}
        assert all(job.model.get_parameter(n).requires_grad for n in found), "a frozen weight has a gradient"
        reached.update(n for n, grad in found.items() if grad.count_nonzero())
        return update

    monkeypatch.setattr(loop, "take_update", watched)
    task, _ = ROWS[kind]
    recipe = chat_recipe(base(kind, root), root / f"{kind}.jsonl", task=task, method=CASES[name].settings.model_dump())
    with pytest.raises(TakenError):
        pegbox.train(recipe, run_dir=folder)
    learnt = named(name, models[0])
    changed = {n for n, digest in seen[-1].items() if digest != seen[0][n]}
    assert changed == reached == learnt, f"not as the method says: {sorted((changed ^ learnt) | (reached ^ learnt))}"


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[1] in ROWS])
def test_two_updates_change_every_weight_that_learns_and_no_other(
    name: str, kind: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_two_updates_change_what_learns_alone(name, kind, root, tmp_path / "run", monkeypatch)


def all_but_one(learnt: Mapping[str, Any], *rest: Any, right: Any = loop.adamw) -> Any:
    """Bug: a weight that the optimizer is not given."""
    return right(dict(list(learnt.items())[:-1]), *rest)


def cut_off(self: LoraLinear, x: torch.Tensor) -> torch.Tensor:
    """Bug: as a checkpointed forward pass over a frozen base does, it lets no gradient through to A."""
    return self.frozen(x) + (x @ self.lora_A.t()).detach() @ self.lora_B.t()


def test_a_weight_that_the_optimizer_has_not_is_caught(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "adamw", all_but_one)
    with pytest.raises(AssertionError, match="not as the method says"):
        check_two_updates_change_what_learns_alone("lora", "decoder", root, tmp_path / "run", monkeypatch)


def test_a_weight_that_no_gradient_reaches_is_caught(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoraLinear, "forward", cut_off)
    with pytest.raises(AssertionError, match="lora_A"):
        check_two_updates_change_what_learns_alone("lora", "decoder", root, tmp_path / "run", monkeypatch)


def merged_and_back(self: LoraLinear, x: torch.Tensor, right: Any = LoraLinear.forward) -> Any:
    """Bug: a merge in place that is taken back, to rounding."""
    self.weight.data += (delta := self.delta_weight())
    self.weight.data -= delta
    return right(self, x)


def test_a_frozen_weight_that_is_another_by_a_bit_is_caught(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoraLinear, "forward", merged_and_back)
    with pytest.raises(AssertionError, match="proj.weight"):
        check_two_updates_change_what_learns_alone("lora", "decoder", root, tmp_path / "run", monkeypatch)
