from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepstab.config import DataParams, SplitParams, parse_params
from deepstab.data import folder
from deepstab.data.manifest import Manifest, assign_splits
from deepstab.data.sources import MANIFEST_NAME, prepare_data
from deepstab.errors import DataError
from deepstab.video.writer import write_video
from tests.conftest import with_values


def write(path: Path, *, num_frames: int = 4, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(num_frames)
    frames = rng.integers(0, 255, (num_frames, size[1], size[0], 3), dtype=np.uint8)
    write_video(path, frames, frame_rate=Fraction(25), crf=30)
    return path


def data_params(tree: dict[str, Any], **values: Any) -> DataParams:
    changed = {f"data.{key}": value for key, value in values.items()}
    return parse_params(with_values(tree, changed), origin="test").data


@pytest.fixture
def three_pairs(tmp_path: Path) -> Path:
    for side in ("stable", "unstable"):
        for name in ("1", "2", "10"):
            write(tmp_path / "set" / side / f"{name}.mp4")
    return tmp_path / "set"


@pytest.mark.parametrize("above", ["", "deepstab", "deepstab/train"])
def test_pairs_are_found_below_the_usual_folders(tmp_path: Path, above: str) -> None:
    for side in ("stable", "unstable"):
        for name in ("1.avi", "2.MP4", "3.mov", "4.mkv", "notes.txt"):
            path = tmp_path / above / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    found = folder.find_videos(tmp_path)
    assert list(found["stable"]) == ["1", "2", "3", "4"] == list(found["unstable"])


def test_the_same_name_in_two_split_folders_is_two_videos(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for side in ("stable", "unstable"):
            write(tmp_path / part / side / "1.mp4")
    assert set(folder.find_videos(tmp_path)["stable"]) == {"train/1", "test/1"}
    (tmp_path / "train/stable/1.avi").touch()
    with pytest.raises(DataError, match="same name; keep one"):
        folder.find_videos(tmp_path)


def test_a_link_in_a_loop_finds_no_video_twice(tmp_path: Path) -> None:
    for side in ("stable", "unstable"):
        write(tmp_path / "set" / side / "1.mp4")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "itself").symlink_to("itself")
    assert list(folder.find_videos(tmp_path / "set")["stable"]) == ["1"]
    (tmp_path / "linked").mkdir()
    for side in ("stable", "unstable"):
        (tmp_path / "linked" / side).symlink_to(tmp_path / "set" / side)
    assert list(folder.find_videos(tmp_path / "linked")["unstable"]) == ["1"]


def test_names_that_would_be_one_file_are_refused(tmp_path: Path) -> None:
    for path in ("a/stable/3.mp4", "b/stable/3.mp4", "b/stable/a_3.mp4"):
        write(tmp_path / path)
    with pytest.raises(DataError, match=r"a/3 and a_3 would be one file; rename"):
        folder.find_videos(tmp_path)
    (tmp_path / "b/stable/a_3.mp4").unlink()
    write(tmp_path / "b/unstable/a_3.mp4")  # no partner of a/3
    with pytest.raises(DataError, match=r"a/3 and a_3 would be one file; rename"):
        folder.find_videos(tmp_path)


@pytest.mark.parametrize("name", [b"\xff.mp4", b"a\nb.mp4", b"a\x1b[2J.mp4"])
def test_names_that_cannot_be_written_down_are_refused(tmp_path: Path, name: bytes) -> None:
    write(tmp_path / "stable" / "1.mp4").rename(tmp_path / "stable" / os.fsdecode(name))
    with pytest.raises(DataError, match="not UTF-8 or holds control characters; rename it"):
        folder.find_videos(tmp_path)


def test_digits_of_any_kind_are_names(three_pairs: Path, default_tree: dict[str, Any]) -> None:
    for side in ("stable", "unstable"):
        write(three_pairs / side / "².mp4")
    manifest = folder.check_pairs(three_pairs, params=data_params(default_tree), source="folder")
    assert [pair.name for pair in manifest.pairs] == ["1", "2", "10", "²"]


def test_a_file_named_as_a_folder_of_videos_holds_none(tmp_path: Path) -> None:
    write(tmp_path / "unstable" / "1.mp4")
    (tmp_path / "stable").write_text("a file")
    assert not folder.holds_videos(tmp_path)
    with pytest.raises(DataError, match=r"no \{stable,unstable\}"):
        folder.copy_videos(tmp_path, tmp_path / "copy")


def test_everything_wrong_is_named_and_stops_by_default(
    three_pairs: Path, default_tree: dict[str, Any]
) -> None:
    (three_pairs / "unstable/2.mp4").write_bytes(b"no video")
    write(three_pairs / "stable/7.mp4")
    write(three_pairs / "stable/8.mp4")
    write(three_pairs / "unstable/8.mp4", size=(80, 48))
    params = data_params(default_tree)
    with pytest.raises(DataError) as caught:
        folder.check_pairs(three_pairs, params=params, source="folder")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("3 of 5 videos", "2 (", "7 (only in stable/)", "64x48 and 80x48", "skip"):
        assert part in message


def test_skip_leaves_pairs_out_and_says_so(three_pairs: Path, default_tree: dict[str, Any]) -> None:
    write(three_pairs / "unstable/11.mp4")
    write(three_pairs / "stable/10.mp4", num_frames=7)
    params = data_params(default_tree, on_bad_pair="skip")
    manifest = folder.check_pairs(three_pairs, params=params, source="folder")
    assert [pair.name for pair in manifest.pairs] == ["1", "2", "10"]
    assert {(p.name, p.action) for p in manifest.problems} == {
        ("11", "left out"),
        ("10", "cut to the shorter"),
    }
    assert manifest.pairs[2].num_frames == 4
    assert manifest.counts() == {"train": 1, "validation": 1, "test": 1, "left_out": 1, "cut": 1}
    first = manifest.pairs[0].stable
    assert (first.width, first.height, first.num_frames, first.frame_rate) == (64, 48, 4, 25)
    assert first.sha256 == folder.sha256_of(three_pairs / first.path)


def test_manifest_survives_the_file(three_pairs: Path, default_tree: dict[str, Any]) -> None:
    manifest = folder.check_pairs(three_pairs, params=data_params(default_tree), source="folder")
    path = three_pairs / MANIFEST_NAME
    manifest.save(path)
    assert Manifest.load(path) == manifest
    assert Manifest.load(path).digest() == manifest.digest()
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match="damaged manifest"):
        Manifest.load(path)
    with pytest.raises(DataError, match="run the download stage"):
        Manifest.load(path.with_name("absent.json"))


