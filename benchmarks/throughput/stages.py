"""The flow stage and the reading of clips, beside what the machine can do at best."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from benchmarks.throughput.rows import Row

from deepstab.config import FlowParams
from deepstab.data.flow import farneback
from deepstab.data.flow_cache import fill_cache
from deepstab.data.manifest import Manifest, VideoFile, VideoPair
from deepstab.data.shard_reader import ShardReader
from deepstab.data.shards import ShardIndex
from deepstab.files import sha256_of
from deepstab.video.frames import count_frames, probe, read_frames

_CLIP_FRAMES = 32
_NUM_CLIPS = 200


def measure_stages(
    clips: list[Path], folder: Path, params: FlowParams, repeats: int
) -> Iterator[Row]:
    """Rows of the flow stage on real videos, each taken for both of a pair, and of its shards.

    The limit is measured before each round of the stage, and the fastest of each counts: a machine
    that others use too is not equally fast for long.
    """
    raw = folder / "raw"
    manifest = _pairs_of(clips, raw)
    num_cores = len(os.sched_getaffinity(0))
    num_frames = sum(pair.num_frames for pair in manifest.pairs)
    ways = [params.model_copy(update={"compression": name}) for name in ("none", "zstd")]
    limits: list[float] = []
    stages: dict[str, list[float]] = {way.compression: [] for way in ways}
    for _ in range(repeats):
        limits.append(_work_s(manifest, raw, params) / num_cores)
        for way in ways:
            stages[way.compression].append(_fill_s(manifest, folder, way))
    limit = num_frames / min(limits)
    for way in ways:
        speed = num_frames / min(stages[way.compression])
        yield Row(
            f"flow stage, {way.width}x{way.height}, {num_frames} frames, {way.compression}",
            f"{speed:.0f} pairs of frames/s",
            f"{num_cores} cores / (decode + resize + Farneback)",
            f"{limit:.0f}",
            speed / limit,
        )
        yield _measure_reading(_shards(folder, way), way.compression)


def _shards(folder: Path, params: FlowParams) -> Path:
    return folder / f"shards-{params.compression}"


def _fill_s(manifest: Manifest, folder: Path, params: FlowParams) -> float:
    """Seconds of the stage that finds nothing in its cache."""
    scratch, shards = folder / "scratch", _shards(folder, params)
    for path in (scratch, shards):
        shutil.rmtree(path, ignore_errors=True)
    began = time.perf_counter()
    fill_cache(manifest, raw=folder / "raw", destination=shards, scratch=scratch, params=params)
    return time.perf_counter() - began


def _work_s(manifest: Manifest, raw: Path, params: FlowParams) -> float:
    """Seconds of one core for the least that the stage must do."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    began = time.perf_counter()
    size = (params.width, params.height)
    for pair in manifest.pairs:
        for _ in farneback(read_frames(raw / pair.unstable.path, size=size), params):
            pass
        for _ in read_frames(raw / pair.stable.path, size=size):
            pass
    cv2.setNumThreads(threads)
    return time.perf_counter() - began


def _measure_reading(shards: Path, compression: str) -> Row:
    index = ShardIndex.load(shards)
    reader, rng = ShardReader(index), np.random.default_rng(0)
    wanted = [
        (pair, int(rng.integers(pair.num_frames - _CLIP_FRAMES + 1)))
        for pair in rng.choice(np.array(index.pairs, object), _NUM_CLIPS)
    ]
    # Once, that it is the reading which is timed and not the disk.
    clips = [reader.read(pair, first, _CLIP_FRAMES) for pair, first in wanted]
    room = reader.room(_CLIP_FRAMES)
    num_bytes = sum(array.nbytes for array in room.values())
    read_s, copy_s = np.inf, np.inf
    for _ in range(5):
        began = time.perf_counter()
        for pair, first in wanted:
            reader.read(pair, first, _CLIP_FRAMES, room=room)
        read_s = min(read_s, time.perf_counter() - began)
        began = time.perf_counter()
        for clip in clips:
            # As the reader: from where no cache has it, to the same memory.
            for name, array in clip.items():
                np.copyto(room[name], array)
        copy_s = min(copy_s, time.perf_counter() - began)
    speeds = [_NUM_CLIPS * num_bytes / seconds / 2**30 for seconds in (read_s, copy_s)]
    return Row(
        f"clip of {_CLIP_FRAMES} frames from shards, {compression}",
        f"{speeds[0]:.1f} GiB/s",
        "copy in memory",
        f"{speeds[1]:.1f} GiB/s",
        speeds[0] / speeds[1],
    )


def _pairs_of(clips: list[Path], raw: Path) -> Manifest:
    raw.mkdir(parents=True)
    pairs = []
    for clip in clips:
        (raw / clip.name).symlink_to(clip.resolve())
        info = probe(clip)
        num_frames = count_frames(clip)
        file = VideoFile(
            clip.name,
            sha256_of(clip),
            num_frames,
            float(info.frame_rate),
            info.width,
            info.height,
        )
        pairs.append(
            VideoPair(
                clip.stem, clip.stem, "train", num_frames=num_frames, stable=file, unstable=file
            )
        )
    return Manifest("folder", "folder", tuple(pairs), ())
