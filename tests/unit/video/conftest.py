"""Videos made here by PyAV or by ffmpeg where it is there, and how their packets are read back."""

import shutil
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

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
        stream.codec_context.options = options or (
            {"crf": "10", "threads": "1"} if codec == "libx264" else {}
        )
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
