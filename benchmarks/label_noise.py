"""How well `pegbox.data.noise` finds labels that were changed on purpose, on real rows; and what it says of clean ones.

Of each set 5,000 rows, of which 10 % get another label, drawn evenly from the others. `found`: the share of them among
the first 15 % of the ranking; `clean_scorer`: the same for a ranking by a scorer that learnt the labels before they were
changed. `accused`: the share of clean rows that are reported; `right`: of the rows reported among the changed set, the
share that was changed. Writes one JSON object to stdout.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import real_rows

from pegbox.data import noise

SETS = ("clauses", "intents", "titles", "films")  # the bag of words is best on the first, worst on the last
ROWS, CHANGED, FIRST = 5_000, 0.10, 0.15
SEEDS = (1, 2, 3)


def measure(texts: Sequence[str], labels: Sequence[str], seed: int) -> dict[str, float]:
    """Change labels, rank, and count; the labels that there are too few rows of must have been taken out."""
    changed, given = change(labels, seed)
    began = time.process_time()
    ranked = noise.ranked(texts, given, seed=seed)
    seconds = time.process_time() - began
    reported = [row.index for row in ranked if row.reported]
    clean = noise.ranked(texts, labels, seed=seed)
    names = sorted(set(labels))
    known, noisy = (np.array([names.index(label) for label in one]) for one in (labels, given))
    shares = noise.out_of_fold(texts, known, None, seed)
    best = np.argsort(-noise.judge(shares, noisy)[1], kind="stable").tolist()
    return {
        "accuracy": float((shares.argmax(axis=1) == known).mean()),
        "found": _among(changed, [row.index for row in ranked]),
        "clean_scorer": _among(changed, best),
        "accused": sum(row.reported for row in clean) / len(labels),
        "reported": len(reported) / len(labels),
        "right": len(changed.intersection(reported)) / max(len(reported), 1),
        "seconds": seconds,
    }


def change(labels: Sequence[str], seed: int) -> tuple[set[int], list[str]]:
    """Which rows got another label, and all labels then."""
    rng, names, given = random.Random(seed), sorted(set(labels)), list(labels)
    changed = set(rng.sample(range(len(labels)), round(CHANGED * len(labels))))
    for index in changed:
        given[index] = rng.choice([name for name in names if name != labels[index]])
    return changed, given


def _among(changed: set[int], ranking: Sequence[int]) -> float:
    first = ranking[: int(FIRST * len(ranking))]
    return len(changed.intersection(first)) / len(changed)


def judged(name: str) -> tuple[list[str], list[str]]:
    """The texts and labels of a set, without the labels that are too rare to be judged."""
    rows: list[dict[str, Any]] = (real_rows.intents(ROWS) if name == "intents" else real_rows.SETS[name]())[:ROWS]
    counts = {label: sum(row["label"] == label for row in rows) for label in {row["label"] for row in rows}}
    kept = [row for row in rows if counts[row["label"]] >= 2 * noise.FOLDS]
    return [row["text"] for row in kept], [row["label"] for row in kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=list(SETS), help=f"of {', '.join(SETS)}; default: all")
    results = {}
    for name in parser.parse_args().sets:
        texts, labels = judged(name)
        each = [measure(texts, labels, seed) for seed in SEEDS]
        mean = {key: round(float(np.mean([one[key] for one in each])), 4) for key in each[0]}
        results[name] = {"rows": len(texts), "labels": len(set(labels)), **mean}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
