"""How do the manifest, the split and the shard index grow, and what of MLflow and DVC does?

Synthetic entries, no videos: names, hashes and counts as a data set of so many pairs would have
them, three shards to a pair as at the published settings. Every size runs in a process of its own,
so that its peak memory is its own. Prints what docs/scale.md says.

    nice -n 10 python -m benchmarks.scale [--pairs 1000 10000 100000] [--files 5000]
"""

import argparse
import hashlib
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import pyarrow as pa
import skimage

from deepstab.config import FlowParams, SplitParams, load_params
from deepstab.data.flow_cache import compute_pair
from deepstab.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    Split,
    VideoFile,
    VideoPair,
    assign_splits,
)
from deepstab.data.shards import INDEX_NAME, PairEntry, Shard, ShardIndex
from deepstab.experiments.records import Records
from deepstab.files import sha256_of
from deepstab.tracking.store import start_run
from deepstab.video.writer import write_video

NUM_FRAMES, SHARD_FRAMES = 600, (267, 267, 66)
T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What work returns, and its processor seconds and its children's, whatever else runs."""
    start = os.times()
    result = work()
    return result, sum(os.times()[:4]) - sum(start[:4])


def file_of(path: str) -> VideoFile:
    digest = hashlib.sha256(path.encode()).hexdigest()
    return VideoFile(path, digest, NUM_FRAMES, 30.0, 1280, 720)


def pair_of(name: str, split: Split) -> VideoPair:
    stable, unstable = (file_of(f"{side}/{name}.avi") for side in ("stable", "unstable"))
    return VideoPair(name, name, split, stable, unstable, NUM_FRAMES)


def entry_of(pair: VideoPair) -> PairEntry:
    shards, first = [], 0
    for number, count in enumerate(SHARD_FRAMES):
        shards.append(Shard(f"{pair.name}-{number:03d}.arrow", pair.stable.sha256, first, count))
        first += count
    return PairEntry(pair.name, pair.split, 1280, 720, NUM_FRAMES, tuple(shards))


def measure_entries(num_pairs: int, split: SplitParams, flow: FlowParams) -> None:
    """Print a line of seconds, megabytes and the peak memory."""
    scenes = {name: name for name in (f"{number:07d}" for number in range(num_pairs))}
    splits, split_s = timed(lambda: assign_splits(scenes, split))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MANIFEST_NAME
        pairs = tuple(pair_of(name, splits[name]) for name in scenes)
        manifest = Manifest("kaggle", "kaggle", pairs, ())
        _, saved_s = timed(lambda: manifest.save(path))
        index = ShardIndex(
            flow.height, flow.width, manifest.digest(), flow, tuple(map(entry_of, pairs))
        )
        index = replace(index, folder=Path(folder))
        del pairs, manifest
        _, index_saved_s = timed(index.save)
        _, digest_s = timed(index.digest)
        del index
        manifest, loaded_s = timed(lambda: Manifest.load(path))
        index, index_loaded_s = timed(lambda: ShardIndex.load(Path(folder)))
        _, of_split_s = timed(lambda: index.of_split("train"))
        print(
            f"{num_pairs:9d} | {split_s:8.2f} | {megabytes(path):8.1f} {saved_s:7.1f} "
            f"{loaded_s:7.1f} | {megabytes(path.with_name(INDEX_NAME)):8.1f} {index_saved_s:7.1f} "
            f"{index_loaded_s:7.1f} {digest_s:7.1f} {of_split_s:6.2f} | {peak_gb():6.2f}",
            flush=True,
        )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6


