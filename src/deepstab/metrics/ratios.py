"""Measures of an output against those of its input."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ratio(after: float, before: float) -> float:
    """Divide what is left of a jitter by what there was; 1 when there is none of either."""
    if before == 0:
        return 1.0 if after == 0 else math.inf
    return after / before


def geometric_mean(values: Sequence[float]) -> float:
    """Mean of ratios: halving and doubling cancel out. NaN of no value, 0 with any 0.

    Raises:
        ValueError: a value is negative.
    """
    if any(value < 0 for value in values):
        raise ValueError(f"a geometric mean needs values of at least 0, got {min(values)}")
    if not values:
        return math.nan
    if 0 in values:
        return 0.0
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))
