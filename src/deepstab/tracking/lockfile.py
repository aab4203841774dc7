"""dvc.lock: what DVC says the stages read and wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

_LATER_STAGES = ("evaluate", "report")


def read_lock(path: Path, *, checkpoint: Path) -> str | None:
    """The entries of the stages that led to a checkpoint, as YAML.

    DVC enters a stage after it ran, so while `evaluate` runs its entry and that of `report` are of
    an earlier time and are left out. Where the lock speaks of another checkpoint (stages run by
    hand), or there is none, the answer is None.

    Args:
        path: of dvc.lock.
        checkpoint: path as in dvc.yaml.
    """
    if not has_recorded(path, checkpoint, md5=md5_of(checkpoint)):
        return None
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    stages = {name: entry for name, entry in tree["stages"].items() if name not in _LATER_STAGES}
    return yaml.safe_dump({**tree, "stages": stages}, sort_keys=False)


def has_recorded(path: Path, output: Path, *, md5: str) -> bool:
    """Whether the lock at a path has an output, named as in dvc.yaml, with this digest."""
    if not path.is_file():
        return False
    locked = outputs(yaml.safe_load(path.read_text(encoding="utf-8"))).get(output.as_posix())
    return locked is not None and locked["md5"] == md5


def md5_of(path: Path) -> str:
    """A file's digest as DVC writes it."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def outputs(lock: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Path to digest, size and number of files of every output."""
    return {
        output["path"]: output
        for entry in lock.get("stages", {}).values()
        for output in entry.get("outs", [])
    }
