"""How often the intervals of `intervals.py` hold the truth, where the truth is known: simulated rows and seeds.

Rows differ in how hard they are, seeds in how good the model becomes; three seeds answer the same 400 rows. Prints, for
several spreads of the seeds, how often the interval holds the score that all rows and all seeds would give, and how often
one that resamples rows alone does. Minutes on one core.
"""

from __future__ import annotations

import numpy as np
from intervals import over_seeds

from pegbox.evaluation.bootstrap import Distribution, Units

ROWS, SEEDS, RESAMPLES, TRIALS = 400, 3, 2000, 400
EASE, HARDNESS = 1.1, 1.5  # logits: how likely an answer is right, and how much rows differ
MANY = 200_000


def right(hard: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The chance of a right answer."""
    return np.asarray(1 / (1 + np.exp(-(EASE + HARDNESS * hard + good))))


def trial(rng: np.random.Generator, spread: float, truth: float) -> list[bool]:
    """Whether the interval holds the truth, and whether that over rows alone does."""
    units = Units.of(np.arange(ROWS))
    chances = right(rng.normal(size=(ROWS, 1)), spread * rng.normal(size=(1, SEEDS)))
    answers = (rng.random((ROWS, SEEDS)) < chances).astype(float)
    resampled = rng.multinomial(ROWS, [1 / ROWS] * ROWS, size=RESAMPLES) / ROWS @ answers
    draws = rng.multinomial(SEEDS, [1 / SEEDS] * SEEDS, size=RESAMPLES)
    ends = [Distribution(x, units).interval() for x in (over_seeds(resampled, draws), resampled.mean(axis=1))]
    return [low <= truth <= high for low, high in ends]


def main() -> None:
    for spread in (0.0, 0.06, 0.2, 0.6):
        rng = np.random.default_rng(5)
        truth = float(right(rng.normal(size=MANY), spread * rng.normal(size=MANY)).mean())
        scores = [right(rng.normal(size=MANY // 10), spread * good).mean() for good in rng.normal(size=100)]
        both, alone = np.mean([trial(rng, spread, truth) for _ in range(TRIALS)], axis=0)
        of_rows = np.sqrt(truth * (1 - truth) / ROWS)
        print(
            f"standard deviation of seeds {np.std(scores):.3f}, standard error of rows {of_rows:.3f}:"
            f" rows and seeds {both:.3f}, rows alone {alone:.3f}"
        )


if __name__ == "__main__":
    main()
