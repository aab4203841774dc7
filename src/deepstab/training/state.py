"""The state of a training after each epoch, from which an interrupted one goes on."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from deepstab.files import whole_or_absent

log = logging.getLogger(__name__)

_NAME, _ID_NAME = "state.pth", "id"
_ID = re.compile("[0-9a-f]{32}")


@dataclass
class SoFar:
    """What the epochs until now have brought, beside the networks: plain values, to be saved.

    `validation` is of the last epoch, `best` the tree of the best checkpoint, `duration_s` what the
    epochs took, those before an interruption included.
    """

    input_quality: dict[str, float]
    history: list[dict[str, float]] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    duration_s: float = 0.0


class StateFile:
    """Where a training keeps its state, with a digest that shows whether it is whole and its own.

    Args:
        scratch: folder for the states of all trainings.
        fingerprint: of this one.
    """

    def __init__(self, scratch: Path, fingerprint: str) -> None:
        self.folder, self._fingerprint = scratch / fingerprint, fingerprint
        self.path, self._id = self.folder / _NAME, self.folder / _ID_NAME

    def save(self, networks: dict[str, Any], so_far: SoFar) -> None:
        """Keep the state dicts of the networks and what was reached, in place of what was kept."""
        content = io.BytesIO()
        # Not dataclasses.asdict, which would copy the best checkpoint.
        torch.save({"networks": networks, "so_far": vars(so_far)}, content)
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_or_absent(self.path) as partial:
            partial.write_bytes(self._digest(content.getvalue()) + content.getvalue())

    def load(self) -> tuple[dict[str, Any], SoFar] | None:
        """What was saved; None if nothing was, or if it is damaged, which is said and deleted."""
        if not self.path.exists():
            return None
        content = self.path.read_bytes() if self.path.is_file() else b""
        size = hashlib.sha256().digest_size
        if content[:size] != self._digest(content[size:]):
            log.warning("%s is damaged and was deleted: training starts anew", self.path)
            shutil.rmtree(self.path) if self.path.is_dir() else self.path.unlink()
            return None
        tree = torch.load(io.BytesIO(content[size:]), map_location="cpu", weights_only=True)
        return tree["networks"], SoFar(**tree["so_far"])

    def training_id(self) -> str:
        """What names this training in the tags of its run, the same after an interruption."""
        try:
            known = self._id.read_text(encoding="ascii")
        except (OSError, ValueError):
            known = ""
        if _ID.fullmatch(known):
            return known
        new = uuid.uuid4().hex
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_or_absent(self._id) as partial:
            partial.write_text(new, encoding="ascii")
        return new

    def remove(self) -> None:
        """Forget the training."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _digest(self, content: bytes) -> bytes:
        return hashlib.sha256(self._fingerprint.encode() + content).digest()
