"""Jobs in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest

from deepstab import workers
from deepstab.errors import ParameterError, WorkerError
from deepstab.workers import Tick, run_all
from tests.conftest import ROOT


@dataclass(frozen=True)
class Number:
    value: int
    folder: Path | None = None

    @property
    def name(self) -> str:
        return f"number {self.value}"


def square(job: Number, tick: Tick) -> tuple[int, int, int]:
    for _ in range(3):
        tick(1)
    if job.value == 2:
        raise ParameterError("two is too many")
    if job.value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    one = {cv2.getNumThreads(), int(os.environ["OMP_NUM_THREADS"])}
    return job.value**2, max(one), os.getpid()


def wait_forever(job: Number, tick: Tick) -> None:
    assert job.folder is not None
    begun = job.folder / f"{os.getpid()}"
    begun.touch()
    try:
        time.sleep(600)
    finally:
        time.sleep(0.5)
        begun.unlink()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie that nobody waits for is gone, too.
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_each_job_has_one_thread_and_all_are_counted() -> None:
    ticked: list[int] = []
    done: list[int] = []
    results = run_all(
        square,
        [Number(n) for n in (4, 0, 1)],
        on_done=lambda result: done.append(result[0]),
        on_tick=ticked.append,
    )
    assert [result[:2] for result in results] == [(16, 1), (0, 1), (1, 1)]
    assert os.getpid() not in {pid for _, _, pid in results}
    assert all(gone(pid) for _, _, pid in results)
    assert sorted(done) == [0, 1, 16]
    assert sum(ticked) == 9


def test_an_error_ends_all() -> None:
    with pytest.raises(ParameterError, match="two is too many"):
        run_all(square, [Number(2), Number(1)])


def begin_then_fail(job: Number, tick: Tick) -> None:
    assert job.folder is not None
    begun = job.folder / f"{job.value}.part"
    if job.value == 0:
        while not (job.folder / "1.part").exists():
            time.sleep(0.01)
        raise ParameterError("zero")
    begun.touch()
    try:
        time.sleep(600)
    finally:
        time.sleep(0.5)  # longer than the caller would take to look
        begun.unlink()


def test_where_one_fails_the_others_remove_what_they_have_begun(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    with pytest.raises(ParameterError, match="zero"):
        run_all(begin_then_fail, [Number(0, tmp_path), Number(1, tmp_path)])
    assert not list(tmp_path.iterdir())
    assert "Traceback" not in capfd.readouterr().err


def hang_or_fail(job: Number, tick: Tick) -> None:
    assert job.folder is not None
    if job.value == 0:
        while not list(job.folder.iterdir()):
            time.sleep(0.01)
        raise ParameterError("zero")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (job.folder / f"{os.getpid()}").touch()
    time.sleep(600)


def test_one_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    monkeypatch.setattr(workers, "_CLEANUP_S", 0.5)
    with pytest.raises(ParameterError, match="zero"):
        run_all(hang_or_fail, [Number(0, tmp_path), Number(1, tmp_path)])
    (begun,) = tmp_path.iterdir()
    give_up = time.monotonic() + 60
    while not gone(int(begun.name)) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert gone(int(begun.name))


def test_a_process_that_dies_is_one_line() -> None:
    with pytest.raises(
        WorkerError, match=r"a process died in the middle of its video: .*run again"
    ):
        run_all(square, [Number(3)])


def test_nothing_is_started_for_nothing() -> None:
    assert run_all(square, []) == []


@pytest.mark.parametrize(
    ("number", "kill"),
    [(signal.SIGINT, os.kill), (signal.SIGINT, os.killpg), (signal.SIGKILL, os.kill)],
)
def test_children_end_with_their_parent(
    number: int, kill: Callable[[int, int], None], tmp_path: Path
) -> None:
    script = (
        "import signal\n"
        "from pathlib import Path\n"
        "from deepstab.workers import run_all\n"
        "from tests.unit.test_workers import Number, wait_forever\n"
        "if __name__ == '__main__':\n"
        # What is started in a background may be told to ignore it.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    run_all(wait_forever, [Number(1, Path({str(tmp_path)!r}))])\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    python_path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, path],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": python_path},
        start_new_session=True,
    ) as parent:
        children: list[int] = []
        give_up = time.monotonic() + 120
        while not children and parent.poll() is None and time.monotonic() < give_up:
            children = [int(found.name) for found in tmp_path.iterdir() if found.name.isdigit()]
            time.sleep(0.05)
        kill(parent.pid, number)
    assert children
    while not all(gone(pid) for pid in children) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert all(gone(pid) for pid in children)
    if number == signal.SIGINT:
        assert [path.name for path in tmp_path.iterdir()] == ["script.py"]
