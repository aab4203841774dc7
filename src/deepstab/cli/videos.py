"""The `deepstab` command: parse, call, one line when something is wrong, exit code.

Exit codes: 0 done, 1 a `DeepStabError`, 2 wrong usage, 130 interrupted, 143 terminated. The
modules that do the work are imported by the commands that need them: help must not wait for them.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepstab.cli import experiments
from deepstab.cli.console import (
    Phases,
    exit_when_terminated,
    one_line_errors,
    quick_imports,
    score_table,
    score_tree,
)
from deepstab.cli.options import (
    CompareOption,
    CrfOption,
    CropOption,
    InputArgument,
    OutputArgument,
    PlotOption,
    PresetOption,
    StrengthOption,
    WeightsOption,
)
from deepstab.errors import ParameterError, VideoError, missing_package
from deepstab.progress import progress

if TYPE_CHECKING:
    from deepstab.image import Image
    from deepstab.models.network import MotionNetwork
    from deepstab.stabilize.whole_video import Encoding, Stabilization
    from deepstab.video.frames import VideoInfo

# The most that `--crop auto` may cut away; what it takes is decided by the shake.
_AUTO_CROP_FRACTION = 0.2
_MAX_CROP_PERCENT = 50.0
# Beyond a smoothing of several seconds nothing changes but the time it takes.
_MAX_STRENGTH = 10.0

CropMode = Literal["auto", "none", "fixed"]

app = typer.Typer(
    help="Steady video out of shaky video, by learning alone.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(experiments.app)


def main() -> None:
    """Run the command line."""
    exit_when_terminated()
    app()


@app.command()
def stabilize(
    source: InputArgument,
    destination: OutputArgument,
    weights: WeightsOption = None,
    crop: CropOption = "auto",
    strength: StrengthOption = 1.0,
    compare: CompareOption = None,
    plot: PlotOption = None,
    crf: CrfOption = 18,
    preset: PresetOption = "veryfast",
) -> None:
    """Stabilize INPUT and write OUTPUT.

    OUTPUT has the size, frames, times, sound, subtitles, rotation and color tags of INPUT, and
    appears when it is whole.
    """
    with one_line_errors():
        mode, fraction = parse_crop(crop)
        _check_strength(strength)
        started = time.monotonic()
        from deepstab.video.frames import probe

        total = _expected_frames(probe(source))
        _check_targets(source, destination, compare, plot)
        network = _load_network(weights)
        from deepstab.stabilize.whole_video import Crop, Encoding, Smoothing, stabilize_video

        encoding = Encoding(crf=crf, preset=preset)
        with closing(Phases(total)) as phases:
            done = stabilize_video(
                source,
                destination,
                network=network,
                smoothing=Smoothing(Crop(mode, fraction), strength),
                encoding=encoding,
                on_frame=phases.advance,
            )
        rate = done.num_frames / (time.monotonic() - started)
        print(
            f"{destination}: {done.num_frames} frames ({rate:.3g} frames/s), "
            f"{100 * done.zoom:.4g} % of width and height kept"
        )
        if plot is not None:
            _save_paths(done, plot)
        if compare is not None:
            _compare((source, destination), compare, encoding, num_frames=done.num_frames)


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Video as filmed.")],
    result: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The same, stabilized.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score OUTPUT, the stabilized INPUT.

    Both are read in lockstep; no steady reference is needed.

    \b
    Of each video, from the camera path (SIFT, RANSAC, summed up):
      stability    energy of bins 1-5 of the path's Fourier transform over all
                   bins but 0; mean of x, y and roll, windows of 240 frames
      jitter       RMS second difference of the path, px at width 640
      roll jitter  the same of the rotation, degrees
      inter-frame PSNR  mean over consecutive frames, dB; blur raises it too
      black        black border pixels, % of the frame

    \b
    Of both, from the homographies INPUT -> OUTPUT:
      crop         mean of min(1, 1 / scale)
      distortion   smaller over larger singular value of the 2x2 part, mean of
                   the frames and worst frame

    Stability as in Liu et al., Bundled Camera Paths, 2013, with the bins stated here. Scores of
    videos shorter than 240 frames compare only at equal length.
    """
    with one_line_errors():
        from deepstab.metrics.stability import score_video
        from deepstab.video.frames import probe, read_frames

        total = _expected_frames(probe(source))
        probe(result)
        with progress(total, label="score", unit="frames") as bar:

            def counted(frames: Iterable[Image]) -> Iterator[Image]:
                for frame in frames:
                    yield frame
                    bar.advance()

            try:
                found = score_video(counted(read_frames(source)), read_frames(result))
            except ValueError as error:
                raise VideoError(f"{result} cannot be scored against {source}: {error}") from None
        print(json.dumps(score_tree(found), indent=1) if as_json else score_table(found))


