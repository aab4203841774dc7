"""The path that is as smooth as limits allow: a quadratic program, which Clarabel solves."""

from __future__ import annotations

from dataclasses import dataclass

import clarabel
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Keeps the solver's last digits inside the limits.
_INSIDE = 1 - 1e-6


def excess(path: Floats, axes: Floats, lower: Floats, upper: Floats, *, period: float) -> Floats:
    """What to take away from a path to make it smooth, within limits.

    Of all r with lower_t <= axes_t r_t <= upper_t it is the one that makes
    sum |second difference of (path - r)|^2 + w^4 sum |r|^2 least, w = 2 pi / period: without
    limits a zero-phase low-pass of the path, 1 / (1 + (frequency / w)^4).

    Args:
        path: (num_frames, 2).
        axes: (num_frames, 2, 2), of full rank.
        lower: (num_frames, 2), negative.
        upper: (num_frames, 2), positive.
        period: frames.

    Returns:
        (num_frames, 2).

    Source: the idea of M. Grundmann et al., Auto-directed video stabilization with robust L1
        optimal camera paths, CVPR 2011, with squares instead of absolute values.
    """
    num_frames = len(path)
    unit = (upper - lower).mean() / 2  # The solver's tolerances are for numbers around 1.
    # Second differences, squared and summed: the matrix's diagonals, and what it makes of the path.
    ones = np.ones(num_frames - 2)
    diagonals = [np.convolve(ones, weights) for weights in ([1, 4, 1], [-2, -2], [1])]
    diagonals[0] += (2 * np.pi / period) ** 4
    pulled = np.diff(np.pad(np.diff(path, n=2, axis=0), ((2, 2), (0, 0))), n=2, axis=0)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    bounds = _INSIDE / unit * np.concatenate([upper.ravel(), -lower.ravel()])
    found = clarabel.DefaultSolver(
        upper_diagonals([np.repeat(diagonal, 2) for diagonal in diagonals], spacing=2),
        -pulled.ravel() / unit,
        blocks(axes),
        bounds,
        [clarabel.NonnegativeConeT(len(bounds))],
        settings,
    ).solve()
    assert str(found.status) in ("Solved", "AlmostSolved"), found.status
    return unit * np.reshape(found.x, (num_frames, 2))


@dataclass(frozen=True)
class Columns:
    """A matrix in compressed sparse columns, with what Clarabel reads of scipy's `csc_array`.

    To import scipy's takes longer than to plan a short video.

    Attributes:
        data: (num,) the numbers that are not zero, column by column.
        indices: (num,) their rows, ascending within a column.
        indptr: (columns + 1,) where each column begins among them.
        shape: rows and columns.
        has_canonical_format: no row twice in a column.
    """

    data: Floats
    indices: NDArray[np.int64]
    indptr: NDArray[np.int64]
    shape: tuple[int, int]
    has_canonical_format: bool = True


def upper_diagonals(diagonals: list[Floats], *, spacing: int) -> Columns:
    """The upper half of a symmetric banded matrix.

    Args:
        diagonals: the main one, (size,), and those above it, (size - spacing,) and so on.
        spacing: from one diagonal to the next.
    """
    size = len(diagonals[0])
    above = spacing * np.arange(len(diagonals) - 1, -1, -1)
    rows = np.arange(size)[:, None] - above
    values = [np.pad(diagonal, (size - len(diagonal), 0)) for diagonal in reversed(diagonals)]
    is_inside = rows >= 0
    starts = np.concatenate([[0], np.cumsum(is_inside.sum(axis=1))])
    return Columns(np.stack(values, 1)[is_inside], rows[is_inside], starts, (size, size))


def blocks(axes: Floats) -> Columns:
    """Blocks (num, 2, 2) along a diagonal, and below them their negatives: (4 num, 2 num)."""
    size = 2 * len(axes)
    first = np.arange(0, size, 2)[:, None]
    rows = np.concatenate([first, first + 1, first + size, first + size + 1], axis=1)
    values = np.concatenate([axes, -axes], axis=1).swapaxes(1, 2)
    starts = 4 * np.arange(size + 1)
    return Columns(values.ravel(), np.repeat(rows, 2, axis=0).ravel(), starts, (2 * size, size))
