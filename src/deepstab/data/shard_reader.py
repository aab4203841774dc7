"""Reading frames from the shards of a flow cache, which stay memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from deepstab.data.shards import PairEntry, Shard, ShardIndex, open_shard
from deepstab.errors import ShardError
from deepstab.image import Image

Column: TypeAlias = Image | NDArray[np.int16] | NDArray[np.float32]


class ShardReader:
    """Reads frames of pairs; files are mapped when first needed and stay so."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index
        self._shards: dict[str, _MappedShard] = {}

    def room(self, num_frames: int) -> dict[str, Column]:
        """New arrays for so many frames, of any content; see `read`."""
        height, width = self._index.height, self._index.width
        return {
            "unstable": np.empty((num_frames, height, width, 3), np.uint8),
            "stable": np.empty((num_frames, height, width, 3), np.uint8),
            "flow": np.empty((num_frames, height, width, 2), np.int16),
            "motion": np.empty((num_frames, 4), np.float32),
        }

    def read(
        self,
        pair: PairEntry,
        first_frame: int,
        num_frames: int,
        *,
        room: dict[str, Column] | None = None,
    ) -> dict[str, Column]:
        """Frames of one pair.

        Args:
            pair: entry of the index.
            first_frame: number of the first frame.
            num_frames: how many.
            room: of so many frames, to read into and to return; new memory costs more
                time than the reading.

        Returns:
            "unstable" and "stable" (num_frames, height, width, 3) uint8, "flow"
            (num_frames, height, width, 2) int16, px times FLOW_SCALE, and "motion"
            (num_frames, 4) float32.

        Raises:
            ShardError: a shard is missing or damaged.
        """
        if first_frame < 0 or first_frame + num_frames > pair.num_frames:
            raise ValueError(
                f"frames {first_frame}..{first_frame + num_frames - 1} of {pair.name}: "
                f"it has {pair.num_frames}"
            )
        read = self.room(num_frames) if room is None else room
        rows = [column.reshape(num_frames, -1) for column in read.values()]
        for shard in pair.shards:
            start = max(first_frame, shard.first_frame)
            stop = min(first_frame + num_frames, shard.first_frame + shard.num_frames)
            if start < stop:
                into = [column[start - first_frame : stop - first_frame] for column in rows]
                self._mapped(shard).read(start - shard.first_frame, into)
        return read

    def _mapped(self, shard: Shard) -> _MappedShard:
        if shard.file not in self._shards:
            path = self._index.folder / shard.file
            batches = open_shard(path)
            if batches.num_record_batches != shard.num_frames:
                raise ShardError(
                    f"{path}: {batches.num_record_batches} frames, {shard.num_frames} in the "
                    "index; run the flow stage again"
                )
            is_compressed = self._index.flow.compression != "none"
            self._shards[shard.file] = _MappedShard(batches, is_compressed=is_compressed)
        return self._shards[shard.file]


class _MappedShard:
    """The frames of one file, each of them a record batch.

    Those that are not compressed lie at equal distances, and are copied as one block per column:
    half of the time of going through Arrow frame by frame.
    """

    def __init__(self, batches: pa.ipc.RecordBatchFileReader, *, is_compressed: bool) -> None:
        self._batches = batches
        self._blocks = None if is_compressed else _blocks(batches)

    def read(self, first_frame: int, into: Sequence[NDArray[Any]]) -> None:
        """Read as many frames as there are rows in the columns of `into`, (num_frames, values)."""
        if self._blocks is not None:
            for rows, block in zip(into, self._blocks, strict=True):
                frames = block[first_frame : first_frame + len(rows)]
                rows[:] = frames.view(rows.dtype)
            return
        for row in range(len(into[0])):
            batch = self._batches.get_batch(first_frame + row)
            for rows, column in zip(into, batch.columns, strict=True):
                rows[row] = np.frombuffer(column.buffers()[1], rows.dtype, rows.shape[1])


def _blocks(batches: pa.ipc.RecordBatchFileReader) -> list[NDArray[np.uint8]]:
    """The columns of all frames as they lie in the file, (num_frames, bytes), without a copy."""
    frames = [batches.get_batch(number).columns for number in range(batches.num_record_batches)]
    blocks = []
    for column in zip(*frames, strict=True):
        buffers = [frame.buffers()[1] for frame in column]
        distances = {int(by) for by in np.diff([buffer.address for buffer in buffers])}
        assert len(distances) <= 1, distances
        first = np.frombuffer(buffers[0], np.uint8, column[0].type.byte_width)
        strides = (distances.pop() if distances else 0, 1)
        blocks.append(as_strided(first, (len(buffers), first.size), strides, writeable=False))
    return blocks
