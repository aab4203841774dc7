"""Samples read and written by their tags, in every pixel format."""

import logging

import av
import cv2
import numpy as np
import pytest

from deepstab.errors import VideoError
from deepstab.video.frames import probe, read_frames
from deepstab.video.rewrite import rewrite_planes, rewrite_video
from tests.unit.video.conftest import (
    BT601,
    BT709,
    BT2020,
    FAST,
    FULL,
    LIMITED,
    decoded,
    identity,
    make_video,
)


class TestRead:
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

    def test_unsupported_matrix(self, tmp_path):
        path = make_video(tmp_path / "a.mkv", num_frames=2, matrix=8, options={"crf": "20"})
        with pytest.raises(VideoError, match="color matrix 8 is not supported"):
            next(read_frames(path))

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
        # Both sides shrink by whole numbers, or the width alone, or none.
        for size, most in (((width, height), 2), ((width, 23), 4), ((width - 1, height - 1), 4)):
            for frame, small in zip(whole, read_frames(path, size=size), strict=True):
                expected = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                difference = np.abs(small.astype(int) - expected)
                assert difference.max() <= most
                assert difference.mean() < 1


class TestRewritten:
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


class TestPlanes:
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
