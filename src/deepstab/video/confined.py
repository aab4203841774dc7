"""Work on a stranger's video in a process of its own, which can be killed.

libav decodes in the process that calls it: a file made for it may make it use all memory, or never
return. `Limits` refuse what a header tells; this holds what none does. Memory is held on Linux
alone, where RLIMIT_DATA counts all that a process allocates.

This is no sandbox: the process has all rights of its user, and its answer comes back as a pickle.
Against a file that takes a decoder over, run the whole of it in a container without network.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from deepstab.errors import DeepStabError, VideoError
from deepstab.files import OWNER_VARIABLE, remove_partials

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
# torch, OpenCV and threads say it in errors of their own.
_OUT_OF_MEMORY = re.compile("memory|alloc|map segment|start new thread", re.IGNORECASE)
_GRACE_S = 2
_LOOK_EVERY_S = 0.2
_sender: Connection | None = None


@dataclass(frozen=True)
class Confinement:
    """What one call may take.

    Attributes:
        memory_bytes: beyond what the child process has when the call begins, the module of the
            called function imported.
        time_s: s by the clock, from then to the answer.
    """

    memory_bytes: int
    time_s: float

    def __post_init__(self) -> None:
        """Refuse limits that nothing can keep."""
        if self.memory_bytes <= 0 or not 0 < self.time_s < math.inf:
            raise ValueError(f"{self}: give memory and time above 0")

    def run(
        self,
        call: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Call a function in a child process, which is gone afterwards, and all it started.

        What it wrote to a temporary name beside a path among its arguments, or to the folder for
        temporary files, is removed.

        Args:
            call: a function of a module, such as `deepstab.video.frames.probe`; as everywhere in
                multiprocessing, a script that calls this needs `if __name__ == "__main__"`.
            args: of the call; can be pickled, as can be what it returns.
            kwargs: the same.

        Returns:
            What the call returns.

        Raises:
            VideoError: it took too much memory or time, or broke off.
            Exception: what the call raises.
        """
        steps = self.steps(call, *args, **kwargs)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                answer: Answer = done.value
                return answer

    def steps(
        self,
        call: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Generator[Any, None, Answer]:
        """As `run`, for whoever wants to know how far it is, or to stop it: closed, it is killed.

        Yields:
            What the call gives to `say`, and None several times a second.
        """
        named = ", ".join(str(arg) for arg in (*args, *kwargs.values()) if isinstance(arg, Path))
        work = f"{call.__name__} of {named}" if named else call.__name__
        owner = uuid.uuid4().hex
        context = multiprocessing.get_context("spawn")
        answers, sender = context.Pipe(duplex=False)
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                process = context.Process(
                    target=_serve, args=(sender, self, owner, scratch, call, args, kwargs)
                )
                process.start()
                sender.close()
                try:
                    return (yield from self._wait(answers, process, work))
                finally:
                    _kill(process)
        finally:
            answers.close()
            for arg in (*args, *kwargs.values()):
                if isinstance(arg, Path):
                    remove_partials(arg if arg.is_dir() else arg.parent, owner=owner)

    def _wait(
        self, answers: Connection, process: BaseProcess, work: str
    ) -> Generator[Any, None, Any]:
        outcome: str = "says"
        value: Any = None
        try:
            answers.recv()  # the call begins
            give_up = time.monotonic() + self.time_s
            while outcome == "says":
                yield value
                if time.monotonic() > give_up:
                    raise self._too_slow(work)
                is_there = answers.poll(_LOOK_EVERY_S)
                outcome, value = answers.recv() if is_there else ("says", None)
        except EOFError:
            process.join(_GRACE_S)
            code = process.exitcode
            if code == -signal.SIGALRM:
                raise self._too_slow(work) from None
            how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
            raise VideoError(
                f"{work} broke off ({how}): the file crashes its decoder, or takes more than the "
                f"{self.memory_bytes} bytes of memory allowed"
            ) from None
        match outcome:
            case "returned":
                return value
            case "memory":
                raise VideoError(
                    f"{work} takes more than the {self.memory_bytes} bytes of memory allowed; "
                    "allow more, or scale the video down"
                )
        raise value

    def _too_slow(self, work: str) -> VideoError:
        return VideoError(
            f"{work} takes more than the {self.time_s:g} s allowed; allow more, or shorten the "
            "video"
        )


def say(value: object) -> None:
    """Tell whoever waits for a confined call; of the call itself, and nothing elsewhere."""
    if _sender is not None:
        _sender.send(("says", value))


def _serve(
    sender: Connection,
    confinement: Confinement,
    owner: str,
    scratch: str,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """The child's side: send that it begins, and how it ended, see `Confinement.run`."""
    import resource

    import psutil

    global _sender
    _sender = sender
    os.setsid()  # what it starts is killed with it
    # Ends it where the parent is gone that would have.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(confinement.time_s) + _GRACE_S)
    os.environ[OWNER_VARIABLE] = owner
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most_bytes = psutil.Process().memory_info().data + confinement.memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    sender.send(("begins", None))
    try:
        outcome: tuple[str, Any] = "returned", call(*args, **kwargs)
    except MemoryError:
        outcome = "memory", None
    except DeepStabError as error:
        outcome = "raised", error
    except Exception as error:
        out_of_memory = _OUT_OF_MEMORY.search(str(error)) is not None
        outcome = ("memory", None) if out_of_memory else ("raised", error)
    sender.send(outcome)


def _kill(process: BaseProcess) -> None:
    """End a child and its group; its number is not given away before it is waited for."""
    assert process.pid is not None
    with suppress(ProcessLookupError, PermissionError):  # it has not come to setsid
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
