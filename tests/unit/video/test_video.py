"""Reading, writing and rewriting real files, made here by PyAV or by ffmpeg where it is there."""

import itertools
import logging
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video import color
from deepstab.video.ahead import Channel, ClosedError, ahead
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.video.rewrite import rewrite_planes, rewrite_video
from deepstab.video.writer import write_video

REPOSITORY = Path(__file__).parents[3]
RATE = 30
FAST = {"crf": 18, "preset": "ultrafast"}
# Each H.273 code point a test needs.
BT709, BT601, BT2020 = 1, 6, 9
LIMITED, FULL = 1, 2

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def identity(frames):
    yield from frames


def picture(index, width=96, height=64):
    """Return a smooth picture that moves by a pixel per frame."""
    x = np.arange(width)[None, :] + index
    y = np.arange(height)[:, None]
    red = 127 + 100 * np.sin(x / 15 + 0 * y)
    green = 127 + 100 * np.sin(y / 11 + 0 * x)
    blue = 127 + 100 * np.cos((x + y) / 19)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def make_video(
    path,
    *,
    num_frames=40,
    width=96,
    height=64,
    codec="libx264",
    pixel_format="yuv420p",
    time_base=Fraction(1, RATE),
    pts=None,
    matrix=None,
    color_range=None,
    rotation_matrix=None,
    sample_aspect_ratio=None,
    metadata=None,
    chapters=None,
    audio_s=0.0,
    options=None,
    container_options=None,
    container_format=None,
    images=None,
):
    """Write a video with PyAV alone, by a way that shares no code with the package."""
    pts = list(range(num_frames)) if pts is None else pts
    with av.open(
        str(path), "w", format=container_format, container_options=container_options or {}
    ) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=RATE, time_base=time_base)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.options = options or ({"crf": "10"} if codec == "libx264" else {})
        if matrix is not None:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_primaries = matrix
            stream.codec_context.color_trc = matrix
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if rotation_matrix is not None:
            stream.set_display_matrix(rotation_matrix)
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if chapters:
            container.set_chapters(chapters)
        sound = None
        if audio_s:
            sound = container.add_stream("aac", rate=44100)
            sound.metadata["language"] = "fra"
        for index, time in enumerate(pts):
            if images is not None:
                frame = images(index)
            else:
                frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
                frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            num_samples = int(audio_s * 44100) // 1024
            for block in range(num_samples):
                t = (np.arange(1024) + 1024 * block) / 44100
                wave = np.sin(2 * np.pi * 440 * t).astype(np.float32)
                chunk = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
                chunk.sample_rate, chunk.pts = 44100, 1024 * block
                container.mux(sound.encode(chunk))
            container.mux(sound.encode())
    return path


