"""The losses: torch's own and slow versions as oracles, gradients, and sums that do not depend on how rows are cut."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from pegbox.errors import RecipeError
from pegbox.recipe import MAE, MSE, BinaryCrossEntropy, CrossEntropy, Focal, Huber
from pegbox.tasks import losses
from pegbox.tasks.losses import build

LABELS = ("a", "b", "c", "d")
WEIGHTS = {"a": 0.5, "b": 2.0, "c": 0.0, "d": 3.25}
COUNTS = {"a": 7, "b": 1, "d": 20}
ROWS = 40
EXACT = 1e-12
CASES = 50

SINGLE = [
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.2),
    CrossEntropy(class_weights=WEIGHTS),
    CrossEntropy(class_weights="balanced", label_smoothing=0.1),
    Focal(),
    Focal(gamma=0.5, class_weights=WEIGHTS),
    Focal(gamma=0, class_weights="balanced"),
]
EACH = [
    BinaryCrossEntropy(),
    BinaryCrossEntropy(class_weights=WEIGHTS),
    BinaryCrossEntropy(class_weights="balanced"),
    Focal(),
    Focal(gamma=0.5, class_weights=WEIGHTS),
    Focal(gamma=3, class_weights="balanced"),
]
NUMBERS = [MSE(), MAE(), Huber(), Huber(delta=0.3)]
ALL = [
    *((loss, "one") for loss in SINGLE),
    *((loss, "each") for loss in EACH),
    *((loss, "numbers") for loss in NUMBERS),
]


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(form: str, seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs, targets and weights of some rows; `form`: one label of four, each of four labels, or four numbers."""
    dice = draw(seed)
    outputs = torch.randn(count, len(LABELS), generator=dice, dtype=torch.float64) * 4
    weights = torch.rand(count, generator=dice, dtype=torch.float64) * 3
    if form == "one":
        return outputs, torch.randint(len(LABELS), (count,), generator=dice), weights
    if form == "each":
        return outputs, torch.randint(2, (count, len(LABELS)), generator=dice).double(), weights
    return outputs, torch.randn(count, len(LABELS), generator=dice, dtype=torch.float64) * 2, weights


def made(settings: Any) -> losses.Criterion:
    return build(settings, LABELS, COUNTS, ROWS)


def ones(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.float64)


# ---- torch's own losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs_mean(weighted: bool, smoothing: float) -> None:
    """Mutations: weights in the sum alone, or the smoothing without them, give another mean than torch's."""
    criterion = made(CrossEntropy(label_smoothing=smoothing, class_weights=WEIGHTS if weighted else None))
    weight = torch.tensor([WEIGHTS[label] for label in LABELS], dtype=torch.float64) if weighted else None
    theirs = nn.CrossEntropyLoss(weight, label_smoothing=smoothing)
    for seed in range(CASES):
        outputs, targets, _ = rows("one", seed, 20)
        total, divisor = criterion(outputs, targets, ones(20))
        assert (total / divisor).item() == pytest.approx(theirs(outputs, targets).item(), rel=EXACT)


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_torchs_mean(weighted: bool) -> None:
    criterion = made(BinaryCrossEntropy(class_weights=WEIGHTS if weighted else None))
    weight = torch.tensor([WEIGHTS[label] for label in LABELS], dtype=torch.float64) if weighted else None
    theirs = nn.BCEWithLogitsLoss(pos_weight=weight)
    for seed in range(CASES):
        outputs, targets, _ = rows("each", seed)
        total, divisor = criterion(outputs, targets, ones(6))
        assert (total / divisor).item() == pytest.approx(theirs(outputs, targets).item(), rel=EXACT)


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        (MSE(), nn.MSELoss()),
        (MAE(), nn.L1Loss()),
        (Huber(), nn.HuberLoss()),
        (Huber(delta=0.3), nn.HuberLoss(delta=0.3)),
    ],
)
def test_a_loss_of_numbers_is_torchs_mean(settings: Any, theirs: nn.Module) -> None:
    for seed in range(CASES):
        outputs, targets, _ = rows("numbers", seed)
        total, divisor = made(settings)(outputs, targets, ones(6))
        assert divisor == outputs.numel()
        assert (total / divisor).item() == pytest.approx(theirs(outputs, targets).item(), rel=EXACT)


# ---- slow versions, a number at a time -------------------------------------------------------------------------------


