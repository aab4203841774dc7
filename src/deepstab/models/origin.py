"""Which weights stabilized a video, as a line of its comment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

_LINE = re.compile(r"Stabilized by DeepStab-GAN: run (\w+), generator ([0-9a-f]{64})")
_UNTRACKED = "untracked"


@dataclass(frozen=True)
class Origin:
    """The run that trained a generator, empty if it was not tracked, and the weights' SHA-256."""

    run_id: str
    generator_sha256: str

    def __str__(self) -> str:
        run = self.run_id or _UNTRACKED
        return f"Stabilized by DeepStab-GAN: run {run}, generator {self.generator_sha256}"

    @classmethod
    def find(cls, comment: str) -> Origin | None:
        """The last such line of a comment, or None."""
        found = _LINE.findall(comment)
        if not found:
            return None
        run_id, sha256 = found[-1]
        return cls("" if run_id == _UNTRACKED else run_id, sha256)


def sha256_of_weights(*parts: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names and values of weights, the same in every file that holds them."""
    digest = hashlib.sha256()
    for part in parts:
        for name in sorted(part):
            digest.update(name.encode())
            digest.update(part[name].tobytes())
    return digest.hexdigest()
