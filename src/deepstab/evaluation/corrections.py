"""The corrections that are measured: none, the classical baseline's, the network's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepstab.data.clips import read_clip
from deepstab.data.manifest import VideoPair
from deepstab.data.shard_reader import ShardReader
from deepstab.data.shards import ShardIndex
from deepstab.evaluation.baselines import GAUSSIAN_SIGMA_FRAMES, gaussian_path_corrections
from deepstab.evaluation.windows import estimate_thetas
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.generator import StabGenerator, motion_seer
from deepstab.models.network import MotionNetwork
from deepstab.pixels import pixels_to_theta
from deepstab.stabilization.whole_video import AUTO_CROP_FRACTION, Crop, Smoothing, plan_file
from deepstab.video.frames import read_frames

Thetas = NDArray[np.float64]


@dataclass(frozen=True)
class Inputs:
    """Where the things to measure lie: the data's folder, the shards' folder, the checkpoint."""

    raw: Path
    shards: Path
    checkpoint: Path


@dataclass(frozen=True, eq=False)
class Correction:
    """The thetas of one row, as shown, and the same without the zoom.

    (num_frames, 2, 3), or (num_frames, 2, 6) where they are bent, see
    `deepstab.stabilization.wobble`.
    """

    shown: Thetas
    unzoomed: Thetas


def correct_video(pair: VideoPair, inputs: Inputs, *, window_stride: int) -> dict[str, Correction]:
    """The corrections of every row of `ROWS`.

    With the motion head the network's rows are planned as `deepstab stabilize` plans them: the
    unstable file is decoded again and its flow computed from the frames, not read from the
    shards, whose flow is rounded. The plain regressor (`model.head: fc`) knows no motion that
    could be planned; there, as the only way, the thetas of windows that overlap are blended.

    Args:
        pair: the videos.
        inputs: the checkpoint, the shards, and the folder the pair's paths are relative to.
        window_stride: frames between the starts of windows; plain regressor only.
    """
    checkpoint = checkpoints.load(inputs.checkpoint)
    generators = {
        "untrained": initial_generator(checkpoint),
        "stabilized": checkpoint.build_generator(),
    }
    still = np.broadcast_to(np.eye(2, 3), (pair.num_frames, 2, 3))
    baseline = _baseline_thetas(pair, inputs.raw)
    corrections = {"input": Correction(still, still), "baseline": Correction(baseline, baseline)}
    for row, generator in generators.items():
        if checkpoint.params.model.head == "motion":
            network = replace(checkpoint.network(), see_motion=motion_seer(generator))
            corrections[row] = _planned(pair, inputs.raw, network)
        else:
            blended = estimate_thetas(
                generator,
                _window_reader(pair, inputs.shards),
                num_frames=pair.num_frames,
                aspect=pair.unstable.width / pair.unstable.height,
                clip_length=checkpoint.params.model.clip_length,
                window_stride=window_stride,
            )
            corrections[row] = Correction(blended, blended)
    return corrections


def initial_generator(checkpoint: Checkpoint) -> StabGenerator:
    """A generator of the same architecture, initialized with the seed of the training run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checkpoint.made_with["seed"])
        return StabGenerator(checkpoint.params.model).eval()


def _planned(pair: VideoPair, raw: Path, network: MotionNetwork) -> Correction:
    planned = plan_file(
        raw / pair.unstable.path,
        network,
        smoothing=Smoothing(Crop("auto", AUTO_CROP_FRACTION)),
        on_frame=lambda: None,
    )
    uncropped = replace(planned, plan=replace(planned.plan, zoom=1.0))
    shown, unzoomed = (video.thetas()[: pair.num_frames] for video in (planned, uncropped))
    return Correction(shown, unzoomed)


def _window_reader(
    pair: VideoPair, shards: Path
) -> Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]:
    index = ShardIndex.load(shards)
    reader = ShardReader(index)
    entry = next(entry for entry in index.pairs if entry.name == pair.name)

    def read_window(start: int, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        clip = read_clip(reader, entry, start, num_frames)
        return clip["unstable"], clip["flow"]

    return read_window


def _baseline_thetas(pair: VideoPair, raw: Path) -> Thetas:
    frames = islice(read_frames(raw / pair.unstable.path), pair.num_frames)
    matrices = gaussian_path_corrections(frames, sigma_frames=GAUSSIAN_SIGMA_FRAMES)
    return pixels_to_theta(matrices, width=pair.unstable.width, height=pair.unstable.height)
