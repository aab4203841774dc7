"""What decides a training: parameters, shards and code; where all are the same, it can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from deepstab.config import Params
from deepstab.data.shards import ShardIndex
from deepstab.training import processes

# Where the package was installed there is no dvc.yaml: what its train stage names of the package.
PACKAGE_PARTS = (
    "data",
    "files.py",
    "geometry.py",
    "image.py",
    "metrics",
    "models",
    "trajectory.py",
    "training",
)
_PACKAGE = Path(__file__).parent.parent
_CODE = ("src/", "stages/")


def fingerprint(params: Params, index: ShardIndex, *, package: Path = _PACKAGE) -> str:
    """SHA-256 of all that decides a training: parameters, shards, code, and how many processes.

    Args:
        params: all parameters.
        index: the shards.
        package: as for `training_code`; by default the package that runs.
    """
    digest = hashlib.sha256()
    sections = params.model_dump(include={"seed", "model", "loss", "train", "evaluate"})
    digest.update(json.dumps(sections, sort_keys=True).encode())
    digest.update(f"processes {processes.count()}".encode())
    for pair in index.pairs:
        digest.update("".join(shard.sha256 for shard in pair.shards).encode())
    for path in training_code(package):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def training_code(package: Path) -> list[Path]:
    """The code that decides a training: what the train stage of the project's dvc.yaml depends on.

    Args:
        package: folder of the package. In a checkout of the project, dvc.yaml lies two above.
    """
    pipeline = package.parent.parent / "dvc.yaml"
    if pipeline.is_file():
        stage = yaml.safe_load(pipeline.read_text("utf-8"))["stages"]["train"]
        named = [pipeline.parent / dep for dep in stage["deps"] if dep.startswith(_CODE)]
    else:
        named = [package / part for part in PACKAGE_PARTS]
    return sorted(path for dep in named for path in _python_files(dep))


def _python_files(path: Path) -> Iterator[Path]:
    return path.rglob("*.py") if path.is_dir() else iter([path])
