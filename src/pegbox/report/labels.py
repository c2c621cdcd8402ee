"""The section on labels: how each did, what it was taken for, and how sure the model is.

The numbers of each label are those of `per_class` in `evaluation.json`, the errors of calibration those of `calibration`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation.per_class import confusion
from pegbox.evaluation.verdict import TUNED
from pegbox.metrics.probabilities import BINS
from pegbox.report import label_pictures
from pegbox.report.entities import OUTCOMES, outcomes
from pegbox.report.sections import Block, Figure, Given, Section, Table
from pegbox.report.wording import bounds, number
from pegbox.tasks.calibration import tempered

TABLED = 30  # labels in the table, at most
PICTURED, ON_A_PHONE = 25, 10  # labels in the picture, at most
LISTED = 100  # labels whose confusions are listed, at most
RATES = ("precision", "recall", "f1")
HARDLY = 1.05  # a temperature this near to 1 changes next to nothing
ABOUT_RATES = (
    "Precision: of the {ones} that were given a label, the share that have it. Recall: of the {ones} that have it, the "
    "share that were given it. F1: their harmonic mean. Below each value stands that of the {rival}."
)


def classification(given: Given) -> Section:
    """Of single labels."""
    blocks = [_confusions(given), _rates(given, "Each label", "rows"), *_calibration(given)]
    return Section("The labels, one by one", "labels", blocks)


def multilabel(given: Given) -> Section:
    """Of sets of labels."""
    told = "A label is told where its probability reaches its threshold, which was set on the validation rows alone."
    thresholds = dict(zip(given.state["labels"], given.state["thresholds"], strict=True))
    return Section("The labels, one by one", "labels", [_rates(given, "Each label", "rows", told, thresholds)])


def entities(given: Given) -> Section:
    """Of entity spans."""
    return Section("The entities, kind by kind", "entities", [_rates(given, "Each kind", "entities"), _outcomes(given)])


# ---- each label ------------------------------------------------------------------------------------------------------


def _rates(given: Given, title: str, ones: str, told: str = "", thresholds: Mapping[str, float] | None = None) -> Block:
    """Precision, recall and F1 of each label, tuned's and the rival's; `ones`: what has a label."""
    ours, theirs = (given.evaluation["per_class"][system] for system in (TUNED, given.rival))
    support = {label: found["support"] for label, found in (theirs | ours).items()}
    most = sorted(support, key=lambda label: (-support[label], label))[:TABLED]
    heads = ["label", ones, "precision", "recall", "F1", *(["threshold"] if thresholds else [])]
    nothing = dict.fromkeys(RATES, 0.0)
    rows = []
    for label in sorted(most):
        pairs = ((ours.get(label, nothing)[rate], theirs.get(label, nothing)[rate]) for rate in RATES)
        cells = [(f"{support[label]:,.0f}", ""), *((f"{one:.3f}", f"{other:.3f}") for one, other in pairs)]
        rows.append(
            (
                label,
                [
                    *cells,
                    *([(f"{thresholds[label]:.3f}" if label in thresholds else "none", "")] if thresholds else []),
                ],
            )
        )
    about = ABOUT_RATES.format(ones=ones, rival=given.rival_name)
    left = len(support) - len(rows)
    after = [f"The {left:,} rarest stand in evaluation.json alone."] if left else []
    return Block(title, [*([told] if told else []), about], table=Table(title, heads, rows), after=after)


# ---- what is taken for what ------------------------------------------------------------------------------------------


def _confusions(given: Given) -> Block:
    """The confusion matrix of tuned as pictures and as a list."""
    labels, matrix = confusion(given.lines, TUNED)
    right, rows = int(np.trace(matrix)), int(matrix.sum())
    told = (
        f"The tuned model labels {right:,} of {rows:,} rows rightly. A row of the picture is a right label, a column a label "
        "that was said; the numbers are test rows, the shade is their share of the picture's row."
    )
    wide = len(labels) > ON_A_PHONE
    sizes = [(ON_A_PHONE, "narrow" if wide else ""), *([(PICTURED, "broad")] if wide else [])]
    figures = [
        Figure(
            label_pictures.confusion(*merged(labels, matrix, most), broad=shown == "broad"), _left(labels, most), shown
        )
        for most, shown in sizes
    ]
    return Block("What is taken for what", [told], figures, numbers=_listed(labels, matrix))


def _left(labels: Sequence[str], most: int) -> str:
    if len(labels) <= most:
        return ""
    return f"Shown are the {most - 1} labels with the most mistakes of {len(labels):,}; all others are one row and one column."


def merged(labels: Sequence[str], matrix: NDArray[np.int64], most: int) -> tuple[list[str], NDArray[np.int64], bool]:
    """At most so many labels: those with the most mistakes, and the rest as one, last; whether there is such a rest."""
    if len(labels) <= most:
        return list(labels), matrix, False
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
    place = np.full(len(labels), most - 1)
    place[kept] = np.arange(most - 1)
    small = np.zeros((most, most), dtype=np.int64)
    np.add.at(small, (place[:, None], place[None, :]), matrix)
    return [*(labels[index] for index in kept), f"{len(labels) - len(kept):,} others"], small, True


def _listed(labels: Sequence[str], matrix: NDArray[np.int64]) -> list[tuple[str, str]]:
    """Each right label with what its rows were taken for, the most frequent first."""
    found = []
    for row in np.argsort(-matrix.sum(axis=1), kind="stable")[:LISTED]:
        total = int(matrix[row].sum())
        said = [column for column in np.argsort(-matrix[row], kind="stable") if matrix[row, column]]
        shares = (f"{labels[c]} {matrix[row, c]:,} ({100 * matrix[row, c] / total:.0f} %)" for c in said)
        found.append((f"{labels[row]}, {total:,} row{'' if total == 1 else 's'}", "; ".join(shares) or "none"))
    return found


# ---- how sure it is --------------------------------------------------------------------------------------------------


def _calibration(given: Given) -> list[Block]:
    """The reliability diagram before and after the temperature; nothing where tuned gives no probabilities."""
    if (found := given.evaluation.get("calibration")) is None:
        return []
    sides = {side: reliability(*sure) for side, sure in _sure(given, found["temperature"]).items()}
    errors = {side: _error(found[side]) for side in sides}
    told = [
        _temperature(found["temperature"]),
        f"Calibration error, the mean gap between how sure the model is and how often it is right: before the temperature "
        f"{errors['before']}, after it {errors['after']}.",
    ]
    caption = (
        "A point stands for the rows with about the same probability of their answer, its size for how many they are. On the "
        "line, of rows that are 80 % sure 80 % are right; below it the model is too sure."
    )
    picture = Figure(label_pictures.reliability(sides, errors), caption)
    listed = [(f"{_share(bin['low'])} to {_share(bin['high'])} sure", _in_words(bin)) for bin in sides["after"]]
    return [Block("How sure it is", told, [picture], numbers=listed)]


def _error(found: Mapping[str, float | None]) -> str:
    return f"{number(found['value'], 'calibration_error')} ({bounds(found, 'calibration_error')})"


def _temperature(temperature: float) -> str:
    did = "takes its probabilities closer together, for it was too sure" if temperature > 1 else ""
    did = did or "draws its probabilities farther apart, for it was not sure enough"
    if 1 / HARDLY < temperature < HARDLY:
        did = "changes its probabilities hardly"
    return (
        f"The temperature {temperature:.3g}, found on the validation rows alone, {did}. It divides the model's outputs and "
        "changes no answer."
    )


def _sure(given: Given, temperature: float) -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Of each row the probability of the likeliest label, before and after, and whether that label is right."""
    labels = list(given.lines[0]["probabilities"][TUNED])
    after = np.array([[line["probabilities"][TUNED][label] for label in labels] for line in given.lines])
    right = np.array(
        [labels[best] == line["reference"] for best, line in zip(after.argmax(axis=1), given.lines, strict=True)]
    )
    before = tempered(after, 1 / temperature)
    return {"before": (before.max(axis=1), right), "after": (after.max(axis=1), right)}


