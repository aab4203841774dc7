"""How far the flow at a point can be believed, from the frames themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from deepstab.geometry import cell_centers

# Structure tensors are averaged over so many px, and count half at this eigenvalue.
_TEXTURE_WINDOW = 5
_TEXTURE_HALF = 1e-4
# Farneback misses by a gray level or five where it is right; this difference counts half.
_AGREEMENT_HALF = 0.01


def texture(
    rgb: Float[Tensor, "batch 3 time height width"],
) -> Float[Tensor, "batch 1 time height width"]:
    """How far a point's motion can be seen, in [0, 1): from the structure tensor.

    Args:
        rgb: in [0, 1].

    Returns:
        Its smaller eigenvalue over itself plus a constant.

    Source: J. Shi and C. Tomasi, Good features to track, CVPR 1994.
    """
    gray = rgb.mean(dim=1, keepdim=True)
    dx = F.pad(gray[..., :, 2:] - gray[..., :, :-2], (1, 1)) / 2
    dy = F.pad(gray[..., 2:, :] - gray[..., :-2, :], (0, 0, 1, 1)) / 2
    xx, yy, xy = (_averaged(product) for product in (dx * dx, dy * dy, dx * dy))
    smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).clamp(min=1e-12).sqrt()
    smaller = smaller.clamp(min=0)
    return smaller / (smaller + _TEXTURE_HALF)


def agreement(
    rgb: Float[Tensor, "batch 3 time height width"],
    flow: Float[Tensor, "batch 2 time height width"],
) -> Float[Tensor, "batch 1 time height width"]:
    """How well the previous frame, carried by the flow, explains a frame, in (0, 1].

    Where Farneback's method carries a moving object's flow into a flat background, or loses a
    large displacement, it does not.

    Args:
        rgb: in [0, 1].
        flow: (dx, dy) px to the previous frame.

    Returns:
        1 / (1 + (difference / half)^2); the first frame has no previous one and is compared with
        itself.
    """
    batch, _, time, height, width = rgb.shape
    previous = torch.cat([rgb[:, :, :1], rgb[:, :, :-1]], dim=2)
    to_normalized = flow.new_tensor([2 / width, 2 / height])
    points = cell_centers(height, width).to(flow) + flow.permute(0, 2, 3, 4, 1) * to_normalized
    carried = F.grid_sample(
        previous.transpose(1, 2).flatten(0, 1),
        points.flatten(0, 1),
        padding_mode="border",
        align_corners=False,
    )
    carried = carried.unflatten(0, (batch, time)).transpose(1, 2)
    difference = (carried - rgb).abs().mean(dim=1, keepdim=True)
    return 1 / (1 + (difference / _AGREEMENT_HALF).square())


def _averaged(
    maps: Float[Tensor, "batch 1 time height width"],
) -> Float[Tensor, "batch 1 time height width"]:
    # Frame by frame, as in `deepstab.models.cells`.
    window, pad = _TEXTURE_WINDOW, _TEXTURE_WINDOW // 2
    return F.avg_pool2d(maps.squeeze(1), window, stride=1, padding=pad).unsqueeze(1)