def measure_flow(flow: FlowParams, num_frames: int) -> None:
    """Processor seconds and bytes a frame of a 720p pair: a window that sways on a photo."""
    photo = cv2.resize(skimage.data.astronaut(), (1600, 1600), interpolation=cv2.INTER_CUBIC)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, sway in (("stable", 0), ("unstable", 9)):
            corners = [
                (200 + t + round(sway * math.sin(1.3 * t)), 100 + t) for t in range(num_frames)
            ]
            frames = (photo[y : y + 720, x : x + 1280] for x, y in corners)
            write_video(folder / f"{side}.mp4", frames, frame_rate=Fraction(30), crf=20)
        files = [
            VideoFile(path.name, sha256_of(path), num_frames, 30.0, 1280, 720)
            for path in (folder / "stable.mp4", folder / "unstable.mp4")
        ]
        pair = VideoPair("a", "a", "train", *files, num_frames)
        cv2.setNumThreads(1)
        work = partial(compute_pair, pair, folder, folder / "shards", flow)
        _, took_s = timed(lambda: work(on_frame=lambda: None))
        size = sum(path.stat().st_size for path in (folder / "shards").iterdir())
    print(
        f"flow, 720p to {flow.width}x{flow.height}: {1e3 * took_s / num_frames:.1f} ms of "
        f"processor and {size / num_frames / 1e3:.0f} kB a frame of a pair ({num_frames} frames)"
    )


def measure_points(num_points: int) -> None:
    """MLflow's SQLite store: seconds and bytes a metric point."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root / 'mlflow.db'}"
        with start_run(experiment="scale", root=root, outbox=root / "outbox") as tracker:
            tracker.flush()
            before = (root / "mlflow.db").stat().st_size
            for step in range(num_points // 8):
                tracker.log_metrics({f"step/{term}": float(step) for term in range(8)}, step=step)
            _, sent_s = timed(tracker.flush)
            run_id = tracker.run_id
        grown = (root / "mlflow.db").stat().st_size - before
        client = Records(root).client
        _, read_s = timed(lambda: client.get_metric_history(run_id, "step/0"))
    print(
        f"MLflow, SQLite: {1e6 * sent_s / num_points:.0f} us and {grown / num_points:.0f} B a "
        f"point ({num_points} points); one curve of {num_points // 8} points read in {read_s:.2f} s"
    )


def measure_dvc(num_files: int) -> None:
    """DVC: seconds a file for `add` and for a `status` that finds nothing changed."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        for number in range(num_files):
            (data / f"{number:07d}.arrow").write_text(str(number))
        dvc = [sys.executable, "-m", "dvc"]
        subprocess.run([*dvc, "init", "--no-scm", "-q"], cwd=folder, check=True)
        seconds = []
        for command in (["add", "-q", "data"], ["status", "-q"]):
            done, took = timed(lambda: subprocess.run([*dvc, *command], cwd=folder, check=False))  # noqa: B023
            assert done.returncode == 0, command
            seconds.append(1e3 * took / num_files)
    print(f"DVC, {num_files} files: add {seconds[0]:.2f} ms a file, status {seconds[1]:.2f} ms")


def measure_mapped(num_files: int) -> None:
    """Descriptors and mappings that mapped shards hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.arrow"
        path.write_bytes(b"0" * 4096)
        before = open_files()
        kept = [pa.memory_map(str(path)) for _ in range(num_files)]
        held = open_files() - before
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        print(f"mapped shards: {held / len(kept):.0f} descriptor each; {allowed} are allowed here")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--files", type=int, default=5_000)
    args = parser.parse_args()
    params = load_params(Path("params.deepstab.yaml"))
    split = load_params(Path("params.yaml")).data.split
    print("synthetic entries; processor seconds, sizes in MB, peak memory in GB")
    print("    pairs |    split | manifest   saved  loaded |    index   saved  loaded", end="")
    print("  digest select |   peak")
    context = multiprocessing.get_context("spawn")
    for num_pairs in args.pairs:
        process = context.Process(target=measure_entries, args=(num_pairs, split, params.flow))
        process.start()
        process.join()
    measure_flow(params.flow, 60)
    measure_points(8 * args.files)
    measure_dvc(args.files)
    measure_mapped(500)
    print(f"load of the machine meanwhile: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
