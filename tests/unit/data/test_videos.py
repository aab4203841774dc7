from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepstab.config import Params
from deepstab.data import videos
from deepstab.data.clips import read_clip
from deepstab.data.flow_cache import fill_cache
from deepstab.data.manifest import Manifest
from deepstab.data.shard_reader import ShardReader
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import MANIFEST_NAME, prepare_data
from deepstab.data.truth import Truth
from deepstab.errors import DataError
from deepstab.files import sha256_of
from deepstab.image import Image
from deepstab.video.frames import read_frames
from deepstab.video.writer import write_video

SIZE = (320, 180)


def scene(seed: int, size: tuple[int, int] = (480, 300)) -> Image:
    """A picture with texture at several scales."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.integers(0, 255, (size[1] // cell, size[0] // cell, 3), dtype=np.uint8),
            size,
            interpolation=cv2.INTER_CUBIC,
        ).astype(float)
        for cell in (4, 10, 30)
    ]
    return np.clip(sum(layers) / 3, 0, 255).astype(np.uint8)


def filmed(seed: int, steps_px: tuple[float, float] = (0.0, 0.0), num: int = 40) -> list[Image]:
    """A scene through which something walks, seen by a camera that pans evenly."""
    ground, walker = scene(seed), scene(seed + 100)[:60, :40]
    frames = []
    for t in range(num):
        view = np.array([[1, 0, 60 + t * steps_px[0]], [0, 1, 50 + t * steps_px[1]]])
        frame = cv2.warpAffine(ground, view, SIZE, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_CUBIC)
        frame[60:120, 20 + 4 * t : 60 + 4 * t] = walker
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos: three that stand still, one that pans; and what is no video."""
    root = tmp_path_factory.mktemp("videos")
    (root / "more").mkdir()
    (root / "notes.txt").write_text("no video")
    contents = {
        "still one.mp4": filmed(1),
        "still2.mp4": filmed(2),
        "more/still3.mkv": filmed(3),
        "pan.mp4": filmed(4, (1.3, -0.4)),
    }
    for name, frames in contents.items():
        write_video(root / name, frames, frame_rate=Fraction(30), crf=12)
    return root


@pytest.fixture(scope="module")
def params(tiny_params: Params, folder: Path) -> Params:
    section = tiny_params.data.videos.model_copy(
        update={"folder": str(folder), "variants": 2, "num_frames": 32, "width": 192}
    )
    data = tiny_params.data.model_copy(update={"source": "videos", "videos": section})
    return tiny_params.model_copy(update={"data": data})


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    destination = tmp_path_factory.mktemp("shaken") / "raw"
    prepare_data(destination, params=params.data, seed=3, vgg_weights="none")
    return destination


def test_a_locked_off_camera_does_not_move_whatever_walks_by() -> None:
    rng = np.random.default_rng(0)
    frames = [
        np.clip(frame + rng.normal(0, 1, frame.shape), 0, 255).astype(np.uint8)
        for frame in filmed(1)
    ]
    own = videos.own_motion(frames)
    assert (own.factor == 1).all()
    assert (own.shift == 0).all()


def test_a_pan_is_measured() -> None:
    # Half pixels: interpolation itself shifts fine texture where it weighs its neighbors unevenly.
    own = videos.own_motion(filmed(4, (1.5, -0.5)))
    assert not np.isnan(own.factor).any()
    # Frame t at a pixel shows what frame t - 1 shows one step further on.
    assert np.abs(own.shift[1:] - (1.5 - 0.5j)).mean() < 0.02
    assert np.abs(own.factor[1:] - 1).max() < 0.002


def test_a_slow_drift_is_no_standing_still() -> None:
    own = videos.own_motion(filmed(4, (0.03, 0.0)))
    assert np.abs(own.shift[1:]).mean() > 0.01


def test_what_cannot_be_tracked_is_unknown() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (180, 320, 3), dtype=np.uint8) for _ in range(4)]
    own = videos.own_motion(frames)
    assert own.factor[0] == 1
    assert np.isnan(own.factor[1:]).all()
    blank = videos.own_motion([np.full((180, 320, 3), 90, np.uint8)] * 14)
    assert np.isnan(blank.shift[1:]).all()


