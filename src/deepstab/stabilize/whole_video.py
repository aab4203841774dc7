"""Whole videos: overlapping windows, blended, and the original frames warped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepstab.config import NetworkParams
from deepstab.data.clips import flow_to_tensor, rgb_to_tensor
from deepstab.data.flow import with_flow
from deepstab.errors import CheckpointError
from deepstab.geometry import theta_to_pixels
from deepstab.models.checkpoints import Checkpoint, Origin
from deepstab.models.generator import StabGenerator
from deepstab.stabilize.planning import (
    Plan,
    choose_plan,
    path_px,
    plan_corrections,
    stabilized_motion,
)
from deepstab.stabilize.scenes import find_cuts, unexplained
from deepstab.video.ahead import ahead
from deepstab.video.color import Planes
from deepstab.video.frames import probe, read_frames
from deepstab.video.rewrite import rewrite_planes

Image = NDArray[np.uint8]

AUTO_CROP_FRACTION = 0.2
"""The most that `Crop("auto", ...)` may cut away in `deepstab stabilize` and in the evaluation."""

# Of strength 1: movements of this period are halved, slower ones kept; seconds, and at least so
# many frames where there are few in a second.
_SMOOTHING_S = 2.0
_SMOOTHING_FRAMES = 60
_LEAST_VISIBLE_UNCROPPED = 0.75
# The encoder's early features reach this many frames to either side.
_CONTEXT_FRAMES = 2


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


@torch.no_grad()
def estimate_motion(
    frames: Iterable[tuple[Image, NDArray[np.float32]]],
    generator: StabGenerator,
    *,
    aspect: float,
    clip_length: int,
) -> tuple[NDArray[np.float64], list[int]]:
    """The camera's motion over a whole video, streaming, and where its scenes begin.

    Args:
        frames: (height, width, 3) uint8 RGB of the network's size, each with its flow, see
            `deepstab.data.flow.with_flow`.
        generator: with the motion head, in evaluation mode.
        aspect: width / height.
        clip_length: frames the generator sees at once.

    Returns:
        (num_frames, 4), see `deepstab.trajectory`; and the first frames of later scenes.
    """
    motions: list[NDArray[np.float32]] = []
    errors: list[tuple[float, float]] = []
    rgb: list[Image] = []
    flow: list[NDArray[np.float32]] = []

    def run(keep: slice) -> None:
        motion = generator.estimate_motion(
            rgb_to_tensor(np.stack(rgb))[None],
            flow_to_tensor(np.stack(flow))[None],
            torch.tensor([aspect], dtype=torch.float32),
        )
        motions.append(motion[0].numpy()[keep])

    done = 0
    for frame, field in frames:
        errors.append(unexplained(rgb[-1], frame, field) if rgb else (0.0, 0.0))
        rgb.append(frame)
        flow.append(field)
        if len(rgb) == clip_length:
            last = clip_length - _CONTEXT_FRAMES
            run(slice(done, last))
            rgb, flow = rgb[last - _CONTEXT_FRAMES :], flow[last - _CONTEXT_FRAMES :]
            done = _CONTEXT_FRAMES
    if len(rgb) > done:
        run(slice(done, None))
    return np.concatenate(motions).astype(np.float64), find_cuts(*np.array(errors).T)


@dataclass(frozen=True)
class Crop:
    """How much of the frame may be given up, as a fraction of its sides.

    `auto`: as much as the shake is worth, at most `fraction`, see `choose_plan` in
    `deepstab.stabilize.planning`; `fixed`: exactly `fraction`; `none`: nothing is cut, the edge is
    repeated where nothing was filmed.
    """

    mode: Literal["auto", "none", "fixed"]
    fraction: float


@dataclass(frozen=True)
class Encoding:
    """x264's constant rate factor and preset."""

    crf: int
    preset: str


@dataclass(frozen=True, eq=False)
class Stabilization:
    """What was done to a video.

    `zoom` is the side of the part of the frame that is shown; the paths are (num_frames, 4):
    x, y (px at width 640), roll (rad), log zoom, summed up from the first frame.
    """

    num_frames: int
    zoom: float
    cuts: tuple[int, ...]
    input_path: NDArray[np.float64]
    output_path: NDArray[np.float64]