def slow_softmax(
    settings: Any, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[float, float]:
    total = divisor = 0.0
    of = [1.0] * len(LABELS)
    if settings.class_weights == "balanced":
        seen = [COUNTS.get(label, 0) for label in LABELS]
        of = [sum(seen) / (sum(map(bool, seen)) * count) if count else 0.0 for count in seen]
    elif settings.class_weights:
        of = [settings.class_weights[label] for label in LABELS]
    for scores, right, weight in zip(outputs.tolist(), targets.tolist(), weights.tolist(), strict=True):
        whole = math.fsum(map(math.exp, scores))
        p = [math.exp(score) / whole for score in scores]
        if isinstance(settings, Focal):
            loss = -of[right] * (1 - p[right]) ** settings.gamma * math.log(p[right])
        else:
            share = settings.label_smoothing
            spread = -sum(w * math.log(q) for w, q in zip(of, p, strict=True)) / len(p)
            loss = (1 - share) * -of[right] * math.log(p[right]) + share * spread
        total, divisor = total + weight * loss, divisor + weight * of[right]
    return total, divisor


def slow_sigmoid(
    settings: Any, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[float, float]:
    total = divisor = 0.0
    of = [1.0] * len(LABELS)
    if settings.class_weights == "balanced":
        seen = [COUNTS.get(label, 0) for label in LABELS]
        of = [(ROWS - count) / count if count else 1.0 for count in seen]
    elif settings.class_weights:
        of = [settings.class_weights[label] for label in LABELS]
    gamma = settings.gamma if isinstance(settings, Focal) else 0.0
    for row, weight in enumerate(weights.tolist()):
        for column, score in enumerate(outputs[row].tolist()):
            p = 1 / (1 + math.exp(-score))
            there = bool(targets[row, column])
            right = p if there else 1 - p
            total -= weight * (of[column] if there else 1.0) * (1 - right) ** gamma * math.log(right)
            divisor += weight
    return total, divisor


def slow_numbers(
    settings: Any, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[float, float]:
    total = divisor = 0.0
    for row, weight in enumerate(weights.tolist()):
        for output, target in zip(outputs[row].tolist(), targets[row].tolist(), strict=True):
            error = abs(output - target)
            if isinstance(settings, Huber):
                d = settings.delta
                loss = error**2 / 2 if error <= d else d * (error - d / 2)
            else:
                loss = error**2 if isinstance(settings, MSE) else error
            total, divisor = total + weight * loss, divisor + weight
    return total, divisor


SLOW: dict[str, Callable[..., tuple[float, float]]] = {
    "one": slow_softmax,
    "each": slow_sigmoid,
    "numbers": slow_numbers,
}


@pytest.mark.parametrize(("settings", "form"), ALL)
def test_sum_and_weight_are_those_of_a_slow_version(settings: Any, form: str) -> None:
    for seed in range(CASES):
        given = rows(form, seed)
        total, divisor = made(settings)(*given)
        slow_total, slow_divisor = SLOW[form](settings, *given)
        assert total.item() == pytest.approx(slow_total, rel=1e-10)
        assert divisor == pytest.approx(slow_divisor, rel=EXACT)


@pytest.mark.parametrize(("settings", "form"), ALL)
def test_the_gradient_is_that_of_finite_differences(settings: Any, form: str) -> None:
    outputs, targets, weights = rows(form, 3)
    assert torch.autograd.gradcheck(lambda x: made(settings)(x, targets, weights)[0], outputs.requires_grad_())


# ---- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, WEIGHTS, "balanced"])
def test_focal_with_gamma_0_is_cross_entropy(weights: Any) -> None:
    pairs = [
        (Focal(gamma=0, class_weights=weights), CrossEntropy(class_weights=weights), "one"),
        (Focal(gamma=0, class_weights=weights), BinaryCrossEntropy(class_weights=weights), "each"),
    ]
    for (focal, plain, form), seed in itertools.product(pairs, range(CASES)):
        given = rows(form, seed)
        ours, theirs = made(focal)(*given), made(plain)(*given)
        assert ours[0].item() == pytest.approx(theirs[0].item(), rel=1e-11)
        assert ours[1] == theirs[1]


def test_focal_counts_what_is_right_for_less_and_more_so_with_gamma() -> None:
    """Of two rows, one at p = 0.9 and one at p = 0.1, the second one's share of the loss."""
    outputs = torch.tensor([[math.log(9.0), 0.0], [0.0, math.log(9.0)]], dtype=torch.float64)
    shares = []
    for gamma in (0.0, 1.0, 2.0, 5.0):
        values = losses.focal(outputs, torch.tensor([0, 0]), gamma)
        shares.append((values[1] / values.sum()).item())
        assert values[0].item() == pytest.approx(-(0.1**gamma) * math.log(0.9), rel=1e-12)
    assert shares == sorted(shares)
    assert shares[0] < 0.96 < 0.9999 < shares[-1]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_focal_is_finite_with_a_finite_gradient_where_a_probability_rounds_to_0_or_1(
    gamma: float, dtype: torch.dtype
) -> None:
    """Mutation: `(1 - p) ** gamma` of p = 1 has the gradient infinity times 0, which is NaN, for gamma below 1."""
    outputs = torch.tensor([[900.0, -900.0, 0.0], [-900.0, 900.0, 0.0]], dtype=dtype, requires_grad=True)
    for targets in (torch.tensor([0, 0]), torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])):
        total, _ = build(Focal(gamma=gamma))(outputs, targets, torch.ones(2))
        (gradient,) = torch.autograd.grad(total, outputs)
        assert torch.isfinite(total)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
    wrong = torch.tensor([[900.0, 0.0]], requires_grad=True)
    p = wrong.softmax(1)[0, 0]
    (gradient,) = torch.autograd.grad(-((1 - p) ** 0.5) * p.log(), wrong)
    assert gradient.isnan().any()


def test_weighted_cross_entropy_is_that_of_duplicated_rows() -> None:
    """INVARIANTS 27. The wrong versions: weights in the sum alone (divided by the rows); weights by their mean."""
    times = {"a": 3, "b": 1, "c": 2, "d": 5}
    for settings in (CrossEntropy, Focal):
        weighted = build(settings(class_weights=times), LABELS)
        plain = build(settings(), LABELS)
        for seed in range(CASES):
            outputs, targets, weights = rows("one", seed, 12)
            often = torch.tensor([times[LABELS[target]] for target in targets])
            copies = [tensor.repeat_interleave(often, 0) for tensor in (outputs, targets, weights)]
            total, divisor = weighted(outputs, targets, weights)
            copied_total, copied_divisor = plain(*copies)
            assert total.item() == pytest.approx(copied_total.item(), rel=EXACT)
            assert divisor == pytest.approx(copied_divisor, rel=EXACT)
            by_rows = total / weights.sum()
            by_mean = total / (weights.sum() * np.mean(list(times.values())))
            for wrong in (by_rows, by_mean):
                assert abs((wrong - copied_total / copied_divisor).item()) > 1e-3


def test_a_rows_weight_is_its_number_of_copies() -> None:
    for settings, form in ALL:
        outputs, targets, _ = rows(form, 1)
        often = torch.tensor([0, 1, 2, 3, 1, 4])
        total, divisor = made(settings)(outputs, targets, often.double())
        copies = [tensor.repeat_interleave(often, 0) for tensor in (outputs, targets)]
        copied_total, copied_divisor = made(settings)(*copies, ones(int(often.sum())))
        assert total.item() == pytest.approx(copied_total.item(), rel=EXACT)
        assert divisor == pytest.approx(copied_divisor, rel=EXACT)


def cuts(count: int) -> list[list[int]]:
    return [[count], [1] * count, [count // 2, count - count // 2], [1, count - 1], [0, count]]


@pytest.mark.parametrize(("settings", "form"), ALL)
def test_sums_weights_and_gradients_over_any_cut_add_up_to_the_whole(settings: Any, form: str) -> None:
    """What makes an update independent of how it is cut. Mutation: a mean over its rows fails for every cut but one."""
    given = rows(form, 5, 9)
    given[0].requires_grad_()
    criterion = made(settings)
    total, divisor = criterion(*given)
    (gradient,) = torch.autograd.grad(total, given[0])
    for sizes in cuts(9):
        parts = [criterion(*part) for part in zip(*(tensor.split(sizes) for tensor in given), strict=True)]
        whole = torch.stack([part for part, _ in parts]).sum()
        assert whole.item() == pytest.approx(total.item(), rel=EXACT)
        assert sum(part for _, part in parts) == pytest.approx(divisor, rel=EXACT)
        assert torch.allclose(torch.autograd.grad(whole, given[0])[0], gradient, rtol=EXACT, atol=EXACT)
        means = [(part / weight).item() for part, weight in parts if weight]
        assert (
            len(means) < 2 or abs(np.mean(means) - total.item() / divisor) > 1e-6
        )  # a mean of means is another number


@pytest.mark.parametrize(("settings", "form"), ALL)
def test_no_rows_are_a_sum_of_nothing_with_a_gradient(settings: Any, form: str) -> None:
    outputs, targets, weights = (tensor[:0] for tensor in rows(form, 0))
    total, divisor = made(settings)(outputs.requires_grad_(), targets, weights)
    total.backward()  # type: ignore[no-untyped-call]
    assert (total.item(), divisor) == (0.0, 0.0)


# ---- shapes and types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", NUMBERS)
def test_a_column_against_a_row_is_refused_and_never_broadcast(settings: Any) -> None:
    """INVARIANTS 26: [N, 1] against [N] would be N x N errors, whose sum does not even depend on the order of the rows."""
    outputs, targets = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([[1.0], [2.0], [5.0]])
    total, divisor = made(settings)(outputs, targets, torch.ones(3))
    assert (total.item(), divisor) == (0.0, 3.0)
    permuted = targets[[1, 2, 0]]
    assert made(settings)(outputs, permuted, torch.ones(3))[0] > 0
    for wrong in (targets[:, 0], targets.T, targets[None], targets[:2]):
        with pytest.raises(AssertionError):
            made(settings)(outputs, wrong, torch.ones(3))
    with pytest.raises(AssertionError):
        made(settings)(outputs[:, 0], targets[:, 0], torch.ones(3))

    def broadcast(those: torch.Tensor) -> float:
        return ((outputs - those[:, 0]) ** 2).sum().item()

    assert (
        broadcast(targets) == broadcast(permuted) > 0
    )  # the wrong version: right answers cost, and any order the same


@pytest.mark.parametrize(("settings", "form"), ALL)
@pytest.mark.parametrize("fault", ["a row less", "a column more", "weights as a column", "a weight less"])
def test_targets_and_weights_of_another_shape_are_refused(settings: Any, form: str, fault: str) -> None:
    outputs, targets, weights = rows(form, 0)
    if fault == "a row less":
        targets = targets[1:]
    elif fault == "a column more":
        targets = targets[:, None] if form == "one" else torch.cat([targets, targets[:, :1]], 1)
    else:
        weights = weights[:, None] if fault == "weights as a column" else weights[1:]
    with pytest.raises(AssertionError):
        made(settings)(outputs, targets, weights)


@pytest.mark.parametrize(("settings", "form"), ALL)
def test_a_short_type_is_computed_in_float32_and_a_long_one_in_its_own(settings: Any, form: str) -> None:
    outputs, targets, weights = rows(form, 2, 64)
    whole = made(settings)(outputs.bfloat16().double(), targets, weights)[0]
    for dtype, result, close in (
        (torch.bfloat16, torch.float32, 1e-5),
        (torch.float32, torch.float32, 1e-5),
        (torch.float64, torch.float64, 1e-15),
    ):
        given = outputs.bfloat16().to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):  # mutation: under autocast alone some would be bfloat16
            total, _ = made(settings)(given, targets, weights)
        assert total.dtype == result
        assert total.item() == pytest.approx(whole.item(), rel=close)
        assert torch.autograd.grad(total, given)[0].dtype == dtype


# ---- class weights ---------------------------------------------------------------------------------------------------


def test_balanced_weights_are_scikit_learns() -> None:
    drawn = np.random.default_rng(0)
    for _ in range(CASES):
        column = [str(label) for label in drawn.choice(list("abc"), size=30, p=[0.7, 0.2, 0.1])]
        labels = tuple(sorted(set(column)))
        counts = {label: column.count(label) for label in labels}
        theirs = compute_class_weight("balanced", classes=np.array(labels), y=column)
        for index, label in enumerate(labels):
            outputs = torch.zeros(1, len(labels), dtype=torch.float64)
            _, weight = build(CrossEntropy(class_weights="balanced"), labels, counts, 30)(
                outputs, torch.tensor([index]), ones(1)
            )
            assert weight == pytest.approx(theirs[index], rel=EXACT), label


def test_balanced_weights_make_every_label_of_train_count_the_same_and_all_rows_as_many_as_they_are() -> None:
    column = torch.tensor([LABELS.index(label) for label, count in COUNTS.items() for _ in range(count)])
    criterion = made(CrossEntropy(class_weights="balanced"))
    weights = [
        criterion(torch.zeros(len(own), 4, dtype=torch.float64), own, ones(len(own)))[1]
        for own in (column[column == index] for index in range(4))
    ]
    assert weights[2] == 0  # train has none
    assert weights[0] == pytest.approx(weights[1]) == pytest.approx(weights[3])
    assert sum(weights) == pytest.approx(len(column))


def test_balanced_weights_make_a_labels_presence_count_as_its_absence() -> None:
    targets = torch.zeros(ROWS, 4, dtype=torch.float64)
    for index, label in enumerate(LABELS):
        targets[: COUNTS.get(label, 0), index] = 1
    even = torch.zeros_like(targets)
    values = losses.binary_cross_entropy(even, targets, losses._positive_weights("balanced", LABELS, COUNTS, ROWS))
    for index, label in enumerate(LABELS):
        there, not_there = values[targets[:, index] == 1, index].sum(), values[targets[:, index] == 0, index].sum()
        if COUNTS.get(label):
            assert there.item() == pytest.approx(not_there.item(), rel=EXACT)


def test_a_label_that_every_row_has_is_still_learnt() -> None:
    criterion = build(BinaryCrossEntropy(class_weights="balanced"), ("always", "never"), {"always": 5}, 5)
    outputs = torch.zeros(5, 2, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0]] * 5)
    (gradient,) = torch.autograd.grad(criterion(outputs, targets, ones(5))[0], outputs)
    assert (gradient[:, 0] < 0).all()
    assert (gradient[:, 1] > 0).all()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 1, "b": 1, "c": 1}, "lacks 'd'"),
        ({"a": 1, "b": 1, "c": 1, "d": 1, "e": 2}, "names labels that no row has: 'e'"),
        ({"A": 1, "b": 1, "c": 1, "d": 1}, "names labels that no row has: 'A' and lacks 'a'"),
    ],
)
@pytest.mark.parametrize("kind", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_weights_for_other_labels_than_the_rows_are_refused(kind: Any, weights: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        made(kind(class_weights=weights))
    assert refusal.value.what == said
    assert refusal.value.where == "train.loss.class_weights"
    assert "'a', 'b', 'c', 'd'" in str(refusal.value.cure)


def test_there_is_nothing_to_balance_where_train_has_no_label() -> None:
    with pytest.raises(RecipeError, match="no row of train has a label to balance"):
        build(Focal(class_weights="balanced"), LABELS, {}, ROWS)


def test_many_labels_make_a_short_message() -> None:
    labels = [f"label {number}" for number in range(1000)]
    with pytest.raises(RecipeError) as refusal:
        build(CrossEntropy(class_weights={"other": 1}), labels)
    assert len(str(refusal.value)) < 600
    assert "and 992 more" in refusal.value.what


def test_every_field_of_a_loss_changes_it() -> None:
    changes: Sequence[tuple[Any, Any, str]] = [
        (CrossEntropy(), CrossEntropy(label_smoothing=0.1), "one"),
        (CrossEntropy(), CrossEntropy(class_weights=WEIGHTS), "one"),
        (Focal(), Focal(gamma=1), "one"),
        (Focal(), Focal(class_weights=WEIGHTS), "one"),
        (Focal(), Focal(gamma=1), "each"),
        (Focal(), Focal(class_weights=WEIGHTS), "each"),
        (BinaryCrossEntropy(), BinaryCrossEntropy(class_weights=WEIGHTS), "each"),
        (Huber(), Huber(delta=2), "numbers"),
    ]
    for one, other, form in changes:
        values = [criterion(*rows(form, 1)) for criterion in (made(one), made(other))]
        assert abs(values[0][0].item() / values[0][1] - values[1][0].item() / values[1][1]) > 1e-3, (one, other)


def test_sigmoid_focal_is_the_papers_formula_between_0_and_1() -> None:
    """Lin et al. 2017, equation 4, on p itself: FL(p_t) = -(1 - p_t)^gamma log p_t."""
    outputs, targets, _ = rows("each", 8)
    p = outputs.sigmoid()
    p_t = torch.where(targets == 1, p, 1 - p)
    wanted = -((1 - p_t) ** 2) * p_t.log()
    assert torch.allclose(losses.sigmoid_focal(outputs, targets, 2.0), wanted, rtol=1e-9)
    plain = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    assert torch.allclose(losses.sigmoid_focal(outputs, targets, 0.0), plain, rtol=1e-12)
