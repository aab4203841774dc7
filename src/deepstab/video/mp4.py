"""Whether the index of an MP4 or MOV file fits its frames.

libav believes an index as it is: frames whose entry is damaged are read from elsewhere or not at
all, or are left out because their time lies outside of the edit list.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import av
import numpy as np

# Between the time at which a frame is decoded and shown lies as much for every frame, as writers
# make them; those that guess the former miss by less than so many times the longest frame.
_TOLERANCE = 4


def count_missing(path: Path, index: int) -> int:
    """How many frames of a stream the index names that it does not say where to find.

    Args:
        path: an MP4 or MOV file.
        index: of the stream.
    """
    # An edit list leaves frames out, and for good.
    whole = {"ignore_editlist": "1"}
    with av.open(str(path.absolute()), "r", options=whole, metadata_errors="replace") as container:
        stream = container.streams[index]
        num_entries = len(stream.index_entries)
        return max(stream.frames - num_entries, 0) if num_entries else 0


def has_stray_times(dts: array[int], pts: array[int]) -> bool:
    """Whether frames are to be shown long before or after those that are decoded with them.

    Args:
        dts: when each is decoded, in file order, in units of the time base.
        pts: when each is shown.
    """
    if len(dts) < 2:
        return False
    decoded = np.frombuffer(dts, np.int64)
    delay = np.sort(np.frombuffer(pts, np.int64)) - decoded
    longest = max(int(np.diff(decoded).max()), 1)
    return bool(np.abs(delay - np.median(delay)).max() > _TOLERANCE * longest)
