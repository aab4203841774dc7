from __future__ import annotations

import dataclasses
import fcntl
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from deepstab import geometry
from deepstab.config import FlowParams, Params
from deepstab.data import shards
from deepstab.data.clips import Clip, HeldOutClips, RandomClips, _mirror, read_clip
from deepstab.data.flow import farneback
from deepstab.data.flow_cache import fill_cache
from deepstab.data.manifest import Manifest
from deepstab.data.shard_reader import ShardReader
from deepstab.data.shards import FLOW_SCALE, PairEntry, ShardIndex, verify_shards
from deepstab.data.sources import MANIFEST_NAME
from deepstab.errors import ShardError
from deepstab.files import sha256_of
from deepstab.video.frames import read_frames


def fill(raw: Path, folder: Path, params: FlowParams, manifest: Manifest | None = None) -> int:
    shutil.rmtree(folder / "out", ignore_errors=True)
    return fill_cache(
        manifest or Manifest.load(raw / MANIFEST_NAME),
        raw=raw,
        destination=folder / "out",
        scratch=folder / "scratch",
        params=params,
    )


def test_what_is_read_is_what_was_decoded(
    tiny_raw: Path, tiny_index: ShardIndex, tiny_params: Params
) -> None:
    entry = tiny_index.pairs[1]
    pair = Manifest.load(tiny_raw / MANIFEST_NAME).pairs[1]
    assert pair.name == entry.name
    arrays = ShardReader(tiny_index).read(entry, 3, 20)
    frames = list(read_frames(tiny_raw / pair.unstable.path, size=(64, 64)))
    flow = list(farneback(frames, tiny_params.flow))
    np.testing.assert_array_equal(arrays["unstable"], frames[3:23])
    error_px = np.abs(arrays["flow"] / FLOW_SCALE - np.stack(flow[3:23]))
    assert error_px.max() <= 0.5 / FLOW_SCALE + 1e-6


def test_flow_points_to_the_previous_frame_in_x_y_order(tiny_params: Params) -> None:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    # Content moves right by 2 and down by 1: frame t at (x, y) was at (x - 2, y - 1).
    second = np.roll(texture, (1, 2), axis=(0, 1))
    first_flow, flow = farneback([texture, second], tiny_params.flow)
    assert not first_flow.any()
    inner = flow[20:-20, 20:-20]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [-2, -1], atol=0.05)


def stored_frames(index: ShardIndex, pair: PairEntry) -> list[dict[str, bytes]]:
    """The frames of a pair as Arrow's own reader gives them."""
    return [
        row
        for shard in pair.shards
        for row in pa.ipc.open_file(index.folder / shard.file).read_all().to_pylist()
    ]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_shards_are_identical_byte_for_byte(
    tiny_raw: Path, tmp_path: Path, tiny_params: Params, compression: str
) -> None:
    params = tiny_params.flow.model_copy(update={"compression": compression, "shard_mib": 1})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fill(tiny_raw, tmp_path / name, params)
    first, second = (ShardIndex.load(tmp_path / name / "out") for name in ("a", "b"))
    assert first.pairs == second.pairs
    verify_shards(first)
    # 64 x 64 x 10 bytes a frame: 25 frames fill 1 MiB, so 40 frames take two shards.
    assert [len(pair.shards) for pair in first.pairs] == [2] * 6
    reader, pair = ShardReader(first), first.pairs[0]
    room = reader.room(10)
    across = reader.read(pair, 20, 10, room=room)
    assert across is room
    for number, stored in enumerate(stored_frames(first, pair)[20:30]):
        for name, bytes_stored in stored.items():
            assert across[name][number].tobytes() == bytes_stored


