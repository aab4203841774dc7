"""Whole videos: overlapping windows, blended, and the original frames warped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.data.flow import with_flow
from deepstab.errors import CheckpointError
from deepstab.image import Image
from deepstab.models.network import MotionNetwork
from deepstab.pixels import theta_to_pixels
from deepstab.stabilization.estimates import VideoMotion, estimate_motion
from deepstab.stabilization.planning import (
    WOBBLE_SHARE,
    Plan,
    choose_plan,
    path_px,
    plan_corrections,
    stabilized_motion,
)
from deepstab.stabilization.wobble import bend, held_back, quick_part, warp_bent
from deepstab.video.color import Planes
from deepstab.video.frames import probe, read_frames_ahead
from deepstab.video.rewrite import rewrite_planes

AUTO_CROP_FRACTION = 0.2
"""The most that `Crop("auto", ...)` may cut away in `deepstab stabilize` and in the evaluation."""

# Of strength 1: movements of this period are halved, slower ones kept; seconds, and at least so
# many frames where there are few in a second.
_SMOOTHING_S = 2.0
_SMOOTHING_FRAMES = 60
_LEAST_VISIBLE_UNCROPPED = 0.75


@dataclass(frozen=True)
class Crop:
    """How much of the frame may be given up, as a fraction of its sides.

    `auto`: as much as the shake is worth, at most `fraction`, see `choose_plan` in
    `deepstab.stabilization.planning`; `fixed`: exactly `fraction`; `none`: nothing is cut, the edge
    is repeated where nothing was filmed.
    """

    mode: Literal["auto", "none", "fixed"]
    fraction: float


@dataclass(frozen=True)
class Smoothing:
    """How steady a video shall become, and what of the frame may be given up for it.

    Strength 1 is as trained for; less keeps more of the camera's movement, 0 all of it.
    """

    crop: Crop
    strength: float = 1.0


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
    network: MotionNetwork,
    smoothing: Smoothing,
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
        network: says how the camera moved.
        smoothing: how steady, and what may be cut away for it.
        encoding: of the output.
        on_frame: called with "analyze", then "render", once per frame.

    Raises:
        VideoError: the source cannot be read or the destination not written.
        CheckpointError: the network cannot say it.
    """
    planned = plan_file(
        source,
        network,
        smoothing=smoothing,
        on_frame=lambda: on_frame("analyze"),
    )
    thetas = planned.thetas()

    def render(frames: Iterator[Planes]) -> Iterator[Planes]:
        for (luma, *chroma), theta in zip(frames, thetas, strict=True):
            blue, red = warp_images(chroma, theta)
            yield warp_frame(luma, theta), blue, red
            on_frame("render")

    rewrite_planes(
        source,
        destination,
        render,
        crf=encoding.crf,
        preset=encoding.preset,
        comment=str(network.origin),
    )
    return planned.summary()


@dataclass(frozen=True, eq=False)
class PlannedVideo:
    """How the camera of a video moved, where its scenes begin, and what is to be done about it.

    Attributes:
        motion: (num_frames, 4), see `deepstab.trajectory`.
        wobble: (num_frames, 6, 2), its quick part, see `deepstab.stabilization.wobble`.
        cuts: first frames of the scenes after the first.
        plan: the corrections, as similarities.
        aspect: width / height of the frames.
    """

    motion: NDArray[np.float64]
    wobble: NDArray[np.float64]
    cuts: list[int]
    plan: Plan
    aspect: float

    def thetas(self) -> NDArray[np.float64]:
        """The corrections as bent thetas (num_frames, 2, 6), zoom and wobble included."""
        return bend(self.plan.thetas(self.aspect), self.wobble, self.aspect)

    def summary(self) -> Stabilization:
        """What a video becomes by it."""
        return Stabilization(
            num_frames=len(self.motion),
            zoom=self.plan.zoom,
            cuts=tuple(self.cuts),
            input_path=path_px(self.motion, cuts=self.cuts, aspect=self.aspect),
            output_path=path_px(
                stabilized_motion(self.motion, self.plan), cuts=self.cuts, aspect=self.aspect
            ),
        )