def video_times(path):
    """Return presentation times as exact fractions of a second, sorted."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(
            packet.pts * stream.time_base for packet in container.demux(stream) if packet.size
        )


def decoded(path):
    """The luma and chroma samples of every frame, one above the other."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def packets_of(path, kind):
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [
            (packet.pts * stream.time_base, packet.duration, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


def assert_nothing_left(folder, *expected):
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in expected)
    assert [t for t in threading.enumerate() if t.name.startswith("deepstab")] == []


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "in.mp4")


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

    @pytest.mark.parametrize(
        ("matrix", "color_range", "red", "green", "gray"),
        [
            # Samples of pure red, pure green and mid gray, from the tables of the standards.
            (BT601, LIMITED, (81, 90, 240), (145, 54, 34), (126, 128, 128)),
            (BT709, LIMITED, (63, 102, 240), (173, 42, 26), (126, 128, 128)),
            (BT601, FULL, (76, 85, 255), (150, 44, 21), (128, 128, 128)),
        ],
    )
    def test_samples_are_read_by_their_tags(self, tmp_path, matrix, color_range, red, green, gray):
        samples = [red, green, gray]

        def flat(index):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane, value in zip(frame.planes, samples[index], strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.colorspace, frame.color_range = matrix, color_range
            return frame

        path = make_video(
            tmp_path / "a.mp4",
            num_frames=3,
            width=64,
            height=48,
            matrix=matrix,
            color_range=color_range,
            images=flat,
            options={"crf": "0"},
        )
        expected = [(255, 0, 0), (0, 255, 0), (128, 128, 128)]
        for frame, rgb in zip(read_frames(path), expected, strict=True):
            assert np.abs(frame.astype(int) - rgb).max() <= 2

    @pytest.mark.parametrize("name", ["наше видео.mp4", "with space.mp4", "a:b %03d.mp4"])
    def test_any_file_name(self, tmp_path, name):
        make_video(tmp_path / "a.mp4", num_frames=5)
        (tmp_path / "a.mp4").rename(tmp_path / name)
        assert count_frames(tmp_path / name) == 5
        assert rewrite_video(tmp_path / name, tmp_path / f"é {name}", identity, **FAST) == 5


class TestUnreadable:
    def test_missing(self, tmp_path):
        with pytest.raises(VideoError, match=r"no\.mp4 does not exist"):
            probe(tmp_path / "no.mp4")

    def test_folder(self, tmp_path):
        with pytest.raises(VideoError, match="is a folder"):
            count_frames(tmp_path)

    def test_empty(self, tmp_path):
        (tmp_path / "a.mp4").touch()
        with pytest.raises(VideoError, match=r"a\.mp4 is empty"):
            next(read_frames(tmp_path / "a.mp4"))

    @pytest.mark.parametrize(
        "text", ["just words\n" * 50, "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"]
    )
    def test_text_with_a_video_name(self, tmp_path, text):
        (tmp_path / "a.mp4").write_text(text)
        with pytest.raises(VideoError, match=r"a\.mp4") as error:
            next(read_frames(tmp_path / "a.mp4"))
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("with_cover", [False, True])
    def test_sound_alone(self, tmp_path, with_cover):
        path = tmp_path / "a.m4a"
        with av.open(str(path), "w", format="mp4") as container:
            sound = container.add_stream("aac", rate=44100)
            cover = None
            if with_cover:
                cover = container.add_stream("mjpeg", rate=1)
                cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
                cover.disposition = av.stream.Disposition.attached_pic
            silence = np.zeros((2, 1024), dtype=np.float32)
            for block in range(20):
                chunk = av.AudioFrame.from_ndarray(silence, "fltp", "stereo")
                chunk.sample_rate, chunk.pts = 44100, 1024 * block
                container.mux(sound.encode(chunk))
            container.mux(sound.encode())
            if cover is not None:
                image = av.VideoFrame.from_ndarray(picture(0, 32, 32), format="rgb24")
                container.mux(cover.encode(image.reformat(format="yuvj420p")))
                container.mux(cover.encode())
        for call in (probe, count_frames):
            with pytest.raises(VideoError, match="no video stream"):
                call(path)

    @pytest.mark.parametrize(
        ("suffix", "options"),
        [
            (".mp4", {"movflags": "+faststart"}),
            (".mp4", {"movflags": "+frag_keyframe+empty_moov"}),
            (".mkv", {}),
            (".avi", {}),
        ],
    )
    @pytest.mark.parametrize("share", [0.5, 0.9])
    def test_cut_short_names_the_frame(self, tmp_path, suffix, options, share):
        whole = make_video(
            tmp_path / f"whole{suffix}",
            num_frames=60,
            width=320,
            height=240,
            container_options=options,
            codec="mpeg4" if suffix == ".avi" else "libx264",
            options={"g": "10"},
        )
        path = tmp_path / f"cut{suffix}"
        content = whole.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        seen = []
        with pytest.raises(VideoError, match=r"frame \d+") as error:
            seen.extend(read_frames(path))
        frame = int(re.search(r"frame (\d+)", str(error.value))[1])
        assert frame in (len(seen) - 1, len(seen))
        assert len(seen) < 60
        assert str(path) in str(error.value)
        with pytest.raises(VideoError, match=r"frame \d+"):
            rewrite_video(path, tmp_path / "out.mp4", identity, **FAST)
        assert_nothing_left(tmp_path, whole, path)

    def test_cut_short_at_a_packet_boundary(self, tmp_path):
        whole = make_video(tmp_path / "a.mp4", container_options={"movflags": "+faststart"})
        with av.open(str(whole)) as container:
            positions = [p.pos for p in container.demux(video=0) if p.size]
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole.read_bytes()[: positions[30]])
        with pytest.raises(VideoError, match=r"frame (29|30)\b"):
            count_frames(path)

    @pytest.mark.parametrize("num_lost", [1, 2, 5])
    @pytest.mark.parametrize("filling", [0, 255])
    def test_last_frames_overwritten(self, tmp_path, num_lost, filling):
        path = make_video(tmp_path / "a.mp4", container_options={"movflags": "+faststart"})
        with av.open(str(path)) as container:
            packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
        content = bytearray(path.read_bytes())
        for position, size in packets[-num_lost:]:
            content[position : position + size] = bytes([filling]) * size
        path.write_bytes(content)
        with pytest.raises(VideoError, match=r"frame 3\d\b"):
            count_frames(path)

    def test_without_its_index(self, tmp_path):
        whole = make_video(tmp_path / "a.mp4")
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole.read_bytes()[:-400])
        with pytest.raises(VideoError, match="cannot be opened"):
            probe(path)

    @pytest.mark.parametrize(
        ("codec", "pixel_format", "suffix"),
        [
            ("libx264", "yuv420p", ".mp4"),
            ("mpeg4", "yuv420p", ".mp4"),
            ("mjpeg", "yuvj420p", ".avi"),
        ],
    )
    def test_damage_inside_a_frame(self, tmp_path, codec, pixel_format, suffix):
        path = make_video(
            tmp_path / f"a{suffix}", codec=codec, pixel_format=pixel_format, width=320, height=240
        )
        with av.open(str(path)) as container:
            packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
        content = bytearray(path.read_bytes())
        position, size = packets[20]
        noise = np.random.default_rng(3).integers(0, 256, size // 2, dtype=np.uint8)
        content[position + size // 2 : position + size // 2 + len(noise)] = noise.tobytes()
        path.write_bytes(content)
        with pytest.raises(VideoError, match=r"frame (1[6-9]|2[0-4])\b"):
            count_frames(path)

    def test_size_that_changes(self, tmp_path):
        first = make_video(tmp_path / "1.h264", num_frames=10)
        second = make_video(tmp_path / "2.h264", num_frames=10, width=128)
        path = tmp_path / "both.h264"
        path.write_bytes(first.read_bytes() + second.read_bytes())
        with pytest.raises(VideoError, match="changes size at frame 10, from 96x64 to 128x64"):
            count_frames(path)

    def test_unsupported_matrix(self, tmp_path):
        path = make_video(tmp_path / "a.mkv", num_frames=2, matrix=8, options={"crf": "20"})
        with pytest.raises(VideoError, match="color matrix 8 is not supported"):
            next(read_frames(path))


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

    @pytest.mark.parametrize(("width", "height"), [(97, 64), (96, 65), (97, 65)])
    def test_odd_size_is_kept(self, tmp_path, width, height):
        path = tmp_path / "a.mp4"
        write_video(path, [picture(0, width, height)] * 3, frame_rate=Fraction(25), **FAST)
        assert [f.shape for f in read_frames(path)] == [(height, width, 3)] * 3

    @pytest.mark.parametrize(
        ("name", "codec", "pixel_format"),
        [
            ("a.mp4", "libx264", "yuv420p"),
            ("a.mkv", "ffv1", "yuv444p10le"),
            ("a.mkv", "ffv1", "gray"),
            ("a.mov", "png", "rgb24"),
        ],
    )
    def test_resized_while_decoding_is_resized_afterwards(
        self, tmp_path, name, codec, pixel_format
    ):
        path = tmp_path / name
        make_video(path, codec=codec, pixel_format=pixel_format, num_frames=2)
        whole = list(read_frames(path))
        width, height = whole[0].shape[1] // 2, whole[0].shape[0] // 2
        for frame, small in zip(whole, read_frames(path, size=(width, height)), strict=True):
            expected = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            assert np.abs(small.astype(int) - expected).max() <= 2

    def test_nothing_to_write(self, tmp_path):
        with pytest.raises(VideoError, match="would hold no frame"):
            write_video(tmp_path / "a.mp4", [], frame_rate=Fraction(25), **FAST)
        assert_nothing_left(tmp_path)

    def test_frames_of_two_sizes(self, tmp_path):
        frames = [picture(0), picture(1, width=64)]
        with pytest.raises(ValueError, match="96x64"):
            write_video(tmp_path / "a.mp4", frames, frame_rate=Fraction(25), **FAST)
        assert_nothing_left(tmp_path)

    def test_unknown_preset(self, tmp_path):
        with pytest.raises(VideoError, match="encoder's settings"):
            write_video(
                tmp_path / "a.mp4", [picture(0)], frame_rate=Fraction(25), crf=18, preset="no"
            )
        assert_nothing_left(tmp_path)


class TestRewriteKeeps:
    @pytest.mark.parametrize("num_frames", [1, 2, 31, 70])
    def test_count_size_and_pictures(self, tmp_path, num_frames):
        source = make_video(tmp_path / "a.mp4", num_frames=num_frames)
        out = tmp_path / "b.mp4"
        assert rewrite_video(source, out, identity, **FAST) == num_frames
        pairs = list(zip(read_frames(source), read_frames(out), strict=True))
        assert len(pairs) == num_frames
        assert max(np.abs(a.astype(int) - b).mean() for a, b in pairs) < 3
        assert video_times(out) == video_times(source)
        assert_nothing_left(tmp_path, source, out)

    def test_plays_in_a_browser(self, tmp_path, clip):
        out = tmp_path / "b.mp4"
        rewrite_video(clip, out, identity, crf=20, preset="medium")
        with av.open(str(out)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert stream.profile == "High"
        content = out.read_bytes()
        assert 0 < content.index(b"moov") < content.index(b"mdat")

    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
    def test_variable_rate(self, tmp_path, suffix):
        ticks = np.random.default_rng(0).integers(17, 180, 60).cumsum() - 17
        time_base = Fraction(1, 1000)
        source = make_video(
            tmp_path / f"a{suffix}", time_base=time_base, pts=[int(t) for t in ticks]
        )
        for out in (tmp_path / "b.mp4", tmp_path / "b.mkv"):
            rewrite_video(source, out, identity, **FAST)
            assert video_times(out) == video_times(source)
        assert len(set(np.diff(video_times(out)))) > 10

    @pytest.mark.parametrize("time_base", [Fraction(1001, 30000), Fraction(1, 90000)])
    def test_late_start_and_odd_time_bases(self, tmp_path, time_base):
        step = round(Fraction(1001, 30000) / time_base)
        source = make_video(
            tmp_path / "a.mp4", time_base=time_base, pts=[7 * step + step * i for i in range(40)]
        )
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, identity, **FAST)
        assert video_times(source)[0] > 0
        assert video_times(out) == video_times(source)

    def test_last_duration(self, tmp_path, clip):
        out = tmp_path / "b.mp4"
        rewrite_video(clip, out, identity, **FAST)
        assert probe(out).duration_s == probe(clip).duration_s

    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
    def test_sound(self, tmp_path, suffix):
        source = make_video(tmp_path / "a.mp4", num_frames=60, audio_s=2.0)
        out = tmp_path / f"b{suffix}"
        rewrite_video(source, out, identity, **FAST)
        before, after = packets_of(source, "audio"), packets_of(out, "audio")
        assert len(before) > 80
        if suffix == ".mkv":
            # The encoder's warm-up before time zero, which mp4 hides, cannot be stored.
            before = [packet for packet in before if packet[0] >= 0]
            assert [p[2] for p in after] == [p[2] for p in before]
            gaps = [abs(a[0] - b[0]) for a, b in zip(after, before, strict=True)]
            assert max(gaps) <= Fraction(1, 1000)
        else:
            assert after == before
        with av.open(str(out)) as container:
            if suffix != ".mov":
                assert container.streams.audio[0].metadata["language"] == "fra"

    def test_sound_is_interleaved_under_a_long_look_ahead(self, tmp_path):
        source = make_video(tmp_path / "a.mp4", num_frames=300, audio_s=10.0)
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, lambda frames: iter(list(frames)), **FAST)
        ends = {}
        with av.open(str(out)) as container:
            order = sorted((p for p in container.demux() if p.size), key=lambda p: p.pos)
            for packet in order:
                ends[packet.stream.type] = float(packet.dts * packet.time_base)
                if len(ends) == 2:
                    assert abs(ends["video"] - ends["audio"]) < 1.5

    def test_subtitles(self, tmp_path, caplog):
        bare = make_video(tmp_path / "bare.mp4")
        source = tmp_path / "a.mp4"
        with av.open(str(bare)) as before, av.open(str(source), "w") as container:
            video = container.add_stream_from_template(before.streams.video[0], opaque=True)
            text = container.add_stream("mov_text")
            text.codec_context.subtitle_header = b"[Script Info]\n"
            for packet in before.demux(video=0):
                if packet.size:
                    packet.stream = video
                    container.mux(packet)
            words = "où".encode()
            subtitle = av.Packet(len(words).to_bytes(2, "big") + words)
            subtitle.stream, subtitle.time_base = text, Fraction(1, 1000)
            subtitle.pts = subtitle.dts = 200
            subtitle.duration = 500
            container.mux(subtitle)
        rewrite_video(source, tmp_path / "b.mp4", identity, **FAST)
        assert packets_of(tmp_path / "b.mp4", "subtitle") == packets_of(source, "subtitle")
        assert any(b"o\xc3\xb9" in p[2] for p in packets_of(source, "subtitle"))
        with caplog.at_level(logging.WARNING):
            rewrite_video(source, tmp_path / "b.mkv", identity, **FAST)
        assert "(subtitle, mov_text) is left out" in caplog.text
        assert "write .mp4 to keep it" in caplog.text
        assert count_frames(tmp_path / "b.mkv") == 40

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    @pytest.mark.parametrize(("degrees", "flip"), [(90, False), (-90, False), (180, True)])
    def test_display_rotation(self, tmp_path, caplog, suffix, degrees, flip):
        one = 1 << 16
        turned = {90: [0, -one, one, 0], -90: [0, one, -one, 0], 180: [-one, 0, 0, -one]}[degrees]
        if flip:
            turned = [-turned[0], turned[1], -turned[2], turned[3]]
        display = [*turned[:2], 0, *turned[2:], 0, 0, 0, 1 << 30]
        source = make_video(tmp_path / "a.mp4", rotation_matrix=display)
        out = tmp_path / f"b{suffix}"
        with caplog.at_level(logging.WARNING):
            rewrite_video(source, out, identity, **FAST)
        assert ("cannot mirror" in caplog.text) == (flip and suffix == ".mkv")
        assert probe(out).rotation_deg == probe(source).rotation_deg
        assert (probe(out).width, probe(out).height) == (96, 64)
        if not flip:
            assert abs(probe(out).rotation_deg) == 90

        def matrix_of(path):
            with av.open(str(path)) as container:
                frame = next(container.decode(video=0))
                return np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).tolist()

        if suffix == ".mp4":
            assert matrix_of(out) == matrix_of(source) == display

    @pytest.mark.parametrize("color_range", [LIMITED, FULL])
    @pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
    def test_colors(self, tmp_path, matrix, color_range):
        source = make_video(
            tmp_path / "a.mp4",
            num_frames=6,
            width=320,
            height=240,
            matrix=matrix,
            color_range=color_range,
            options={"crf": "1"},
        )
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, identity, crf=1, preset="fast")
        tags = []
        planes = []
        for path in (source, out):
            with av.open(str(path)) as container:
                frame = next(container.decode(video=0))
                tags.append(
                    (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
                )
                planes.append([np.frombuffer(p, np.uint8).astype(float) for p in frame.planes])
        assert tags[0] == tags[1] == (matrix, color_range, matrix, matrix)
        for before, after in zip(*planes, strict=True):
            assert np.abs(after - before).mean() < 0.6
            assert abs((after - before).mean()) < 0.1

    def test_untagged_colors_stay_untagged(self, tmp_path, clip):
        out = tmp_path / "b.mp4"
        rewrite_video(clip, out, identity, **FAST)
        with av.open(str(out)) as container:
            frame = next(container.decode(video=0))
            assert (frame.colorspace, frame.color_range) == (2, 0)

    @pytest.mark.parametrize(
        ("codec", "pixel_format", "suffix", "worst"),
        [
            ("libx264", "yuv420p10le", ".mp4", 3.0),
            ("libx264", "yuv422p", ".mp4", 4.0),
            ("libx264", "yuv444p", ".mp4", 5.0),
            ("png", "rgb24", ".mov", 5.0),
            ("ffv1", "bgra", ".mkv", 5.0),
            ("rawvideo", "bgr24", ".avi", 5.0),
            ("mjpeg", "yuvj420p", ".mov", 3.0),
        ],
    )
    def test_other_pixel_formats(self, tmp_path, caplog, codec, pixel_format, suffix, worst):
        source = make_video(
            tmp_path / f"a{suffix}", codec=codec, pixel_format=pixel_format, num_frames=8
        )
        out = tmp_path / "b.mp4"
        with caplog.at_level(logging.WARNING):
            assert rewrite_video(source, out, identity, **FAST) == 8
        assert probe(out).pixel_format in ("yuv420p", "yuvj420p")
        says = f"pixel format {pixel_format} is written as 8-bit yuv420p" in caplog.text
        assert says == (pixel_format != "yuvj420p")
        for before, after in zip(read_frames(source), read_frames(out), strict=True):
            assert np.abs(before.astype(int) - after).mean() < worst

    @pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("ffv1", ".mkv")])
    def test_gray(self, tmp_path, codec, suffix):
        source = make_video(tmp_path / f"a{suffix}", codec=codec, pixel_format="gray", num_frames=5)
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, identity, **FAST)
        for before, after in zip(read_frames(source), read_frames(out), strict=True):
            assert np.ptp(before.astype(int), axis=-1).max() <= 1
            assert np.ptp(after.astype(int), axis=-1).max() <= 1
            assert np.abs(before.astype(int) - after).mean() < 1.5

    @pytest.mark.parametrize(("width", "height"), [(97, 64), (96, 65), (97, 65)])
    def test_odd_size(self, tmp_path, caplog, width, height):
        source = make_video(
            tmp_path / "a.avi",
            codec="mjpeg",
            pixel_format="yuvj420p",
            width=width,
            height=height,
            num_frames=5,
        )
        out = tmp_path / "b.mp4"
        with caplog.at_level(logging.WARNING):
            rewrite_video(source, out, identity, **FAST)
        assert (probe(out).width, probe(out).height) == (width, height)
        assert f"odd size {width}x{height}" in caplog.text
        for before, after in zip(read_frames(source), read_frames(out), strict=True):
            assert before.shape == after.shape == (height, width, 3)
            assert np.abs(before.astype(int) - after).mean() < 3

    def test_pixel_aspect_ratio(self, tmp_path):
        source = make_video(tmp_path / "a.mp4", sample_aspect_ratio=Fraction(4, 3))
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, identity, **FAST)
        with av.open(str(out)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)

    def test_tags_and_chapters(self, tmp_path):
        chapters = [
            {"id": i, "start": i * 500, "end": (i + 1) * 500, "time_base": Fraction(1, 1000)}
            | {"metadata": {"title": title}}
            for i, title in enumerate(["one", "zwölf"])
        ]
        metadata = {"creation_time": "2021-02-03T04:05:06.000000Z", "title": "Été"}
        source = make_video(tmp_path / "a.mp4", metadata=metadata, chapters=chapters)
        for out in (tmp_path / "b.mp4", tmp_path / "b.mkv"):
            rewrite_video(source, out, identity, **FAST)
            with av.open(str(out)) as container:
                assert container.metadata["creation_time"] == metadata["creation_time"]
                assert container.metadata["title"] == "Été"
                assert [c["metadata"]["title"] for c in container.chapters()] == ["one", "zwölf"]

    @needs_ffmpeg
    def test_broadcast_clock_starts_at_zero(self, tmp_path):
        source = tmp_path / "a.ts"
        inputs = "ffmpeg -v error -f lavfi -i testsrc2=s=96x64:r=25:d=2 -f lavfi -i sine=d=2"
        subprocess.run([*inputs.split(), "-c:a", "aac", str(source)], check=True)
        out = tmp_path / "b.mp4"
        rewrite_video(source, out, identity, **FAST)
        before, after = video_times(source), video_times(out)
        assert before[0] > 1
        assert 0 <= after[0] < 0.1
        shift = before[0] - after[0]
        assert after == [time - shift for time in before]
        sound_shift = packets_of(source, "audio")[0][0] - packets_of(out, "audio")[0][0]
        assert float(shift) == pytest.approx(float(sound_shift), abs=1e-4)

    @needs_ffmpeg
    @pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
    def test_avi_with_reordered_frames(self, tmp_path, codec):
        source = tmp_path / "a.avi"
        command = "ffmpeg -v error -f lavfi -i testsrc2=s=96x64:r=25:d=2 -bf 2 -c:v"
        subprocess.run([*command.split(), codec, str(source)], check=True)
        out = tmp_path / "b.mp4"
        assert rewrite_video(source, out, identity, **FAST) == 50
        assert video_times(out) == [Fraction(i, 25) for i in range(50)]

    @needs_ffmpeg
    def test_fonts_and_text_of_matroska(self, tmp_path):
        (tmp_path / "a.srt").write_text("1\n00:00:00,100 --> 00:00:01,000\nhello\n")
        (tmp_path / "a.ttf").write_bytes(b"not really a font")
        source = tmp_path / "a.mkv"
        command = "ffmpeg -v error -f lavfi -i testsrc2=s=96x64:r=25:d=2 -i"
        attach = ["-attach", str(tmp_path / "a.ttf"), "-metadata:s:t", "mimetype=font/ttf"]
        subprocess.run(
            [*command.split(), str(tmp_path / "a.srt"), *attach, str(source)], check=True
        )
        out = tmp_path / "b.mkv"
        rewrite_video(source, out, identity, **FAST)
        with av.open(str(out)) as container:
            assert sorted(s.type for s in container.streams) == ["attachment", "subtitle", "video"]
            assert container.streams.attachments[0].data == b"not really a font"
        assert packets_of(out, "subtitle") == packets_of(source, "subtitle")

    def test_real_clip(self, tmp_path):
        clips = sorted((REPOSITORY / "../shared/clips/shaky").glob("*.mp4"))
        if not clips:
            pytest.skip("no real clips beside the repository")
        source = min(clips, key=lambda path: path.stat().st_size)
        out = tmp_path / "b.mp4"
        assert rewrite_video(source, out, identity, **FAST) == count_frames(source)
        assert video_times(out) == video_times(source)


