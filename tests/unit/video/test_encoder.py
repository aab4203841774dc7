"""Sizes that H.264 keeps, and frames that it refuses."""

from fractions import Fraction

import pytest

from deepstab.video.frames import read_frames
from deepstab.video.writer import write_video
from tests.unit.video.conftest import FAST, assert_nothing_left, picture


@pytest.mark.parametrize(("width", "height"), [(97, 64), (96, 65), (97, 65)])
def test_odd_size_is_kept(tmp_path, width, height):
    path = tmp_path / "a.mp4"
    write_video(path, [picture(0, width, height)] * 3, frame_rate=Fraction(25), **FAST)
    assert [f.shape for f in read_frames(path)] == [(height, width, 3)] * 3


def test_frames_of_two_sizes(tmp_path):
    frames = [picture(0), picture(1, width=64)]
    with pytest.raises(ValueError, match="96x64"):
        write_video(tmp_path / "a.mp4", frames, frame_rate=Fraction(25), **FAST)
    assert_nothing_left(tmp_path)
