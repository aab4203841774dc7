"""Which weights made a video, as one line of its comment tag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

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
    def find(cls, comment: str) -> Self | None:
        """The last such line of a comment, or None."""
        found = _LINE.findall(comment)
        if not found:
            return None
        run_id, sha256 = found[-1]
        return cls("" if run_id == _UNTRACKED else run_id, sha256)
