"""Side by side as ffmpeg shows it, whatever the rotation; frames and plots of paths."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from deepstab.errors import DeepStabError
from deepstab.stabilization.before_after import (
    frame_strip,
    plot_paths,
    save_image,
    save_plot,
    write_comparison,
    write_player,
)
from deepstab.video.frames import count_frames, probe, read_frames
from deepstab.video.writer import write_video

RED, BLUE = (200, 30, 30), (30, 30, 200)
# libav's display matrix: 16.16 fixed point but for the last column; turns a player applies.
ONE = 1 << 16
MATRICES = {
    0: [ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30],
    90: [0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30],
    180: [-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30],
    270: [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30],
}


def make_video(
    path: Path, color: tuple[int, int, int], *, size: tuple[int, int], matrix: list[int]
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, time_base=Fraction(1, 30))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        stream.set_display_matrix(matrix)
        for index in range(5):
            image = np.full((size[1], size[0], 3), color, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame.reformat(format="yuv444p")))
        container.mux(stream.encode())
    return path


def as_played(path: Path) -> np.ndarray:
    """The first frame as ffmpeg turns it, (height, width, 3) RGB."""
    picture = path.with_suffix(".png")
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(path), "-frames:v", "1", str(picture)]
    subprocess.run(command, check=True)
    return cv2.imread(str(picture))[:, :, ::-1]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("turn", MATRICES)
def test_before_is_left_as_a_player_shows_it(turn: int, tmp_path: Path) -> None:
    before = make_video(tmp_path / "a.mp4", RED, size=(96, 64), matrix=MATRICES[turn])
    after = make_video(tmp_path / "b.mp4", BLUE, size=(96, 64), matrix=MATRICES[turn])
    both = tmp_path / "both.mp4"
    done: list[int] = []
    write_comparison(
        before, after, both, crf=18, preset="ultrafast", on_frame=lambda: done.append(1)
    )
    assert len(done) == 5
    shown = as_played(both)
    single = as_played(before)
    height, width = single.shape[:2]
    assert shown.shape == (height, 2 * width, 3)
    inner = np.s_[8:-8, 8:-8]
    for side, color in ((shown[:, :width], RED), (shown[:, width:], BLUE)):
        assert np.abs(side[inner].astype(int) - color).max() < 12


@pytest.mark.parametrize(
    ("size", "expected"), [((2400, 90), (3840, 72)), ((33, 21), (64, 20)), ((1920, 50), (3840, 50))]
)
def test_large_sides_are_shrunk_and_sizes_are_even(
    size: tuple[int, int], expected: tuple[int, int], tmp_path: Path
) -> None:
    before = make_video(tmp_path / "a.mp4", RED, size=size, matrix=MATRICES[0])
    both = tmp_path / "both.mp4"
    write_comparison(before, before, both, crf=18, preset="ultrafast", on_frame=lambda: None)
    with av.open(str(both)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.width, codec.height, codec.pix_fmt) == (*expected, "yuv420p")


def test_the_plot_shows_both_paths_in_the_units_it_names() -> None:
    before = np.column_stack([np.arange(5.0), -np.arange(5.0), np.full(5, np.pi / 2), np.zeros(5)])
    after = np.zeros((5, 4))
    after[:, 3] = np.log(2)
    panels = {axes.get_title(): axes for axes in plot_paths(before, after).axes}
    values = {
        title: {line.get_label(): line.get_ydata()[-1] for line in axes.lines}
        for title, axes in panels.items()
    }
    assert values == {
        "x, px at width 640": {"before": 4.0, "after": 0.0},
        "y, px at width 640": {"before": -4.0, "after": 0.0},
        "roll, degrees": {"before": pytest.approx(90.0), "after": 0.0},
        "zoom": {"before": 1.0, "after": pytest.approx(2.0)},
    }


def test_a_plot_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    figure = plot_paths(np.zeros((1, 4)), np.zeros((1, 4)))
    for name in ("a.png", "b.png"):
        save_plot(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DeepStabError, match=r"folder\.png cannot be written"):
        save_plot(figure, tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png", "folder.png"]


def two_colors(path: Path, *, num_frames: int, width: int, height: int) -> Path:
    """Frames that are red on the left and blue on the right."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2, 0] = frame[:, width // 2 :, 2] = 255
    frames = (frame for _ in range(num_frames))
    write_video(path, frames, frame_rate=Fraction(25), crf=10)
    return path


@pytest.mark.parametrize(("width", "height"), [(100, 64), (1280, 720), (202, 601)])
def test_a_player_has_the_corrected_side_right_in_a_size_that_browsers_play(
    tmp_path: Path, width: int, height: int
) -> None:
    source = two_colors(tmp_path / "in.mp4", num_frames=12, width=width, height=height)
    half_turn = np.broadcast_to([[-1.0, 0, 0], [0, -1.0, 0]], (12, 2, 3))
    for name in ("a.mp4", "b.mp4"):
        write_player(source, half_turn, tmp_path / "new" / name, max_frames=300)
    info = probe(tmp_path / "new/a.mp4")
    assert (info.pixel_format, info.frame_rate, info.num_frames) == ("yuv420p", 25, 12)
    assert max(info.width // 2, info.height) <= 480
    assert info.width / 2 / info.height == pytest.approx(width / height, rel=0.03)
    frame = next(read_frames(tmp_path / "new/a.mp4"))
    at = [round((number + 0.5) * info.width / 4) for number in range(4)]
    assert [int(frame[info.height // 2, x].argmax()) for x in at] == [0, 2, 2, 0]
    assert (tmp_path / "new/a.mp4").read_bytes() == (tmp_path / "new/b.mp4").read_bytes()


def test_a_player_of_a_long_video_is_cut(tmp_path: Path) -> None:
    source = two_colors(tmp_path / "in.mp4", num_frames=12, width=64, height=64)
    thetas = np.broadcast_to(np.eye(2, 3), (12, 2, 3))
    write_player(source, thetas, tmp_path / "out.mp4", max_frames=7)
    assert count_frames(tmp_path / "out.mp4") == 7


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_both_sides_of_a_player_stand_as_ffmpeg_shows_the_input(tmp_path: Path, turn: int) -> None:
    coded = two_colors(tmp_path / "coded.mp4", num_frames=3, width=96, height=64)
    turned = tmp_path / "turned.mp4"
    with av.open(str(coded)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_matrix(MATRICES[turn])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    expected = as_played(turned)
    thetas = np.broadcast_to(np.eye(2, 3), (3, 2, 3))
    write_player(turned, thetas, tmp_path / "out.mp4", max_frames=300)
    frame = next(read_frames(tmp_path / "out.mp4"))
    assert np.abs(frame.astype(int) - np.hstack([expected, expected])).mean() < 8


def test_a_strip_has_a_row_per_video_at_one_width(tmp_path: Path) -> None:
    colors = (RED, (40, 200, 40), BLUE)
    row = [np.full((90, 160, 3), color, np.uint8) for color in colors]
    strip = frame_strip({"a": row, "b": [frame[:45] for frame in row]})
    assert strip.shape == (270 + 135, 3 * 480, 3)
    for number, color in enumerate(colors):
        for y in (200, 390):
            assert tuple(strip[y, 480 * number + 400]) == color
    save_image(strip, tmp_path / "strip.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "strip.png"))[:, :, ::-1], strip)
