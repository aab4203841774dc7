"""What homographies from a video to its stabilized version say: how much is left, how distorted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cropping_ratio(homographies: NDArray[np.float64]) -> float:
    """Mean over the frames of `min(1, 1 / scale)`: what is left of the field of view.

    Args:
        homographies: (num, 3, 3), input -> output, origin at the center of the frame.

    Returns:
        In [0, 1]; the scale is the root of the determinant of the matrix's local affine part.

    Raises:
        ValueError: not (num, 3, 3) with at least one matrix.

    Source: Liu et al. 2013, section 6.
    """
    scales = np.sqrt(np.abs(np.linalg.det(_local_affine(homographies))))
    return float(np.mean(np.minimum(1.0, 1.0 / scales)))


def distortion_values(homographies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per frame, the smaller over the larger singular value of the local affine part.

    Singular values and not eigenvalues: those of a rotation are complex. Field practice is to
    report the worst frame.

    Args:
        homographies: (num, 3, 3), input -> output, origin at the center of the frame.

    Returns:
        (num,) in [0, 1]; 1 for any similarity, 1/a for a stretch by a.

    Raises:
        ValueError: not (num, 3, 3) with at least one matrix.

    Source: Liu et al. 2013, section 6.
    """
    singular = np.linalg.svd(_local_affine(homographies), compute_uv=False)
    return np.asarray(singular[:, 1] / singular[:, 0], dtype=np.float64)


def _local_affine(homographies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the derivative of (A x + t) / (p x + h) at x = 0, the 2x2 part A of an affine matrix."""
    if homographies.ndim != 3 or homographies.shape[1:] != (3, 3) or not len(homographies):
        raise ValueError(f"homographies must be (num, 3, 3), got {homographies.shape}")
    scaled = homographies / homographies[:, 2:, 2:]
    return np.asarray(scaled[:, :2, :2] - scaled[:, :2, 2:] @ scaled[:, 2:, :2])
