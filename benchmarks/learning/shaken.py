"""Motion error on real clips shaken by us, where the true motion is known exactly.

Every clip is shaken twice along known paths, once by a camera without faults and once by one that
has them, and each network tells how the camera moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from benchmarks.clips import find_clips
from benchmarks.learning.contest import (
    UNTRAINED,
    Contest,
    Floats,
    Frames,
    header,
    in_processes,
    interval_lines,
    log_ratios,
    mean_line,
    networks,
    over_seeds,
    see_motion,
)
from numpy.typing import NDArray

from deepstab.config import FaultParams, VideosParams
from deepstab.data.flow import with_flow
from deepstab.data.truth import Truth
from deepstab.data.videos import render_videos
from deepstab.geometry import compose, similarity_to_theta
from deepstab.training.losses import motion_error_px
from deepstab.video.frames import probe, read_frames

NUM_FRAMES, WIDTH, SEED = 120, 640, 0
SHAKE_MIN, SHAKE_MAX = 0.002, 0.03  # standard deviation, fraction of the width

# Shares of the clips. They stand here so that an experiment with params.yaml leaves the figures
# of this benchmark comparable.
FAULTS = {
    "clean": FaultParams(**dict.fromkeys(FaultParams.model_fields, 0.0)),
    "faulty": FaultParams(
        rolling_shutter=0.5,
        blur=0.5,
        low_light=0.3,
        exposure=0.25,
        compression=0.6,
        stutter=0.05,
        slow=0.15,
        occluder=0.4,
    ),
}

# The shake alone explains the truth when what it leaves is less than this, half sides of the frame.
_NO_MOTION = 1e-5


@dataclass(frozen=True)
class Recording:
    """A shaken clip: the clip it was made of, a key of `FAULTS`, its file and that of its truth."""

    scene: str
    faults: str
    video: Path
    truth: Path


@dataclass(frozen=True)
class MotionErrors:
    """How far each network's motion is from the true one.

    Attributes:
        scene: the clip that was shaken.
        faults: a key of `FAULTS`.
        locked_off: whether the camera of the clip, as it was, never moved.
        num_known: frames whose true motion is known.
        error_px: by name, see `benchmarks.learning.contest.networks`: mean over these frames and
            five points of each, px at width 640; NaN where there is no such frame.
    """

    scene: str
    faults: str
    locked_off: bool
    num_known: int
    error_px: dict[str, float]

    @property
    def name(self) -> str:
        """What its line is called."""
        return f"{self.scene}, {self.faults}"


def measure_folders(
    folders: Sequence[Path], contest: Contest, *, num_workers: int
) -> list[MotionErrors]:
    """Shake the clips of some folders, and the folders in them, and measure each network.

    Raises:
        DataError: a folder is missing or holds no video.
        VideoError: a video does not decode.
    """
    with TemporaryDirectory() as scratch:
        recordings = shake(folders, Path(scratch))
        measure = partial(measure_recording, contest)
        return in_processes(measure, recordings, label="motion error", num_workers=num_workers)


def shake(folders: Sequence[Path], destination: Path) -> list[Recording]:
    """Render the recordings of the clips of some folders, always the same ones."""
    recordings = []
    for number, folder in enumerate(folders):
        find_clips(folder)  # Says so when the folder does not exist.
        for kind, faults in FAULTS.items():
            place = destination / str(number) / kind
            params = VideosParams(
                folder=str(folder),
                variants=1,
                num_frames=NUM_FRAMES,
                width=WIDTH,
                shake_min=SHAKE_MIN,
                shake_max=SHAKE_MAX,
                faults=faults,
            )
            scenes, truths = render_videos(place, folder=folder, params=params, seed=SEED)
            recordings += [
                Recording(scene, kind, place / "unstable" / f"{name}.mp4", place / truths[name])
                for name, scene in scenes.items()
            ]
    return recordings


def measure_recording(contest: Contest, recording: Recording) -> MotionErrors:
    """Measure how far each network's motion of a recording is from the true one."""
    generators, params = networks(contest)
    info = probe(recording.video)
    aspect = info.width / info.height
    size = (params.flow.width, params.flow.height)
    frames: Frames = list(with_flow(read_frames(recording.video, size=size), params.flow))
    truth = Truth.load(recording.truth)
    error_px = {}
    for name, generator in generators.items():
        motion = see_motion(frames, generator, aspect=aspect, params=params).motion
        errors = known_errors_px(motion, truth.motion, aspect=aspect)
        error_px[name] = float(errors.mean()) if len(errors) else float("nan")
    return MotionErrors(
        scene=recording.scene,
        faults=recording.faults,
        locked_off=was_locked_off(truth, aspect=aspect),
        num_known=len(errors),
        error_px=error_px,
    )


