"""A loss of the user's own: what it is given, what it must give back, and what is said where it gives something else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from pegbox.errors import RecipeError
from pegbox.recipe import CrossEntropy, OwnLoss
from pegbox.tasks.losses import build

Given = tuple[Any, Any]

COSTLY = """
import torch

COSTS = torch.tensor([[0.0, 1.0, 1.0], [10.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def costly(outputs, targets, weights):
    values = (outputs.softmax(1) * COSTS.to(outputs)[targets]).sum(1)
    return (values * weights).sum(), weights.sum()
"""


def rows(count: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(count)
    outputs = torch.randn(count, 3, generator=dice, dtype=torch.float64).requires_grad_()
    return outputs, torch.randint(3, (count,), generator=dice), torch.rand(count, generator=dice)


def values_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def right(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> Given:
    return (values_of(outputs, targets) * weights).sum(), weights.sum()


def refused(function: Callable[..., Any], count: int = 5) -> RecipeError:
    with pytest.raises(RecipeError) as refusal:
        build(function)(*rows(count))
    assert refusal.value.where == "train.loss"
    assert refusal.value.cure
    return refusal.value


def test_a_function_serves_as_the_built_in_that_it_copies() -> None:
    ours, theirs = build(right)(*rows()), build(CrossEntropy())(*rows())
    assert ours[0].item() == pytest.approx(theirs[0].item(), rel=1e-12)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-12)
    assert isinstance(ours[1], float)


def test_a_function_of_a_file_is_taken_and_its_gradient_is_that_of_its_formula(tmp_path: Path) -> None:
    (tmp_path / "my_loss.py").write_text(COSTLY, encoding="utf-8")
    criterion = build(OwnLoss(function=f"{tmp_path / 'my_loss.py'}:costly"))
    outputs, targets, weights = rows()
    total, weight = criterion(outputs, targets, weights)
    costs = [[0, 1, 1], [10, 0, 1], [1, 1, 0]]
    shares = outputs.softmax(1).tolist()
    wanted = sum(
        w * sum(p * c for p, c in zip(share, costs[y], strict=True))
        for w, share, y in zip(weights.tolist(), shares, targets.tolist(), strict=True)
    )
    assert total.item() == pytest.approx(wanted, rel=1e-12)
    assert weight == pytest.approx(weights.sum().item())
    assert torch.autograd.gradcheck(lambda x: criterion(x, targets, weights)[0], outputs)


@pytest.mark.parametrize(
    "function",
    [
        partial(right),
        lambda outputs, targets, weights: (right(outputs, targets, weights)[0], weights.sum().item()),
        lambda outputs, targets, weights: (values_of(outputs, targets).sum(), len(outputs)),
        lambda outputs, targets, weights: (outputs.sum() * 0, 0),
    ],
    ids=["a callable without a name", "a float", "an int", "a weight of 0"],
)
def test_every_lawful_form_is_taken(function: Callable[..., Any]) -> None:
    total, weight = build(function)(*rows())
    assert total.requires_grad
    assert isinstance(weight, float)


def test_it_is_given_what_a_loss_computes_in_and_no_autocast() -> None:
    seen = []

    def look(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> Given:
        seen.append((outputs.dtype, targets.dtype, weights.dtype, (outputs @ outputs.T).dtype))
        return (outputs - targets).square().sum(), weights.sum()

    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        with torch.autocast("cpu", torch.bfloat16):
            targets = torch.zeros(1, 2, dtype=torch.float64)
            build(look)(torch.ones(1, 2, dtype=dtype, requires_grad=True), targets, torch.ones(1))
    assert seen == [(torch.float32,) * 4, (torch.float32,) * 4, (torch.float64,) * 4]


# ---- what is refused -------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda o, t, w: None, "it returned nothing and not two things"),
    "the loss alone": (lambda o, t, w: values_of(o, t).mean(), "it returned a tensor of shape [] and type float64"),
    "a list": (lambda o, t, w: list(right(o, t, w)), "it returned list and not two things"),
    "three things": (lambda o, t, w: (1, 2, 3), "it returned a tuple of 3 and not two things"),
    "the values of the rows": (
        lambda o, t, w: (values_of(o, t), w.sum()),
        "the sum that it returned is a tensor of shape [5] and type float64 and not a tensor without dimensions",
    ),
    "a sum of one row": (lambda o, t, w: (values_of(o, t).sum(0, keepdim=True), w.sum()), "a tensor of shape [1]"),
    "a number": (lambda o, t, w: (values_of(o, t).sum().item(), w.sum()), "the sum that it returned is float"),
    "a count": (lambda o, t, w: (t.sum(), w.sum()), "a tensor of shape [] and type int64"),
    "no gradient": (lambda o, t, w: (values_of(o.detach(), t).sum(), w.sum()), "the sum has no gradient"),
    "the weights of the rows": (lambda o, t, w: (values_of(o, t).sum(), w), "a tensor of shape [5] and type float64"),
    "no weight": (lambda o, t, w: (values_of(o, t).sum(), None), "the weight that it returned is nothing"),
    "a truth value": (lambda o, t, w: (values_of(o, t).sum(), True), "the weight that it returned is bool"),
    "a text": (lambda o, t, w: (values_of(o, t).sum(), "5"), "the weight that it returned is str"),
    "a weight below 0": (lambda o, t, w: (values_of(o, t).sum(), -1), "is -1, and it must be finite and not below 0"),
    "a weight of NaN": (lambda o, t, w: (values_of(o, t).sum(), float("nan")), "is nan, and it must be finite"),
    "an infinite weight": (lambda o, t, w: (values_of(o, t).sum(), w.sum() / 0), "is inf, and it must be finite"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_returned_in_another_form_is_named_with_what_is_expected(fault: str) -> None:
    function, said = WRONG[fault]
    error = refused(function)
    assert said in error.what
    assert "weights.sum()" in str(error.cure) or "gradient" in error.what or "finite" in error.what


@pytest.mark.parametrize(
    ("function", "which"),
    [
        (lambda o, t, w: (values_of(o, t).mean(), w.sum()), "sum"),
        (lambda o, t, w: (values_of(o, t).mean(), 1.0), "sum"),
        (lambda o, t, w: ((values_of(o, t) * w).sum(), 1.0), "weight"),
        (lambda o, t, w: ((values_of(o, t) * w).sum(), w.mean()), "weight"),
        (lambda o, t, w: (((o[:, None] - o[None]) ** 2).sum(), w.sum()), "sum"),
        (lambda o, t, w: ((torch.nn.functional.dropout(o) ** 2).sum() * torch.rand(()), w.sum()), "sum"),
    ],
    ids=["a mean", "a mean and 1", "1", "the mean weight", "rows against rows", "something drawn"],
)
def test_what_would_depend_on_how_an_update_is_cut_is_refused(function: Callable[..., Any], which: str) -> None:
    """Mutation: without the trial a mean trains, and weighs each row by the rows that happened to come with it."""
    torch.manual_seed(0)
    error = refused(function)
    assert f"its {which}s do not add up" in error.what
    assert "for the 4 others" in error.what


def test_the_sum_is_tried_out_once_and_on_the_first_batch_with_two_rows() -> None:
    seen = []

    def watched(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> Given:
        seen.append(len(outputs))
        return right(outputs, targets, weights)

    criterion = build(watched)
    for count in (1, 4, 6, 3):
        criterion(*rows(count))
    assert seen == [1, 4, 1, 3, 6, 3]


def test_the_trial_leaves_the_gradient_alone() -> None:
    outputs, targets, weights = rows()
    (ours,) = torch.autograd.grad(build(right)(outputs, targets, weights)[0], outputs)
    (theirs,) = torch.autograd.grad(right(outputs, targets, weights.double())[0], outputs)
    assert torch.equal(ours, theirs)


def test_what_is_not_finite_is_left_to_the_loop_which_names_the_rows() -> None:
    total, _ = build(lambda o, t, w: ((o * torch.inf).sum(), w.sum()))(*rows())
    assert not torch.isfinite(total)


def test_validation_needs_no_gradient() -> None:
    with torch.no_grad():
        total, _ = build(right)(*rows())
    assert not total.requires_grad


def test_a_function_that_fails_is_named_with_its_line_and_the_shapes(tmp_path: Path) -> None:
    text = "def broken(outputs, targets, weights):\n    values = outputs - targets\n    return values.sum(), weights.sum()\n"
    path = tmp_path / "my_loss.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as refusal:
        build(OwnLoss(function=f"{path}:broken"))(*rows())
    assert refusal.value.what.startswith("broken: it failed: RuntimeError: The size of tensor a (3) must match")
    assert refusal.value.what.endswith("(line 2)")
    assert refusal.value.cure == "it was given outputs, targets and weights of the shapes [5, 3], [5], [5]"
    assert isinstance(refusal.value.__cause__, RuntimeError)


def test_a_function_with_other_parameters_is_told_what_it_is_given() -> None:
    error = refused(lambda outputs, targets: outputs.sum())
    assert "takes 2 positional arguments but 3 were given" in error.what


def test_want_of_memory_is_not_taken_for_a_fault_of_the_function() -> None:
    def huge(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> Given:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        build(huge)(*rows())


def test_a_file_that_is_not_there_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train.loss: cannot read .*nowhere.py"):
        build(OwnLoss(function=f"{tmp_path / 'nowhere.py'}:f"))
