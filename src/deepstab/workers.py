"""Work by video: in processes of this machine, or on a Dask cluster where Dask is told of one.

Dask's own configuration names its scheduler: `DASK_SCHEDULER_ADDRESS`, or a file of Dask's. Where
something ran never changes what it made, so that no parameter says it. The workers of a cluster
need the same files at the same paths, and the same deepstab. Each process has one thread for
arithmetic: cores are shared out by video.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeAlias, TypeVar

from deepstab.errors import WorkerError, missing_package

log = logging.getLogger(__name__)

Tick: TypeAlias = Callable[[int], None]
"""Called with the number of units, such as frames, that were done since the last call."""


class Named(Protocol):
    """A job, with the name that errors call it by."""

    @property
    def name(self) -> str:
        """Of the job."""


Job = TypeVar("Job", bound=Named)
Result = TypeVar("Result")
Work: TypeAlias = Callable[[Job, Tick], Result]
_Pool: TypeAlias = tuple[Callable[..., "Future[Any]"], Callable[[], int]]

_VARIABLE = "DASK_SCHEDULER_ADDRESS"
_THREADS = "OMP_NUM_THREADS"
_CONNECT_S = 5
_NEWS_S = 0.25
_CLEANUP_S = 30
# Of a process that does jobs.
_num_ticks: Any = None
_working = _interrupted = False


def run_all(
    work: Work[Job, Result],
    jobs: Sequence[Job],
    *,
    on_done: Callable[[Result], object] = lambda result: None,
    on_tick: Tick = lambda count: None,
) -> list[Result]:
    """Do every job, as many at a time as there are cores, here or on the cluster.

    Args:
        work: a function of a module, or a `functools.partial` of one, called in other processes
            with a job and with what it may tick; as everywhere in multiprocessing, a script that
            calls this needs `if __name__ == "__main__"`.
        jobs: begun in this order.
        on_done: called here with the result of each as it ends.
        on_tick: called here with what all jobs ticked since the last call.

    Returns:
        What the jobs returned, in their order.

    Raises:
        WorkerError: a process died here, or several with the same job on the cluster, or the
            cluster is not there.
        Exception: what a job raised; those not begun are left.
    """
    if not jobs:
        return []
    address, shown = scheduler_address(), 0
    with _processes(len(jobs)) if address is None else _cluster(address) as (submit, ticked):
        futures = {submit(work, job): job for job in jobs}
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=_NEWS_S, return_when=FIRST_COMPLETED)
            for future in done:
                on_done(_result(future, futures[future].name))
            on_tick(ticked() - shown)
            shown = ticked()
    return [future.result() for future in futures]


def scheduler_address() -> str | None:
    """Where the scheduler is, None where none is named.

    Raises:
        WorkerError: one is named, and Dask is not installed.
    """
    if find_spec("distributed") is None:
        if os.environ.get(_VARIABLE):
            raise WorkerError(f"{_VARIABLE} is set: {missing_package('distributed')}")
        return None
    import dask.config

    return dask.config.get("scheduler-address", None) or None


@contextmanager
def _processes(num_jobs: int) -> Iterator[_Pool]:
    """Give what submits a job to processes here, and the number of ticks so far."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    context = get_context("spawn")  # Forked copies of threads would hang.
    counter = context.Value("q", 0)
    workers, others = min(cores or 1, num_jobs), set(active_children())
    with _one_thread_each(), ProcessPoolExecutor(workers, context, _begin, (counter,)) as pool:

        def submit(*call: Any) -> Future[Any]:
            # A process that is started by this holds interrupts back until it can take them.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                return pool.submit(_do_here, *call)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

        try:
            yield submit, lambda: counter.value
        except BaseException:
            ours = set(active_children()) - others
            for process in ours:
                assert process.pid is not None  # active children have one
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
            pool.shutdown(wait=False, cancel_futures=True)
            _end_all(ours)
            raise


def _end_all(processes: Iterable[BaseProcess]) -> None:
    """Let interrupted processes remove what they have begun; one that hangs is killed."""
    give_up = time.monotonic() + _CLEANUP_S
    for process in processes:
        wait_for_end([process.sentinel], max(give_up - time.monotonic(), 0))
    for process in processes:
        process.kill()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that are started have one thread for linear algebra, which is told no later."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_THREADS]
        if before is not None:
            os.environ[_THREADS] = before


