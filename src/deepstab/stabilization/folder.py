"""Many videos: which file becomes which, and what is done already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepstab.errors import ParameterError, VideoError
from deepstab.files import sha256_of
from deepstab.video.writer import FORMATS

JOURNAL_NAME = "stabilized.jsonl"
"""In the folder of the results: one line for each that is done, or could not be."""

SUFFIXES = (
    ".3gp",
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".mxf",
    ".ogv",
    ".ts",
    ".webm",
    ".wmv",
)
"""Of what is taken for a video in a folder."""

_SUFFIX_OF_OTHERS = ".mp4"


@dataclass(frozen=True)
class Task:
    """One video, and where it goes; `name` is that within the folder of the results."""

    name: str
    source: Path
    destination: Path


@dataclass(frozen=True)
class Settings:
    """What a result depends on besides its input; see `deepstab.stabilize`."""

    crop: str
    strength: float
    crf: int
    preset: str
    generator_sha256: str


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        name: of the task.
        source_sha256: of the input.
        result_sha256: of the output; empty where there is none.
        settings: as `Settings`.
        figures: name -> value, of the score.
        error: why there is no result; empty if there is.
    """

    name: str
    source_sha256: str
    result_sha256: str
    settings: dict[str, Any]
    figures: dict[str, float]
    error: str = ""


def plan(sources: Sequence[Path], results: Path) -> tuple[list[Task], list[Path]]:
    """Which videos there are, and where they go.

    Args:
        sources: videos, and folders of videos, whose subfolders are kept.
        results: folder to write to.

    Returns:
        The tasks in order of their names, and files of the folders that are left out because their
        suffix is not a video's.

    Raises:
        VideoError: a source is not there, or there is no video among them.
        ParameterError: two would have the same name, or the results lie among the sources.
    """
    tasks: dict[str, Task] = {}
    left_out: list[Path] = []
    for source in sources:
        for path, name in _files(source, results):
            if source.is_dir() and path.suffix.lower() not in SUFFIXES:
                left_out.append(path)
                continue
            suffix = path.suffix if path.suffix.lower() in FORMATS else _SUFFIX_OF_OTHERS
            target = name.with_suffix(suffix).as_posix()
            if target in tasks:
                raise ParameterError(
                    f"{tasks[target].source} and {path} would both become {results / target}; "
                    "rename one"
                )
            tasks[target] = Task(target, path, results / target)
    if not tasks:
        raise VideoError(f"{', '.join(map(str, sources))}: no video there; name another folder")
    return [tasks[name] for name in sorted(tasks)], left_out


def _files(source: Path, results: Path) -> Iterator[tuple[Path, Path]]:
    """Files of a source, and their names within it."""
    if not source.is_dir():
        if not source.exists():
            raise VideoError(f"video {source} does not exist; check the path")
        yield source, Path(source.name)
        return
    if results.resolve().is_relative_to(source.resolve()):
        raise ParameterError(
            f"{results} lies in {source}, whose videos are read; choose a folder outside"
        )
    for path in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if not path.is_dir() and not hidden:
            yield path, path.relative_to(source)


def digest_of(source: Path) -> str:
    """SHA-256 of a video to read; empty where it cannot be read, which reading it will tell."""
    try:
        return sha256_of(source) if source.is_file() else ""
    except OSError:
        return ""


class Journal:
    """What was done in a folder, by whoever worked there before, one line each."""

    def __init__(self, results: Path) -> None:
        """Read what is there; a line that was cut off is as if it were not."""
        self._path = results / JOURNAL_NAME
        self._known: dict[str, Outcome] = {}
        text = self._path.read_text("utf-8", "replace") if self._path.is_file() else ""
        if text and not text.endswith("\n"):
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                outcome = Outcome(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self._known[outcome.name] = outcome

    def done(self, task: Task, settings: Settings) -> Outcome | None:
        """The outcome of a task that need not be done again.

        Its result is the file that was written, of the same input and by the same settings.
        """
        known = self._known.get(task.name)
        if known is None or known.error or known.settings != asdict(settings):
            return None
        if not task.destination.is_file() or sha256_of(task.destination) != known.result_sha256:
            return None
        return known if digest_of(task.source) == known.source_sha256 else None

    def add(self, outcome: Outcome) -> None:
        """Add a line; a result is written before."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
