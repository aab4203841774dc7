"""Before and after, to look at: both videos side by side, and the camera path as a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepstab.errors import DeepStabError
from deepstab.files import whole_or_absent
from deepstab.video.frames import probe, read_frames
from deepstab.video.rewrite import rewrite_video

# Two sides of this length make the 3840 px that players and browsers still decode.
_MAX_SIDE_PX = 1920

Image = NDArray[np.uint8]


def write_comparison(
    before: Path,
    after: Path,
    destination: Path,
    *,
    crf: int,
    preset: str,
    on_frame: Callable[[], None],
) -> None:
    """Write a video that shows two of equal length and size side by side, with the first's sound.

    Before is left and after is right as a player shows them, whatever the display rotation. Each
    is shrunk to at most 1920 px in that direction and to even sizes. Both are decoded in lockstep,
    so that memory does not grow with their length.

    Args:
        before: the video whose times, sound, subtitles and tags are kept.
        after: as many frames of the same size and rotation.
        destination: the file to appear when it is whole: .mp4, .m4v, .mov or .mkv.
        crf: constant rate factor of x264, 0 (lossless) to 51 (worst).
        preset: speed of x264, "ultrafast" to "veryslow".
        on_frame: called after each frame.

    Raises:
        VideoError: a video cannot be read or `destination` cannot be written.
        ValueError: the videos differ in length.
    """
    info = probe(before)
    # Coded frames are stacked so that the player's counterclockwise turn puts `before` left.
    quarter_turns = round(info.rotation_deg / 90) % 4
    axis = 0 if quarter_turns % 2 else 1
    order = 1 if quarter_turns in (0, 1) else -1
    scale = min(1.0, _MAX_SIDE_PX / (info.height if axis == 0 else info.width))
    width, height = (max(2, int(length * scale) // 2 * 2) for length in (info.width, info.height))

    def side_by_side(frames: Iterator[Image]) -> Iterator[Image]:
        for pair in zip(frames, read_frames(after), strict=True):
            yield np.concatenate([_resize(side, width, height) for side in pair[::order]], axis)
            on_frame()

    size = (width, 2 * height) if axis == 0 else (2 * width, height)
    rewrite_video(before, destination, side_by_side, crf=crf, preset=preset, size=size)


def plot_paths(before: NDArray[np.float64], after: NDArray[np.float64]) -> Figure:
    """Plot the camera path before and after, one panel for each of its four numbers.

    Args:
        before: (num_frames, 4): x and y, px at width 640; roll, rad; log zoom.
        after: the same of the stabilized video.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    titles = ("x, px at width 640", "y, px at width 640", "roll, degrees", "zoom")
    marker = "." if len(before) == 1 else None
    for path, label, color in ((before, "before", "tab:red"), (after, "after", "tab:blue")):
        signals = (path[:, 0], path[:, 1], np.degrees(path[:, 2]), np.exp(path[:, 3]))
        for panel, signal, title in zip(panels.flat, signals, titles, strict=True):
            panel.plot(signal, label=label, color=color, linewidth=1.2, marker=marker)
            panel.set_title(title)
    for panel in panels[1]:
        panel.set_xlabel("frame")
    panels[0, 0].legend(fontsize="small")
    figure.suptitle("camera path")
    return figure


def save_plot(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, to a temporary name, then rename; same figure, same bytes.

    Raises:
        DeepStabError: the file cannot be written.
    """
    try:
        with whole_or_absent(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    except OSError as error:
        raise DeepStabError(
            f"plot {path} cannot be written ({error.strerror}); "
            "check the folder's permissions and the free space"
        ) from None


def _resize(frame: Image, width: int, height: int) -> Image:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
