"""Fill the flow cache: every pair of a manifest to shards, all cores, only what is new."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
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
    content_key,
    describe_pair,
    new_index,
    write_shards,
)
from deepstab.image import Image
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
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    total = sum(pair.num_frames for pair in new)
    workers = max(1, min(len(os.sched_getaffinity(0)), len(new)))
    # Long videos first: the last one to finish is then a short one.
    new.sort(key=lambda pair: -pair.num_frames)
    with (
        ProcessPoolExecutor(workers, context, _start_worker, (counter,)) as pool,
        progress(total, label="flow", unit="frames") as bar,
    ):
        pending: set[Future[None]] = {
            pool.submit(compute_pair, pair, raw, folders[pair.name], params) for pair in new
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
    entries: list[PairEntry] = []
    destination.mkdir(parents=True)
    for pair in manifest.pairs:
        folder = folders[pair.name]
        prefix = f"{pair.name.replace('/', '_')}-"
        entries.append(describe_pair(pair, folder, prefix=prefix))
        for path in folder.glob("*.arrow"):
            _link(path, destination / (prefix + path.name))
        os.utime(folder)
    new_index(destination, manifest, params, entries)
    _drop_unused(scratch)
    return len(new)


def compute_pair(pair: VideoPair, raw: Path, folder: Path, params: FlowParams) -> None:
    """Decode, resize and compute the flow of one pair, streaming."""
    size = (params.width, params.height)
    unstable = read_frames(raw / pair.unstable.path, size=size)
    stable = read_frames(raw / pair.stable.path, size=size)
    for_flow, for_shard = tee(unstable)

    def frames() -> Iterator[tuple[Image, Image, NDArray[np.float32]]]:
        yield from zip(for_shard, stable, farneback(for_flow, params), strict=False)

    write_shards(
        islice(frames(), pair.num_frames),
        folder,
        params=params,
        source_sha256={"unstable": pair.unstable.sha256, "stable": pair.stable.sha256},
        on_frame=_count_frame,
    )


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
