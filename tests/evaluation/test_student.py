"""Student's t against scipy."""

from __future__ import annotations

import pytest
from scipy import stats

from pegbox.evaluation.student import upper_quantile, upper_tail

DEGREES = (1.0, 1.7, 3.2, 12.0, 29.0, 99.9, 100.0, 999.0, 1e5)


@pytest.mark.parametrize("degrees", DEGREES)
def test_tails_are_scipys(degrees: float) -> None:
    for t in (0.0, 0.3, 1.0, 1.96, 3.0, 5.0, 7.0):
        assert upper_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-3)


@pytest.mark.parametrize("degrees", DEGREES)
def test_quantiles_are_scipys(degrees: float) -> None:
    for probability in (0.5, 0.4, 0.05, 0.025, 1e-4):
        assert upper_quantile(probability, degrees) == pytest.approx(
            stats.t.isf(probability, degrees), rel=1e-3, abs=1e-9
        )