def test_named_splits_are_respected(default_tree: dict[str, Any]) -> None:
    split = SplitParams(test=("4",), validation=("6", "99"))
    names = {name: name for name in ("1", "4", "6")}
    assert assign_splits(names, split) == {"1": "train", "4": "test", "6": "validation"}
    with pytest.raises(DataError, match="no video is left for train"):
        assign_splits({"4": "4", "6": "6"}, split)


def test_fractions_keep_scenes_together() -> None:
    scenes = {f"{scene}-{take}": scene for scene in "abcdefghij" for take in range(3)}
    splits = assign_splits(scenes, SplitParams(test=0.2, validation=0.1))
    by_scene = {scene: {splits[n] for n in scenes if scenes[n] == scene} for scene in "abcdefghij"}
    assert all(len(found) == 1 for found in by_scene.values())
    counts = sorted(map(str, (found.pop() for found in by_scene.values())))
    assert counts == ["test"] * 2 + ["train"] * 7 + ["validation"]


def test_folder_source_copies_and_leaves_the_original_alone(
    three_pairs: Path, tmp_path: Path, default_tree: dict[str, Any]
) -> None:
    params = data_params(default_tree, source="folder", kaggle_root=str(three_pairs))
    manifest = prepare_data(tmp_path / "raw", params=params, seed=1, vgg_weights="none")
    assert manifest.source == "folder"
    assert sorted(p.name for p in (tmp_path / "raw/stable").iterdir()) == [
        "1.mp4",
        "10.mp4",
        "2.mp4",
    ]
    assert (three_pairs / "stable/1.mp4").exists()


def test_a_missing_or_empty_folder_fails_in_one_line_and_leaves_nothing(
    tmp_path: Path, default_tree: dict[str, Any]
) -> None:
    for root, reason in ((tmp_path / "absent", "no such folder"), (tmp_path, r"stable,unstable")):
        params = data_params(default_tree, source="folder", kaggle_root=str(root))
        with pytest.raises(DataError, match=reason):
            prepare_data(tmp_path / "out/raw", params=params, seed=1, vgg_weights="none")
        assert list((tmp_path / "out").iterdir()) == []


def test_auto_takes_the_folder_or_else_flights_with_a_warning(
    three_pairs: Path,
    tmp_path: Path,
    tiny_tree: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    params = data_params(tiny_tree, source="auto", kaggle_root=str(three_pairs))
    manifest = prepare_data(tmp_path / "raw", params=params, seed=1, vgg_weights="none")
    assert (manifest.requested, manifest.source, manifest.generated) == ("auto", "folder", False)
    shutil.rmtree(three_pairs)
    manifest = prepare_data(tmp_path / "raw", params=params, seed=1, vgg_weights="none")
    assert (manifest.requested, manifest.source, manifest.generated) == ("auto", "flights", True)
    assert "GENERATED" in caplog.text


def test_training_videos_of_the_tiny_set_are_apart_from_the_held_out(tiny_raw: Path) -> None:
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    scenes = [
        {pair.scene for pair in manifest.of_split(s)} for s in ("train", "validation", "test")
    ]
    assert all(scenes)
    assert not scenes[0] & scenes[1]
    assert not (scenes[0] | scenes[1]) & scenes[2]
