"""What is known about a generated recording, kept beside its videos as truth/NAME.npz."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepstab.errors import DataError


@dataclass(frozen=True)
class Truth:
    """What the camera of an unstable video did.

    Attributes:
        correction: thetas (num_frames, 2, 3) from the stable view to the unstable frame.
        motion: (num_frames, 4), from each frame to the one before it, see `deepstab.trajectory`;
            the first row is 0, and NaN stands where nobody knows.
        readout: time in which the rows of a frame are read, as a share of the time between frames;
            both others are those of the middle row.
    """

    correction: NDArray[np.float64]
    motion: NDArray[np.float32]
    readout: float

    def save(self, path: Path) -> None:
        """Write an .npz file; the same truth gives the same bytes."""
        np.savez(path, correction=self.correction, motion=self.motion, readout=self.readout)

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(arrays["correction"], arrays["motion"], float(arrays["readout"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: missing or damaged truth ({' '.join(str(error).split())}); "
                "run the download stage again"
            ) from None