class TestRewriteFails:
    @pytest.mark.parametrize("link", [None, "symbolic", "hard"])
    def test_same_file(self, tmp_path, clip, link):
        out = clip if link is None else tmp_path / "b.mp4"
        if link == "symbolic":
            out.symlink_to(clip)
        elif link == "hard":
            os.link(clip, out)
        content = clip.read_bytes()
        with pytest.raises(VideoError, match="both input and output"):
            rewrite_video(clip, out, identity, **FAST)
        assert clip.read_bytes() == content

    def test_missing_folder(self, tmp_path, clip):
        with pytest.raises(VideoError, match="does not exist; create it"):
            rewrite_video(clip, tmp_path / "no" / "b.mp4", identity, **FAST)

    def test_folder_as_name(self, tmp_path, clip):
        (tmp_path / "b.mp4").mkdir()
        with pytest.raises(VideoError, match="it is a folder"):
            rewrite_video(clip, tmp_path / "b.mp4", identity, **FAST)

    @pytest.mark.parametrize("name", ["b.webm", "b.avi", "b"])
    def test_format_that_cannot_hold_h264(self, tmp_path, clip, name):
        with pytest.raises(VideoError, match=r"is not one of \.mp4"):
            rewrite_video(clip, tmp_path / name, identity, **FAST)
        assert_nothing_left(tmp_path, clip)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
    def test_folder_without_permission(self, tmp_path, clip):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
        with pytest.raises(VideoError, match="permissions"):
            rewrite_video(clip, folder / "b.mp4", identity, **FAST)

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit")
    def test_full_disk(self, tmp_path):
        source = make_video(tmp_path / "a.mp4", width=320, height=240, num_frames=60)
        code = f"""
            import resource
            from pathlib import Path
            from deepstab.video.rewrite import rewrite_video
            from deepstab.errors import VideoError
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            try:
                rewrite_video(Path({str(source)!r}), Path({str(tmp_path / "b.mp4")!r}),
                              lambda f: (x for x in f), crf=5, preset="ultrafast")
            except VideoError as error:
                print(error)
        """
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
            timeout=120,
        )
        assert "free space" in result.stdout
        assert len(result.stdout.splitlines()) == 1
        assert_nothing_left(tmp_path, source)

    @pytest.mark.parametrize("after", [0, 5, 39])
    @pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), OSError(5, "x")])
    def test_error_in_transform(self, tmp_path, clip, error, after):
        out = tmp_path / "b.mp4"
        out.write_text("older")

        def broken(frames):
            for index, frame in enumerate(frames):
                if index == after:
                    raise error
                yield frame

        with pytest.raises(type(error)) as raised:
            rewrite_video(clip, out, broken, **FAST)
        assert raised.value is error
        assert out.read_text() == "older"
        assert_nothing_left(tmp_path, clip, out)

    @pytest.mark.parametrize("taken", [0, 3, 39])
    def test_transform_that_stops_early(self, tmp_path, clip, taken):
        def short(frames):
            for _, frame in zip(range(taken), frames, strict=False):
                yield frame

        with pytest.raises(ValueError, match=f"ended after {taken} frames"):
            rewrite_video(clip, tmp_path / "b.mp4", short, **FAST)
        assert_nothing_left(tmp_path, clip)

    def test_transform_that_drops_a_frame(self, tmp_path, clip):
        def dropping(frames):
            next(frames)
            yield from frames

        with pytest.raises(ValueError, match="ended after 39 frames"):
            rewrite_video(clip, tmp_path / "b.mp4", dropping, **FAST)

    def test_transform_that_adds_a_frame(self, tmp_path, clip):
        def adding(frames):
            for frame in frames:
                yield frame
                yield frame

        with pytest.raises(ValueError, match="yielded frame 1 before reading it"):
            rewrite_video(clip, tmp_path / "b.mp4", adding, **FAST)
        assert_nothing_left(tmp_path, clip)

    def test_transform_that_changes_the_size(self, tmp_path, clip):
        with pytest.raises(ValueError, match="frame of 96x64 RGB uint8 is needed"):
            rewrite_video(clip, tmp_path / "b.mp4", lambda frames: (f[:32] for f in frames), **FAST)
        assert_nothing_left(tmp_path, clip)

    def test_transform_that_swallows_the_decoder_error(self, tmp_path):
        source = make_video(tmp_path / "a.mkv", num_frames=60)
        source.write_bytes(source.read_bytes()[:-2000])

        def careless(frames):
            try:
                yield from frames
            except VideoError:
                return

        with pytest.raises(VideoError, match="cut short"):
            rewrite_video(source, tmp_path / "b.mp4", careless, **FAST)
        assert_nothing_left(tmp_path, source)

    def test_generator_is_closed(self, tmp_path, clip):
        closed = []

        def careful(frames):
            try:
                for frame in frames:
                    yield frame[:32]
            finally:
                closed.append(True)

        with pytest.raises(ValueError, match="96x64"):
            rewrite_video(clip, tmp_path / "b.mp4", careful, **FAST)
        assert closed == [True]


