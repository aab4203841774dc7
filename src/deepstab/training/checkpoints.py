"""Checkpoints: weights with all that is needed to use them and to say where they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepstab.config import NetworkParams, parse_network_params
from deepstab.errors import CheckpointError
from deepstab.models.generator import StabGenerator

_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Weights of both networks, the parameters and data that made them, and the figures reached.

    `params` is what using the network takes; `made_with` the whole params.yaml of its training, as
    it was then.
    """

    params: NetworkParams
    made_with: dict[str, Any]
    manifest_digest: str
    run_id: str
    epoch: int
    validation: dict[str, float]
    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor]

    def build_generator(self) -> StabGenerator:
        """The generator with these weights, in evaluation mode.

        Raises:
            CheckpointError: the weights do not fit the architecture their parameters name.
        """
        generator = StabGenerator(self.params.model)
        try:
            generator.load_state_dict(self.generator)
        except RuntimeError as error:
            raise CheckpointError(
                f"weights of run {self.run_id or '(untracked)'} do not fit this version's "
                f"generator ({' '.join(str(error).split())}); train again or use that version"
            ) from None
        return generator.eval()

    def weights_sha256(self) -> str:
        """SHA-256 over names and values of all weights."""
        return _sha256(self.generator, self.discriminator)

    def generator_sha256(self) -> str:
        """SHA-256 of the generator alone, the same in every file that holds it."""
        return _sha256(self.generator)

    def as_tree(self) -> dict[str, Any]:
        """Plain containers and tensors, loadable with `weights_only=True`."""
        return {
            "format": _FORMAT,
            "params": self.made_with,
            "manifest_digest": self.manifest_digest,
            "run_id": self.run_id,
            "epoch": self.epoch,
            "validation": self.validation,
            "generator": self.generator,
            "discriminator": self.discriminator,
        }

    @classmethod
    def from_tree(cls, tree: Any, *, origin: str) -> Checkpoint:
        """The inverse of `as_tree`.

        Raises:
            CheckpointError: of another format.
        """
        try:
            if tree["format"] != _FORMAT:
                raise CheckpointError(f"{origin}: format {tree['format']}, expected {_FORMAT}")
            rest = {key: value for key, value in tree.items() if key not in ("format", "params")}
            made_with = tree["params"]
            params = parse_network_params(made_with, origin=origin)
            return cls(params=params, made_with=made_with, **rest)
        except (KeyError, TypeError):
            raise CheckpointError(
                f"{origin}: not a DeepStab-GAN checkpoint; name a best_stab_gan.pth"
            ) from None


def _sha256(*parts: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for name in sorted(part):
            digest.update(name.encode())
            digest.update(part[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(tree: dict[str, Any], path: Path) -> None:
    """Write a tree of tensors to a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        torch.save(tree, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint.
    """
    return Checkpoint.from_tree(load_tree(path), origin=str(path))


def load_tree(path: Path) -> Any:
    """Read what `save` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first or check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can break torch's unpickler in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged checkpoint ({reason}); train again") from None
