"""Measures of a checkpoint on held-out videos, with the unstabilized input's own beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepstab.config import EvaluateParams
from deepstab.data import video
from deepstab.data.clips import read_clip
from deepstab.data.manifest import VideoPair
from deepstab.data.shards import PairEntry, ShardIndex, ShardReader
from deepstab.geometry import compose, corner_shift_px, invert
from deepstab.metrics.image import cropped_ssim, psnr
from deepstab.metrics.stability import CameraPath, score_video
from deepstab.models.generator import StabGenerator
from deepstab.stabilize import estimate_thetas, warp_frame
from deepstab.trajectory import second_difference

Image = NDArray[np.uint8]

# Lengths are given at this frame width, as everywhere in the measures.
_WIDTH_PX = 640


@dataclass(frozen=True)
class PairResult:
    """One test video. `measures` maps a name to (input's value, stabilized video's value);
    crop and distortion compare the two videos, so their input value is 1.

    `frames` are (unstable, stabilized, stable) of the middle of the video.
    """

    name: str
    num_frames: int
    measures: dict[str, tuple[float, float]]
    input_path: CameraPath
    stabilized_path: CameraPath
    frames: tuple[Image, Image, Image]


def evaluate_pair(
    generator: StabGenerator,
    pair: VideoPair,
    entry: PairEntry,
    index: ShardIndex,
    *,
    raw: Path,
    clip_length: int,
    params: EvaluateParams,
) -> PairResult:
    """Stabilize one test video at its own size and measure it.

    PSNR (dB) and Cropped SSIM are against the stable recording, over all frames; the rest is
    defined in `deepstab.metrics.stability`. For generated videos also, from the true correction:
    `true_jitter_px`, the RMS second difference of what is left of the shake at the corners, and
    `true_error_px`, the RMS distance of the corners from where the stable camera has them.

    Args:
        generator: in evaluation mode.
        pair: the videos.
        entry: the same pair's shards.
        index: the shards.
        raw: folder the pair's paths are relative to.
        clip_length: frames the generator takes.
        params: the evaluate section.
    """
    reader = ShardReader(index)

    def read_window(start: int, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        clip = read_clip(reader, entry, start, num_frames)
        return clip["unstable"], clip["flow"]

    thetas = estimate_thetas(
        generator,
        read_window,
        num_frames=entry.num_frames,
        aspect=entry.aspect,
        clip_length=clip_length,
        window_stride=params.window_stride,
    )
    pixels = _PixelMeasures(params.cropped_ssim_border)
    middle = pair.num_frames // 2
    shown: list[tuple[Image, Image, Image]] = []

    def before_and_after() -> Iterator[tuple[Image, Image]]:
        unstable = video.read_frames(raw / pair.unstable.path)
        stable = video.read_frames(raw / pair.stable.path)
        for number, (shaky, wanted, theta) in enumerate(
            zip(unstable, stable, thetas, strict=False)
        ):
            stabilized = warp_frame(shaky, theta)
            pixels.add(shaky, stabilized, wanted)
            if number == middle:
                shown.append((shaky, stabilized, wanted))
            yield shaky, stabilized

    first, second = tee(before_and_after())
    score = score_video((a for a, _ in first), (b for _, b in second))
    measures = {
        **pixels.means(),
        "jitter_px": (score.input.jitter_px, score.output.jitter_px),
        "roll_jitter_deg": (score.input.roll_jitter_deg, score.output.roll_jitter_deg),
        "stability": (score.input.stability, score.output.stability),
        "interframe_psnr": (score.input.interframe_psnr_db, score.output.interframe_psnr_db),
        "crop": (1.0, score.crop),
        "distortion": (1.0, score.distortion_worst),
    }
    if pair.truth is not None:
        true = torch.from_numpy(np.load(raw / pair.truth)[: len(thetas)])
        measures |= true_residual(torch.from_numpy(thetas), true, aspect=entry.aspect)
    return PairResult(
        name=pair.name,
        num_frames=len(thetas),
        measures=measures,
        input_path=score.input.path,
        stabilized_path=score.output.path,
        frames=shown[0],
    )


def true_residual(
    thetas: torch.Tensor, true: torch.Tensor, *, aspect: float
) -> dict[str, tuple[float, float]]:
    """What is left of a known shake.

    Args:
        thetas: (time, 2, 3) estimated.
        true: (time, 2, 3) from the stable view to the unstable frame.
        aspect: width / height of the video.

    Returns:
        `true_jitter_px` and `true_error_px`, each without and with the correction, px at width
        640.
    """
    size = {"width": _WIDTH_PX, "height": _WIDTH_PX / aspect}
    identity = torch.eye(2, 3, dtype=true.dtype).expand_as(true)
    values: dict[str, list[float]] = {"true_jitter_px": [], "true_error_px": []}
    for applied in (identity, thetas):
        # From stabilized to stable view: identity if the correction is the true one.
        left = compose(invert(true), applied)
        acceleration = second_difference(left[None])[0] + identity[2:]
        values["true_jitter_px"].append(_rms(corner_shift_px(acceleration, **size)))
        values["true_error_px"].append(_rms(corner_shift_px(left, **size)))
    return {name: (pair[0], pair[1]) for name, pair in values.items()}


def mean_measures(results: list[PairResult]) -> dict[str, dict[str, float]]:
    """Means over videos: name -> {"input", "stabilized"}, and jitter ratios.

    `jitter_ratio` is the ratio of the mean jitters; `jitter_ratio_geomean` the geometric mean of
    the videos' own ratios.
    """
    means = {
        name: {
            "input": float(np.mean([result.measures[name][0] for result in results])),
            "stabilized": float(np.mean([result.measures[name][1] for result in results])),
        }
        for name in results[0].measures
    }
    jitter = np.array([result.measures["jitter_px"] for result in results])
    ratios = jitter[:, 1] / jitter[:, 0]
    means["jitter_ratio"] = {
        "input": 1.0,
        "stabilized": means["jitter_px"]["stabilized"] / means["jitter_px"]["input"],
    }
    means["jitter_ratio_geomean"] = {
        "input": 1.0,
        "stabilized": float(np.exp(np.mean(np.log(ratios)))),
    }
    return means


class _PixelMeasures:
    """PSNR and Cropped SSIM of the input and the stabilized frame against the stable one."""

    def __init__(self, border: float) -> None:
        self._border = border
        self._rows: list[tuple[float, float, float, float]] = []

    def add(self, unstable: Image, stabilized: Image, stable: Image) -> None:
        self._rows.append(
            (
                psnr(unstable, stable),
                psnr(stabilized, stable),
                cropped_ssim(unstable, stable, border=self._border),
                cropped_ssim(stabilized, stable, border=self._border),
            )
        )

    def means(self) -> dict[str, tuple[float, float]]:
        ratio_in, ratio_out, ssim_in, ssim_out = (float(x) for x in np.mean(self._rows, axis=0))
        return {"psnr": (ratio_in, ratio_out), "cropped_ssim": (ssim_in, ssim_out)}


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())
