"""Damaged and sound indexes of MP4 files."""

from __future__ import annotations

import struct
from array import array
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video.frames import count_frames
from deepstab.video.mp4 import count_missing, has_stray_times
from deepstab.video.writer import write_video

NUM_FRAMES = 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mp4") / "sound.mp4"
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (48, 64, 3), np.uint8)
    frames = (np.roll(still, index, axis=1) for index in range(NUM_FRAMES))
    write_video(path, frames, frame_rate=Fraction(25), crf=30)
    return path


def entry(content: bytes, box: bytes, number: int, size: int) -> int:
    """Where an entry of a table stands: after the name come version, count, and for stsz a size."""
    return content.index(box) + (16 if box == b"stsz" else 12) + size * number


def damaged(sound: Path, target: Path, at: int, value: int) -> Path:
    content = bytearray(sound.read_bytes())
    content[at : at + 4] = struct.pack(">I", value)
    target.write_bytes(content)
    return target


def test_a_sound_index_is_believed(sound: Path) -> None:
    assert count_missing(sound, 0) == 0
    assert count_frames(sound) == NUM_FRAMES


def test_a_frame_beyond_the_file_is_missed(sound: Path, tmp_path: Path) -> None:
    at = entry(sound.read_bytes(), b"stsz", 20, 4)
    path = damaged(sound, tmp_path / "x.mp4", at, 0x7FFFFFFF)
    with pytest.raises(VideoError, match=r"frames are not in its index|cannot be decoded"):
        count_frames(path)


def test_a_frame_shown_at_another_time_is_missed(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    assert b"ctts" in content  # it has B-frames
    at = entry(content, b"ctts", 4, 8) + 4
    path = damaged(sound, tmp_path / "x.mp4", at, 1_000_000)
    with pytest.raises(VideoError, match="times of its frames do not fit"):
        count_frames(path)


def test_a_header_without_a_length_is_noticed(sound: Path, tmp_path: Path) -> None:
    at = sound.read_bytes().index(b"mdhd")
    path = damaged(sound, tmp_path / "x.mp4", at, 0x66666666)
    with pytest.raises(VideoError, match="does not say how long it is; replace the file"):
        count_frames(path)


def test_times_by_hand() -> None:
    # I B B P, a frame of delay, and one that lasts long.
    dts, pts = [0, 10, 20, 30, 90, 100], [10, 40, 20, 30, 100, 110]
    assert not has_stray_times(array("q", dts), array("q", pts))
    pts[2] = 500
    assert has_stray_times(array("q", dts), array("q", pts))
    assert not has_stray_times(array("q", [5]), array("q", [900]))