def test_one_more_video_computes_one_video(
    tiny_raw: Path, tmp_path: Path, tiny_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    fewer = Manifest("flights", "flights", manifest.pairs[:-1], ())
    assert fill(tiny_raw, tmp_path, tiny_params.flow, fewer) == 5
    assert fill(tiny_raw, tmp_path, tiny_params.flow, manifest) == 1
    assert fill(tiny_raw, tmp_path, tiny_params.flow, manifest) == 0
    other = tiny_params.flow.model_copy(update={"winsize": 11})
    assert fill(tiny_raw, tmp_path, other, manifest) == 6
    monkeypatch.setattr(shards, "_MADE_BY", ("data/flow.py",))  # as if they were edited
    assert fill(tiny_raw, tmp_path, tiny_params.flow, manifest) == 6


def test_damage_is_found_and_named(tiny_raw: Path, tmp_path: Path, tiny_params: Params) -> None:
    fill(tiny_raw, tmp_path, tiny_params.flow)
    index = ShardIndex.load(tmp_path / "out")
    victim = index.folder / index.pairs[2].shards[0].file
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    with pytest.raises(ShardError, match=victim.name):
        verify_shards(index)
    victim.write_bytes(content[:1000])
    with pytest.raises(ShardError, match="missing or damaged"):
        ShardReader(index).read(index.pairs[2], 0, 5)
    path = index.folder / shards.INDEX_NAME
    path.write_text(path.read_text().replace('"num_frames": 40', '"num_frames": 41'))
    longer = ShardIndex.load(index.folder)
    with pytest.raises(ShardError, match="40 frames, 41 in the index"):
        ShardReader(longer).read(longer.pairs[0], 40, 1)
    path.write_text("{}")
    with pytest.raises(ShardError, match="damaged index"):
        ShardIndex.load(index.folder)
    with pytest.raises(ShardError, match="run the flow stage first"):
        ShardIndex.load(tmp_path)


def test_videos_of_the_same_content_share_their_shards(
    tiny_raw: Path, tmp_path: Path, tiny_params: Params
) -> None:
    first = Manifest.load(tiny_raw / MANIFEST_NAME).pairs[0]
    twins = (first, dataclasses.replace(first, name="twin"))
    manifest = Manifest("flights", "flights", twins, ())
    assert fill(tiny_raw, tmp_path, tiny_params.flow, manifest) == 1
    index = ShardIndex.load(tmp_path / "out")
    verify_shards(index)
    hashes = {shard.sha256 for pair in index.pairs for shard in pair.shards}
    assert len(hashes) == 1
    assert fill(tiny_raw, tmp_path, tiny_params.flow, manifest) == 0


def test_two_flow_stages_at_once(tiny_raw: Path, tmp_path: Path, tiny_params: Params) -> None:
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        running = [
            pool.submit(
                fill_cache,
                manifest,
                raw=tiny_raw,
                destination=tmp_path / name,
                scratch=tmp_path / "scratch",
                params=tiny_params.flow,
            )
            for name in ("a", "b")
        ]
        assert all(0 <= stage.result() <= 6 for stage in running)
    first, second = (ShardIndex.load(tmp_path / name) for name in ("a", "b"))
    assert first.digest() == second.digest()
    verify_shards(first)
    verify_shards(second)
    assert not list((tmp_path / "scratch").glob("*.partial"))


def test_who_writes_second_leaves_the_shards_of_the_first(
    tmp_path: Path, tiny_params: Params
) -> None:
    image, flow = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 2), np.float32)
    frame = (image, image, flow, np.zeros(4, np.float32))

    def write(frames: Iterator[shards.StoredFrame]) -> None:
        shards.write_shards(
            frames,
            tmp_path / "key",
            params=tiny_params.flow,
            source_sha256={},
            on_frame=lambda: None,
        )

    def overtaken() -> Iterator[shards.StoredFrame]:
        yield frame
        write(iter([frame, frame]))
        yield frame

    write(overtaken())
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    (shard,) = (tmp_path / "key").iterdir()
    assert shard.name == f"000-{sha256_of(shard)}.arrow"


