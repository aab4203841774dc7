"""Checkpoints: weights with all that is needed to use them and to say where they came from.

A checkpoint lies in a .pth file that training wrote, or in the .safetensors file that ships. Both
hold a SHA-256 over all that they say, which is checked when they are read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepstab.config import NetworkParams, parse_network_params
from deepstab.errors import CheckpointError
from deepstab.files import whole_or_absent
from deepstab.models import shipping
from deepstab.models.generator import StabGenerator, motion_seer
from deepstab.models.network import MotionNetwork
from deepstab.models.origin import Origin, sha256_of_weights

log = logging.getLogger(__name__)

# Files of format 1, written before there was a checksum inside, are still read, with a warning.
_FORMAT, _UNCHECKED_FORMAT = 2, 1


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

    def network(self) -> MotionNetwork:
        """The generator, ready to stabilize videos.

        Raises:
            CheckpointError: as `build_generator`.
        """
        origin = Origin(self.run_id, self.generator_sha256())
        return MotionNetwork(self.params, origin, motion_seer(self.build_generator()))

    def weights_sha256(self) -> str:
        """SHA-256 over names and values of all weights."""
        return _sha256(self.generator, self.discriminator)

    def generator_sha256(self) -> str:
        """SHA-256 of the generator alone, the same in every file that holds it."""
        return _sha256(self.generator)

    def as_tree(self) -> dict[str, Any]:
        """Plain containers and tensors, loadable with `weights_only=True`."""
        return {**self.about(), "generator": self.generator, "discriminator": self.discriminator}

    def about(self) -> dict[str, Any]:
        """All but the weights, and the checksum over both."""
        about = {
            "params": self.made_with,
            "manifest_digest": self.manifest_digest,
            "run_id": self.run_id,
            "epoch": self.epoch,
            "validation": self.validation,
        }
        return {"format": _FORMAT, "sha256": self._sha256_with(about), **about}

    def _sha256_with(self, about: dict[str, Any]) -> str:
        shapes = [
            {name: [str(value.dtype), *value.shape] for name, value in part.items()}
            for part in (self.generator, self.discriminator)
        ]
        said = json.dumps([about, shapes, self.weights_sha256()], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @classmethod
    def from_tree(cls, tree: Any, *, origin: str, verified: bool = False) -> Checkpoint:
        """The inverse of `as_tree`.

        Args:
            tree: as read from a file.
            origin: the file, named in errors.
            verified: whether its content is known to be as it was written.

        Raises:
            CheckpointError: of another format, or not as it was written.
        """
        try:
            rest = dict(tree)
            version, sha256 = rest.pop("format"), rest.pop("sha256", None)
            if version not in (_FORMAT, _UNCHECKED_FORMAT):
                raise CheckpointError(f"{origin}: format {version}, expected {_FORMAT}")
            made_with = rest.pop("params")
            params = parse_network_params(made_with, origin=origin)
            checkpoint = cls(params=params, made_with=made_with, **rest)
            whole = sha256 == checkpoint.about()["sha256"]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise CheckpointError(
                f"{origin}: not a DeepStab-GAN checkpoint; name a best_stab_gan.pth"
            ) from None
        if sha256 is None and version == _UNCHECKED_FORMAT:
            if not verified:
                log.warning("%s: of an earlier version, without a checksum to verify", origin)
        elif not whole:
            raise CheckpointError(
                f"{origin}: damaged or changed (its checksum does not fit); take another copy or "
                "train again"
            )
        return checkpoint


def _sha256(*parts: dict[str, Tensor]) -> str:
    return sha256_of_weights(
        *({name: value.detach().cpu().numpy() for name, value in part.items()} for part in parts)
    )


def save(tree: dict[str, Any], path: Path) -> None:
    """Write a tree of tensors to a temporary name, then rename; the same tree, the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Torch writes the name of a file it opens itself into the archive.
    with whole_or_absent(path) as partial, partial.open("wb") as file:
        torch.save(tree, file)


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
    except Exception:  # a damaged file can break torch's unpickler in any way
        # Torch's own words advise to load it without protection.
        raise CheckpointError(
            f"{path}: damaged checkpoint, or not one of DeepStab-GAN (a file that holds code is "
            "never loaded); take another copy or train again"
        ) from None


def load_weights(name: str | None) -> Checkpoint:
    """The shipped weights, checksum verified, or those of a file.

    Args:
        name: None for the shipped weights; or the path of a .pth checkpoint or .safetensors file.

    Raises:
        CheckpointError: missing, damaged, or no weights of a generator.
    """
    if name is None:
        shipping.verify(shipping.WEIGHTS)
        return _load_safetensors(shipping.WEIGHTS, verified=True)
    path = Path(name)
    return _load_safetensors(path) if path.suffix == ".safetensors" else load(path)


def export_weights(checkpoint: Checkpoint, path: Path) -> None:
    """Write a generator's weights with what made them, and the file's SHA-256 beside."""
    checkpoint = dataclasses.replace(checkpoint, discriminator={})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in checkpoint.generator.items()},
        path,
        metadata={"checkpoint": json.dumps(checkpoint.about(), sort_keys=True)},
    )
    shipping.write_checksum(path)


def _load_safetensors(path: Path, *, verified: bool = False) -> Checkpoint:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["checkpoint"])
        networks = {"generator": dict(load_file(path)), "discriminator": {}}
        tree = {"format": _UNCHECKED_FORMAT, **about, **networks}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not weights written by DeepStab-GAN ({error}); name a checkpoint"
        ) from None
    return Checkpoint.from_tree(tree, origin=str(path), verified=verified)