def test_memory_does_not_grow_with_length(tmp_path, monkeypatch):
    source = make_video(tmp_path / "a.mp4", num_frames=200)
    alive = []
    convert = color.to_rgb

    def counted(*args):
        alive.append(None)
        return convert(*args)

    monkeypatch.setattr(color, "to_rgb", counted)
    ahead = []

    def transform(frames):
        for index, frame in enumerate(frames):
            ahead.append(len(alive) - index)
            yield frame

    rewrite_video(source, tmp_path / "b.mp4", transform, **FAST)
    assert max(ahead) <= 12


class TestRewritePlanes:
    @pytest.mark.parametrize("color_range", [1, 2])
    def test_samples_of_the_file_are_kept_to_the_bit(self, tmp_path, color_range):
        source, out = tmp_path / "a.mp4", tmp_path / "b.mp4"
        make_video(source, num_frames=5, matrix=1, color_range=color_range)
        rewrite_planes(source, out, identity, crf=0, preset="ultrafast")
        for before, after in zip(decoded(source), decoded(out), strict=True):
            np.testing.assert_array_equal(before, after)

    @pytest.mark.parametrize(
        ("name", "codec", "pixel_format", "width"),
        [
            ("a.mkv", "ffv1", "yuv444p10le", 96),
            ("a.mkv", "ffv1", "gray", 96),
            ("a.mov", "png", "rgb24", 97),
        ],
    )
    def test_other_formats_are_converted(self, tmp_path, name, codec, pixel_format, width):
        source, out = tmp_path / name, tmp_path / "b.mp4"
        make_video(source, codec=codec, pixel_format=pixel_format, width=width, num_frames=3)
        shapes = []

        def look(frames):
            for planes in frames:
                shapes.append([plane.shape for plane in planes])
                yield planes

        assert rewrite_planes(source, out, look, crf=0, preset="ultrafast") == 3
        half = (64, 97) if width % 2 else (32, 48)
        assert shapes == [[(64, width), half, half]] * 3
        for before, after in zip(read_frames(source), read_frames(out), strict=True):
            assert np.abs(before.astype(int) - after).mean() < 6


