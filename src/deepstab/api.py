"""Two functions for Python: `deepstab.stabilize` and `deepstab.score`.

What is heavy is imported when they are called: `import deepstab` costs nothing.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from deepstab.errors import ParameterError, VideoError, missing_package

if TYPE_CHECKING:
    from deepstab.image import Image
    from deepstab.metrics.stability import StabilityScore
    from deepstab.models.network import MotionNetwork
    from deepstab.stabilization.whole_video import Stabilization
    from deepstab.video.frames import VideoInfo

# The most that crop `auto` may cut away; what it takes is decided by the shake.
_AUTO_CROP_FRACTION = 0.2
_MAX_CROP_PERCENT = 50.0
# Beyond a smoothing of several seconds nothing changes but the time it takes.
_MAX_STRENGTH = 10.0

CropMode = Literal["auto", "none", "fixed"]

OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Called for every frame with the phase ("analyze", "render" or "score"), the frames done in it,
and how many there will be, None where no header says so."""


def stabilize(
    source: str | Path,
    destination: str | Path,
    *,
    crop: str = "auto",
    strength: float = 1.0,
    weights: str | None = None,
    encoding: tuple[int, str] = (18, "veryfast"),
    progress: OnProgress | None = None,
) -> Stabilization:
    """Stabilize a video file, as the command `deepstab stabilize` does.

    Args:
        source: a video of any common format.
        destination: .mp4, .m4v, .mov or .mkv; has the size, frames, times, sound and tags of the
            source, and appears when it is whole.
        crop: what may be cut away to hide the moving border: `auto`, what the shake is worth, up to
            20 % of width and height; `none`, the edge is repeated; or a number of percent.
        strength: smoothing over time, 0 to 10; 1 as tuned.
        weights: path of a checkpoint, or models:/... or runs:/... of the MLflow store, which need
            `deepstab[pipeline]`; None: those that ship.
        encoding: x264's constant rate factor, 0 to 51, and preset.
        progress: see `OnProgress`.

    Returns:
        What was done: number of frames, zoom, cuts, camera path before and after.

    Raises:
        DeepStabError: with what is wrong and what to do, in one line. No half-written file is left.
    """
    from deepstab.stabilization.whole_video import Crop, Encoding, Smoothing, stabilize_video
    from deepstab.video.frames import probe

    source, destination = Path(source), Path(destination)
    mode, fraction = parse_crop(crop)
    check_strength(strength)
    total = expected_frames(probe(source))
    check_targets(source, destination)
    return stabilize_video(
        source,
        destination,
        network=load_network(weights),
        smoothing=Smoothing(Crop(mode, fraction), strength),
        encoding=Encoding(*encoding),
        on_frame=_Counter(progress, total),
    )


def score(
    source: str | Path, result: str | Path, *, progress: OnProgress | None = None
) -> StabilityScore:
    """Score a stabilized video beside the one as filmed, as the command `deepstab score` does.

    Args:
        source: the video as filmed.
        result: the same, stabilized.
        progress: see `OnProgress`.

    Returns:
        Stability, jitter, inter-frame PSNR and black borders of both; crop and distortion.

    Raises:
        VideoError: one cannot be read, or they differ in length.
    """
    from deepstab.metrics.stability import score_video
    from deepstab.video.frames import probe, read_frames

    source, result = Path(source), Path(result)
    count = _Counter(progress, expected_frames(probe(source)))
    probe(result)

    def counted(frames: Iterable[Image]) -> Iterator[Image]:
        for frame in frames:
            yield frame
            count("score")

    try:
        return score_video(counted(read_frames(source)), read_frames(result))
    except ValueError as error:
        raise VideoError(f"{result} cannot be scored against {source}: {error}") from None


def load_network(weights: str | None) -> MotionNetwork:
    """Load weights by name; those that ship, without torch.

    Raises:
        CheckpointError, TrackingError: they cannot be had.
    """
    if weights is None:
        from deepstab.models.exported import load_shipped

        return load_shipped()
    from deepstab.experiments.registry import local_weights
    from deepstab.models.checkpoints import load_weights
    from deepstab.tracking.store import project_root

    with local_weights(weights, root=project_root()) as path:
        return load_weights(path).network()


