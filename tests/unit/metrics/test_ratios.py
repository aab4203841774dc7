from __future__ import annotations

import math

import pytest

from deepstab.metrics.ratios import geometric_mean, ratio


@pytest.mark.parametrize(
    ("after", "before", "expected"), [(1.0, 4.0, 0.25), (0.0, 0.0, 1.0), (0.1, 0.0, math.inf)]
)
def test_ratio(after: float, before: float, expected: float) -> None:
    assert ratio(after, before) == expected


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
    assert geometric_mean([0.0, 2.0]) == 0
    assert geometric_mean([1.0, math.inf]) == math.inf
    assert math.isnan(geometric_mean([]))
    with pytest.raises(ValueError, match=r"got -1"):
        geometric_mean([2.0, -1.0])
