"""A video with other pictures keeps all the rest, or fails and leaves nothing behind."""

import logging
import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video import color
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.video.rewrite import rewrite_video
from tests.unit.video.conftest import (
    FAST,
    assert_nothing_left,
    identity,
    make_video,
    needs_ffmpeg,
    video_times,
)

REPOSITORY = Path(__file__).parents[3]


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

    @needs_ffmpeg
    @pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
    def test_avi_with_reordered_frames(self, tmp_path, codec):
        source = tmp_path / "a.avi"
        command = "ffmpeg -v error -f lavfi -i testsrc2=s=96x64:r=25:d=2 -bf 2 -c:v"
        subprocess.run([*command.split(), codec, str(source)], check=True)
        out = tmp_path / "b.mp4"
        assert rewrite_video(source, out, identity, **FAST) == 50
        assert video_times(out) == [Fraction(i, 25) for i in range(50)]

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