class TestChannel:
    def test_items_then_error(self):
        channel = Channel(4)
        channel.put(1)
        channel.close(RuntimeError("late"))
        items = iter(channel)
        assert next(items) == 1
        with pytest.raises(RuntimeError, match="late"):
            next(items)

    def test_cancel_frees_a_waiting_sender(self):
        channel = Channel(1)
        channel.put(0)
        failed = []

        def send():
            try:
                channel.put(1)
            except ClosedError:
                failed.append(True)

        thread = threading.Thread(target=send)
        thread.start()
        channel.cancel()
        thread.join(5)
        assert failed == [True]
        with pytest.raises(ClosedError):
            next(iter(channel))

    def test_items_made_ahead_come_in_order_and_then_the_error(self):
        def items():
            yield from range(20)
            raise RuntimeError("late")

        taken = ahead(items())
        assert [next(taken) for _ in range(20)] == list(range(20))
        with pytest.raises(RuntimeError, match="late"):
            next(taken)

    def test_who_stops_taking_stops_the_making(self):
        closed = threading.Event()

        def items():
            try:
                yield from itertools.count()
            finally:
                closed.set()

        taken = ahead(items())
        assert next(taken) == 0
        taken.close()
        assert closed.wait(5)
        assert "deepstab-ahead" not in {thread.name for thread in threading.enumerate()}