def plan_file(
    source: Path,
    network: MotionNetwork,
    *,
    smoothing: Smoothing,
    on_frame: Callable[[], None],
) -> PlannedVideo:
    """See how the camera of a video file moved, in one streaming pass, and plan its corrections.

    Args:
        source: any video.
        network: says how the camera moved.
        smoothing: how steady, and what may be cut away for it.
        on_frame: called once per frame.

    Raises:
        VideoError: the source cannot be read.
        CheckpointError: the network has another head.
    """
    info, params = probe(source), network.params
    head = params.model.head
    if head != "motion":
        raise CheckpointError(
            f"weights of a {head} head cannot stabilize whole videos; use head: motion"
        )
    size = (params.flow.width, params.flow.height)
    with closing(read_frames_ahead(source, size=size)) as small:
        moved = estimate_motion(
            with_flow(_counted(small, on_frame), params.flow),
            network.see_motion,
            aspect=info.width / info.height,
            context_frames=params.model.learned_steps + 1,
        )
    period = smoothing.strength * smoothing_period(float(info.frame_rate))
    share = min(smoothing.strength, 1.0)
    return plan_motion(
        dataclasses.replace(moved, wobble=share * moved.wobble),
        smoothing.crop,
        period=period,
        wobble_sigma=params.model.wobble_sigma,
    )


def plan_motion(
    moved: VideoMotion, crop: Crop, *, period: float, wobble_sigma: float
) -> PlannedVideo:
    """Plan what is to be done about the motion of a video.

    Args:
        moved: how its camera moved.
        crop: what may be cut away.
        period: frames, see `smoothing_period`.
        wobble_sigma: see `deepstab.stabilization.wobble.quick_part`.
    """
    motion, aspect, cuts = moved.motion, moved.aspect, moved.cuts
    wobble = quick_part(moved.wobble, sigma=wobble_sigma, cuts=cuts)
    if crop.mode != "none":
        wobble = held_back(wobble, aspect, WOBBLE_SHARE * crop.fraction)
    if crop.mode == "auto":
        plan = choose_plan(
            motion, wobble, aspect=aspect, period=period, most_cropped=crop.fraction, cuts=cuts
        )
        return PlannedVideo(motion, wobble, cuts, plan, aspect)
    zoom = 1 - crop.fraction if crop.mode == "fixed" else 1.0
    least_visible = zoom if crop.mode == "fixed" else _LEAST_VISIBLE_UNCROPPED
    plan = plan_corrections(
        motion, wobble, aspect=aspect, period=period, least_visible=least_visible, cuts=cuts
    )
    return PlannedVideo(motion, wobble, cuts, dataclasses.replace(plan, zoom=zoom), aspect)


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
        theta: (2, 3), see `deepstab.geometry`, or bent, (2, 6), see
            `deepstab.stabilization.wobble`.
    """
    (warped,) = warp_images([frame], theta)
    return warped


def warp_images(images: Sequence[Image], theta: NDArray[np.float64]) -> list[Image]:
    """Warp images of one size by one theta, each as by `warp_frame`, in less time.

    Args:
        images: frames, or planes of one: of two chroma planes the map is made once.
        theta: as of `warp_frame`.
    """
    if theta.shape[-1] > 3 and theta[:, 3:].any():
        return warp_bent(images, theta)
    height, width = images[0].shape[:2]
    matrix = theta_to_pixels(theta[:, :3], width=width, height=height)
    warped = [
        cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for image in images
    ]
    return [np.asarray(image, np.uint8) for image in warped]


def _counted(frames: Iterator[Image], on_frame: Callable[[], None]) -> Iterator[Image]:
    for frame in frames:
        yield frame
        on_frame()
