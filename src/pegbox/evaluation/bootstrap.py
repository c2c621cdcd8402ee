"""The paired bootstrap over units: resampled values of a metric, intervals and p-values from them.

A resample draws U of the U units with replacement, the same for all systems (Efron 1979; paired, as Koehn 2004 does for
systems on the same rows; whole groups, as rows of a group are not independent). Its value is that of the rows of the units
drawn, each counting as often as its unit was drawn. From B resampled values x the interval is

    [x_(k), x_(B + 1 - k')],   k = floor((B + 1) Phi(-z)),  k' = floor((B + 1) Phi(-z'))

Plain percentiles have z = z' = 1.96, which is too narrow for few units: with 30 of them and one rival they called up to 6 %
of null cases better and up to 8 % worse, depending on the kind of case, where 2.5 % are meant. With t the 97.5 % quantile
of Student's t we take

    c  = t(v) sqrt(U / (U - 1))          v + 1 = (sum of sizes)^2 / (sum of squared sizes)
    z  = c + max(0, -a) (c^2 + 2),       a = skewness of x / 6
    z' = c + max(0, +a) (c^2 + 2)

- The factor and t are Hesterberg's (2015, "What teachers should know about the bootstrap") expanded percentiles. Groups of
  unequal size count for fewer than their number: v + 1 is Kish's (1965) effective number of units.
- a (c^2 + 2) is the Edgeworth term by which percentiles of a skewed mean miss (Hall 1992, "The bootstrap and Edgeworth
  expansion"; it is BCa's shift, Efron 1987, with z_0 = a). BCa moves both ends, and by estimates so noisy that in trials
  with 30 units it erred more often than plain percentiles in macro F1, perplexity and groups. Here an end only ever moves
  outwards: many small gains and few large losses no longer look like an improvement.

Over 30 to 1,000 units no kind of case is left above 3.3 % (benchmarks/results/verdict_simulation.json has all figures).

The p-value is the least alpha for which the interval of level 1 - alpha leaves zero out, hence p <= 0.05 exactly if the
95 % interval does. What no resample shows stays unseen: a loss so rare that none of it is among the rows.

Non-finite values. A resample in which the value is undefined (NaN) could lie anywhere: it counts as -infinity for the
lower end and as +infinity for the upper. Infinite values (a perplexity) sort as what they are; two infinite ones tie.
Where a tail is so small that no resample reaches it (fewer than about four effective units), that end is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation.student import upper_quantile, upper_tail
from pegbox.metrics import FloatArray, Metric

RESAMPLES = 10_000
ALPHA = 0.05
RANKED_RESAMPLES = 1_000  # of a metric of ranks that decides nothing: it takes all rows anew for each resample
_CHUNK_FLOATS = 4_000_000  # of draws and sums held at once: 32 MB, and a few times that in a metric's temporaries
_RANKED_FLOATS = 8  # those of a metric of ranks, for each row
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Units:
    """What is resampled: `index` int [n], the unit of each row, and `sizes` int [U], the rows of each unit."""

    index: NDArray[np.intp]
    sizes: NDArray[np.intp]

    @classmethod
    def of(cls, labels: NDArray[np.int64]) -> Units:
        """From any integers [n] that are equal for rows that belong together."""
        _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        return cls(index.reshape(-1), sizes)

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def effective(self) -> float:
        """Kish's effective number of units, between 1 and `count`."""
        return float(self.sizes.sum() ** 2 / (self.sizes**2).sum())

    def sums(self, statistics: FloatArray) -> FloatArray:
        """Statistics of rows [n, ...] added up by unit: [U, ...]."""
        totals = np.zeros((self.count, *statistics.shape[1:]))
        np.add.at(totals, self.index, statistics)
        return totals


def resampled_values(metric: Metric, statistics: FloatArray, units: Units, *, seed: int, resamples: int) -> FloatArray:
    """Values [B, S] of S systems on the same B resamples, from their rows' statistics [n, S, k].

    The resamples hang on the seed and the number of units alone, not on the metric. Rows that are drawn together are added
    up first where the metric is one of sums. Memory does not grow with B: draws are held for one chunk of resamples at a
    time.
    """
    rows = units.sums(statistics) if metric.additive else statistics
    systems, width = statistics.shape[1:]
    per_resample = units.count + (systems * width if metric.additive else _RANKED_FLOATS * len(rows))
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_FLOATS // per_resample)
    values = np.empty((resamples, systems))
    for start in range(0, resamples, chunk):
        weights = draw_weights(rng, min(chunk, resamples - start), units.count)
        if not metric.additive:
            weights = weights[:, units.index]
        for system in range(systems):
            values[start : start + chunk, system] = metric.values(rows[:, system], weights)
    return values


