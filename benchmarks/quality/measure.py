"""How well videos are stabilized: methods run on a folder of clips, scored, and compared.

Every method reads the same file and writes one with the same encoder settings; what it wrote is
decoded and scored against the clip by `deepstab.metrics.stability`. Nothing is kept between runs.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from benchmarks.clips import find_clips
from benchmarks.quality.rows import GROUPS, INPUT, Row, with_measures, with_score, with_tracks
from benchmarks.quality.vidstab import vidstab
from benchmarks.quality.zoomed import smallest_zoom, warp_frames
from numpy.typing import NDArray

from deepstab.data.clips import flow_to_tensor, rgb_to_tensor
from deepstab.data.flow import farneback
from deepstab.errors import DeepStabError, VideoError
from deepstab.evaluation.baselines import GAUSSIAN_SIGMA_FRAMES, gaussian_path_corrections
from deepstab.evaluation.windows import estimate_thetas
from deepstab.metrics.stability import measure_video, score_videos
from deepstab.metrics.track import track_jitter
from deepstab.models.checkpoints import Checkpoint, load_weights
from deepstab.models.exported import load_shipped
from deepstab.pixels import theta_to_pixels
from deepstab.stabilization.whole_video import Encoding, Smoothing, stabilize_video
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.video.rewrite import rewrite_video
from deepstab.video.writer import write_video

# The common recipe: borders hidden as far as a zoom that is still watched hides them.
_MAX_ZOOM = 1.3


@dataclass(frozen=True)
class Method:
    """A way to stabilize.

    Attributes:
        name: what the rows are called.
        kind: `gaussian` (tracked corners, Gaussian path), `vidstab` (ffmpeg) or `learned` (a
            generator with the motion head by `stabilize_video`; with the plain regressor, which
            has no whole-video path, its thetas as they are, zoomed as `gaussian` is).
        weights: of `learned`: a checkpoint to load, None for the weights that ship.
    """

    name: str
    kind: Literal["gaussian", "vidstab", "learned"]
    weights: str | None = None


@dataclass(frozen=True)
class Settings:
    """What all methods and clips share.

    Attributes:
        smoothing: of the learned methods.
        encoding: of all methods.
        max_frames: frames used of each clip; None for all. A part of a clip is first written
            without loss to a file of its own, without sound.
    """

    smoothing: Smoothing
    encoding: Encoding
    max_frames: int | None


def group_of(clip: Path) -> str:
    """Name the group of a clip, a path in the folder of clips, by the folders it lies in."""
    return next((part for part in clip.parts[:-1] if part in GROUPS), "other")


def measure_folder(
    folder: Path,
    methods: Sequence[Method],
    settings: Settings,
    *,
    num_workers: int,
    on_clip: Callable[[], None],
) -> list[Row]:
    """Run every method on every clip and measure.

    With several workers each process takes one clip at a time, on its share of the cores: the
    figures of quality stay the same, those of speed suffer from the company.

    Args:
        folder: searched for videos, folders in it too.
        methods: what to run; the clip's own figures come in addition.
        settings: what they share.
        num_workers: processes.
        on_clip: called after each clip.

    Returns:
        Rows in order of clip and method. A clip or method that fails has a row with its error.

    Raises:
        DeepStabError: there is no clip, or weights cannot be loaded.
    """
    clips = [path.relative_to(folder) for path in find_clips(folder)]
    for method in methods:
        if method.kind == "learned":
            load_weights(method.weights)  # Fail now, not in every clip.
    if num_workers == 1:
        rows = []
        for clip in clips:
            rows += measure_clip(folder, clip, methods, settings)
            on_clip()
        return rows
    num_threads = max(1, (os.cpu_count() or 1) // num_workers)
    with ProcessPoolExecutor(
        num_workers,
        # A fork would inherit the locks of threads that it does not have.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_limit_threads,
        initargs=(num_threads,),
    ) as pool:
        jobs: list[Future[list[Row]]] = [
            pool.submit(measure_clip, folder, clip, methods, settings) for clip in clips
        ]
        for _ in as_completed(jobs):
            on_clip()
    return [row for job in jobs for row in job.result()]


def measure_clip(
    folder: Path, clip: Path, methods: Sequence[Method], settings: Settings
) -> list[Row]:
    """Run every method on one clip, and measure the clip and what they wrote.

    Args:
        folder: the folder of clips.
        clip: path in it.
        methods: what to run, in this order.
        settings: what they share.

    Returns:
        The clip's own row, then one for each method. Of a clip that cannot be measured only its
        own, with the error.
    """
    row = Row(clip.as_posix(), group_of(clip), INPUT)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            source = folder / clip
            if settings.max_frames is not None:
                source = _first_frames(source, Path(scratch), settings.max_frames)
            info, num_frames = probe(source), count_frames(source)
            row = replace(row, width=info.width, height=info.height, num_frames=num_frames)
        except DeepStabError as error:
            return [replace(row, error=_one_line(error))]
        written: dict[Path, Row] = {}
        failed: list[Row] = []
        for number, method in enumerate(methods):
            target = Path(scratch) / f"{number}.mp4"
            row_of_method = replace(row, method=method.name)
            try:
                written[target] = _run(method, source, target, settings, row_of_method)
            except DeepStabError as error:
                failed.append(replace(row_of_method, error=_one_line(error)))
        try:
            scores = score_videos(read_frames(source), [read_frames(path) for path in written])
            before = scores[0].input if scores else measure_video(read_frames(source))
            tracks_before = track_jitter(read_frames(source))
            tracks = [track_jitter(read_frames(path)) for path in written]
        except (DeepStabError, ValueError) as error:
            return [replace(row, error=_one_line(error)), *failed]
    rows = [
        with_tracks(with_score(row_of_method, score), found, tracks_before)
        for row_of_method, score, found in zip(written.values(), scores, tracks, strict=True)
    ]
    unchanged = with_tracks(row, tracks_before, tracks_before)
    unchanged = replace(unchanged, crop=1.0, distortion_mean=1.0, distortion_worst=1.0)
    order = [method.name for method in methods]
    rows = sorted(rows + failed, key=lambda found: order.index(found.method))
    return [with_measures(unchanged, before, before), *rows]


def _limit_threads(num_threads: int) -> None:
    cv2.setNumThreads(num_threads)
    torch.set_num_threads(num_threads)


def _first_frames(source: Path, scratch: Path, num_frames: int) -> Path:
    """Write the first frames of a video without loss, and return the new file."""
    part = scratch / "input.mp4"
    frames = islice(read_frames(source), num_frames)
    rate = probe(source).frame_rate
    write_video(part, frames, frame_rate=rate, crf=0, preset="ultrafast")
    return part


def _run(method: Method, source: Path, target: Path, settings: Settings, row: Row) -> Row:
    """Stabilize a file, and return the row with the time it took.

    Raises:
        DeepStabError: the method failed, or wrote another number of frames than there are.
    """
    checkpoint = load_weights(method.weights) if method.kind == "learned" else None
    started = time.perf_counter()
    if method.kind == "vidstab":
        encoding = settings.encoding
        vidstab(source, target, crf=encoding.crf, preset=encoding.preset)
    elif checkpoint is None:
        corrections = gaussian_path_corrections(
            read_frames(source), sigma_frames=GAUSSIAN_SIGMA_FRAMES
        )
        _render(source, target, corrections, settings.encoding)
    elif checkpoint.params.model.head == "fc":
        _render(source, target, _regressed_corrections(source, checkpoint), settings.encoding)
    else:
        stabilize_video(
            source,
            target,
            network=checkpoint.network() if method.weights else load_shipped(),
            smoothing=settings.smoothing,
            encoding=settings.encoding,
            on_frame=_ignore,
        )
    seconds = time.perf_counter() - started
    num_frames = count_frames(target)
    if num_frames != row.num_frames:
        raise VideoError(f"{row.num_frames} frames became {num_frames}; they cannot be compared")
    return replace(row, seconds=seconds, frames_per_s=num_frames / seconds)


def _regressed_corrections(source: Path, checkpoint: Checkpoint) -> NDArray[np.float64]:
    """Regress thetas window by window, as the plain regressor was trained; (num_frames, 2, 3), px.

    All frames are held at the network's size: good for clips, not for films.
    """
    info, params = probe(source), checkpoint.params
    small = list(read_frames(source, size=(params.flow.width, params.flow.height)))
    rgb = rgb_to_tensor(np.stack(small))
    flow = flow_to_tensor(np.stack(list(farneback(small, params.flow))))
    thetas = estimate_thetas(
        checkpoint.build_generator(),
        lambda first, count: (rgb[:, first : first + count], flow[:, first : first + count]),
        num_frames=len(small),
        aspect=info.width / info.height,
        clip_length=params.model.clip_length,
        window_stride=params.model.clip_length // 4,
    )
    return theta_to_pixels(thetas, width=info.width, height=info.height)


def _render(
    source: Path, target: Path, corrections: NDArray[np.float64], encoding: Encoding
) -> None:
    """Warp a video by corrections, output -> input in px, at the zoom that hides the borders."""
    info = probe(source)
    zoom = smallest_zoom(corrections, width=info.width, height=info.height, max_zoom=_MAX_ZOOM)
    rewrite_video(
        source,
        target,
        lambda frames: warp_frames(frames, corrections, zoom=zoom),
        crf=encoding.crf,
        preset=encoding.preset,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _ignore(_phase: str) -> None:
    pass
