"""What a run still has to send, kept on disk so that neither a server nor a process can lose it."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, Self

from filelock import FileLock, Timeout

from deepstab.files import whole_or_absent

Status = Literal["FINISHED", "FAILED", "KILLED"]
Point = tuple[str, float, int, int]  # name, value, time in ms since 1970, step
Tag = tuple[str, str]

_SENT = ".sent"  # what is removed is called that before
# What locking raises if another process removes the folder under it, as one that was left.
_TAKEN_AWAY = (FileNotFoundError, FileExistsError)
_RECORDS_PER_REQUEST = 500  # MLflow takes 1000


class Destination(Protocol):
    """Where an outbox is emptied to; each call may be repeated after a failure."""

    def send_records(self, run_id: str, points: list[Point], tags: list[Tag]) -> None: ...
    def send_status(self, run_id: str, status: Status, end_ms: int) -> None: ...
    def send_file(self, run_id: str, path: Path, folder: str) -> None: ...
    def send_model(self, run_id: str, folder: Path) -> None: ...


class Outbox:
    """Metric points, tags, artifacts, models and the status that one process sends for one run.

    Points and tags are lines of a journal, and a cursor says how many of its bytes were sent.
    Artifacts are copies in a folder laid out as in the run, removed once sent. The process holds a
    lock as long as it lives; the outbox of one that ended, however it ended, can be adopted.
    """

    def __init__(self, folder: Path, *, run_id: str, uri: str) -> None:
        self.folder, self.run_id, self.uri = folder, run_id, uri
        self._journal, self._cursor = folder / "journal.jsonl", folder / "sent"
        self._files, self._status = folder / "files", folder / "status.json"
        self._models = folder / "models"
        self._owner = FileLock(folder / "owner.lock", thread_local=False)
        self._sending, self._writing = threading.Lock(), threading.Lock()

    @classmethod
    def create(cls, parent: Path, *, run_id: str, uri: str) -> Self:
        """Make an empty outbox for a run of the store at a URI."""
        box = cls(parent / f"{run_id}-{uuid.uuid4().hex[:8]}", run_id=run_id, uri=uri)
        parent.mkdir(parents=True, exist_ok=True)  # where it cannot be, this fails for good
        while not box._owner.is_locked:
            with suppress(*_TAKEN_AWAY):
                box._owner.acquire()
        with whole_or_absent(_address(box.folder)) as partial:
            partial.write_text(json.dumps({"run_id": run_id, "uri": uri}), "utf-8")
        return box

    @classmethod
    def adopt(cls, folder: Path, *, uri: str, running: str) -> Self | None:
        """Take over the outbox that a process which ended left, or None if it is not one.

        Args:
            folder: a possible outbox.
            uri: the store it must be meant for.
            running: a run that goes on, so its status is not sent.
        """
        if folder.suffix == _SENT:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        if not folder.is_dir():
            return None
        box = cls(folder, run_id=running, uri=uri)
        try:
            box._owner.acquire(timeout=0)
        except (Timeout, *_TAKEN_AWAY):
            return None
        if not _address(folder).exists():  # its owner was killed making it, or just removed it
            box.release(remove=True)
            return None
        address = json.loads(_address(folder).read_text("utf-8"))
        box.run_id, box.uri = address["run_id"], address["uri"]
        if box.uri != uri:
            box.release(remove=False)
            return None
        if box.run_id == running:
            box._status.unlink(missing_ok=True)
        elif not box._status.exists():
            box.end("KILLED")
        return box

    def append(self, *, points: Iterable[Point] = (), tags: Iterable[Tag] = ()) -> None:
        """Add metric points and tags to the journal."""
        records = [*({"point": point} for point in points), *({"tag": tag} for tag in tags)]
        lines = [json.dumps(record) + "\n" for record in records]
        with self._writing, self._journal.open("a", encoding="utf-8") as journal:
            journal.write("".join(lines))

    def put(self, artifact: str, write: Callable[[Path], object]) -> None:
        """Add an artifact, or replace one of the same path that waits.

        Args:
            artifact: path among the run's artifacts.
            write: writes the file to the path it is given, which has the artifact's suffix.

        Raises:
            ValueError: the path leads out of the run's artifacts.
        """
        name = PurePosixPath(artifact)
        if name.is_absolute() or ".." in name.parts or not name.name:
            raise ValueError(f"artifact {artifact!r}: use a path relative to the run's artifacts")
        draft = self.folder / f"{uuid.uuid4().hex}{name.suffix}"
        write(draft)
        with self._writing:
            (self._files / name).parent.mkdir(parents=True, exist_ok=True)
            draft.replace(self._files / name)

    def put_model(self, source: Path) -> None:
        """Add a copy of a saved model, to be sent whole."""
        draft = self.folder / uuid.uuid4().hex
        shutil.copytree(source, draft)
        self._models.mkdir(exist_ok=True)
        # A folder of its own for each: one that is being sent is not replaced.
        (self._models / draft.name).mkdir()
        draft.replace(self._models / draft.name / source.name)

    def end(self, status: Status) -> None:
        """Set the final status, to be sent with the rest."""
        self._status.write_text(json.dumps([status, now_ms()]), "utf-8")

    def deliver(self, destination: Destination) -> None:
        """Send points and tags, the status if it is set, artifacts and models, in this order.

        What is added meanwhile is left for the next time: work that adds points faster than they
        are sent would otherwise never let it come to the artifacts.

        Raises:
            Exception: the first that the destination raised; what was not sent stays.
        """
        with self._sending:
            end = self._journal.stat().st_size if self._journal.exists() else 0
            while self._num_sent() < end and (lines := self._unsent_lines()):
                records = [json.loads(line) for line in lines]
                destination.send_records(
                    self.run_id,
                    points=[tuple(record["point"]) for record in records if "point" in record],
                    tags=[tuple(record["tag"]) for record in records if "tag" in record],
                )
                self._cursor.write_text(str(self._num_sent() + sum(map(len, lines))), "ascii")
            if self._status.exists():
                destination.send_status(self.run_id, *json.loads(self._status.read_text("utf-8")))
            paths = [path for path in sorted(self._files.rglob("*")) if path.is_file()]
            errors = [self._deliver_file(path, destination) for path in paths]
            models = sorted(self._models.glob("*/*"))
            errors += [self._deliver_model(folder, destination) for folder in models]
            for error in filter(None, errors):
                raise error

    def release(self, *, remove: bool) -> None:
        """Let go of the outbox, and delete it if all was sent."""
        if remove:
            # Half removed it would be no outbox and stay for ever.
            sent = self.folder.with_name(f"{self.folder.name}-{uuid.uuid4().hex[:8]}{_SENT}")
            with suppress(FileNotFoundError):
                self.folder.replace(sent)
            shutil.rmtree(sent, ignore_errors=True)
        self._owner.release()

    def _num_sent(self) -> int:
        try:
            return int(self._cursor.read_text("ascii"))
        except (FileNotFoundError, ValueError):  # nothing sent, or cut off: sending again is safe
            return 0

    def _unsent_lines(self) -> list[bytes]:
        with self._journal.open("rb") as journal:
            journal.seek(self._num_sent())
            lines = list(islice(journal, _RECORDS_PER_REQUEST))
        return [line for line in lines if line.endswith(b"\n")]  # a killed process may leave half

    def _deliver_file(self, path: Path, destination: Destination) -> Exception | None:
        folder = path.parent.relative_to(self._files).as_posix()
        before = path.stat()
        try:
            destination.send_file(self.run_id, path, "" if folder == "." else folder)
        except Exception as error:  # one that is refused does not hold up the others
            return error
        with self._writing:
            now = path.stat()
            if (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                path.unlink()  # else a newer one took its place meanwhile
        return None

    def _deliver_model(self, folder: Path, destination: Destination) -> Exception | None:
        try:
            destination.send_model(self.run_id, folder)
        except Exception as error:  # as for files
            return error
        shutil.rmtree(folder.parent)
        return None


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _address(folder: Path) -> Path:
    return folder / "address.json"
