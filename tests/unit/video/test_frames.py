"""What a file says about itself, and its frames."""

import threading
from contextlib import closing, nullcontext

import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video.frames import count_frames, probe, read_frames, read_frames_ahead
from deepstab.video.rewrite import rewrite_video
from tests.unit.video.conftest import FAST, identity, make_video, picture


class TestProbe:
    def test_tells_what_the_file_holds(self, tmp_path):
        path = make_video(tmp_path / "a.mp4", num_frames=45, audio_s=1.5)
        info = probe(path)
        assert (info.width, info.height) == (96, 64)
        assert info.frame_rate == 30
        assert info.num_frames == 45
        assert info.duration_s == pytest.approx(1.5, abs=0.05)
        assert info.rotation_deg == 0
        assert info.has_audio
        assert info.pixel_format == "yuv420p"

    def test_matroska_does_not_count_frames(self, tmp_path):
        info = probe(make_video(tmp_path / "a.mkv", num_frames=45))
        assert info.num_frames is None
        assert info.duration_s == pytest.approx(1.5, abs=0.01)
        assert not info.has_audio


class TestReadFrames:
    def test_presentation_order_size_and_ownership(self, tmp_path):
        path = make_video(tmp_path / "a.mp4", num_frames=50, options={"crf": "5", "bf": "3"})
        frames = list(read_frames(path))
        assert len(frames) == count_frames(path) == 50
        assert all(f.shape == (64, 96, 3) and f.dtype == np.uint8 for f in frames)
        errors = [
            np.abs(frame.astype(int) - picture(index)).mean() for index, frame in enumerate(frames)
        ]
        assert max(errors) < 4
        before = frames[1].copy()
        frames[0][:] = 0
        assert np.array_equal(frames[1], before)

    def test_ahead_they_are_the_same(self, tmp_path):
        path = make_video(tmp_path / "a.mp4", num_frames=50)
        with closing(read_frames_ahead(path, size=(24, 16))) as frames:
            for frame, wanted in zip(frames, read_frames(path, size=(24, 16)), strict=True):
                assert np.array_equal(frame, wanted)

    @pytest.mark.parametrize("is_damaged", [False, True])
    def test_ahead_no_thread_is_left_and_damage_is_told(self, tmp_path, is_damaged):
        path = make_video(tmp_path / "a.mkv", num_frames=50)
        if is_damaged:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        frames = read_frames_ahead(path, size=(24, 16))
        with pytest.raises(VideoError, match="cut short") if is_damaged else nullcontext():
            for _ in range(5):
                next(frames)
        frames.close()
        assert not [one for one in threading.enumerate() if one.name.startswith("deepstab")]

    @pytest.mark.parametrize("name", ["наше видео.mp4", "with space.mp4", "a:b %03d.mp4"])
    def test_any_file_name(self, tmp_path, name):
        make_video(tmp_path / "a.mp4", num_frames=5)
        (tmp_path / "a.mp4").rename(tmp_path / name)
        assert count_frames(tmp_path / name) == 5
        assert rewrite_video(tmp_path / name, tmp_path / f"é {name}", identity, **FAST) == 5
