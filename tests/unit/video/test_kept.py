"""Frames kept in memory are the frames of the file, or none are."""

import resource
import subprocess
import sys
from contextlib import closing

import av
import numpy as np
import pytest

from deepstab.video import kept as module
from deepstab.video.frames import read_frames_ahead
from deepstab.video.kept import KeptFrames, planes_of, spare_bytes
from deepstab.video.reader import VideoReader
from deepstab.video.rewrite import rewrite_planes
from tests.unit.video.conftest import FAST, identity, make_video

GIB = 2**30
FRAME_BYTES = 96 * 64 * 3 // 2


def keep(path, most_bytes):
    frames = KeptFrames(most_bytes)
    with closing(read_frames_ahead(path, size=(24, 16), kept=frames)) as small:
        assert sum(1 for _ in small) > 0
    return frames


def packets_of(path):
    with av.open(str(path)) as container:
        return [(packet.stream.index, packet.dts, bytes(packet)) for packet in container.demux()]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "width"),
    [
        ("a.mp4", "libx264", "yuv420p", 96),
        ("a.mkv", "ffv1", "yuv444p10le", 96),
        ("a.mkv", "ffv1", "gray", 96),
        ("a.mov", "png", "rgb24", 97),
    ],
)
def test_they_are_as_decoded(tmp_path, name, codec, pixel_format, width):
    path = make_video(
        tmp_path / name, codec=codec, pixel_format=pixel_format, width=width, num_frames=20
    )
    frames = keep(path, GIB)
    assert frames.are_of(path)
    with VideoReader(path) as reader:
        for (planes, pts, duration), frame in zip(frames, reader.decode(), strict=True):
            assert (pts, duration) == (frame.pts, frame.duration)
            for plane, wanted in zip(planes, planes_of(reader, frame), strict=True):
                np.testing.assert_array_equal(plane, wanted)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("frames_of_room", [0, 19, 20])
def test_all_or_none(tmp_path, name, frames_of_room):
    path = make_video(tmp_path / name, num_frames=20)
    frames = keep(path, frames_of_room * FRAME_BYTES)
    assert frames.are_of(path) is (frames_of_room == 20)
    assert len(list(frames)) == (20 if frames_of_room == 20 else 0)


def test_a_header_may_promise_too_few(tmp_path, monkeypatch):
    monkeypatch.setattr(VideoReader, "expected_frames", 3)
    path = make_video(tmp_path / "a.mp4", num_frames=20)
    assert not keep(path, 10 * FRAME_BYTES).are_of(path)
    assert keep(path, 20 * FRAME_BYTES).are_of(path)


def test_a_length_that_no_header_says_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(VideoReader, "expected_frames", None)
    path = make_video(tmp_path / "a.mp4", num_frames=20)
    assert not keep(path, GIB).are_of(path)


def test_of_a_video_that_is_read_in_part_none_are(tmp_path):
    path, frames = make_video(tmp_path / "a.mp4", num_frames=20), KeptFrames(GIB)
    with closing(read_frames_ahead(path, size=(24, 16), kept=frames)) as small:
        next(small)
    assert not frames.are_of(path)


def test_a_file_that_has_changed_is_another(tmp_path):
    path = make_video(tmp_path / "a.mp4", num_frames=20)
    frames = keep(path, GIB)
    make_video(path, num_frames=30)
    assert not frames.are_of(path)
    assert rewrite_planes(path, tmp_path / "b.mp4", identity, **FAST, kept=frames) == 30


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_rewrite_does_not_decode_them_again(tmp_path, suffix, monkeypatch):
    source = make_video(tmp_path / f"a{suffix}", num_frames=60, audio_s=2.0)
    again, once = tmp_path / f"again{suffix}", tmp_path / f"once{suffix}"
    frames = keep(source, GIB)
    rewrite_planes(source, again, identity, **FAST)
    num_decoded = []
    decode = VideoReader.decode

    def counted(*args, **kwargs):
        for frame in decode(*args, **kwargs):
            num_decoded.append(frame)
            yield frame

    monkeypatch.setattr(VideoReader, "decode", counted)
    assert rewrite_planes(source, once, identity, **FAST, kept=frames) == 60
    assert len(num_decoded) == 1
    assert packets_of(once) == packets_of(again)


class TestSpareBytes:
    def test_every_core_has_as_much(self, monkeypatch, tmp_path):
        monkeypatch.setattr(module, "_CGROUP_LIMIT", tmp_path / "memory.max")
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        everything = spare_bytes()
        (tmp_path / "memory.max").write_text("max\n")
        assert spare_bytes() == everything
        (tmp_path / "memory.max").write_text(f"{16 * 2**20}\n")
        assert spare_bytes() == 2**20

    def test_never_more_than_some(self, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        monkeypatch.setattr("os.sysconf", lambda _: 2**20)
        assert spare_bytes() == 1.5 * GIB

    def test_a_limit_of_the_process_counts(self):
        allowed = 2 * GIB
        code = "import os; os.cpu_count = lambda: 1\n"
        code += "from deepstab.video.kept import spare_bytes; print(spare_bytes())"
        found = subprocess.run(
            [sys.executable, "-c", code],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed)),
            capture_output=True,
            check=True,
            text=True,
        )
        assert int(found.stdout) == allowed // 4
