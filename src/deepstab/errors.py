"""Errors a user can act on: each says what was wrong, the value, and the remedy.

DeepStabError
├── ParameterError        params.yaml: unknown, missing or impossible value
├── DataError             a data set, pair or manifest cannot be used
│   ├── CredentialsError  Kaggle credentials are missing or refused
│   ├── DownloadError     a transfer failed or arrived damaged
│   └── VideoError        one video file cannot be read or written
├── ShardError            the flow cache is missing, damaged or of another layout
├── CheckpointError       weights are missing, damaged or of another architecture
├── TrainingError         training cannot go on (a loss is not finite)
├── WorkerError           a process died in the middle of its work, or a cluster is not there
└── TrackingError         MLflow cannot be reached or refuses
    ├── RegistryError     a model is not registered, or cannot be promoted
    └── RerunError        a run cannot be rebuilt
"""

from __future__ import annotations

import logging
import os
import reprlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_US = "deepstab"
_INTERRUPTED = "interrupted; run again to go on"


class DeepStabError(Exception):
    """Base of every error whose message is meant for the user, in one line."""

    def __str__(self) -> str:
        """The message in one line, whatever the names in it hold."""
        return printable(super().__str__())


class ParameterError(DeepStabError):
    """A parameter is unknown, missing, of the wrong type, or impossible."""


class DataError(DeepStabError):
    """A data set, a pair of videos or a manifest cannot be used."""


class CredentialsError(DataError):
    """Kaggle credentials are missing or refused."""


class DownloadError(DataError):
    """A transfer failed or arrived damaged."""


class VideoError(DataError):
    """One video file cannot be read or written."""


class ShardError(DeepStabError):
    """The flow cache is missing, damaged or of another layout."""


class CheckpointError(DeepStabError):
    """Weights are missing, damaged or belong to another architecture."""


class TrainingError(DeepStabError):
    """Training cannot go on."""


class WorkerError(DeepStabError):
    """A process died in the middle of its work, or the cluster is not there."""


class TrackingError(DeepStabError):
    """MLflow cannot be reached or refuses a request."""


class RegistryError(TrackingError):
    """A model is not in the registry, or cannot be promoted."""


class RerunError(TrackingError):
    """A run cannot be rebuilt."""


class _Short(reprlib.Repr):
    """Of a few lines of YAML that stand for gigabytes, and of numbers Python does not print."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 1000 else hex(x)[:20] + "..."


def short_repr(value: object) -> str:
    """A value as it is shown in a message, however large it is."""
    return _SHORT.repr(value)


_SHORT = _Short()
_SHORT.maxlevel = 1


def first_problem(error: ValidationError) -> str:
    """Say in one line what was found first in a file that is not as it should be."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "content"
    return f"{where}: {first['msg']}, found {short_repr(first['input'])}"


@contextmanager
def one_line(*, interrupted: str = "interrupted") -> Iterator[None]:
    """Let what goes wrong in the expected ways be one line on stderr, without a traceback.

    Args:
        interrupted: the line after an interrupt.

    Raises:
        SystemExit: with code 1 after a `DeepStabError` or where a package is not installed, 130
            after an interrupt.
    """
    try:
        yield
    except DeepStabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in sys.stdlib_module_names | {_US}:
            raise
        print(f"error: {missing_package(error.name)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def missing_package(module: str) -> str:
    """Say which package is not installed and what brings it."""
    package = module.partition(".")[0]
    extra = {"gradio": "app", "distributed": "cluster"}.get(package, "pipeline")
    return f"{package} is not installed, which this needs; pip install 'deepstab[{extra}]'"


def printable(text: str) -> str:
    """A text without what ends a line, moves a cursor or turns the direction of reading."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


@contextmanager
def stage_imports() -> Iterator[None]:
    """Let an interrupt end the process with one line while a stage imports what it needs.

    At once and without an exception, of which extension modules would make an ImportError.
    """
    before = signal.signal(signal.SIGINT, _leave)
    yield
    signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    print(_INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(130)


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage; a `DeepStabError` becomes one line on stderr and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("deepstab").setLevel(logging.INFO)
    with one_line(interrupted=_INTERRUPTED):
        stage()
