"""The flow cache: Arrow IPC shards of resized frames and flow, and the index over them.

One record batch holds one frame of a pair: `unstable` and `stable` as (height, width, 3) uint8
RGB, `flow` of the unstable video (see `deepstab.data.flow`) as (height, width, 2) int16 fixed
point, px times 64 (error at most 0.008 px, range +-512 px), and its true `motion` (see
`deepstab.data.truth`) as (4,) float32, NaN where nobody knows it. A shard never mixes pairs:
a new video changes none. They are read by `deepstab.data.shard_reader`.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from deepstab.config import FlowParams, FrameSide
from deepstab.data.manifest import STORED, Count, Name, PathBelow, Sha256, Split, VideoPair
from deepstab.errors import ShardError, first_problem
from deepstab.files import sha256_of, whole_or_absent
from deepstab.image import Image

StoredFrame = tuple[Image, Image, NDArray[np.float32], NDArray[np.float32]]
FLOW_SCALE = 64
INDEX_NAME = "index.json"
PARTIAL = ".partial"  # ends the name of a folder that is being written
_LAYOUT: Literal[3] = 3
_KEPT_AS = "NUMBER-SHA256.arrow"
_MADE_BY = ("data/flow.py", "video/color.py", "video/reader.py")


@dataclass(frozen=True, config=STORED)
class Shard:
    """One file: frames first_frame ... first_frame + num_frames - 1 of a pair."""

    file: PathBelow
    sha256: Sha256
    first_frame: Annotated[int, Field(ge=0, lt=2**31)]
    num_frames: Count


@dataclass(frozen=True, config=STORED)
class PairEntry:
    """One pair of videos in the index. `width` and `height` are of the video as filmed."""

    name: Name
    split: Split
    width: Count
    height: Count
    num_frames: Count
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        """Refuse shards that do not hold the frames one after the other."""
        first_frames = accumulate((shard.num_frames for shard in self.shards), initial=0)
        if [*(shard.first_frame for shard in self.shards), self.num_frames] != [*first_frames]:
            raise ValueError(f"shards do not hold frames 0 to {self.num_frames - 1}")

    @property
    def aspect(self) -> float:
        return self.width / self.height


@dataclass(frozen=True, config=STORED)
class ShardIndex:
    """What the shards of a folder hold; `height` and `width` are of the stored frames, px.

    The folder is where the index was found; all the rest is what the file says.
    """

    height: FrameSide
    width: FrameSide
    manifest_digest: Sha256
    flow: FlowParams
    pairs: tuple[PairEntry, ...]
    folder: Path = Path()
    layout: Literal[3] = _LAYOUT

    def __post_init__(self) -> None:
        """Refuse pairs that cannot be told apart, and flow of another size than the frames."""
        if len({pair.name for pair in self.pairs}) < len(self.pairs):
            raise ValueError("two pairs have the same name")
        if (self.height, self.width) != (self.flow.height, self.flow.width):
            raise ValueError("flow and frames have different sizes")

    def of_split(self, split: Split) -> tuple[PairEntry, ...]:
        return tuple(pair for pair in self.pairs if pair.split == split)

    def digest(self) -> str:
        """SHA-256 of all it says, and so of the shards themselves."""
        return hashlib.sha256(self._to_json().encode()).hexdigest()

    def save(self) -> None:
        with whole_or_absent(self.folder / INDEX_NAME) as partial:
            partial.write_text(self._to_json(), encoding="utf-8")

    def _to_json(self) -> str:
        tree = _INDEX.dump_python(self, mode="json", exclude={"folder"})
        return json.dumps(tree, indent=1, sort_keys=True) + "\n"

    @classmethod
    def load(cls, folder: Path) -> ShardIndex:
        """Read the index of a folder.

        Raises:
            ShardError: no index, a damaged one, or one of another layout.
        """
        path = folder / INDEX_NAME
        try:
            return dataclasses.replace(_INDEX.validate_json(path.read_bytes()), folder=folder)
        except FileNotFoundError:
            raise ShardError(f"{path}: no index; run the flow stage first") from None
        except OSError as error:
            raise ShardError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise ShardError(
                f"{path}: damaged index or one of another version ({first_problem(error)}); "
                "run the flow stage again"
            ) from None


_INDEX = TypeAdapter(ShardIndex)


def content_key(pair: VideoPair, params: FlowParams) -> str:
    """SHA-256 of all that decides the content of a pair's shards, and of how they are kept.

    Of the code that is what makes pixels and flow; an edit of it computes all shards again.
    """
    parts = [
        _LAYOUT,
        _KEPT_AS,
        cv2.__version__,
        *(sha256_of(Path(__file__).parents[1] / path) for path in _MADE_BY),
        pair.unstable.sha256,
        pair.stable.sha256,
        pair.truth.sha256 if pair.truth else None,
        pair.num_frames,
        params.model_dump(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_shards(
    frames: Iterator[StoredFrame],
    folder: Path,
    *,
    params: FlowParams,
    source_sha256: dict[str, str],
    on_frame: Callable[[], None],
) -> None:
    """Write the frames of one pair as shards 000-SHA256.arrow, ...; the folder appears whole.

    Two writers of one folder do not meet: who is second leaves that of the first.

    Args:
        frames: per frame unstable (height, width, 3), stable (same), flow (height, width, 2) px,
            motion (4,).
        folder: created.
        params: the flow section, recorded in the schema's metadata.
        source_sha256: hashes of the two video files, recorded too.
        on_frame: called after every frame.

    Raises:
        ShardError: the disk is full or may not be written.
    """
    partial = folder.with_name(f"{folder.name}-{uuid.uuid4().hex}{PARTIAL}")
    partial.mkdir(parents=True)
    try:
        _write(frames, partial, params, source_sha256, on_frame)
        for path in partial.iterdir():
            path.rename(path.with_stem(f"{path.stem}-{sha256_of(path)}"))
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise ShardError(
                f"{folder.parent} cannot be written: {error}; free some space or correct the "
                "permissions"
            ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    frames: Iterator[StoredFrame],
    folder: Path,
    params: FlowParams,
    source_sha256: dict[str, str],
    on_frame: Callable[[], None],
) -> None:
    """Write shards 000.arrow, 001.arrow, ... to a folder."""
    schema = _schema(params, source_sha256)
    options = pa.ipc.IpcWriteOptions(
        compression=None if params.compression == "none" else params.compression
    )
    frame_bytes = params.height * params.width * (3 + 3 + 2 * 2)
    frames_per_shard = max(1, params.shard_mib * 2**20 // frame_bytes)
    writer: pa.ipc.RecordBatchFileWriter | None = None
    try:
        for number, (unstable, stable, flow, motion) in enumerate(frames):
            if number % frames_per_shard == 0:
                if writer is not None:
                    writer.close()
                path = folder / f"{number // frames_per_shard:03d}.arrow"
                writer = pa.ipc.new_file(str(path), schema, options=options)
            assert writer is not None
            fixed = np.rint(np.clip(flow * FLOW_SCALE, -32768, 32767)).astype("<i2")
            columns = [
                pa.FixedSizeBinaryArray.from_buffers(
                    field.type, 1, [None, pa.py_buffer(np.ascontiguousarray(values))]
                )
                for field, values in zip(schema, (unstable, stable, fixed, motion), strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            on_frame()
    finally:
        if writer is not None:
            writer.close()


def is_whole(pair: VideoPair, folder: Path) -> bool:
    """Whether a folder of shards of a pair is as `write_shards` left it, by their hashes."""
    paths = sorted(folder.glob("*.arrow"))
    if any(sha256_of(path) != _number_and_sha256(path)[1] for path in paths):
        return False
    return sum(open_shard(path).num_record_batches for path in paths) == pair.num_frames


def describe_pair(pair: VideoPair, folder: Path, *, prefix: str) -> PairEntry:
    """The index entry of a pair whose shards lie in a folder as `write_shards` left them.

    Args:
        pair: of the manifest.
        folder: of its shards, which are whole.
        prefix: of the names that the shards get, PREFIX000.arrow, ...
    """
    shards: list[Shard] = []
    first_frame = 0
    for path in sorted(folder.glob("*.arrow")):
        number, sha256 = _number_and_sha256(path)
        num_frames = open_shard(path).num_record_batches
        shards.append(Shard(f"{prefix}{number}.arrow", sha256, first_frame, num_frames))
        first_frame += num_frames
    if first_frame != pair.num_frames:
        raise ShardError(
            f"pair {pair.name}: {first_frame} frames in shards, {pair.num_frames} in the manifest; "
            "run the download stage again"
        )
    return PairEntry(
        name=pair.name,
        split=pair.split,
        width=pair.unstable.width,
        height=pair.unstable.height,
        num_frames=first_frame,
        shards=tuple(shards),
    )


def _number_and_sha256(path: Path) -> tuple[str, str]:
    number, _, sha256 = path.stem.partition("-")
    return number, sha256


def verify_shards(index: ShardIndex) -> None:
    """Check every shard against its hash in the index.

    Raises:
        ShardError: naming the first file that is missing or differs.
    """
    for pair in index.pairs:
        for shard in pair.shards:
            path = index.folder / shard.file
            if not path.is_file() or sha256_of(path) != shard.sha256:
                raise ShardError(f"{path}: missing or damaged; run the flow stage again")


def open_shard(path: Path) -> pa.ipc.RecordBatchFileReader:
    """Map a shard.

    Raises:
        ShardError: it is missing or damaged.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (OSError, pa.ArrowInvalid) as error:
        raise ShardError(
            f"{path}: missing or damaged shard ({error}); run the flow stage again"
        ) from None


def _schema(params: FlowParams, source_sha256: dict[str, str]) -> pa.Schema:
    pixels = params.height * params.width
    metadata = {
        "layout": str(_LAYOUT),
        "flow_scale": str(FLOW_SCALE),
        "flow_params": json.dumps(params.model_dump(), sort_keys=True),
        **{f"{side}_sha256": digest for side, digest in source_sha256.items()},
    }
    return pa.schema(
        [
            pa.field("unstable", pa.binary(pixels * 3), nullable=False),
            pa.field("stable", pa.binary(pixels * 3), nullable=False),
            pa.field("flow", pa.binary(pixels * 4), nullable=False),
            pa.field("motion", pa.binary(4 * 4), nullable=False),
        ],
        metadata=metadata,
    )
