"""Frames written as H.264."""

from fractions import Fraction

import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video.frames import probe, read_frames
from deepstab.video.writer import write_video
from tests.unit.video.conftest import FAST, assert_nothing_left, picture


class TestWriteVideo:
    def test_same_frames_same_bytes(self, tmp_path):
        for name in ("a.mp4", "b.mp4"):
            num_frames = write_video(
                tmp_path / name,
                (picture(i) for i in range(20)),
                frame_rate=Fraction(30000, 1001),
                crf=18,
                preset="fast",
            )
            assert num_frames == 20
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
        info = probe(tmp_path / "a.mp4")
        assert info.frame_rate == Fraction(30000, 1001)
        assert info.pixel_format == "yuv420p"
        for index, frame in enumerate(read_frames(tmp_path / "a.mp4")):
            assert np.abs(frame.astype(int) - picture(index)).mean() < 5

    def test_rate_made_of_a_float(self, tmp_path):
        write_video(tmp_path / "a.mp4", [picture(0)] * 3, frame_rate=Fraction(23.976), **FAST)
        assert float(probe(tmp_path / "a.mp4").frame_rate) == pytest.approx(23.976, rel=1e-5)

    def test_nothing_to_write(self, tmp_path):
        with pytest.raises(VideoError, match="would hold no frame"):
            write_video(tmp_path / "a.mp4", [], frame_rate=Fraction(25), **FAST)
        assert_nothing_left(tmp_path)

    def test_unknown_preset(self, tmp_path):
        with pytest.raises(VideoError, match="encoder's settings"):
            write_video(
                tmp_path / "a.mp4", [picture(0)], frame_rate=Fraction(25), crf=18, preset="no"
            )
        assert_nothing_left(tmp_path)
