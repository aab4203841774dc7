"""Measures of a checkpoint on held-out videos, beside the input's own and a baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, tee
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepstab.config import EvaluateParams
from deepstab.data.clips import read_clip
from deepstab.data.manifest import VideoFile, VideoPair
from deepstab.data.shards import PairEntry, ShardIndex, ShardReader
from deepstab.evaluation.baselines import GAUSSIAN_SIGMA_FRAMES, gaussian_path_corrections
from deepstab.geometry import compose, corner_shift_px, invert, pixels_to_theta
from deepstab.metrics.image import cropped_ssim, psnr
from deepstab.metrics.stability import CameraPath, score_videos
from deepstab.models.generator import StabGenerator
from deepstab.stabilize.whole_video import estimate_thetas, warp_frame
from deepstab.trajectory import second_difference
from deepstab.video.frames import read_frames

Image = NDArray[np.uint8]
Thetas = NDArray[np.float64]

ROWS = ("input", "baseline", "stabilized")
"""What every measure is taken of: the video as filmed; tracked corners and a Gaussian path; the
network."""

# Lengths are given at this frame width, as everywhere in the measures.
_WIDTH_PX = 640


@dataclass(frozen=True, eq=False)
class PairResult:
    """One test video.

    Attributes:
        name: of the pair.
        num_frames: that were measured.
        measures: name -> row (of `ROWS`) -> value; crop and distortion compare a video with the
            input, whose own value is 1.
        paths: row -> camera path, as measured on the frames.
        thetas: (num_frames, 2, 3), the network's correction.
        frames: (unstable, stabilized, stable) of the middle of the video.
    """

    name: str
    num_frames: int
    measures: dict[str, dict[str, float]]
    paths: dict[str, CameraPath]
    thetas: Thetas
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
    """Stabilize one test video at its own size, by the network and by the baseline, and measure.

    Both corrections are applied alike: at the input's zoom, edges repeated. PSNR (dB) and Cropped
    SSIM are against the stable recording, over all frames; the rest is defined in
    `deepstab.metrics.stability`. For generated videos also, from the true correction:
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
    unstable = raw / pair.unstable.path
    corrections = {
        "input": np.broadcast_to(np.eye(2, 3), thetas.shape),
        "baseline": _baseline_thetas(unstable, pair.unstable, num_frames=len(thetas)),
        "stabilized": thetas,
    }
    pixels = _PixelMeasures(params.cropped_ssim_border)
    middle = len(thetas) // 2
    shown: list[tuple[Image, Image, Image]] = []

    def corrected() -> Iterator[dict[str, Image]]:
        stable = read_frames(raw / pair.stable.path)
        pairs = zip(read_frames(unstable), stable, strict=False)
        for number, (shaky, wanted) in enumerate(islice(pairs, len(thetas))):
            frames = {row: warp_frame(shaky, corrections[row][number]) for row in ROWS[1:]}
            frames["input"] = shaky
            pixels.add(frames, wanted)
            if number == middle:
                shown.append((shaky, frames["stabilized"], wanted))
            yield frames

    before, *after = (
        map(itemgetter(row), copy)
        for row, copy in zip(ROWS, tee(corrected(), len(ROWS)), strict=True)
    )
    baseline, stabilized = score_videos(before, after)
    videos = {
        "input": stabilized.input,
        "baseline": baseline.output,
        "stabilized": stabilized.output,
    }
    measures = {
        **pixels.means(),
        "jitter_px": {row: videos[row].jitter_px for row in ROWS},
        "roll_jitter_deg": {row: videos[row].roll_jitter_deg for row in ROWS},
        "stability": {row: videos[row].stability for row in ROWS},
        "interframe_psnr": {row: videos[row].interframe_psnr_db for row in ROWS},
        "crop": {"input": 1.0, "baseline": baseline.crop, "stabilized": stabilized.crop},
        "distortion": {
            "input": 1.0,
            "baseline": baseline.distortion_worst,
            "stabilized": stabilized.distortion_worst,
        },
    }
    if pair.truth is not None:
        true = torch.from_numpy(np.load(raw / pair.truth)[: len(thetas)])
        measures |= true_residual(corrections, true, aspect=entry.aspect)
    return PairResult(
        name=pair.name,
        num_frames=len(thetas),
        measures=measures,
        paths={row: videos[row].path for row in ROWS},
        thetas=thetas,
        frames=shown[0],
    )


def true_residual(
    corrections: Mapping[str, Thetas], true: torch.Tensor, *, aspect: float
) -> dict[str, dict[str, float]]:
    """What is left of a known shake.

    Args:
        corrections: row -> thetas (time, 2, 3); the identity: none.
        true: (time, 2, 3) from the stable view to the unstable frame.
        aspect: width / height of the video.

    Returns:
        `true_jitter_px` and `true_error_px` of every row, px at width 640.
    """
    size = {"width": _WIDTH_PX, "height": _WIDTH_PX / aspect}
    identity = torch.eye(2, 3, dtype=true.dtype).expand_as(true)
    values: dict[str, dict[str, float]] = {"true_jitter_px": {}, "true_error_px": {}}
    for row, thetas in corrections.items():
        # From stabilized to stable view: identity if the correction is the true one.
        left = compose(invert(true), torch.from_numpy(np.array(thetas)).to(true))
        acceleration = second_difference(left[None])[0] + identity[2:]
        values["true_jitter_px"][row] = _rms(corner_shift_px(acceleration, **size))
        values["true_error_px"][row] = _rms(corner_shift_px(left, **size))
    return values


def mean_measures(results: list[PairResult]) -> dict[str, dict[str, float]]:
    """Means over videos: name -> row -> value, and jitter ratios.

    `jitter_ratio` is the ratio of the mean jitters; `jitter_ratio_geomean` the geometric mean of
    the videos' own ratios.
    """
    means = {
        name: {
            row: float(np.mean([result.measures[name][row] for result in results])) for row in ROWS
        }
        for name in results[0].measures
    }
    jitter = means["jitter_px"]
    ratios = {
        row: np.array(
            [
                result.measures["jitter_px"][row] / result.measures["jitter_px"]["input"]
                for result in results
            ]
        )
        for row in ROWS
    }
    means["jitter_ratio"] = {row: jitter[row] / jitter["input"] for row in ROWS}
    means["jitter_ratio_geomean"] = {
        row: float(np.exp(np.mean(np.log(ratios[row])))) for row in ROWS
    }
    return means


def _baseline_thetas(unstable: Path, info: VideoFile, *, num_frames: int) -> Thetas:
    frames = islice(read_frames(unstable), num_frames)
    matrices = gaussian_path_corrections(frames, sigma_frames=GAUSSIAN_SIGMA_FRAMES)
    return pixels_to_theta(matrices, width=info.width, height=info.height)


class _PixelMeasures:
    """PSNR and Cropped SSIM of every row's frames against the stable ones."""

    def __init__(self, border: float) -> None:
        self._border = border
        self._values: dict[str, list[tuple[float, float]]] = {row: [] for row in ROWS}

    def add(self, frames: Mapping[str, Image], stable: Image) -> None:
        for row, frame in frames.items():
            ssim = cropped_ssim(frame, stable, border=self._border)
            self._values[row].append((psnr(frame, stable), ssim))

    def means(self) -> dict[str, dict[str, float]]:
        means = {row: np.mean(values, axis=0) for row, values in self._values.items()}
        return {
            name: {row: float(means[row][column]) for row in ROWS}
            for column, name in enumerate(("psnr", "cropped_ssim"))
        }


def _rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())
