"""The weights that ship with the package, and their graph, each with its SHA-256 beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import load_file

from deepstab.errors import CheckpointError
from deepstab.files import sha256_of
from deepstab.models.origin import Origin, sha256_of_weights

WEIGHTS = Path(__file__).parent / "shipped" / "stab_generator.safetensors"
GRAPH = WEIGHTS.with_suffix(".onnx")
COMMIT = WEIGHTS.with_suffix(".commit")
"""Names the commit whose code and parameters made the weights."""

_CHECKSUM_SUFFIX = ".sha256"


def write_checksum(path: Path) -> None:
    """Write a file's SHA-256 beside it."""
    _checksum(path).write_text(f"{sha256_of(path)}  {path.name}\n", encoding="utf-8")


def verify(path: Path) -> None:
    """Compare a file with the SHA-256 beside it.

    Raises:
        CheckpointError: one of the two is missing, or they do not fit.
    """
    if not path.is_file() or not _checksum(path).is_file():
        raise CheckpointError(f"{path}: the shipped weights are missing; install deepstab again")
    wanted = _checksum(path).read_text(encoding="utf-8").split()[0]
    if sha256_of(path) != wanted:
        raise CheckpointError(
            f"{path}: the shipped weights are damaged (their SHA-256 is not {wanted[:12]}...); "
            "install deepstab again"
        )


def read_shipped() -> tuple[dict[str, Any], Origin]:
    """What the weights that ship say of themselves, and their origin, without torch.

    Raises:
        CheckpointError: as `verify`.
    """
    verify(WEIGHTS)
    with safe_open(WEIGHTS, framework="np") as file:
        about = json.loads(file.metadata()["checkpoint"])
    return about, Origin(about["run_id"], sha256_of_weights(load_file(WEIGHTS)))


def _checksum(path: Path) -> Path:
    return path.with_suffix(path.suffix + _CHECKSUM_SUFFIX)
