"""Clips for the network: windows of consecutive frames, read from shards."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deepstab.data.manifest import Split
from deepstab.data.shard_reader import Column, ShardReader
from deepstab.data.shards import FLOW_SCALE, PairEntry, ShardIndex
from deepstab.errors import ShardError


class Clip(TypedDict):
    """One clip, or a batch of clips with one more axis in front.

    unstable, stable: (3, time, height, width), RGB in [0, 1].
    flow: (2, time, height, width), (dx, dy) px to the previous frame; zero in a video's first.
    motion: (time, 4), the true motion of the unstable camera from each frame to the one before it
        (see `deepstab.trajectory`); NaN where nobody knows, zero in a video's first frame.
    aspect: (), width / height of the video as filmed.
    """

    unstable: Tensor
    stable: Tensor
    flow: Tensor
    motion: Tensor
    aspect: Tensor


def read_clip(
    reader: ShardReader,
    pair: PairEntry,
    first_frame: int,
    num_frames: int,
    *,
    room: dict[str, Column] | None = None,
) -> Clip:
    """Read one window of a pair as tensors, by way of `room` if given, see `ShardReader.read`."""
    arrays = reader.read(pair, first_frame, num_frames, room=room)
    return {
        "unstable": rgb_to_tensor(arrays["unstable"]),
        "stable": rgb_to_tensor(arrays["stable"]),
        "flow": flow_to_tensor(arrays["flow"]) / FLOW_SCALE,
        "motion": torch.tensor(arrays["motion"]),
        "aspect": torch.tensor(pair.aspect, dtype=torch.float32),
    }


def rgb_to_tensor(frames: Column) -> Tensor:
    """(time, height, width, 3) uint8 as (3, time, height, width) in [0, 1]."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2) / 255


def flow_to_tensor(flow: Column) -> Tensor:
    """(time, height, width, 2) as (2, time, height, width)."""
    return torch.from_numpy(flow).permute(3, 0, 1, 2).contiguous()


class RandomClips(Dataset[Clip]):
    """Random windows of the training videos, mirrored at random; a pure function of the seed.

    Every video gives `windows_per_video` windows an epoch. Call `set_epoch` before each.
    """

    def __init__(
        self, index: ShardIndex, *, clip_length: int, windows_per_video: int, seed: int
    ) -> None:
        self._pairs = _long_enough(index, "train", clip_length)
        self._reader = ShardReader(index)
        self._room = self._reader.room(clip_length)
        self._clip_length = clip_length
        self._windows_per_video = windows_per_video
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._pairs) * self._windows_per_video

    def __getitem__(self, item: int) -> Clip:
        rng = np.random.default_rng([self._seed, self._epoch, item])
        pair = self._pairs[item % len(self._pairs)]
        first_frame = int(rng.integers(0, pair.num_frames - self._clip_length + 1))
        clip = read_clip(self._reader, pair, first_frame, self._clip_length, room=self._room)
        for axis, component in ((-1, 0), (-2, 1)):
            if rng.random() < 0.5:
                clip = _mirror(clip, axis=axis, component=component)
        return clip


class HeldOutClips(Dataset[Clip]):
    """All whole windows of a split's videos, one after the other without overlap."""

    def __init__(self, index: ShardIndex, *, split: Split, clip_length: int) -> None:
        self._reader = ShardReader(index)
        self._room = self._reader.room(clip_length)
        self._clip_length = clip_length
        self._windows = [
            (pair, first_frame)
            for pair in _long_enough(index, split, clip_length)
            for first_frame in range(0, pair.num_frames - clip_length + 1, clip_length)
        ]

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, item: int) -> Clip:
        pair, first_frame = self._windows[item]
        return read_clip(self._reader, pair, first_frame, self._clip_length, room=self._room)


def _long_enough(index: ShardIndex, split: Split, clip_length: int) -> tuple[PairEntry, ...]:
    pairs = index.of_split(split)
    short = [f"{p.name} ({p.num_frames} frames)" for p in pairs if p.num_frames < clip_length]
    if short:
        raise ShardError(
            f"{split} videos shorter than model.clip_length {clip_length}: {', '.join(short)}; "
            "remove them or shorten the clips"
        )
    return pairs


def _mirror(clip: Clip, *, axis: int, component: int) -> Clip:
    sign = torch.ones(2)
    sign[component] = -1
    # A mirrored rotation turns the other way.
    of_motion = torch.cat([sign, torch.tensor([-1.0, 1.0])])
    return {
        "unstable": clip["unstable"].flip(axis),
        "stable": clip["stable"].flip(axis),
        "flow": clip["flow"].flip(axis) * sign[:, None, None, None],
        "motion": clip["motion"] * of_motion,
        "aspect": clip["aspect"],
    }
