"""Thetas of a whole video from windows of the generator: all that the plain regressor can give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepstab.models.generator import StabGenerator


@torch.no_grad()
def estimate_thetas(
    generator: StabGenerator,
    read_window: Callable[[int, int], tuple[Tensor, Tensor]],
    *,
    num_frames: int,
    aspect: float,
    clip_length: int,
    window_stride: int,
) -> NDArray[np.float64]:
    """One theta per frame of a whole video.

    Windows of `clip_length` frames overlap, and their thetas are blended with a Hann window:
    disjoint windows would jump at their seams. A video shorter than a window is padded with its
    last frame at rest.

    Args:
        generator: in evaluation mode.
        read_window: gives num frames from a first frame on as RGB (3, time, height, width) in
            [0, 1] and flow (2, time, height, width), px to the previous frame, at network size.
        num_frames: of the video.
        aspect: width / height of the video as filmed.
        clip_length: frames the generator takes.
        window_stride: frames between the starts of windows, at most clip_length.

    Returns:
        (num_frames, 2, 3).
    """
    length = max(num_frames, clip_length)
    last_start = length - clip_length
    starts = sorted({*range(0, last_start, window_stride), last_start})
    hann = np.sin(np.pi * (np.arange(clip_length) + 0.5) / clip_length) ** 2
    blended = np.zeros((length, 2, 3))
    weights = np.zeros((length, 1, 1))
    for start in starts:
        rgb, flow = read_window(start, min(clip_length, num_frames))
        missing = clip_length - rgb.shape[1]
        if missing:
            rgb = torch.cat([rgb, rgb[:, -1:].expand(-1, missing, -1, -1)], dim=1)
            flow = F.pad(flow, (0, 0, 0, 0, 0, missing))
        theta = generator(rgb[None], flow[None], torch.tensor([aspect]).to(rgb)).theta[0]
        blended[start : start + clip_length] += hann[:, None, None] * theta.double().cpu().numpy()
        weights[start : start + clip_length] += hann[:, None, None]
    return (blended / weights)[:num_frames]