def known_errors_px(motion: Floats, true: NDArray[np.float32], *, aspect: float) -> Floats:
    """The error of each frame that has a known true motion, mean of five points, px at width 640.

    Args:
        motion: (num_frames, 4), see `deepstab.trajectory`.
        true: the same; NaN where unknown. The first frame has no motion and does not count.
        aspect: width / height.
    """
    known = np.isfinite(true).all(axis=-1) & (np.arange(len(true)) > 0)
    ours, theirs = (torch.from_numpy(m[known].astype(np.float64))[None] for m in (motion, true))
    error = motion_error_px(ours, theirs, torch.tensor([aspect], dtype=torch.float64))
    return error.norm(dim=-1).mean(dim=-1)[0].numpy()


def was_locked_off(truth: Truth, *, aspect: float) -> bool:
    """Whether the shake alone explains the truth about a clip.

    `deepstab.data.videos.own_motion` gives a clip that `is_locked_off` no motion of its own at
    all, so that a fixed point of the scene goes through the corrections from frame to frame.
    """
    motion = torch.from_numpy(truth.motion.astype(np.float64))[None]
    to_previous = similarity_to_theta(motion, torch.tensor([aspect], dtype=torch.float64))[0]
    correction = torch.from_numpy(truth.correction)
    carried = compose(to_previous[1:], correction[1:])
    return bool(torch.allclose(carried, correction[:-1], rtol=0, atol=_NO_MOTION))


def report(clips: list[MotionErrors], weights: list[str]) -> str:
    """A table of the clips, locked-off and moving ones apart, with means and intervals."""
    judged = sorted((clip for clip in clips if clip.num_known), key=lambda clip: clip.name)
    lines = [header("[motion error, shaken by us] px at width 640", [UNTRAINED, *weights], weights)]
    intervals = [
        "motion error, trained/untrained: geometric mean, and its 95 % interval by bootstrap over "
        "the clips"
    ]
    kinds: dict[str, Callable[[MotionErrors], bool]] = {
        "locked-off": lambda clip: clip.locked_off,
        "moving": lambda clip: not clip.locked_off,
        "all": lambda _: True,
    }
    for kind, belongs in kinds.items():
        members = [clip for clip in judged if belongs(clip)]
        if not members:
            continue
        if kind != "all":
            lines += [mean_line(clip.name, by_name([clip], weights), weights) for clip in members]
        lines += kind_lines(kind, members, weights)
        intervals += interval_lines(kind, scene_log_ratios(members, weights), weights)
    unknown = [clip.name for clip in clips if not clip.num_known]
    if unknown:
        lines.append(f"left out, as nobody knows how they moved: {'; '.join(unknown)}")
    counted = sum(clip.num_known for clip in judged)
    return "\n".join([*lines, f"{counted} frames with known motion", "", *intervals, ""])


def kind_lines(kind: str, clips: list[MotionErrors], weights: list[str]) -> list[str]:
    """Lines with the geometric means of clips: all of them, and those of each key of `FAULTS`."""
    lines = [mean_line(f"geometric mean, {kind}", by_name(clips, weights), weights)]
    for faults in FAULTS:
        members = [clip for clip in clips if clip.faults == faults]
        if members:
            lines.append(mean_line(f"  {faults}", by_name(members, weights), weights))
    return lines


def scene_log_ratios(clips: list[MotionErrors], weights: list[str]) -> Floats:
    """Logarithms of trained / untrained, (num_weights, num_scenes).

    The recordings of a scene are averaged: they do not vary independently.
    """
    scenes = dict.fromkeys(clip.scene for clip in clips)
    means = [
        log_ratios(by_name([clip for clip in clips if clip.scene == scene], weights), weights)
        for scene in scenes
    ]
    return np.stack([of_scene.mean(axis=1) for of_scene in means], axis=1)


def by_name(clips: list[MotionErrors], weights: list[str]) -> dict[str, Floats]:
    """The errors of each clip, (num_clips,), by name, px."""
    return {
        name: np.array([over_seeds(clip.error_px, name) for clip in clips])
        for name in [UNTRAINED, *weights]
    }
