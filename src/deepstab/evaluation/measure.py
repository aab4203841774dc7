"""Measures of a checkpoint on held-out videos, beside the input's own and a baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, tee
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch

from deepstab.config import EvaluateParams
from deepstab.data.manifest import VideoPair
from deepstab.data.truth import Truth
from deepstab.evaluation.corrections import Correction, Inputs, Thetas, correct_video
from deepstab.evaluation.results import ROWS, VideoResult
from deepstab.geometry import compose, corner_shift_px, invert
from deepstab.image import REFERENCE_WIDTH_PX, Image
from deepstab.metrics.image import psnr
from deepstab.metrics.ssim import cropped_ssim
from deepstab.metrics.stability import CameraPath, StabilityScore, score_videos
from deepstab.progress import progress
from deepstab.stabilization.whole_video import warp_frame
from deepstab.trajectory import second_difference
from deepstab.video.frames import read_frames
from deepstab.workers import Tick, run_all


@dataclass(frozen=True, eq=False)
class Measured:
    """A test video's result, and its middle frame: unstable, stabilized and stable."""

    result: VideoResult
    frames: tuple[Image, Image, Image]


def measure_videos(
    pairs: Sequence[VideoPair], inputs: Inputs, params: EvaluateParams
) -> list[Measured]:
    """Measure test videos in one process per core, each with one thread.

    The figures do not depend on the number of processes.

    Args:
        pairs: the test videos.
        inputs: what the checkpoint is measured with.
        params: the evaluate section.

    Returns:
        In the order of the pairs.
    """
    here = Inputs(inputs.raw.absolute(), inputs.shards.absolute(), inputs.checkpoint.absolute())
    with progress(len(pairs), label="evaluate", unit="videos") as bar:
        return run_all(partial(_measure, here, params), pairs, on_done=lambda _: bar.advance())


def _measure(inputs: Inputs, params: EvaluateParams, pair: VideoPair, _tick: Tick) -> Measured:
    return measure_video(pair, inputs, params)


def measure_video(pair: VideoPair, inputs: Inputs, params: EvaluateParams) -> Measured:
    """Stabilize one test video at its own size in every way, and measure all of them.

    The network's rows are shown as `deepstab stabilize` writes them, with the zoom that hides the
    border; stability, jitter, crop, distortion and inter-frame PSNR, defined in
    `deepstab.metrics.stability`, are of that. The baseline is shown at the input's zoom, its edges
    repeated. PSNR (dB) and Cropped SSIM are against the stable recording, over all frames, of the
    corrections without the zoom, because a zoom is not an error of the motion. So are, for
    generated videos, `true_jitter_px` and `true_error_px`, see `true_residual`.

    Args:
        pair: the videos.
        inputs: the checkpoint, and the folder the pair's paths are relative to.
        params: the evaluate section.
    """
    corrections = correct_video(pair, inputs, window_stride=params.window_stride)
    pixels = _PixelMeasures(params.cropped_ssim_border)
    middle: list[tuple[Image, Image, Image]] = []
    shown = _shown_frames(pair, inputs.raw, corrections, pixels, middle)
    before, *after = (
        map(itemgetter(row), copy) for row, copy in zip(ROWS, tee(shown, len(ROWS)), strict=True)
    )
    scores = dict(zip(ROWS[1:], score_videos(before, after), strict=True))
    measures, paths = _by_row(scores)
    measures = pixels.means() | measures
    width, height = pair.unstable.width, pair.unstable.height
    if pair.truth is not None:
        known = Truth.load(inputs.raw / pair.truth.path).correction
        true = torch.from_numpy(known[: pair.num_frames])
        unzoomed = {row: correction.unzoomed for row, correction in corrections.items()}
        measures |= true_residual(unzoomed, true, aspect=width / height)
    result = VideoResult(
        name=pair.name,
        num_frames=pair.num_frames,
        width=width,
        height=height,
        measures=measures,
        paths=paths,
        thetas={row: correction.shown for row, correction in corrections.items()},
    )
    return Measured(result, middle[0])


def true_residual(
    corrections: Mapping[str, Thetas], true: torch.Tensor, *, aspect: float
) -> dict[str, dict[str, float]]:
    """What is left of a known shake.

    Args:
        corrections: row -> thetas (time, 2, 3) without any zoom; the identity: none. What bends
            them beyond that is left out.
        true: (time, 2, 3) from the stable view to the unstable frame.
        aspect: width / height of the video.

    Returns:
        Of every row, px at width 640: `true_jitter_px`, the RMS second difference of what is left
        of the shake at the corners, and `true_error_px`, the RMS distance of the corners from
        where the stable camera has them.
    """
    size = {"width": REFERENCE_WIDTH_PX, "height": REFERENCE_WIDTH_PX / aspect}
    identity = torch.eye(2, 3, dtype=true.dtype).expand_as(true)
    values: dict[str, dict[str, float]] = {"true_jitter_px": {}, "true_error_px": {}}
    for row, thetas in corrections.items():
        # From stabilized to stable view: identity if the correction is the true one.
        left = compose(invert(true), torch.from_numpy(np.array(thetas[..., :3])).to(true))
        acceleration = second_difference(left[None])[0] + identity[2:]
        values["true_jitter_px"][row] = _rms(corner_shift_px(acceleration, **size))
        values["true_error_px"][row] = _rms(corner_shift_px(left, **size))
    return values


def _shown_frames(
    pair: VideoPair,
    raw: Path,
    corrections: Mapping[str, Correction],
    pixels: _PixelMeasures,
    middle: list[tuple[Image, Image, Image]],
) -> Iterator[dict[str, Image]]:
    """Yield every row's frame as shown; hand the unzoomed ones to `pixels`, keep the middle."""
    stable = read_frames(raw / pair.stable.path)
    both = zip(read_frames(raw / pair.unstable.path), stable, strict=False)
    for number, (shaky, wanted) in enumerate(islice(both, pair.num_frames)):
        shown, unzoomed = {"input": shaky}, {"input": shaky}
        for row in ROWS[1:]:
            shown[row] = warp_frame(shaky, corrections[row].shown[number])
            unzoomed[row] = warp_frame(shaky, corrections[row].unzoomed[number])
        pixels.add(unzoomed, wanted)
        if number == pair.num_frames // 2:
            middle.append((shaky, shown["stabilized"], wanted))
        yield shown


def _by_row(
    scores: Mapping[str, StabilityScore],
) -> tuple[dict[str, dict[str, float]], dict[str, CameraPath]]:
    videos = {
        "input": next(iter(scores.values())).input,
        **{row: score.output for row, score in scores.items()},
    }
    measures = {
        "jitter_px": {row: video.jitter_px for row, video in videos.items()},
        "roll_jitter_deg": {row: video.roll_jitter_deg for row, video in videos.items()},
        "stability": {row: video.stability for row, video in videos.items()},
        "interframe_psnr": {row: video.interframe_psnr_db for row, video in videos.items()},
        "crop": {"input": 1.0, **{row: score.crop for row, score in scores.items()}},
        "distortion": {
            "input": 1.0,
            **{row: score.distortion_worst for row, score in scores.items()},
        },
    }
    return measures, {row: video.path for row, video in videos.items()}


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