def _load_network(weights: str | None) -> MotionNetwork:
    """Load weights, those that ship without torch, and with them all that the command needs."""
    with quick_imports():
        import deepstab.stabilize.whole_video  # noqa: F401

        if weights is None:
            from deepstab.models.exported import load_shipped

            return load_shipped()
        from deepstab.experiments.registry import local_weights
        from deepstab.models.checkpoints import load_weights
        from deepstab.tracking.store import project_root

    with local_weights(weights, root=project_root()) as path:
        return load_weights(path).network()


def _save_paths(done: Stabilization, plot: Path) -> None:
    from deepstab.stabilize.before_after import plot_paths, save_plot

    save_plot(plot_paths(done.input_path, done.output_path), plot)
    print(f"{plot}: camera path before and after")


def _compare(
    sides: tuple[Path, Path], target: Path, encoding: Encoding, *, num_frames: int
) -> None:
    from deepstab.stabilize.before_after import write_comparison

    with progress(num_frames, label="compare", unit="frames") as bar:
        write_comparison(
            *sides, target, crf=encoding.crf, preset=encoding.preset, on_frame=bar.advance
        )
    print(f"{target}: before left, after right")


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
            f"--crop {text!r} is not auto, none or a number of percent above 0 and up to "
            f"{_MAX_CROP_PERCENT:g}; give one of these"
        )
    return "fixed", percent / 100


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= _MAX_STRENGTH:
        raise ParameterError(
            f"--strength {strength:g} is not between 0 and {_MAX_STRENGTH:g}; give such a number"
        )


def _check_targets(
    source: Path, destination: Path, compare: Path | None, plot: Path | None
) -> None:
    """Find out before minutes of work, not after, that a file cannot be written.

    Raises:
        VideoError: a video to write has an unknown suffix.
        ParameterError: two files are the same, or one cannot be written where it should be.
    """
    from deepstab.video.writer import format_for

    for video in (destination, compare):
        if video is not None:
            format_for(video)
    if plot is not None and plot.suffix.lower() != ".png":
        raise ParameterError(f"--plot {plot} does not end in .png; give such a name")
    if plot is not None and find_spec("matplotlib") is None:
        raise ParameterError(f"--plot {plot}: {missing_package('matplotlib')}")
    targets = [path for path in (destination, compare, plot) if path is not None]
    for index, target in enumerate(targets):
        if _is_same_file(target, source):
            raise ParameterError(
                f"{target} is both input and output; choose another name for the output"
            )
        if any(_is_same_file(target, other) for other in targets[:index]):
            raise ParameterError(f"{target} is to be written twice; choose another name for one")
        if target.is_dir():
            raise ParameterError(f"{target} is a folder; give a file name in it")
        try:
            tempfile.TemporaryFile(dir=target.parent).close()
        except OSError as error:
            raise ParameterError(
                f"{target} cannot be written: folder {target.parent}: {error.strerror}; "
                "choose another or change its permissions"
            ) from None


def _is_same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def _expected_frames(info: VideoInfo) -> int | None:
    """Estimate the length from what the header says, None when it says nothing."""
    if info.num_frames is not None:
        return info.num_frames
    return None if info.duration_s is None else round(info.duration_s * info.frame_rate)
