"""Work by video on a real Dask cluster on loopback: the same bytes as in local processes.

Without `CLUSTER` in the environment, a short version: `make cluster-test` runs all, and
`CLUSTER=same` all but what is timed, which other tests would disturb.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepstab.cli.folder import stabilize_many
from deepstab.cli.options import How
from deepstab.config import Params
from deepstab.data.flow_cache import fill_cache
from deepstab.data.manifest import Manifest
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import MANIFEST_NAME, prepare_data
from deepstab.errors import WorkerError
from deepstab.evaluation.corrections import Inputs
from deepstab.evaluation.measure import measure_videos
from deepstab.workers import Tick, run_all
from tests.cluster.dask_cluster import DaskCluster, dask_cluster
from tests.services import free_port

long = pytest.mark.skipif("CLUSTER" not in os.environ, reason="long: make cluster-test")
timed = pytest.mark.skipif(os.environ.get("CLUSTER") != "1", reason="timed: make cluster-test")


@dataclass(frozen=True)
class Stone:
    """A job that says that it has begun, and takes its time."""

    name: str
    folder: Path
    seconds: float


def drop(job: Stone, tick: Tick) -> str:
    (job.folder / f"{job.name}-{os.getpid()}").touch()
    for _ in range(20):
        time.sleep(job.seconds / 20)
        tick(1)
    return job.name


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("cluster"), num_workers=3) as cluster:
        yield cluster


@pytest.fixture
def on_cluster(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> DaskCluster:
    import dask

    cluster.add_workers(3 - cluster.num_workers())
    monkeypatch.setitem(dask.config.config, "scheduler-address", cluster.address)
    return cluster


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_one(cluster: DaskCluster, folder: Path, pattern: str) -> threading.Thread:
    """Kill a worker as soon as there is a file of a pattern below a folder."""

    def wait_and_kill() -> None:
        give_up = time.monotonic() + 120
        while not any(folder.rglob(pattern)) and time.monotonic() < give_up:
            time.sleep(0.01)
        alive = [worker for worker in cluster.workers if worker.poll() is None]
        begun = {path.name.rpartition("-")[2] for path in folder.rglob(pattern)}
        victims = [worker for worker in alive if str(worker.pid) in begun] or alive
        victims[0].send_signal(signal.SIGKILL)
        victims[0].wait()

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_the_work_of_a_lost_worker_is_done_again(on_cluster: DaskCluster, tmp_path: Path) -> None:
    jobs = [Stone(f"stone{number}", tmp_path, 1.5) for number in range(6)]
    ticked: list[int] = []
    killer = kill_one(on_cluster, tmp_path, "stone2-*")
    names = run_all(drop, jobs, on_tick=ticked.append)
    killer.join()
    assert names == [job.name for job in jobs]
    begun = [path.name.split("-")[0] for path in tmp_path.iterdir()]
    # One worker had one job, and at most one more waiting.
    assert 7 <= len(begun) <= 8
    assert 0 < sum(ticked) <= 6 * 20


def test_it_works_where_a_loop_runs_as_in_a_notebook(
    on_cluster: DaskCluster, tmp_path: Path
) -> None:
    async def cell() -> list[str]:
        return run_all(drop, [Stone("stone", tmp_path, 0.1)])

    # In a thread, as an earlier test's browser may have left a loop here.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: asyncio.run(cell())).result() == ["stone"]


def test_no_scheduler_is_one_line_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    def refused(address: str, said: str) -> None:
        monkeypatch.setitem(dask.config.config, "scheduler-address", address)
        started = time.process_time()
        with pytest.raises(WorkerError, match=said) as caught:
            run_all(drop, [Stone("stone", Path(), 0)])
        assert "\n" not in str(caught.value)
        assert time.process_time() - started < 10

    refused(f"tcp://127.0.0.1:{free_port()}", "no Dask scheduler at .*; start one there, or unset")
    refused("nonsense://there", "unknown address scheme")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        refused(f"127.0.0.1:{deaf.getsockname()[1]}", "no Dask scheduler at")


def test_shards_are_the_same(
    on_cluster: DaskCluster, tiny_raw: Path, tiny_index: ShardIndex, tiny_params: Params,
    tmp_path: Path,
) -> None:  # fmt: skip
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    killer = kill_one(on_cluster, tmp_path, "*.arrow")
    for name in ("killed", "three"):
        num_pairs = fill_cache(
            manifest,
            raw=tiny_raw,
            destination=tmp_path / name,
            scratch=tmp_path / f"scratch {name}",
            params=tiny_params.flow,
        )
        assert num_pairs == len(manifest.pairs)
        assert digests(tmp_path / name) == digests(tiny_index.folder)
        killer.join()
        on_cluster.add_workers(3 - on_cluster.num_workers())


@long
def test_rendered_videos_are_the_same(
    on_cluster: DaskCluster, tiny_raw: Path, tiny_params: Params, tmp_path: Path
) -> None:
    killer = kill_one(on_cluster, tmp_path, "*.part")
    again = {"params": tiny_params.data, "seed": tiny_params.seed, "vgg_weights": "none"}
    for name in ("killed", "three"):
        prepare_data(tmp_path / name, **again)
        killer.join()
        assert digests(tmp_path / name) == digests(tiny_raw)
        on_cluster.add_workers(3 - on_cluster.num_workers())


@long
def test_measures_are_the_same(
    cluster: DaskCluster,
    tiny_raw: Path,
    tiny_index: ShardIndex,
    tiny_params: Params,
    untrained_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import dask

    pairs = Manifest.load(tiny_raw / MANIFEST_NAME).pairs[:3]
    inputs = Inputs(raw=tiny_raw, shards=tiny_index.folder, checkpoint=untrained_weights)
    local = measure_videos(pairs, inputs, tiny_params.evaluate)
    monkeypatch.setitem(dask.config.config, "scheduler-address", cluster.address)
    cluster.add_workers(3 - cluster.num_workers())
    there = measure_videos(pairs, inputs, tiny_params.evaluate)
    assert [one.result.measures for one in there] == [one.result.measures for one in local]


@long
def test_stabilized_videos_are_the_same(
    on_cluster: DaskCluster, tiny_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    how = How("auto", 1.0, None, (18, "veryfast"))
    killer = kill_one(on_cluster, tmp_path, ".deepstab-*.part")
    stabilize_many([tiny_raw / "unstable"], tmp_path / "killed", how)
    killer.join()
    monkeypatch.delitem(dask.config.config, "scheduler-address")
    stabilize_many([tiny_raw / "unstable"], tmp_path / "local", how)
    made = [digests(tmp_path / name) for name in ("local", "killed")]
    for found in made:
        del found["stabilized.jsonl"]  # Its lines are in the order in which they ended.
    assert made[0] == made[1]
    assert len(made[0]) > 1


@long
def test_a_scheduler_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    with dask_cluster(tmp_path / "cluster", num_workers=1) as cluster:
        monkeypatch.setitem(dask.config.config, "scheduler-address", cluster.address)
        jobs = [Stone("stone", tmp_path, 30)]
        timer = threading.Timer(3, cluster.kill_scheduler)
        timer.start()
        with pytest.raises(WorkerError, match="the scheduler is gone; run again to go on"):
            run_all(drop, jobs)
        timer.join()


@timed
def test_two_workers_beside_one(
    tmp_path: Path, tiny_raw: Path, tiny_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prints the ratio; a busy machine is no fault."""
    import dask

    larger = tiny_params.flow.model_copy(update={"width": 448, "height": 448})
    seconds = {}
    for workers in (1, 2):
        with dask_cluster(tmp_path / f"{workers}", num_workers=workers) as cluster:
            monkeypatch.setitem(dask.config.config, "scheduler-address", cluster.address)
            for run in ("warm", "first", "second", "third"):
                place = tmp_path / f"{workers} {run}"
                started = time.monotonic()
                fill_cache(
                    Manifest.load(tiny_raw / MANIFEST_NAME),
                    raw=tiny_raw,
                    destination=place,
                    scratch=place.with_suffix(".scratch"),
                    params=larger,
                )
                taken = time.monotonic() - started
                seconds[workers] = taken if run == "warm" else min(seconds[workers], taken)
    ratio = seconds[1] / seconds[2]
    print(f"flow: 1 worker {seconds[1]:.2f} s, 2 workers {seconds[2]:.2f} s, {ratio:.2f} x")
