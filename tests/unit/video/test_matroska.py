"""Damaged and sound Matroska files: no frame is lost in silence, and no alarm is false."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video.frames import count_frames
from deepstab.video.matroska import find_damage
from deepstab.video.writer import write_video

NUM_FRAMES = 60


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matroska") / "sound.mkv"
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(NUM_FRAMES))
    write_video(path, frames, frame_rate=Fraction(25), crf=30)
    return path


def remuxed(source: Path, target: Path, **options: str) -> Path:
    with av.open(str(source)) as given, av.open(str(target), "w", options=options) as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return target


@pytest.mark.parametrize("options", [{}, {"live": "1"}, {"cluster_time_limit": "200"}])
def test_sound_files_are_sound(sound: Path, tmp_path: Path, options: dict[str, str]) -> None:
    path = remuxed(sound, tmp_path / "x.mkv", **options)
    assert find_damage(path) is None
    assert count_frames(path) == NUM_FRAMES


def test_elements_of_a_later_standard_are_passed_over(sound: Path, tmp_path: Path) -> None:
    content = bytearray(sound.read_bytes())
    # The space that the writer keeps for its index, behind the tracks, under another name.
    void = content.index(b"\xec\x01\x00\x00")
    content[void] = 0xF5
    path = tmp_path / "x.mkv"
    path.write_bytes(content)
    assert find_damage(path) is None
    content[void + 8] += 1  # it ends elsewhere than another begins
    path.write_bytes(content)
    assert find_damage(path) == void


@pytest.mark.parametrize("options", [{}, {"live": "1"}])
@pytest.mark.parametrize("number", [0x00, 0x82, 0x41])
def test_a_block_of_no_track_is_named(
    sound: Path, tmp_path: Path, options: dict[str, str], number: int
) -> None:
    path = remuxed(sound, tmp_path / "x.mkv", **options, write_crc32="0")
    content = bytearray(path.read_bytes())
    cluster = content.index(b"\x1f\x43\xb6\x75")
    # The second: name, size of two bytes, track 1.
    blocks = [m.start() for m in re.finditer(rb"\xa3[\x40-\x7f].\x81", content[cluster:], re.S)]
    assert len(blocks) == NUM_FRAMES
    content[cluster + blocks[1] + 3] = number
    path.write_bytes(content)
    assert find_damage(path) == cluster + blocks[1]
    with pytest.raises(VideoError, match=f"damaged at byte {cluster + blocks[1]}"):
        count_frames(path)


def test_no_frame_is_lost_in_silence(sound: Path, tmp_path: Path) -> None:
    content, path = sound.read_bytes(), tmp_path / "x.mkv"
    lost = refused = 0
    for seed in range(60):
        rng = random.Random(seed)
        size = rng.choice([20, 300, 3000])
        at, source = (rng.randrange(len(content) - size) for _ in range(2))
        filler = rng.choice([bytes(size), content[source : source + size]])
        path.write_bytes(content[:at] + filler + content[at + size :])
        try:
            lost += count_frames(path) != NUM_FRAMES
        except VideoError:
            refused += 1
    assert lost == 0
    assert refused > 20


def test_what_decodes_to_another_picture_has_another_checksum(sound: Path, tmp_path: Path) -> None:
    content = bytearray(sound.read_bytes())
    assert b"\x1f\x43\xb6\x75" in content
    content[len(content) // 2] ^= 1
    path = tmp_path / "x.mkv"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"is damaged at byte \d+ of \d+"):
        count_frames(path)