def stabilize_video(
    source: Path,
    destination: Path,
    *,
    checkpoint: Checkpoint,
    crop: Crop,
    strength: float,
    encoding: Encoding,
    on_frame: Callable[[str], None],
) -> Stabilization:
    """Stabilize a video file: one pass to see how the camera moved, one to write.

    Both passes stream: memory does not grow with the length of the video, but for the numbers of
    its path. Audio, timestamps and tags are kept, see `deepstab.video.rewrite`; a line of the
    comment says which weights did it.

    Args:
        source: any video.
        destination: .mp4, .m4v, .mov or .mkv; appears when it is complete.
        checkpoint: of a generator with the motion head.
        crop: what may be cut away.
        strength: 1 as trained for, less keeps more of the camera's movement, 0 all of it.
        encoding: of the output.
        on_frame: called with "analyze", then "render", once per frame.

    Raises:
        VideoError: the source cannot be read or the destination not written.
        CheckpointError: the weights do not fit.
    """
    planned = plan_file(
        source,
        checkpoint.build_generator(),
        network=checkpoint.params,
        crop=crop,
        strength=strength,
        on_frame=lambda: on_frame("analyze"),
    )
    motion, cuts, plan, aspect = planned.motion, planned.cuts, planned.plan, planned.aspect
    thetas = plan.thetas(aspect)

    def render(frames: Iterator[Planes]) -> Iterator[Planes]:
        for (luma, blue, red), theta in zip(frames, thetas, strict=True):
            yield warp_frame(luma, theta), warp_frame(blue, theta), warp_frame(red, theta)
            on_frame("render")

    rewrite_planes(
        source,
        destination,
        render,
        crf=encoding.crf,
        preset=encoding.preset,
        comment=str(Origin(checkpoint.run_id, checkpoint.generator_sha256())),
    )
    return Stabilization(
        num_frames=len(motion),
        zoom=plan.zoom,
        cuts=tuple(cuts),
        input_path=path_px(motion, cuts=cuts, aspect=aspect),
        output_path=path_px(stabilized_motion(motion, plan), cuts=cuts, aspect=aspect),
    )


@dataclass(frozen=True, eq=False)
class PlannedVideo:
    """How the camera of a video moved, where its scenes begin, and what is to be done about it.

    `motion` is (num_frames, 4), see `deepstab.trajectory`; `aspect` width / height of the frames.
    """

    motion: NDArray[np.float64]
    cuts: list[int]
    plan: Plan
    aspect: float


def plan_file(
    source: Path,
    generator: StabGenerator,
    *,
    network: NetworkParams,
    crop: Crop,
    strength: float,
    on_frame: Callable[[], None],
) -> PlannedVideo:
    """See how the camera of a video file moved, in one streaming pass, and plan its corrections.

    Args:
        source: any video.
        generator: with the motion head, in evaluation mode.
        network: the parameters of the generator and of its flow.
        crop: what may be cut away.
        strength: as of `stabilize_video`.
        on_frame: called once per frame.

    Raises:
        VideoError: the source cannot be read.
        CheckpointError: the generator has another head.
    """
    info = probe(source)
    aspect = info.width / info.height
    head = network.model.head
    if head != "motion":
        raise CheckpointError(
            f"weights of a {head} head cannot stabilize whole videos; use head: motion"
        )
    size = (network.flow.width, network.flow.height)
    with closing(ahead(read_frames(source, size=size))) as small:
        motion, cuts = estimate_motion(
            with_flow(_counted(small, on_frame), network.flow),
            generator,
            aspect=aspect,
            clip_length=network.model.clip_length,
        )
    period = strength * smoothing_period(float(info.frame_rate))
    plan = plan_video(motion, crop, aspect=aspect, period=period, cuts=cuts)
    return PlannedVideo(motion, cuts, plan, aspect)


def plan_video(
    motion: NDArray[np.float64], crop: Crop, *, aspect: float, period: float, cuts: list[int]
) -> Plan:
    """Plan the corrections of a video, and the zoom that goes with the crop.

    Args:
        motion: (num_frames, 4), see `deepstab.stabilize.planning`.
        crop: what may be cut away.
        aspect: width / height of the video.
        period: frames, see `smoothing_period`.
        cuts: first frames of the scenes after the first, ascending.
    """
    if crop.mode == "auto":
        return choose_plan(
            motion, aspect=aspect, period=period, most_cropped=crop.fraction, cuts=cuts
        )
    zoom = 1 - crop.fraction if crop.mode == "fixed" else 1.0
    least_visible = zoom if crop.mode == "fixed" else _LEAST_VISIBLE_UNCROPPED
    plan = plan_corrections(
        motion, aspect=aspect, period=period, least_visible=least_visible, cuts=cuts
    )
    return dataclasses.replace(plan, zoom=zoom)


def smoothing_period(frame_rate: float) -> float:
    """The period, frames, of the movements that strength 1 halves.

    Args:
        frame_rate: frames/s.
    """
    return max(_SMOOTHING_S * frame_rate, _SMOOTHING_FRAMES)


def warp_frame(frame: Image, theta: NDArray[np.float64]) -> Image:
    """Warp one frame of any size; outside, its edge is repeated.

    Args:
        frame: (height, width, 3) uint8, or one plane of it, (height, width).
        theta: (2, 3), see `deepstab.geometry`.
    """
    height, width = frame.shape[:2]
    warped = cv2.warpAffine(
        frame,
        theta_to_pixels(theta, width=width, height=height),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(warped, np.uint8)


def _counted(frames: Iterator[Image], on_frame: Callable[[], None]) -> Iterator[Image]:
    for frame in frames:
        yield frame
        on_frame()