def reliability(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The bins of the calibration error that have rows: their ends, rows, mean probability and share that is right."""
    place = np.searchsorted(np.arange(1, BINS) / BINS, sure, side="left")
    return [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "rows": int((place == index).sum()),
            "sure": float(sure[place == index].mean()),
            "right": float(right[place == index].mean()),
        }
        for index in np.unique(place).tolist()
    ]


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _in_words(bin: Mapping[str, Any]) -> str:
    rows = f"{bin['rows']:,} row{'' if bin['rows'] == 1 else 's'}"
    return f"{rows}, {_share(bin['sure'])} sure on average, {_share(bin['right'])} right"


# ---- what became of the entities -------------------------------------------------------------------------------------


def _outcomes(given: Given) -> Block:
    """What became of the entities, tuned's and the rival's."""
    ours, theirs = (outcomes(given.lines, system) for system in (TUNED, given.rival))
    rows = [(words, [(f"{ours[name]:,}", ""), (f"{theirs[name]:,}", "")]) for name, words in OUTCOMES.items()]
    told = (
        f"The rival is the {given.rival_name}. An entity is right where its label and all of its words are. The first four lines add up to the entities that there "
        "are, all but the fourth to those that were said."
    )
    table = Table("What became of the entities", ["entities", "tuned", "rival"], rows)
    return Block("What became of them", [told], table=table)
