"""From a clean clip to a pair of videos: the clip as it is, and as a shaking camera sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepstab.config import ShakenParams
from deepstab.data.faults import (
    Faults,
    draw_faults,
    draw_shown,
    draw_stride,
    lit,
    motion_blur,
    noisy,
    to_image,
)
from deepstab.data.shake import (
    Shake,
    ShakeSize,
    Similarity,
    Size,
    draw_shake,
    own_between,
    room_for,
    see,
    still_view,
    true_correction,
    true_motion,
)
from deepstab.data.truth import Truth
from deepstab.files import remove_partials
from deepstab.image import Image
from deepstab.video.writer import write_video

_STABLE_CRF, _PRESET = 18, "veryfast"


@dataclass(frozen=True)
class Recording:
    """What is drawn of a recording before there are frames.

    Attributes:
        stride: how many frames of the source go to one clean frame.
        frame_rate: of the clean clip and the recording, frames/s.
        shown: which clean frame each frame shows, (num_frames,).
        amplitude: standard deviation of the shake's shift, fraction of the width.
        faults: what else is wrong.
    """

    stride: int
    frame_rate: float
    shown: NDArray[np.intp]
    amplitude: float
    faults: Faults

    @property
    def num_clean(self) -> int:
        """How many clean frames it takes."""
        return int(self.shown[-1]) + 1

    @property
    def room(self) -> float:
        """How much of a clean frame's width is in view."""
        return room_for(self.amplitude)


@dataclass(frozen=True)
class CleanClip:
    """Frames without shake.

    Attributes:
        frames: (height, width, 3) uint8 RGB.
        own: motion of each to the one before it, (num_frames,), px of these frames.
        scale: px of these frames for each px of the recording.
    """

    frames: Sequence[Image]
    own: Similarity
    scale: float


def draw_recording(
    params: ShakenParams, *, frame_rate: float, num_available: int, rng: np.random.Generator
) -> Recording:
    """Draw a recording of a source.

    Args:
        params: lengths, shake and shares of faults.
        frame_rate: of the source, frames/s.
        num_available: frames of the source; a short one gives a short recording, never a slow one.
        rng: source of all randomness.
    """
    stride = draw_stride(params.faults, frame_rate, rng)
    if num_available // stride < params.num_frames:
        stride = 1
    num_clean = num_available // stride
    shown = draw_shown(params.faults, min(params.num_frames, num_clean), rng)
    shown = shown[shown < num_clean]
    low, high = np.log([params.shake_min, params.shake_max])
    return Recording(
        stride=stride,
        frame_rate=frame_rate / stride,
        shown=shown,
        amplitude=float(np.exp(rng.uniform(low, high))),
        faults=draw_faults(params.faults, times_s=shown * stride / frame_rate, rng=rng),
    )


def write_pair(
    folder: Path,
    name: str,
    *,
    clip: CleanClip,
    recording: Recording,
    size: Size,
    rng: np.random.Generator,
) -> None:
    """Write stable/NAME.mp4, unstable/NAME.mp4 and truth/NAME.npz below a folder.

    Both videos show the same moments in the same light; what else a camera does wrong is in the
    unstable one alone.

    Args:
        folder: where to write.
        name: of the pair.
        clip: what is filmed.
        recording: how it is filmed.
        size: of the videos.
        rng: source of all randomness.
    """
    faults, shown = recording.faults, recording.shown
    shake = draw_shake(
        shown / recording.frame_rate,
        frame_rate=recording.frame_rate,
        width=size[0],
        size=ShakeSize(recording.amplitude, faults.readout, clip.scale),
        rng=rng,
    )
    seen = [clip.frames[index] for index in shown]
    sides = {
        "stable": (steady_frames(seen, clip.scale, faults, size), _STABLE_CRF),
        "unstable": (shaken_frames(seen, shake, faults, size, rng), faults.crf),
    }
    rate = Fraction(recording.frame_rate).limit_denominator(1001)
    for side, (frames, crf) in sides.items():
        (folder / side).mkdir(parents=True, exist_ok=True)
        path = folder / side / f"{name}.mp4"
        write_video(path, frames, frame_rate=rate, crf=crf, preset=_PRESET)
    truth = Truth(
        correction=true_correction(shake, size, clip.scale),
        motion=true_motion(shake, own_between(clip.own, shown), size),
        readout=shake.readout,
    )
    (folder / "truth").mkdir(exist_ok=True)
    truth.save(folder / truth_path(name))


def steady_frames(
    clean: Sequence[Image], scale: float, faults: Faults, size: Size
) -> Iterator[Image]:
    """What a camera records of clean frames that does not shake, in the same light."""
    for index, frame in enumerate(clean):
        yield to_image(lit(see(frame, still_view(scale), size), faults, index))


def shaken_frames(
    clean: Sequence[Image], shake: Shake, faults: Faults, size: Size, rng: np.random.Generator
) -> Iterator[Image]:
    """What the shaking, faulty camera records of clean frames."""
    velocity_px = shake.velocity_px()
    for index, frame in enumerate(clean):
        picture = see(frame, shake.views[index], size)
        picture = motion_blur(picture, faults.shutter * velocity_px[index])
        yield to_image(noisy(lit(picture, faults, index), faults, rng))


def remove_unfinished(folder: Path) -> None:
    """Remove what workers that died have begun below a folder of pairs; all others are done."""
    for side in ("stable", "unstable", "truth"):
        remove_partials(folder / side, owner="")


def truth_path(name: str) -> str:
    """Where the truth about a pair lies, relative to the folder of its videos."""
    return f"truth/{name}.npz"
