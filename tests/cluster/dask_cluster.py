"""A real Dask scheduler and worker processes on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.services import free_port

_STARTED_WITHIN_S = 120.0


class DaskCluster:
    """`dask scheduler`, and `dask worker` as often as wanted, each with one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._scheduler = self._start("scheduler", "--port", str(self._port), "--no-dashboard")
        self.workers: list[subprocess.Popen[bytes]] = []

    def add_workers(self, count: int) -> None:
        wanted = self.num_workers() + count
        self.workers += [
            self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
            for _ in range(count)
        ]
        give_up = time.monotonic() + _STARTED_WITHIN_S
        while self.num_workers() < wanted:
            assert time.monotonic() < give_up, (self._folder / "dask.log").read_text()
            time.sleep(0.2)

    def num_workers(self) -> int:
        from distributed import Client

        with Client(self.address, timeout=_STARTED_WITHIN_S, set_as_default=False) as client:
            return len(client.scheduler_info(n_workers=-1)["workers"])

    def kill_scheduler(self) -> None:
        self._end(self._scheduler)

    def stop(self) -> None:
        for process in (*self.workers, self._scheduler):
            self._end(process)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("dask")), kind, *options]
        python_path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        with (self._folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--host", "127.0.0.1"],
                cwd=self._folder,
                env={
                    **os.environ,
                    "PYTHONPATH": python_path,
                    "OMP_NUM_THREADS": "1",
                    "DASK_TEMPORARY_DIRECTORY": str(self._folder),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def dask_cluster(folder: Path, *, num_workers: int) -> Iterator[DaskCluster]:
    """A cluster for the block."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder)
    try:
        cluster.add_workers(num_workers)
        yield cluster
    finally:
        cluster.stop()
