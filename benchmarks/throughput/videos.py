"""Whole videos, as typed commands, beside what no stabilizer can do without: one transcode."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.quality.vidstab import vidstab, vidstab_available
from benchmarks.throughput.rows import Row

from deepstab.video.frames import count_frames

CRF, PRESET = 18, "veryfast"
_SECONDS = 30
_HEIGHTS = (720, 1080, 2160)
# Of the larger sizes so many times fewer frames, which take as long.
_FEWER = {720: 1, 1080: 2, 2160: 8}
_PEAK_KIB = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took: s of wall clock, and MiB of resident memory at its peak."""

    wall_s: float
    peak_mib: float


def run(*command: str | Path) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: it fails; its last line.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        # A process of its own, because the peak of one that is forked begins with its parent's.
        done = subprocess.run(
            [sys.executable, "-S", "-c", _PEAK_KIB, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=said,
            check=False,
        )
        wall_s = time.perf_counter() - began
        if done.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace").strip().splitlines()[-1])
    return Cost(wall_s, int(done.stdout) / 1024)


def stabilize(source: Path, destination: Path) -> Cost:
    """As typed."""
    command = Path(sys.executable).with_name("deepstab")
    return run(command, "stabilize", source, destination, "--crf", str(CRF), "--preset", PRESET)


def measure_videos(clip: Path, folder: Path, repeats: int) -> Iterator[Row]:
    """Rows of every size, made of one clip by repeating and scaling it."""
    for height in _HEIGHTS:
        source = repeated(clip, folder, height, _SECONDS / _FEWER[height])
        num_frames = count_frames(source)
        stable = folder / "stable.mp4"
        ours = _fastest(partial(stabilize, source, stable), repeats)
        limits = {"transcode": source, "transcode of the result": stable}
        for name, path in limits.items():
            transcode = _fastest(partial(_transcode, path, folder / "transcoded.mp4"), repeats)
            yield _compared(f"stabilize, {height}p", name, ours, transcode, num_frames)
        if vidstab_available():
            theirs = _fastest(partial(_vidstab, source, folder / "vidstab.mp4"), repeats)
            yield _compared(f"stabilize, {height}p", "vid.stab", ours, theirs, num_frames)
        yield Row(f"peak memory, {height}p", f"{ours.peak_mib:.0f} MiB")
    yield from _measure_growth(clip, folder)


def measure_start() -> Iterator[Row]:
    """How long it takes to say something."""
    python = _fastest(partial(run, sys.executable, "-c", "pass"), 5)
    command = Path(sys.executable).with_name("deepstab")
    for name, typed in {
        "deepstab --help": (command, "--help"),
        "import deepstab": (sys.executable, "-c", "import deepstab"),
    }.items():
        found = _fastest(partial(run, *typed), 5)
        ratio = found.wall_s / python.wall_s
        yield Row(name, f"{found.wall_s:.2f} s", "start of Python", f"{python.wall_s:.2f} s", ratio)


def measure_planning() -> Iterator[Row]:
    """How much more than its frames longer videos cost to plan, in time and memory."""
    counts = (22_500, 180_000)
    short, long = (
        run(sys.executable, "-m", "benchmarks.throughput.planning", str(count)) for count in counts
    )
    yield Row(
        f"plan of one crop, {counts[1]} frames",
        f"{long.wall_s:.1f} s, {long.peak_mib:.0f} MiB",
        f"{counts[0]} frames",
        f"{short.wall_s:.1f} s, {short.peak_mib:.0f} MiB",
        long.wall_s / counts[1] / (short.wall_s / counts[0]),
    )


def _measure_growth(clip: Path, folder: Path) -> Iterator[Row]:
    """Time and memory of four times the frames."""
    costs, counts = [], []
    for seconds in (_SECONDS, 4 * _SECONDS):
        source = repeated(clip, folder, _HEIGHTS[0], seconds)
        costs.append(stabilize(source, folder / "stable.mp4"))
        counts.append(count_frames(source))
    short, long = costs
    per_frame = [cost.wall_s / count for cost, count in zip(costs, counts, strict=True)]
    yield Row(
        f"time a frame, {counts[1]} frames",
        f"{1e3 * per_frame[1]:.1f} ms",
        f"{counts[0]} frames",
        f"{1e3 * per_frame[0]:.1f} ms",
        per_frame[1] / per_frame[0],
    )
    yield Row(
        f"peak memory, {counts[1]} frames",
        f"{long.peak_mib:.0f} MiB",
        f"{counts[0]} frames",
        f"{short.peak_mib:.0f} MiB",
        long.peak_mib / short.peak_mib,
    )


def _compared(name: str, limit: str, ours: Cost, theirs: Cost, num_frames: int) -> Row:
    speeds = [f"{num_frames / cost.wall_s:.1f} frames/s" for cost in (ours, theirs)]
    return Row(name, speeds[0], limit, speeds[1], ours.wall_s / theirs.wall_s)


def repeated(clip: Path, folder: Path, height: int, seconds: float) -> Path:
    """A clip repeated and scaled."""
    path = folder / f"{clip.stem}-{height}p-{seconds:g}.mp4"
    scale = ["-vf", f"scale=-2:{height}:flags=bicubic", "-an", "-t", f"{seconds:g}"]
    encode = ["-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF), "-pix_fmt", "yuv420p"]
    loop = ["-stream_loop", "-1", "-i", clip]
    run("ffmpeg", "-nostdin", "-v", "error", "-y", *loop, *scale, *encode, path)
    return path


def _transcode(source: Path, destination: Path) -> Cost:
    encode = ["-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF)]
    return run("ffmpeg", "-nostdin", "-v", "error", "-y", "-i", source, *encode, destination)


def _vidstab(source: Path, destination: Path) -> Cost:
    began = time.perf_counter()
    vidstab(source, destination, crf=CRF, preset=PRESET)
    return Cost(time.perf_counter() - began, 0.0)


def _fastest(measure: Callable[[], Cost], repeats: int) -> Cost:
    return min((measure() for _ in range(repeats)), key=lambda cost: cost.wall_s)
