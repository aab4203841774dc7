"""What is sound, and the same every time: the files that a campaign damages.

Whatever chance or the clock put into a file is replaced, so that a seed damages the same bytes in
the same file again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import yaml

from deepstab.config import Params, parse_params
from deepstab.data.flow_cache import fill_cache
from deepstab.data.manifest import MANIFEST_NAME, Manifest, VideoFile, VideoPair
from deepstab.files import sha256_of
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.generator import StabGenerator
from deepstab.tracking.outbox import Outbox
from deepstab.tracking.store import start_run
from deepstab.training.state import SoFar, StateFile
from tests.campaigns.fuzz.calls import FINGERPRINT, RUN_ID, URI
from tests.conftest import ROOT, TINY, with_values

NUM_FRAMES, WIDTH, HEIGHT, RATE = 24, 96, 64, 25
_MP4_NAMES = (
    "ftyp moov mvhd trak tkhd edts elst mdia mdhd hdlr minf dinf stbl stsd avc1 avcC hvcC colr "
    "pasp stts stss ctts stsc stsz stco moof mfhd traf tfhd tfdt trun mdat esds"
)
_MP4_AIMS = tuple(name.encode() for name in _MP4_NAMES.split())
# Segment, cluster, its time, blocks, scale, duration of frames, width, height, codec, cues.
_MATROSKA_NAMES = (
    "18538067 1f43b675 e7 a3 a0 a1 9b 2ad7b1 4489 23e383 b0 ba 86 63a2 d7 83 1c53bb6b f1 ec bf"
)
_MATROSKA_AIMS = tuple(bytes.fromhex(name) for name in _MATROSKA_NAMES.split())


@dataclass(frozen=True)
class Subject:
    """Sound files, and what is done with them.

    Attributes:
        name: of the kind.
        call: name of a function of `tests.campaigns.fuzz.calls`.
        make: writes the files to a folder.
        aims: names near which numbers stand.
        share: how often it is chosen.
        unchecked: names of files that hold nothing by which a change of content could be noticed,
            as SECURITY.md says.
        loses_frames: of a format in which lost frames cannot be noticed, as SECURITY.md says.
    """

    name: str
    call: str
    make: Callable[[Path], None]
    aims: tuple[bytes, ...] = ()
    share: int = 2
    unchecked: frozenset[str] = frozenset()
    loses_frames: bool = False


def _video(
    suffix: str,
    codec: str,
    *,
    name: str = "",
    pixel_format: str = "yuv420p",
    sound: str = "",
    muxer: dict[str, str] | None = None,
    aims: tuple[bytes, ...] = (),
    share: int = 2,
    loses_frames: bool = False,
) -> Subject:
    def make(folder: Path) -> None:
        path = folder / f"in{suffix}"
        options = {"fflags": "+bitexact", **(muxer or {})}
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(codec, rate=RATE)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {
                # With assembly x264 makes other bytes now and then of frames as small as these.
                "libx264": {
                    "crf": "20",
                    "g": "8",
                    "bf": "2",
                    "preset": "fast",
                    "x264-params": "cpu-independent=1",
                },
                "libx265": {"x265-params": "log-level=none:pools=none:frame-threads=1"},
                "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "8"},
                "libvpx": {"deadline": "realtime", "g": "8"},
            }.get(codec, {"g": "8"})
            audio = container.add_stream(sound, rate=48000) if sound else None
            for index in range(NUM_FRAMES):
                frame = av.VideoFrame.from_ndarray(_picture(index), "rgb24")
                frame.pts, frame.time_base = index, Fraction(1, RATE)
                container.mux(stream.encode(frame.reformat(format=pixel_format)))
            container.mux(stream.encode(None))
            if audio is not None:
                for block in range(NUM_FRAMES * 48000 // RATE // 1024):
                    chunk = av.AudioFrame.from_ndarray(
                        np.zeros((1, 1024), np.float32), "fltp", "mono"
                    )
                    chunk.sample_rate, chunk.pts = 48000, 1024 * block
                    container.mux(audio.encode(chunk))
                container.mux(audio.encode(None))

    return Subject(
        name or f"{suffix[1:]} {codec}", "video", make, aims, share, loses_frames=loses_frames
    )


def _picture(index: int) -> np.ndarray:
    """A smooth picture with some texture, which moves by some px from frame to frame."""
    rng = np.random.default_rng(7)
    texture = rng.integers(40, 216, (HEIGHT // 4 + 4, WIDTH // 4 + 4, 3), np.uint8)
    large = texture.repeat(4, axis=0).repeat(4, axis=1)
    top, left = np.random.default_rng(index).integers(0, 8, 2)
    return np.ascontiguousarray(large[top : top + HEIGHT, left : left + WIDTH])


def _tiny() -> Params:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    return parse_params(with_values(tree, TINY), origin="tiny")


def _raw(folder: Path) -> Manifest:
    """Two videos that make a pair, and their manifest."""
    folder.mkdir()
    files = {}
    for side in ("stable", "unstable"):
        _video(".mp4", "libx264").make(folder)
        path = (folder / "in.mp4").rename(folder / f"{side}.mp4")
        files[side] = VideoFile(path.name, sha256_of(path), NUM_FRAMES, float(RATE), WIDTH, HEIGHT)
    pairs = tuple(
        VideoPair(name, name, split, num_frames=NUM_FRAMES, **files)
        for name, split in (("a", "train"), ("b", "validation"), ("c", "test"))
    )
    manifest = Manifest("folder", "folder", pairs, ())
    manifest.save(folder / MANIFEST_NAME)
    return manifest


def _flow(folder: Path) -> None:
    manifest = _raw(folder / "raw")
    fill_cache(
        manifest,
        raw=folder / "raw",
        destination=folder / "shards",
        scratch=folder / "scratch",
        params=_tiny().flow.model_copy(update={"shard_mib": 1}),
    )


def _manifest(folder: Path) -> None:
    manifest = _raw(folder / "raw")
    manifest.save(folder / MANIFEST_NAME)
    _remove(folder / "raw")


def _shards(folder: Path) -> None:
    _flow(folder)
    _remove(folder / "raw")
    _remove(folder / "scratch")


def _cache(folder: Path) -> None:
    _flow(folder)
    _remove(folder / "shards")


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    params = _tiny()
    return Checkpoint(
        params=params.network,
        made_with=params.model_dump(mode="json"),
        manifest_digest="0" * 64,
        run_id="",
        epoch=1,
        validation={"psnr": 20.0},
        generator=StabGenerator(params.model).state_dict(),
        discriminator={},
    )


def _pth(folder: Path) -> None:
    checkpoints.save(_checkpoint().as_tree(), folder / "in.pth")


def _safetensors(folder: Path) -> None:
    checkpoints.export_weights(_checkpoint(), folder / "in.safetensors")
    (folder / "in.safetensors.sha256").unlink()


def _state(folder: Path) -> None:
    state = StateFile(folder, FINGERPRINT)
    best = {"run_id": RUN_ID, "generator": {"weight": torch.ones(64)}}
    so_far = SoFar({"psnr": 20.0}, [{"epoch": 0}, {"epoch": 1, "total": 0.5}], {}, best, 7.0)
    state.save({"generator": {"weight": torch.arange(1000.0)}}, so_far)
    state.training_id()


def _database(folder: Path) -> None:
    """A store with one run, in which every address, id and time is replaced."""
    with start_run(experiment="fuzz", root=folder, outbox=folder / "outbox") as tracker:
        tracker.log_params({"seed": 1, "train.epochs": 2})
        for step in range(20):
            tracker.log_metrics({"loss": 1 / (1 + step)}, step=step)
        run_id = tracker.run_id
    path = folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        script = "\n".join(connection.iterdump())
    script = script.replace(run_id, RUN_ID).replace(folder.as_uri(), "file:///made")
    script = re.sub(r"\b1[0-9]{12}\b", "1700000000000", script)
    script = re.sub(r"\b(?!" + RUN_ID + r")[0-9a-f]{32}\b", "b" * 32, script)
    _remove(folder / "outbox")
    for leftover in list(folder.iterdir()):
        _remove(leftover) if leftover.is_dir() else leftover.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def _outbox(folder: Path) -> None:
    box = Outbox.create(folder, run_id="earlier", uri=URI)
    box.append(points=[("loss", step / 4, 1000 + step, step) for step in range(700)])
    box.append(tags=[("note", "two\nlines")])
    box.put("reports/a.txt", lambda path: path.write_text("a" * 200))
    model = folder / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    box.put_model(model)
    _remove(model)
    box.release(remove=False)
    (box.folder / "status.json").write_text('["KILLED", 2000]')
    for draft in (box.folder / "models").iterdir():
        draft.rename(draft.with_name("0"))
    box.folder.rename(folder / "earlier")


SUBJECTS: tuple[Subject, ...] = (
    _video(".mp4", "libx264", name="mp4", sound="aac", aims=_MP4_AIMS, share=4),
    _video(
        ".mp4",
        "libx264",
        name="mp4, index in front",
        muxer={"movflags": "+faststart"},
        aims=_MP4_AIMS,
    ),
    _video(
        ".mp4",
        "libx264",
        name="mp4 in fragments",
        muxer={"movflags": "+frag_keyframe+empty_moov"},
        aims=_MP4_AIMS,
    ),
    _video(".mov", "mjpeg", name="mov", pixel_format="yuvj420p", aims=_MP4_AIMS),
    _video(".mp4", "libx265", name="mp4, HEVC", aims=_MP4_AIMS),
    _video(".mkv", "libx264", name="mkv", sound="aac", aims=_MATROSKA_AIMS, share=4),
    _video(".mkv", "libx264", name="mkv, live", muxer={"live": "1"}, aims=_MATROSKA_AIMS),
    _video(".mkv", "ffv1", name="mkv, FFV1", aims=_MATROSKA_AIMS),
    _video(".webm", "libvpx", name="webm, VP8", sound="libopus", aims=_MATROSKA_AIMS),
    _video(
        ".webm",
        "libvpx-vp9",
        name="webm, VP9",
        muxer={"cluster_time_limit": "200"},
        aims=_MATROSKA_AIMS,
    ),
    _video(
        ".avi", "mpeg4", name="avi", aims=(b"avih", b"strh", b"strf", b"00dc", b"idx1", b"movi")
    ),
    _video(".flv", "libx264", name="flv", sound="aac", aims=(b"FLV", b"onMetaData", b"duration")),
    _video(".avi", "mjpeg", name="avi, MJPEG", pixel_format="yuvj420p", share=1),
    _video(".wmv", "wmv2", name="wmv", share=1),
    _video(".nut", "mpeg4", name="nut", share=1),
    _video(".ivf", "libvpx-vp9", name="ivf", share=1),
    _video(".mxf", "mpeg2video", name="mxf", share=1),
    _video(".mpg", "mpeg2video", name="mpg", share=1),
    _video(".h264", "libx264", name="h264", loses_frames=True, share=1),
    _video(".ts", "libx264", name="ts", loses_frames=True, share=1),
    _video(".gif", "gif", name="gif", pixel_format="rgb8", loses_frames=True, share=1),
    Subject("manifest", "manifest", _manifest, unchecked=frozenset({MANIFEST_NAME})),
    Subject(
        "shards", "shards", _shards, (b"ARROW1",), unchecked=frozenset({"index.json"}), share=3
    ),
    Subject("flow cache", "flow_cache", _cache, (b"ARROW1",), unchecked=frozenset({MANIFEST_NAME})),
    # Without its id a training goes on in a new run.
    Subject("training state", "state", _state, share=3, unchecked=frozenset({"id"})),
    Subject(
        "checkpoint", "checkpoint", _pth, (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"), share=3
    ),
    Subject("weights", "checkpoint", _safetensors, (b"data_offsets",), share=3),
    Subject(
        "database",
        "database",
        _database,
        (b"SQLite format 3",),
        share=3,
        unchecked=frozenset({"mlflow.db"}),
    ),
    Subject(
        "outbox",
        "outbox",
        _outbox,
        share=3,
        unchecked=frozenset({"journal.jsonl", "status.json", "a.txt", "MLmodel", "address.json"}),
    ),
)
