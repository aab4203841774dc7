"""What is taken away from a path is the best there is, and the solver gets the problem as meant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from deepstab.stabilization.solver import Columns, blocks, excess, upper_diagonals


def bending(path: NDArray[np.float64], taken: NDArray[np.float64], *, period: float) -> float:
    """What `excess` makes least."""
    staying = (2 * np.pi / period) ** 4 * (taken**2).sum()
    return float((np.diff(path - taken, n=2, axis=0) ** 2).sum() + staying)


def axes_of(turn: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return np.moveaxis(np.array(rows), -1, 0)


def test_without_limits_it_is_a_low_pass_that_halves_its_period() -> None:
    time, limits = np.arange(600.0), np.full((600, 2), 1e3)
    for period, kept in ((80, 0.5), (800, 1.0), (8, 0.0)):
        path = np.stack([np.sin(2 * np.pi * time / period), 0.1 * time], axis=1)
        taken = excess(path, axes_of(0 * time), -limits, limits, period=80)
        middle = slice(200, 400)
        expected = (1 - kept) * path[middle, 0]
        np.testing.assert_allclose(taken[middle, 0], expected, atol=2e-3)
        np.testing.assert_allclose(taken[:, 1], 0, atol=1e-6)  # a line has nothing to take


def test_within_limits_it_is_the_smoothest() -> None:
    random = np.random.default_rng(0)
    path = np.cumsum(random.normal(size=(120, 2)), axis=0)
    axes = axes_of(random.uniform(-1, 1, 120))
    lower, upper = -random.uniform(0.5, 2, (120, 2)), random.uniform(0.5, 2, (120, 2))
    taken = excess(path, axes, lower, upper, period=60)
    corrected = np.einsum("tij,tj->ti", axes, taken)
    share = np.maximum(corrected / upper, corrected / lower)
    assert share.max() <= 1
    assert (share > 0.999).mean() > 0.2  # the limits are felt
    least = bending(path, taken, period=60)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            other = taken + size * random.normal(size=taken.shape)
            corrected = np.einsum("tij,tj->ti", axes, other)
            other = np.einsum("tji,tj->ti", axes, np.clip(corrected, lower, upper))
            assert bending(path, other, period=60) > least * (1 - 1e-6)


def dense(matrix: Columns) -> NDArray[np.float64]:
    """As scipy reads it, which is what Clarabel was made for."""
    columns = sparse.csc_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    columns.check_format()
    assert columns.has_canonical_format
    return columns.toarray()


def test_diagonals_by_hand() -> None:
    found = upper_diagonals([np.array([1.0, 2, 3, 4]), np.array([5.0, 6])], spacing=2)
    assert dense(found).tolist() == [[1, 0, 5, 0], [0, 2, 0, 6], [0, 0, 3, 0], [0, 0, 0, 4]]


def test_blocks_by_hand() -> None:
    found = blocks(np.array([[[1.0, 2], [3, 4]], [[5.0, 6], [7, 8]]]))
    upper = [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]
    np.testing.assert_array_equal(dense(found), np.concatenate([upper, -np.array(upper)]))