def test_every_video_is_shaken_in_several_ways_and_none_is_in_two_splits(raw: Path) -> None:
    manifest = Manifest.load(raw / MANIFEST_NAME)
    assert manifest.source == "videos"
    assert not manifest.generated
    names = {
        f"{stem}_{variant}"
        for stem in ("still one", "still2", "still3", "pan")
        for variant in (1, 2)
    }
    assert {pair.name for pair in manifest.pairs} == names
    for pair in manifest.pairs:
        assert pair.scene == pair.name[:-2]
        assert (pair.unstable.width, pair.unstable.height) == (192, 108)
        assert pair.num_frames >= 31
    splits = {(pair.scene, pair.split) for pair in manifest.pairs}
    assert len(splits) == 4
    assert len({pair.unstable.sha256 for pair in manifest.pairs}) == 8


def test_the_truth_is_what_the_shaken_video_does(raw: Path) -> None:
    for pair in Manifest.load(raw / MANIFEST_NAME).pairs:
        assert pair.truth is not None
        truth = Truth.load(raw / pair.truth.path)
        assert truth.motion.shape == (pair.num_frames, 4)
        assert truth.correction.shape == (pair.num_frames, 2, 3)
        assert 0 <= truth.readout <= 0.8
        if pair.scene == "still2":
            assert not np.isnan(truth.motion).any()
    # The clearest of them, followed by phase correlation, which nothing here is made with.
    manifest = Manifest.load(raw / MANIFEST_NAME)
    agreeing = []
    for pair in manifest.pairs:
        truth = Truth.load(raw / pair.truth.path)  # type: ignore[union-attr]
        frames = [
            cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
            for frame in read_frames(raw / pair.unstable.path)
        ]
        unit_px = np.sqrt(192 * 108) / 2
        for t in range(1, len(frames)):
            window = cv2.createHanningWindow((192, 108), cv2.CV_32F)
            (x, y), _ = cv2.phaseCorrelate(frames[t - 1], frames[t], window)
            # phaseCorrelate says where the content went; the motion goes from t to t - 1.
            error = np.hypot(*(np.array([-x, -y]) - truth.motion[t, :2] * unit_px))
            agreeing.append(error < 1.0)
    assert np.mean(agreeing) > 0.6


def test_the_same_seed_gives_the_same_bytes_whatever_else_lies_in_the_folder(
    raw: Path, params: Params, tmp_path: Path
) -> None:
    for seed, same in ((3, True), (4, False)):
        again = tmp_path / str(seed)
        videos.render_videos(
            again,
            folder=Path(params.data.videos.folder),
            params=params.data.videos.model_copy(update={"variants": 1}),
            seed=seed,
        )
        files = sorted(path.relative_to(again) for path in again.rglob("*_1.*"))
        assert len(files) == 12
        for file in files:
            assert (sha256_of(again / file) == sha256_of(raw / file)) == same


def test_its_motion_reaches_the_clips(raw: Path, params: Params, tmp_path: Path) -> None:
    manifest = Manifest.load(raw / MANIFEST_NAME)
    fill_cache(
        manifest,
        raw=raw,
        destination=tmp_path / "out",
        scratch=tmp_path / "scratch",
        params=params.flow,
    )
    index = ShardIndex.load(tmp_path / "out")
    for entry, pair in zip(index.pairs, manifest.pairs, strict=True):
        assert pair.truth is not None
        clip = read_clip(ShardReader(index), entry, 5, 12)
        expected = Truth.load(raw / pair.truth.path).motion[5:17]
        np.testing.assert_array_equal(clip["motion"].numpy(), expected)


def test_a_folder_without_videos_or_with_two_of_a_name_is_one_line(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"data\.videos\.folder: no"):
            videos.find_sources(root, width=192)
    for name in ("a.mp4", "a.avi"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="have the same name"):
        videos.find_sources(tmp_path, width=192)
