"""Who has the page open, the queue they stand in, and what lies on the disk for them."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from deepstab.app.job import Made, Settings, Step, process, result_name
from deepstab.errors import ParameterError
from deepstab.metrics.stability import StabilityScore
from deepstab.video.confined import Confinement
from deepstab.video.limits import Limits

_MOST_WAITING = 20


@dataclass(frozen=True)
class Service:
    """What the server may spend.

    Attributes:
        limits: of each video.
        confinement: of the process that works on one.
    """

    limits: Limits
    confinement: Confinement


class Job:
    """A video of a visitor: waiting, under way, made, scored.

    Attributes:
        source: the video.
        settings: what the visitor chose.
        step: how far it is, None while it waits.
        step_began_s: when that phase began, by `time.monotonic`.
        made: the steady video, once it is whole.
        scores: of what was made, or why there are none.
    """

    scores: Future[StabilityScore]

    def __init__(self, source: Path, settings: Settings) -> None:
        self.source, self.settings = source, settings
        self.step: Step | None = None
        self.step_began_s = 0.0
        self.made: Made | None = None
        self._folder: Path | None = None
        self._is_canceled = threading.Event()

    def is_done(self, *, within_s: float) -> bool:
        """Wait for the end, so long at most."""
        return not wait([self.scores], within_s).not_done

    def cancel(self) -> None:
        """Let it end, killing the process that works on it, or never begin."""
        self._is_canceled.set()
        self.scores.cancel()

    def remove(self) -> None:
        """Cancel it, and remove what it made, as soon as it has ended."""
        self.cancel()
        self.scores.add_done_callback(lambda _: self._remove_files())

    def work(self, root: Path, service: Service) -> StabilityScore:
        """Do it, in a new folder below `root`; what is not made whole is removed.

        Raises:
            CancelledError: it was canceled.
            DeepStabError: see `process`.
        """
        self._folder = Path(tempfile.mkdtemp(dir=root, prefix="result-"))
        destination = self._folder / result_name(self.source.name)
        limits, confinement = service.limits, service.confinement
        try:
            with closing(
                process(self.source, destination, self.settings, limits, confinement)
            ) as steps:
                while not self._is_canceled.is_set():
                    self._hear(next(steps))
            raise CancelledError
        except StopIteration as done:
            scores: StabilityScore = done.value
            return scores
        finally:
            if self.made is None:
                self._remove_files()

    def _hear(self, said: Step | Made | None) -> None:
        if isinstance(said, Made):
            self.made = said
        elif said is not None:
            if self.step is None or self.step.phase != said.phase:
                self.step_began_s = time.monotonic()
            self.step = said

    def _remove_files(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Visits:
    """The visitors: one video each, worked on one after another, and their uploads."""

    def __init__(self, root: Path, service: Service) -> None:
        """Begin with nobody.

        Args:
            root: the folder for what is made.
            service: what may be spent.
        """
        self._root, self._service = root, service
        self._turns = ThreadPoolExecutor(max_workers=1)
        self._jobs: dict[str, Job] = {}
        self._uploads: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def upload(self, visitor: str, path: Path) -> None:
        """Note a file as the visitor's, to be removed with the rest."""
        with self._lock:
            self._uploads.setdefault(visitor, set()).add(path)

    def begin(self, visitor: str, source: Path, settings: Settings) -> Job:
        """Queue a visitor's next video, in place of the one before.

        Raises:
            ParameterError: too many are waiting.
        """
        self._end(visitor, kept=source)
        self.upload(visitor, source)
        job = Job(source, settings)
        with self._lock:
            if self._num_unfinished() > _MOST_WAITING:
                raise ParameterError(f"{_MOST_WAITING} videos are waiting; try again later")
            job.scores = self._turns.submit(job.work, self._root, self._service)
            self._jobs[visitor] = job
        return job

    def num_ahead(self, job: Job) -> int:
        """How many must end before a job that waits begins."""
        with self._lock:
            return self._num_unfinished(before=job)

    def cancel(self, visitor: str) -> None:
        """End what is under way or waits; a video that is made stays."""
        if (job := self._jobs.get(visitor)) is not None:
            job.cancel()

    def end(self, visitor: str) -> None:
        """Remove all that a visitor has, as the page was closed."""
        self._end(visitor, kept=None)

    def close(self) -> None:
        """End all work."""
        for job in list(self._jobs.values()):
            job.cancel()
        self._turns.shutdown(cancel_futures=True)

    def _end(self, visitor: str, *, kept: Path | None) -> None:
        with self._lock:
            job = self._jobs.pop(visitor, None)
            gone = self._uploads.pop(visitor, set()) - {kept}
            # Gradio keeps the same upload of two visitors once.
            gone -= set().union(*self._uploads.values())
        if job is not None:
            job.remove()
        for path in gone:
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()

    def _num_unfinished(self, *, before: Job | None = None) -> int:
        # Jobs are in order of their coming.
        jobs = list(self._jobs.values())
        if before in jobs:
            jobs = jobs[: jobs.index(before)]
        return sum(not job.scores.done() for job in jobs)