def draw_weights(rng: np.random.Generator, size: int, units: int) -> FloatArray:
    """How often each unit is in each of some resamples, [size, units]."""
    drawn = rng.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def paired_difference(left: FloatArray, right: FloatArray) -> FloatArray:
    """`left - right`; exactly 0 where they differ by rounding only, or are infinite alike."""
    with np.errstate(invalid="ignore"):  # inf - inf, replaced by 0 at once
        return np.where(np.isclose(left, right, rtol=1e-9, atol=1e-12), 0.0, left - right)


@dataclass(frozen=True)
class Distribution:
    """Resampled values x [B] of one quantity, with what calibrates their percentiles (see above)."""

    values: FloatArray
    units: Units

    @property
    def _finite(self) -> FloatArray:
        return self.values[np.isfinite(self.values)]

    @property
    def standard_error(self) -> float:
        """Standard deviation of the resampled values; infinite where one of them is not finite."""
        return float(self.values.std()) if np.isfinite(self.values).all() else math.inf

    def _skewness_shift(self) -> float:
        """a, from the finite values; 0 where all are equal."""
        finite = self._finite
        if finite.size == 0 or np.ptp(finite) <= 1e-12 * np.abs(finite).max():
            return 0.0
        centred = finite - finite.mean()
        return float((centred**3).mean() / (centred**2).mean() ** 1.5 / 6)

    @property
    def _degrees(self) -> float:
        return max(1.0, self.units.effective - 1.0)

    @property
    def _widening(self) -> float:
        return math.sqrt(self.units.count / (self.units.count - 1))

    def interval(self) -> tuple[float, float]:
        """The calibrated 95 % interval; an end that the resamples do not reach is infinite."""
        if self.units.count < 2:
            return -math.inf, math.inf
        normal_quantile = upper_quantile(ALPHA / 2, self._degrees) * self._widening
        shift = self._skewness_shift()
        low = self._lower_end(self.values, _outwards(normal_quantile, -shift))
        high = -self._lower_end(-self.values, _outwards(normal_quantile, shift))
        return low, high

    @staticmethod
    def _lower_end(values: FloatArray, z: float) -> float:
        """x_(k), the k-th smallest, k = floor((B + 1) Phi(-z)), NaN being smallest."""
        k = math.floor((len(values) + 1) * _NORMAL.cdf(-z))
        ordered = np.where(np.isnan(values), -np.inf, values)
        return float(np.partition(ordered, k - 1)[k - 1]) if k else -math.inf

    def p_value(self) -> float:
        """Two-sided, of "the quantity is zero"; with one resample added on the side of zero, so never 0."""
        if self.units.count < 2:
            return 1.0
        shift = self._skewness_shift()
        undefined = np.isnan(self.values)
        below = self._tail(int((undefined | (self.values <= 0)).sum()), -shift)
        above = self._tail(int((undefined | (self.values >= 0)).sum()), shift)
        return min(1.0, 2 * min(below, above))

    def _tail(self, beyond: int, shift: float) -> float:
        """The tail of Student's t for which the interval would end at zero, `beyond` resamples lying on its far side."""
        share = (beyond + 1) / (len(self.values) + 1)
        quantile = _inwards(-_NORMAL.inv_cdf(share), shift) if share < 1 else -math.inf
        return upper_tail(quantile / self._widening, self._degrees) if quantile > 0 else 0.5


def _outwards(c: float, shift: float) -> float:
    """z = c + max(0, shift) (c^2 + 2)."""
    return c + max(0.0, shift) * (c**2 + 2)


def _inwards(z: float, shift: float) -> float:
    """The c >= 0 of which z is `_outwards`; negative where there is none."""
    if shift <= 0 or z <= 2 * shift:
        return z - 2 * max(0.0, shift)
    return (math.sqrt(1 + 4 * shift * (z - 2 * shift)) - 1) / (2 * shift)
