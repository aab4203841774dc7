"""Weights by name: those that ship with the package, a checkpoint, or a safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from deepstab.config import parse_network_params
from deepstab.data.folder import sha256_of
from deepstab.errors import CheckpointError
from deepstab.training import checkpoints
from deepstab.training.checkpoints import Checkpoint

SHIPPED = Path(__file__).parent / "shipped" / "stab_generator.safetensors"
_CHECKSUM_SUFFIX = ".sha256"


def load_weights(name: str | None) -> Checkpoint:
    """The shipped weights, checksum verified, or those of a file.

    Args:
        name: None for the shipped weights; or the path of a .pth checkpoint or .safetensors file.

    Raises:
        CheckpointError: missing, damaged, or no weights of a generator.
    """
    if name is None:
        _verify(SHIPPED)
        return _load_safetensors(SHIPPED)
    path = Path(name)
    return _load_safetensors(path) if path.suffix == ".safetensors" else checkpoints.load(path)


def export_weights(checkpoint: Checkpoint, path: Path) -> None:
    """Write a generator's weights with what made them, and their checksum beside."""
    about = {
        "params": checkpoint.made_with,
        "manifest_digest": checkpoint.manifest_digest,
        "run_id": checkpoint.run_id,
        "epoch": checkpoint.epoch,
        "validation": checkpoint.validation,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in checkpoint.generator.items()},
        path,
        metadata={"checkpoint": json.dumps(about, sort_keys=True)},
    )
    checksum = path.with_suffix(path.suffix + _CHECKSUM_SUFFIX)
    checksum.write_text(f"{sha256_of(path)}  {path.name}\n", encoding="utf-8")


def _verify(path: Path) -> None:
    checksum = path.with_suffix(path.suffix + _CHECKSUM_SUFFIX)
    if not path.is_file() or not checksum.is_file():
        raise CheckpointError(f"{path}: the shipped weights are missing; install deepstab again")
    wanted = checksum.read_text(encoding="utf-8").split()[0]
    if sha256_of(path) != wanted:
        raise CheckpointError(
            f"{path}: the shipped weights are damaged (their SHA-256 is not {wanted[:12]}...); "
            "install deepstab again"
        )


def _load_safetensors(path: Path) -> Checkpoint:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["checkpoint"])
        made_with = about.pop("params")
        return Checkpoint(
            params=parse_network_params(made_with, origin=str(path)),
            made_with=made_with,
            generator=dict(load_file(path)),
            discriminator={},
            **about,
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not weights written by DeepStab-GAN ({error}); name a checkpoint"
        ) from None