def test_what_killed_writers_left_is_removed_when_nobody_writes(
    tiny_raw: Path, tmp_path: Path, tiny_params: Params
) -> None:
    left = tmp_path / "scratch" / "key-1.partial"
    left.mkdir(parents=True)
    with (tmp_path / "scratch" / "in_use.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as another flow stage has it
        fill(tiny_raw, tmp_path, tiny_params.flow)
        assert left.exists()
    fill(tiny_raw, tmp_path, tiny_params.flow)
    assert not left.exists()


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted"])
def test_a_damaged_cache_is_named_and_computed_again(
    tiny_raw: Path,
    tmp_path: Path,
    tiny_params: Params,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    fill(tiny_raw, tmp_path, tiny_params.flow)
    before = ShardIndex.load(tmp_path / "out").digest()
    victim = next((tmp_path / "scratch").glob("*/*.arrow"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    if damage != "deleted":
        victim.write_bytes(content if damage == "flipped" else content[:1000])
    assert fill(tiny_raw, tmp_path, tiny_params.flow) == 1
    assert f"{victim.parent}: cached flow of pair" in caplog.text
    assert ShardIndex.load(tmp_path / "out").digest() == before


def test_a_video_that_changed_after_download_is_named(
    tiny_raw: Path, tmp_path: Path, tiny_params: Params
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(tiny_raw, raw)
    first, second = Manifest.load(raw / MANIFEST_NAME).pairs[:2]
    shutil.copyfile(raw / second.stable.path, raw / first.stable.path)
    with pytest.raises(ShardError, match=f"{first.stable.path}: changed after download"):
        fill(raw, tmp_path, tiny_params.flow)


def test_a_broken_video_leaves_no_shards_behind(
    tiny_raw: Path, tmp_path: Path, tiny_params: Params
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(tiny_raw, raw)
    broken = raw / Manifest.load(raw / MANIFEST_NAME).pairs[0].unstable.path
    broken.write_bytes(broken.read_bytes()[:3000])
    with pytest.raises(Exception, match=broken.name):
        fill(raw, tmp_path, tiny_params.flow)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "scratch").glob("*.partial"))


def test_windows_are_a_function_of_seed_and_epoch(tiny_index: ShardIndex) -> None:
    def draw(seed: int, epoch: int) -> list[float]:
        clips = RandomClips(tiny_index, clip_length=12, windows_per_video=2, seed=seed)
        clips.set_epoch(epoch)
        return [float(clips[item]["unstable"].double().sum()) for item in range(len(clips))]

    assert draw(1, 0) == draw(1, 0)
    assert draw(1, 0) != draw(1, 1)
    assert draw(1, 0) != draw(2, 0)
    assert len(draw(1, 0)) == 2 * len(tiny_index.of_split("train"))


def test_mirrored_clips_keep_flow_and_picture_together(tiny_index: ShardIndex) -> None:
    # Warping the previous frame by the flow must explain the frame, mirrored or not.
    clips = RandomClips(tiny_index, clip_length=12, windows_per_video=4, seed=3)
    kinds = set()
    for item in range(len(clips)):
        clip = clips[item]
        gray = (clip["unstable"].mean(dim=0) * 255).numpy()
        flow = clip["flow"].numpy()
        ys, xs = np.mgrid[0:64, 0:64].astype(np.float32)
        with_flow = without = 0.0
        for t in range(1, 12):
            carried = cv2.remap(gray[t - 1], xs + flow[0, t], ys + flow[1, t], cv2.INTER_LINEAR)
            with_flow += np.abs(carried - gray[t])[8:-8, 8:-8].mean()
            without += np.abs(gray[t - 1] - gray[t])[8:-8, 8:-8].mean()
        assert with_flow < without
        kinds.add((bool(flow[0, 1:].mean() > 0), bool(flow[1, 1:].mean() > 0)))
    assert len(kinds) > 1


def test_mirrored_clips_keep_flow_and_true_motion_together(tiny_index: ShardIndex) -> None:
    clips = RandomClips(tiny_index, clip_length=12, windows_per_video=4, seed=3)
    points = geometry.cell_centers(64, 64).reshape(-1, 2).double()
    kinds = set()
    ratios = []
    for item in range(len(clips)):
        clip = clips[item]
        thetas = geometry.similarity_to_theta(
            clip["motion"][None].double(), clip["aspect"][None].double()
        )[0]
        moved_px = (geometry.apply(thetas, points) - points) * 32
        flow_px = clip["flow"].flatten(2).permute(1, 2, 0)
        with_motion = (flow_px - moved_px)[1:].norm(dim=-1).median()
        ratios.append(float(with_motion / flow_px[1:].norm(dim=-1).median()))
        # Roll too: the part of the motion that differs between two halves of the frame.
        kinds.add(tuple((clip["motion"][1:, :3].mean(dim=0) > 0).tolist()))
    assert len(kinds) > 3
    assert np.median(ratios) < 0.5
    assert max(ratios) < 0.8


def test_a_mirrored_roll_turns_the_other_way() -> None:
    motion = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    zeros = torch.zeros(3, 1, 2, 2)
    clip = Clip(
        unstable=zeros, stable=zeros, flow=zeros[:2], motion=motion, aspect=torch.tensor(1.5)
    )
    for axis, component, expected in (
        (-1, 0, [-0.1, 0.2, -0.3, 0.4]),
        (-2, 1, [0.1, -0.2, -0.3, 0.4]),
    ):
        mirrored = _mirror(clip, axis=axis, component=component)
        torch.testing.assert_close(mirrored["motion"], torch.tensor([expected]))


def test_motion_that_nobody_knows_is_not_a_number(
    tiny_raw: Path, tmp_path: Path, tiny_params: Params
) -> None:
    manifest = Manifest.load(tiny_raw / MANIFEST_NAME)
    filmed = dataclasses.replace(manifest.pairs[0], truth=None)
    fill(tiny_raw, tmp_path, tiny_params.flow, Manifest("folder", "folder", (filmed,), ()))
    index = ShardIndex.load(tmp_path / "out")
    assert read_clip(ShardReader(index), index.pairs[0], 0, 8)["motion"].isnan().all()


def test_held_out_windows_cover_the_videos_without_overlap(tiny_index: ShardIndex) -> None:
    clips = HeldOutClips(tiny_index, split="validation", clip_length=12)
    assert len(clips) == 3 * len(tiny_index.of_split("validation"))  # 40 frames: 3 times 12
    with pytest.raises(ShardError, match=r"shorter than model\.clip_length 64"):
        HeldOutClips(tiny_index, split="validation", clip_length=64)