def _begin(counter: Any) -> None:
    global _num_ticks
    _num_ticks = counter
    signal.signal(signal.SIGINT, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the job; a process that has none waits to be told that there are no more."""
    global _interrupted
    is_first, _interrupted = not _interrupted, True
    if _working and is_first:  # a second one would interrupt the removal of what it had begun
        raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait_for_end([parent.sentinel])
    os._exit(1)


def _do_here(work: Work[Job, Result], job: Job) -> Result:
    global _working
    _use_one_thread()
    _working = True
    try:
        if _interrupted:
            raise KeyboardInterrupt
        return work(job, _tick_here)
    finally:
        _working = False


def _tick_here(count: int) -> None:
    with _num_ticks.get_lock():
        _num_ticks.value += count


@contextmanager
def _cluster(address: str) -> Iterator[_Pool]:
    """Give what submits a job to the cluster, and the number of ticks so far.

    What a worker that is lost had begun is begun again by another one, three times at most (Dask's
    `distributed.scheduler.allowed-failures`).
    """
    from distributed import Client

    _greet(address)
    counts: dict[str, int] = {}
    topic = f"deepstab-{uuid.uuid4().hex}"
    client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    executor = client.get_executor(pure=False)

    def submit(work: Any, job: Any) -> Future[Any]:
        # Pickled here, the scheduler need not understand it.
        ticker = (topic, uuid.uuid4().hex)
        return executor.submit(_do_there, ticker, _code(), pickle.dumps((work, job)))

    try:
        client.subscribe_topic(topic, lambda event: counts.update([event[1]]))
        yield submit, lambda: sum(list(counts.values()))
    finally:
        executor.shutdown(wait=False)
        client.close()


def _greet(address: str) -> None:
    """Find out within seconds whether a scheduler is there."""
    from distributed import rpc

    async def ask() -> dict[str, Any]:
        async with asyncio.timeout(_CONNECT_S), rpc(address) as scheduler:
            return await scheduler.identity()  # type: ignore[no-any-return]

    try:
        # In a thread, as a notebook's own loop runs in this one.
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(lambda: asyncio.run(ask())).result()
        if found["type"] != "Scheduler":
            raise ValueError(f"a {found['type']} answers")
    # What is no scheduler may answer anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WorkerError(
            f"no Dask scheduler at {address} ({reason}); start one there, or unset {_VARIABLE} to "
            "work on this machine"
        ) from None
    if not found["workers"]:
        log.warning("the Dask scheduler at %s has no worker yet; waiting for one", address)


def _do_there(ticker: tuple[str, str], code: str, pickled: bytes) -> Any:
    """Do one job; called on the workers."""
    from distributed import get_worker

    (topic, key), worker = ticker, get_worker()
    if code != _code():
        raise WorkerError(
            f"worker {worker.address} has another deepstab than this machine; install the same"
        )
    total, sent_s = 0, 0.0

    def tick(count: int) -> None:
        nonlocal total, sent_s
        total += count
        if time.monotonic() - sent_s > _NEWS_S:
            sent_s = time.monotonic()
            worker.log_event(topic, (key, total))

    work, job = pickle.loads(pickled)
    _use_one_thread()
    try:
        result = work(job, tick)
    except FileNotFoundError as error:
        raise WorkerError(
            f"{error.filename} is not there on worker {worker.address}; workers need the same "
            "files at the same paths"
        ) from None
    worker.log_event(topic, (key, total))
    return result


def _result(future: Future[Result], name: str) -> Result:
    """How a job ended, with the errors of pools in words of ours."""
    try:
        return future.result()
    except BrokenProcessPool:
        raise WorkerError(
            "a process died in the middle of its video: there was too little memory, or the video "
            "crashes its decoder; run again to go on"
        ) from None
    except CancelledError:
        raise WorkerError(f"{name}: the scheduler is gone; run again to go on") from None
    except ModuleNotFoundError as error:
        raise WorkerError(
            f"a worker has no {error.name}; install the same deepstab there as here"
        ) from None
    except Exception as error:
        if type(error).__name__ != "KilledWorker":
            raise
        raise WorkerError(
            f"{name}: one worker after another died while it had this; see their logs, run again "
            "to go on"
        ) from None


@functools.cache
def _code() -> str:
    """What all of the package is, its weights included."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _use_one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
