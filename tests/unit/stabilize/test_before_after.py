"""Side by side as ffmpeg shows it, whatever the rotation; plots of paths."""

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
from deepstab.stabilize.before_after import plot_paths, save_plot, write_comparison

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
