"""A file that cannot be read to its end is an error that names the frame."""

import os
import random
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.video.rewrite import rewrite_video
from tests.unit.video.conftest import (
    FAST,
    assert_nothing_left,
    identity,
    make_video,
    picture,
)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        *((f"a{suffix}", "libx264", "yuv420p") for suffix in (".mp4", ".mov", ".mkv", ".flv")),
        *((f"a{suffix}", "libx264", "yuv420p") for suffix in (".ts", ".m4v", ".3gp", ".h264")),
        *((f"a{suffix}", "mpeg2video", "yuv420p") for suffix in (".mpg", ".vob", ".mxf", ".m2v")),
        *((f"a{suffix}", "mpeg4", "yuv420p") for suffix in (".avi", ".nut")),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.ivf", "libvpx-vp9", "yuv420p"),
        ("a.asf", "msmpeg4v3", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.y4m", "rawvideo", "yuv420p"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
        ("a.hevc", "libx265", "yuv420p"),
    ],
)
def test_common_formats_are_read_to_their_end(tmp_path, name, codec, pixel_format):
    path = make_video(
        tmp_path / name, codec=codec, pixel_format=pixel_format, num_frames=12, width=128
    )
    assert count_frames(path) == 12


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

    @pytest.mark.parametrize("kind", ["concat", "hls", "pictures", "subtitles"])
    def test_a_file_that_names_others_opens_none_of_them(self, tmp_path, kind):
        make_video(tmp_path / "other.ts", num_frames=5)
        named = tmp_path / "x.mp4"
        if kind == "concat":
            named.write_text("ffconcat version 1.0\nfile 'other.ts'\n")
        elif kind == "hls":
            named = tmp_path / "x.m3u8"
            named.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n")
        elif kind == "pictures":
            named = tmp_path / "x%d.png"
            for name in ("x1.png", "x2.png", named.name):
                cv2.imwrite(str(tmp_path / name), picture(0))
        else:
            named.write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
        for call in (probe, count_frames):
            with pytest.raises(VideoError, match=f"{re.escape(str(named))} cannot be opened"):
                call(named)

    @pytest.mark.parametrize("name", ["http://127.0.0.1:9/a.mp4", "pipe:0", "-", "concat:a|b"])
    def test_an_address_is_a_file_name(self, name):
        with pytest.raises(VideoError, match="does not exist"):
            probe(Path(name))

    def test_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "a.mp4")
        with pytest.raises(VideoError, match=r"a\.mp4 is not a regular file"):
            probe(tmp_path / "a.mp4")

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


class TestLostInSilence:
    """What libav passes over, found by `make fuzz`."""

    @pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mp4", "libx265")])
    def test_no_frame_is_lost_in_silence(self, tmp_path, name, codec):
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {"g": "8"}
        texture = np.random.default_rng(7).integers(40, 216, (18, 26, 3), np.uint8)
        texture = texture.repeat(4, axis=0).repeat(4, axis=1)

        def shifted(index):
            top, left = np.random.default_rng(index).integers(0, 8, 2)
            image = np.ascontiguousarray(texture[top : top + 64, left : left + 96])
            return av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")

        path = make_video(
            tmp_path / name, num_frames=24, codec=codec, options=options, images=shifted
        )
        assert count_frames(path) == 24
        content = path.read_bytes()
        refused = 0
        for seed in range(120):
            rng = random.Random(seed)
            size = rng.choice([1, 20, 300])
            at = rng.randrange(100, len(content) - size)
            path.write_bytes(content[:at] + rng.randbytes(size) + content[at + size :])
            try:
                assert count_frames(path) == 24, seed
            except VideoError:
                refused += 1
        assert refused > 20

    def test_frames_that_a_recorder_left_out_are_not_missed(self, tmp_path):
        times = [time for time in range(40) if not 10 <= time < 20]
        path = make_video(tmp_path / "a.avi", codec="mpeg4", pts=times)
        assert count_frames(path) == len(times)
        content = bytearray(path.read_bytes())
        index = content.rindex(b"idx1")
        content[index : index + 4] = b"JUNK"
        path.write_bytes(content)
        assert count_frames(path) == len(times)
