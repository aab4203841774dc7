"""What the generator says of a whole video: thetas of blended windows, or motion, streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepstab.data.clips import flow_to_tensor, rgb_to_tensor
from deepstab.image import Image
from deepstab.models.generator import StabGenerator
from deepstab.stabilize.scenes import find_cuts, unexplained

# Frames estimated at once.
_FRAMES_AT_ONCE = 64


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


@dataclass(frozen=True, eq=False)
class VideoMotion:
    """How the camera of a video moved.

    Attributes:
        motion: (num_frames, 4), see `deepstab.trajectory`.
        wobble: (num_frames, 6, 2), see `deepstab.models.wobble`.
        cuts: first frames of the scenes after the first, ascending.
        aspect: width / height of the frames.
    """

    motion: NDArray[np.float64]
    wobble: NDArray[np.float64]
    cuts: list[int]
    aspect: float


@torch.no_grad()
def estimate_motion(
    frames: Iterable[tuple[Image, NDArray[np.float32]]],
    generator: StabGenerator,
    *,
    aspect: float,
    context_frames: int,
) -> VideoMotion:
    """The camera's motion and wobble over a whole video, streaming, and where its scenes begin.

    Args:
        frames: (height, width, 3) uint8 RGB of the network's size, each with its flow, see
            `deepstab.data.flow.with_flow`.
        generator: with the motion head, in evaluation mode.
        aspect: width / height.
        context_frames: so many frames to either side have a say on a frame.
    """
    motions: list[NDArray[np.float32]] = []
    wobbles: list[NDArray[np.float32]] = []
    errors: list[tuple[float, float]] = []
    rgb: list[Image] = []
    flow: list[NDArray[np.float32]] = []

    def run(keep: slice) -> None:
        motion, wobble = generator.estimate_motion(
            rgb_to_tensor(np.stack(rgb))[None],
            flow_to_tensor(np.stack(flow))[None],
            torch.tensor([aspect], dtype=torch.float32),
        )
        motions.append(motion[0].numpy()[keep])
        wobbles.append(wobble[0].numpy()[keep])

    done = 0
    for frame, field in frames:
        errors.append(unexplained(rgb[-1], frame, field) if rgb else (0.0, 0.0))
        rgb.append(frame)
        flow.append(field)
        if len(rgb) == _FRAMES_AT_ONCE:
            last = _FRAMES_AT_ONCE - context_frames
            run(slice(done, last))
            rgb, flow = rgb[last - context_frames :], flow[last - context_frames :]
            done = context_frames
    if len(rgb) > done:
        run(slice(done, None))
    motion, wobble = (np.concatenate(parts).astype(np.float64) for parts in (motions, wobbles))
    return VideoMotion(motion, wobble, find_cuts(*np.array(errors).T), aspect)
