"""Camera paths: accumulated from inter-frame motion, smoothed, corrected.

Convention: the motion of frame t is the similarity from frame t to frame t - 1 in isotropic
coordinates, as (shift x, shift y, angle_rad, log scale). The camera path of frame t is the
composition from frame t to frame 0 in the same four numbers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepstab.geometry import turn


def accumulate(motion: Float[Tensor, "batch time 4"]) -> Float[Tensor, "batch time 4"]:
    """Sum inter-frame motions up to the camera path, which is zero at the first frame.

    C_t = C_{t-1} o M_t: angles and log scales add up, and every shift is turned into frame 0 by
    the rotation and scale accumulated before it. The first motion is taken as identity.
    """
    motion = torch.cat([torch.zeros_like(motion[:, :1]), motion[:, 1:]], dim=1)
    turned = motion[..., 2:].cumsum(dim=1)
    before = turned - motion[..., 2:]
    shift = turn(motion[..., :2], angle_rad=before[..., 0], log_scale=before[..., 1])
    return torch.cat([shift.cumsum(dim=1), turned], dim=-1)


def correction(
    path: Float[Tensor, "batch time 4"], residual: Float[Tensor, "batch time 4"]
) -> Float[Tensor, "batch time 4"]:
    """Give the similarities from the stabilized frames to the frames as filmed.

    The stabilized path is path - residual, so the correction is C_t^-1 o (C_t - residual).

    Args:
        path: the camera path.
        residual: the part of it to take away.

    Returns:
        Similarities as `deepstab.geometry.similarity_to_theta` takes them.
    """
    shift = turn(-residual[..., :2], angle_rad=-path[..., 2], log_scale=-path[..., 3])
    return torch.cat([shift, -residual[..., 2:]], dim=-1)


def smoothing_matrix(length: int, sigma: float) -> Float[Tensor, "{length} {length}"]:
    """Write Gaussian-weighted local linear regression as a matrix.

    Inside it is the Gaussian low-pass filter; toward the ends it stays unbiased for straight
    lines, where a truncated Gaussian would lag behind every pan.

    Args:
        length: frames.
        sigma: of the Gaussian, frames.

    Returns:
        A matrix whose row t gives the smoothed value at frame t.

    Source: W. Cleveland, Robust locally weighted regression, JASA 1979, with Gaussian weights.
    """
    times = torch.arange(length, dtype=torch.float64)
    offset = times[None, :] - times[:, None]
    weight = torch.exp(-0.5 * (offset / sigma) ** 2)
    s0 = weight.sum(dim=1, keepdim=True)
    s1 = (weight * offset).sum(dim=1, keepdim=True)
    s2 = (weight * offset**2).sum(dim=1, keepdim=True)
    return (weight * (s2 - s1 * offset) / (s0 * s2 - s1**2)).to(torch.float32)


def second_difference(
    signal: Float[Tensor, "batch time *rest"],
) -> Float[Tensor, "batch time-2 *rest"]:
    """Take x[t+1] - 2 x[t] + x[t-1] over time."""
    return signal[:, 2:] - 2 * signal[:, 1:-1] + signal[:, :-2]