def parse_crop(text: str) -> tuple[CropMode, float]:
    """Read `auto`, `none` or a number of percent, as mode and fraction of a `Crop`.

    Raises:
        ParameterError: it is none of these.
    """
    if text == "auto":
        return "auto", _AUTO_CROP_FRACTION
    if text == "none":
        return "none", 0.0
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent <= _MAX_CROP_PERCENT:
        raise ParameterError(
            f"crop {text!r} is not auto, none or a number of percent above 0 and up to "
            f"{_MAX_CROP_PERCENT:g}; give one of these"
        )
    return "fixed", percent / 100


def check_strength(strength: float) -> None:
    """Raise a `ParameterError` where a strength is out of range."""
    if not 0 <= strength <= _MAX_STRENGTH:
        raise ParameterError(
            f"strength {strength:g} is not between 0 and {_MAX_STRENGTH:g}; give such a number"
        )


def check_targets(source: Path, *videos: Path | None, plot: Path | None = None) -> None:
    """Find out before minutes of work, not after, that a file cannot be written.

    Raises:
        VideoError: a video to write has an unknown suffix.
        ParameterError: two files are the same, one is there and not to be replaced, or it cannot
            be written where it should be.
    """
    from deepstab.video.writer import format_for

    targets = [path for path in videos if path is not None]
    for video in targets:
        format_for(video)
    if plot is not None and plot.suffix.lower() != ".png":
        raise ParameterError(f"plot {plot} does not end in .png; give such a name")
    if plot is not None and find_spec("matplotlib") is None:
        raise ParameterError(f"plot {plot}: {missing_package('matplotlib')}")
    targets += [] if plot is None else [plot]
    for index, target in enumerate(targets):
        if _is_same_file(target, source):
            raise ParameterError(
                f"{target} is both input and output; choose another name for the output"
            )
        if any(_is_same_file(target, other) for other in targets[:index]):
            raise ParameterError(f"{target} is to be written twice; choose another name for one")
        _check_replaceable(target)
        try:
            tempfile.TemporaryFile(dir=target.parent).close()
        except OSError as error:
            raise ParameterError(
                f"{target} cannot be written: folder {target.parent}: {error.strerror}; "
                "choose another or change its permissions"
            ) from None


def _check_replaceable(target: Path) -> None:
    """Raise a `ParameterError` where what has the name already is not to be replaced unasked."""
    if target.is_symlink():
        raise ParameterError(
            f"{target} is a link to {target.readlink()}; name the file itself, or another"
        )
    if target.is_dir():
        raise ParameterError(f"{target} is a folder; give a file name in it")
    if target.exists() and not target.is_file():
        raise ParameterError(f"{target} is no regular file; give another name")
    # Not os.access, which lets root do everything.
    if target.exists() and not target.stat().st_mode & 0o222:
        raise ParameterError(f"{target} is write-protected; give another name, or delete it first")


def _is_same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    # Path.resolve refuses links that lead in a circle.
    return os.path.realpath(path) == os.path.realpath(other)


def expected_frames(info: VideoInfo) -> int | None:
    """Estimate the length from what the header says, None when it says nothing."""
    if info.num_frames is not None:
        return info.num_frames
    return None if info.duration_s is None else round(info.duration_s * info.frame_rate)


class _Counter:
    """Counts the frames of each phase for whoever wants to know."""

    def __init__(self, progress: OnProgress | None, total: int | None) -> None:
        self._progress, self._total = progress, total
        self._phase, self._done = "", 0

    def __call__(self, phase: str) -> None:
        if phase != self._phase:
            if self._phase:
                # Headers estimate, the first phase has counted.
                self._total = self._done
            self._phase, self._done = phase, 0
        self._done += 1
        if self._progress is not None:
            self._progress(phase, self._done, self._total)
