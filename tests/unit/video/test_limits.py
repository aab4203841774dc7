"""What is too large is refused, before it is decoded where its headers tell."""

import pytest

from deepstab.errors import VideoError
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.video.limits import Limits
from tests.unit.video.conftest import make_video

TOO_MUCH = {
    "bytes": (Limits(num_bytes=100), r"has \d+ bytes, more than the 100 allowed"),
    "duration": (Limits(duration_s=1.0), r"lasts 1\.33 s, more than the 1 allowed"),
    "pixels": (Limits(num_pixels=96 * 64 - 1), "frames of 96x64, more than the 6143 pixels"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("call", [probe, count_frames, lambda *a, **k: next(read_frames(*a, **k))])
def test_beyond_a_limit_nothing_is_decoded(tmp_path, name, suffix, call):
    path = make_video(tmp_path / f"a{suffix}")
    limits, message = TOO_MUCH[name]
    with pytest.raises(VideoError, match=message) as error:
        call(path, limits=limits)
    assert str(path) in str(error.value)


def test_at_the_limit_all_is_decoded(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    limits = Limits(num_bytes=path.stat().st_size, duration_s=40 / 30, num_pixels=96 * 64)
    assert count_frames(path, limits=limits) == 40


def test_a_duration_that_no_header_tells_ends_the_decoding(tmp_path):
    path = make_video(tmp_path / "a.h264")
    seen = []
    with pytest.raises(VideoError, match=r"lasts 0\.5\d s, more than the 0\.5 allowed"):
        seen.extend(read_frames(path, limits=Limits(duration_s=0.5)))
    assert 0 < len(seen) < 40
