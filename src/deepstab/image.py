"""What an image is in every wing, and the width at which lengths in one are reported.

Apart from `deepstab.geometry`, so that whoever only decodes or scores a video does not wait for
torch.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""(height, width, 3) RGB, or (height, width) of one channel, 0 to 255."""

REFERENCE_WIDTH_PX = 640
"""Lengths are given in px as if every frame had this width, so that videos compare."""
