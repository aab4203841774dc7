"""Manifest and index: files whose bytes and digests stay, and what is refused in them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepstab.config import parse_params
from deepstab.data.manifest import Manifest, Problem, TruthFile, VideoFile, VideoPair
from deepstab.data.shards import INDEX_NAME, PairEntry, Shard, ShardIndex
from deepstab.errors import DataError, ShardError


@pytest.fixture
def manifest() -> Manifest:
    file = VideoFile("stable/é.mp4", "0" * 64, 20, 29.97003, 384, 216)
    truth = TruthFile("truth/é.npz", "3" * 64)
    pair = VideoPair("é", "scène", "test", file, file, 20, truth)
    return Manifest("auto", "folder", (pair,), (Problem("b", "cut \u2013 short", "left out"),))


@pytest.fixture
def index(tmp_path: Path, default_tree: dict[str, Any]) -> ShardIndex:
    shard = Shard("é-000.arrow", "2" * 64, 0, 20)
    return ShardIndex(
        folder=tmp_path,
        height=128,
        width=128,
        manifest_digest="1" * 64,
        flow=parse_params(default_tree, origin="test").flow,
        pairs=(PairEntry("é", "test", 384, 216, 20, (shard,)),),
    )


def test_digests_stay_until_a_layout_changes(manifest: Manifest, index: ShardIndex) -> None:
    # Anything else would throw away every cached data set and every resumable training.
    filmed = dataclasses.replace(
        manifest, pairs=(dataclasses.replace(manifest.pairs[0], truth=None),)
    )
    assert filmed.digest().startswith("b4b03b29784a1dce")
    assert index.layout == 3
    assert index.digest().startswith("1927f0a055d65ba1")


def test_files_say_all_there_is(manifest: Manifest, index: ShardIndex, tmp_path: Path) -> None:
    manifest.save(tmp_path / "manifest.json")
    index.save()
    assert Manifest.load(tmp_path / "manifest.json") == manifest
    assert ShardIndex.load(tmp_path) == index
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", INDEX_NAME}


def changed(path: Path, keys: tuple[str | int, ...], value: object) -> None:
    tree = json.loads(path.read_text())
    inner: Any = tree
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("pairs",), None),
        (("pairs",), {}),
        (("pairs", 0), ["é"]),
        (("pairs", 0, "num_frames"), -20),
        (("pairs", 0, "num_frames"), "20"),
        (("pairs", 0, "width"), 0),
        (("pairs", 0, "split"), "tset"),
        (("pairs", 0, "size"), 1),
        (("pairs", 0, "num_frames"), 10**30),
        (("pairs", 0, "shards", 0, "num_frames"), 2**31),
        (("pairs", 0, "shards", 0, "first_frame"), -1),
        (("height",), 10**9),
        (("pairs", 0, "shards", 0, "sha256"), "abc"),
        (("flow", "poly_n"), 6),
        (("layout",), 1),
        (("manifest_digest",), None),
        (("pairs", 0, "name"), "a\nb"),
        (("pairs", 0, "shards", 0, "file"), "../0.arrow"),
        (("pairs", 0, "shards", 0, "file"), "/0.arrow"),
    ],
)
def test_absurd_values_of_the_index_are_one_line(
    index: ShardIndex, keys: tuple[str | int, ...], value: object
) -> None:
    index.save()
    changed(index.folder / INDEX_NAME, keys, value)
    with pytest.raises(ShardError) as caught:
        ShardIndex.load(index.folder)
    assert_one_line(str(caught.value), keys)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("pairs",), None),
        (("pairs", 0), []),
        (("pairs", 0, "stable"), ["a.mp4"]),
        (("pairs", 0, "num_frames"), 10**30),
        (("pairs", 0, "stable", "frame_rate"), -1),
        (("pairs", 0, "stable", "frame_rate"), 1e300),
        (("pairs", 0, "stable", "frame_rate"), float("nan")),
        (("pairs", 0, "unstable", "width"), 384.5),
        (("pairs", 0, "unstable", "sha256"), 7),
        (("pairs", 0, "truth", "sha256"), "abc"),
        (("pairs", 0, "truth"), "truth/1.npy"),
        (("problems",), {}),
        (("problems", 0, "action"), "ignored"),
        (("source",), "auto"),
        (("vgg19_sha256",), ""),
        (("pairs", 0, "name"), ""),
        (("pairs", 0, "scene"), "a\0b"),
        (("pairs", 0, "stable", "path"), "/etc/passwd"),
        (("pairs", 0, "unstable", "path"), "unstable/../../a.mp4"),
        (("pairs", 0, "truth", "path"), "../a.npz"),
    ],
)
def test_absurd_values_of_the_manifest_are_one_line(
    manifest: Manifest, tmp_path: Path, keys: tuple[str | int, ...], value: object
) -> None:
    manifest.save(tmp_path / "manifest.json")
    changed(tmp_path / "manifest.json", keys, value)
    with pytest.raises(DataError) as caught:
        Manifest.load(tmp_path / "manifest.json")
    assert_one_line(str(caught.value), keys)


def test_an_index_whose_shards_leave_frames_out_is_one_line(index: ShardIndex) -> None:
    index.save()
    changed(index.folder / INDEX_NAME, ("pairs", 0, "num_frames"), 10**9)
    with pytest.raises(ShardError, match="shards do not hold frames 0 to 999999999") as caught:
        ShardIndex.load(index.folder)
    assert "\n" not in str(caught.value)


def test_what_does_not_hold_together_is_one_line(
    manifest: Manifest, index: ShardIndex, tmp_path: Path
) -> None:
    path = tmp_path / "manifest.json"
    for key, value, message in (
        ("num_frames", 21, "21 frames are more than both videos have"),
        ("stable", {**dataclasses.asdict(manifest.pairs[0].stable), "num_frames": 19}, "20 frames"),
    ):
        manifest.save(path)
        changed(path, ("pairs", 0, key), value)
        with pytest.raises(DataError, match=message):
            Manifest.load(path)
    manifest.save(path)
    changed(path, ("pairs",), json.loads(path.read_text())["pairs"] * 2)
    with pytest.raises(DataError, match="two pairs have the same name"):
        Manifest.load(path)
    index.save()
    path = index.folder / INDEX_NAME
    changed(path, ("pairs",), json.loads(path.read_text())["pairs"] * 2)
    with pytest.raises(ShardError, match="two pairs have the same name"):
        ShardIndex.load(index.folder)
    index.save()
    changed(path, ("height",), 64)
    with pytest.raises(ShardError, match="flow and frames have different sizes"):
        ShardIndex.load(index.folder)


def test_a_folder_is_neither(tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        Manifest.load(tmp_path / INDEX_NAME)
    with pytest.raises(ShardError, match="cannot be read"):
        ShardIndex.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}"])
@pytest.mark.parametrize("load", [lambda path: Manifest.load(path / INDEX_NAME), ShardIndex.load])
def test_what_is_no_such_file_is_one_line(
    tmp_path: Path, content: bytes, load: Callable[[Path], object]
) -> None:
    (tmp_path / INDEX_NAME).write_bytes(content)
    with pytest.raises((DataError, ShardError), match="damaged") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def assert_one_line(message: str, keys: tuple[str | int, ...]) -> None:
    assert ".".join(map(str, keys)) in message
    assert "\n" not in message
    assert len(message) < 400
