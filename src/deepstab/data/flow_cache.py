"""Fill the flow cache: every pair of a manifest to shards, all cores, only what is new."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice, tee
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepstab.config import FlowParams
from deepstab.data.flow import farneback
from deepstab.data.manifest import Manifest, VideoPair
from deepstab.data.shards import (
    PARTIAL,
    PairEntry,
    ShardIndex,
    content_key,
    describe_pair,
    is_whole,
    write_shards,
)
from deepstab.data.truth import Truth
from deepstab.errors import ShardError
from deepstab.files import sha256_of
from deepstab.progress import progress
from deepstab.video.frames import read_frames
from deepstab.workers import Tick, run_all

log = logging.getLogger(__name__)

_UNUSED_DAYS = 14


def fill_cache(
    manifest: Manifest, *, raw: Path, destination: Path, scratch: Path, params: FlowParams
) -> int:
    """Compute the shards of every pair, reusing those in scratch that are whole.

    Several processes may fill from one scratch at once.

    Args:
        manifest: the data set.
        raw: folder the manifest's paths are relative to.
        destination: gets the shards and the index; must not exist.
        scratch: per-pair shards by content key, kept between runs.
        params: the flow section.

    Returns:
        Number of pairs computed; of the others the shards were there, or are those of a pair of
        the same content.

    Raises:
        VideoError: a video does not decode.
        ShardError: a video changed since the manifest was written, or scratch cannot be written.
    """
    folders = {pair.name: scratch / content_key(pair, params) for pair in manifest.pairs}
    with _among_others(scratch, needed=folders.values()):
        # Videos of the same content share their shards.
        new = {
            folders[pair.name]: pair
            for pair in manifest.pairs
            if not _is_cached(pair, folders[pair.name])
        }
        _compute_all(new, raw, params)
        destination.mkdir(parents=True)
        ShardIndex(
            folder=destination,
            height=params.height,
            width=params.width,
            manifest_digest=manifest.digest(),
            flow=params,
            pairs=tuple(_place(pair, folders[pair.name], destination) for pair in manifest.pairs),
        ).save()
    return len(new)


@contextmanager
def _among_others(scratch: Path, *, needed: Iterable[Path]) -> Iterator[None]:
    """Share scratch with other processes; one that is alone there tidies up before it begins."""
    scratch.mkdir(parents=True, exist_ok=True)
    for folder in needed:
        with suppress(FileNotFoundError):
            os.utime(folder)
    with (scratch / "in_use.lock").open("w") as lock:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _tidy_up(scratch)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _tidy_up(scratch: Path) -> None:
    """Remove what killed writers left, and shards that nobody used for long."""
    oldest = time.time() - _UNUSED_DAYS * 86400
    for folder in scratch.iterdir():
        if folder.suffix == PARTIAL or folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def _is_cached(pair: VideoPair, folder: Path) -> bool:
    """Whether the shards of a pair are there; damaged ones are removed, and named."""
    if not folder.is_dir():
        return False
    whole = is_whole(pair, folder)
    if not whole:
        log.warning("%s: cached flow of pair %s is damaged; computing it again", folder, pair.name)
        shutil.rmtree(folder)
    return whole


def _compute_all(pairs: dict[Path, VideoPair], raw: Path, params: FlowParams) -> None:
    """Compute shards (folder -> pair) of every pair, with a bar of the frames done."""
    total = sum(pair.num_frames for pair in pairs.values())
    # Long videos first: the last one to finish is then a short one.
    longest = sorted(pairs.items(), key=lambda item: -item[1].num_frames)
    jobs = [_Job(pair, folder.absolute()) for folder, pair in longest]
    with progress(total, label="flow", unit="frames") as bar:
        run_all(partial(_compute, raw.absolute(), params), jobs, on_tick=bar.advance)


@dataclass(frozen=True)
class _Job:
    """A pair, and the folder for its shards."""

    pair: VideoPair
    folder: Path

    @property
    def name(self) -> str:
        return f"pair {self.pair.name}"


def _compute(raw: Path, params: FlowParams, job: _Job, tick: Tick) -> None:
    compute_pair(job.pair, raw, job.folder, params, on_frame=lambda: tick(1))


def _place(pair: VideoPair, folder: Path, destination: Path) -> PairEntry:
    """Link the shards of a pair from scratch to where they are read, and describe them."""
    prefix = f"{pair.name.replace('/', '_')}-"
    entry = describe_pair(pair, folder, prefix=prefix)
    for path, shard in zip(sorted(folder.glob("*.arrow")), entry.shards, strict=True):
        _link(path, destination / shard.file)
    return entry


def compute_pair(
    pair: VideoPair,
    raw: Path,
    folder: Path,
    params: FlowParams,
    *,
    on_frame: Callable[[], None],
) -> None:
    """Decode, resize and compute the flow of one pair, streaming.

    Raises:
        VideoError: a video does not decode.
        ShardError: a file is not the one of the manifest.
    """
    for file in (pair.unstable, pair.stable, *([pair.truth] if pair.truth else ())):
        if sha256_of(raw / file.path) != file.sha256:
            raise ShardError(
                f"{raw / file.path}: changed after download; run the download stage again"
            )
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
        on_frame=on_frame,
    )


def _motion(pair: VideoPair, raw: Path) -> NDArray[np.float32]:
    """The true motion of every frame of a pair, (num_frames, 4); NaN when nothing is known."""
    if pair.truth is None:
        return np.full((pair.num_frames, 4), np.nan, np.float32)
    return Truth.load(raw / pair.truth.path).motion


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
