"""Fill the flow cache: every pair of a manifest to shards, all cores, only what is new."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from concurrent.futures import Future, ProcessPoolExecutor, wait
from itertools import islice, tee
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.config import FlowParams
from deepstab.data.flow import farneback
from deepstab.data.manifest import Manifest, VideoPair
from deepstab.data.shards import (
    PairEntry,
    ShardIndex,
    content_key,
    describe_pair,
    write_shards,
)
from deepstab.data.truth import Truth
from deepstab.progress import progress
from deepstab.video.frames import read_frames

_UNUSED_DAYS = 14
_frames_done: Any = None


def fill_cache(
    manifest: Manifest, *, raw: Path, destination: Path, scratch: Path, params: FlowParams
) -> int:
    """Compute the shards of every pair, reusing those whose content key is already in scratch.

    Args:
        manifest: the data set.
        raw: folder the manifest's paths are relative to.
        destination: gets the shards and the index; must not exist.
        scratch: per-pair shards by content key, kept between runs.
        params: the flow section.

    Returns:
        Number of pairs computed, the others were reused.

    Raises:
        VideoError: a video does not decode.
        ShardError: a video changed since the manifest was written.
    """
    folders = {pair.name: scratch / content_key(pair, params) for pair in manifest.pairs}
    new = [pair for pair in manifest.pairs if not folders[pair.name].is_dir()]
    _compute_all(new, raw, folders, params)
    destination.mkdir(parents=True)
    ShardIndex(
        folder=destination,
        height=params.height,
        width=params.width,
        manifest_digest=manifest.digest(),
        flow=params,
        pairs=tuple(_place(pair, folders[pair.name], destination) for pair in manifest.pairs),
    ).save()
    _drop_unused(scratch)
    return len(new)


def _compute_all(
    pairs: list[VideoPair], raw: Path, folders: dict[str, Path], params: FlowParams
) -> None:
    """Compute the shards of pairs in a pool of processes, with a bar of the frames done."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    total = sum(pair.num_frames for pair in pairs)
    workers = max(1, min(len(os.sched_getaffinity(0)), len(pairs)))
    with (
        ProcessPoolExecutor(workers, context, _start_worker, (counter,)) as pool,
        progress(total, label="flow", unit="frames") as bar,
    ):
        # Long videos first: the last one to finish is then a short one.
        pending: set[Future[None]] = {
            pool.submit(compute_pair, pair, raw, folders[pair.name], params)
            for pair in sorted(pairs, key=lambda pair: -pair.num_frames)
        }
        shown = 0
        try:
            while pending:
                done, pending = wait(pending, timeout=0.5)
                for future in done:
                    future.result()
                bar.advance(counter.value - shown)
                shown = counter.value
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _place(pair: VideoPair, folder: Path, destination: Path) -> PairEntry:
    """Link the shards of a pair from scratch to where they are read, and describe them."""
    prefix = f"{pair.name.replace('/', '_')}-"
    entry = describe_pair(pair, folder, prefix=prefix)
    for path in folder.glob("*.arrow"):
        _link(path, destination / (prefix + path.name))
    os.utime(folder)
    return entry


def compute_pair(pair: VideoPair, raw: Path, folder: Path, params: FlowParams) -> None:
    """Decode, resize and compute the flow of one pair, streaming."""
    size = (params.width, params.height)
    unstable = read_frames(raw / pair.unstable.path, size=size)
    stable = read_frames(raw / pair.stable.path, size=size)
    for_flow, for_shard = tee(unstable)

    motion = _motion(pair, raw)
    frames = zip(for_shard, stable, farneback(for_flow, params), motion, strict=False)
    write_shards(
        islice(frames, pair.num_frames),
        folder,
        params=params,
        source_sha256={"unstable": pair.unstable.sha256, "stable": pair.stable.sha256},
        on_frame=_count_frame,
    )


def _motion(pair: VideoPair, raw: Path) -> NDArray[np.float32]:
    """The true motion of every frame of a pair, (num_frames, 4); NaN when nothing is known."""
    if pair.truth is None:
        return np.full((pair.num_frames, 4), np.nan, np.float32)
    return Truth.load(raw / pair.truth.path).motion


def _start_worker(counter: Any) -> None:
    global _frames_done
    _frames_done = counter
    # One thread per process: OpenCV's own threads would fight over the cores.
    cv2.setNumThreads(1)


def _count_frame() -> None:
    if _frames_done is not None:
        with _frames_done.get_lock():
            _frames_done.value += 1


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _drop_unused(scratch: Path) -> None:
    oldest = time.time() - _UNUSED_DAYS * 86400
    for folder in scratch.iterdir():
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)
