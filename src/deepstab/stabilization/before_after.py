"""Before and after, to look at: videos and frames side by side, and the camera path as a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from deepstab.errors import DeepStabError
from deepstab.files import whole_or_absent
from deepstab.image import Image
from deepstab.stabilization.whole_video import warp_frame
from deepstab.video.frames import probe, read_frames
from deepstab.video.rewrite import rewrite_video
from deepstab.video.writer import write_video

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two sides of this length make the 3840 px that players and browsers still decode.
_MAX_SIDE_PX = 1920
# Of a player, which lies in a page.
_PLAYER_SIDE_PX = 480
_PLAYER_CRF, _PLAYER_PRESET = 28, "medium"
_STRIP_WIDTH_PX = 480
_STRIP_LABELS = ("input", "stabilized", "stable reference")


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


def write_player(
    unstable: Path, thetas: NDArray[np.float64], destination: Path, *, max_frames: int
) -> None:
    """Write a small video without sound: left the input and right the input as corrected.

    Both are turned as a player would turn them and are at most 480 px wide and high. The same
    input gives the same bytes.

    Args:
        unstable: the input video.
        thetas: (num_frames, 2, 3), its correction, see `deepstab.geometry`.
        destination: the .mp4 to appear; its folder is made.
        max_frames: longer videos are cut to their beginning.

    Raises:
        VideoError: a video cannot be read or written.
    """
    info = probe(unstable)
    quarter_turns = round(info.rotation_deg / 90) % 4
    scale = min(1.0, _PLAYER_SIDE_PX / max(info.width, info.height))
    width, height = (round(length * scale / 2) * 2 for length in (info.width, info.height))

    def side_by_side() -> Iterator[Image]:
        pairs = zip(read_frames(unstable), thetas, strict=False)
        for frame, theta in islice(pairs, max_frames):
            sides = (frame, warp_frame(frame, theta))
            yield np.hstack([np.rot90(_resize(s, width, height), quarter_turns) for s in sides])

    destination.parent.mkdir(parents=True, exist_ok=True)
    write_video(
        destination,
        side_by_side(),
        frame_rate=info.frame_rate,
        crf=_PLAYER_CRF,
        preset=_PLAYER_PRESET,
    )


def frame_strip(frames: Mapping[str, Sequence[Image]]) -> Image:
    """Stack rows of unstable, stabilized and stable frames, each labeled, as one RGB picture.

    Args:
        frames: video name -> the three frames, (height, width, 3) uint8 RGB.
    """
    rows = [
        np.hstack(
            [
                _labeled(frame, f"{name}: {label}")
                for frame, label in zip(row, _STRIP_LABELS, strict=True)
            ]
        )
        for name, row in frames.items()
    ]
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def save_image(image: Image, path: Path) -> None:
    """Write an RGB image in the format that the suffix of its name says."""
    _, encoded = cv2.imencode(path.suffix, image[:, :, ::-1])
    path.write_bytes(encoded.tobytes())


def plot_paths(before: NDArray[np.float64], after: NDArray[np.float64]) -> Figure:
    """Plot the camera path before and after, one panel for each of its four numbers.

    Args:
        before: (num_frames, 4): x and y, px at width 640; roll, rad; log zoom.
        after: the same of the stabilized video.
    """
    from matplotlib.figure import Figure

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


def _labeled(frame: Image, label: str) -> Image:
    height = round(frame.shape[0] * _STRIP_WIDTH_PX / frame.shape[1])
    image = cv2.resize(frame, (_STRIP_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    cv2.rectangle(image, (0, 0), (12 * len(label) + 16, 30), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, label, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255))
    return np.asarray(image, np.uint8)
