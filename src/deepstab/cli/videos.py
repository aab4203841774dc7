"""The `deepstab` command: parse, call, one line when something is wrong, exit code.

Exit codes: 0 done, 1 a `DeepStabError`, 2 wrong usage, 128 plus the number of the signal that ended
it. The modules that do the work are imported by the commands that need them: help must not wait.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepstab import api
from deepstab.cli import experiments
from deepstab.cli.console import (
    Phases,
    exit_when_told,
    one_line_errors,
    score_table,
    score_tree,
)
from deepstab.cli.options import (
    CompareOption,
    CrfOption,
    CropOption,
    How,
    InputsArgument,
    OutputArgument,
    PlotOption,
    PresetOption,
    StrengthOption,
    WeightsOption,
)
from deepstab.errors import ParameterError, printable
from deepstab.progress import progress

if TYPE_CHECKING:
    from deepstab.stabilization.whole_video import Stabilization

# So many times its length may a video take.
_SLOWEST = 4

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
    exit_when_told()
    app()


@app.command()
def stabilize(
    sources: InputsArgument,
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

    Of several INPUTs, or a folder, each becomes a file of the folder OUTPUT, and its scores a row
    of stabilized.csv there. What is done already, of the same file by the same options, is kept:
    what was interrupted goes on.
    """
    with one_line_errors():
        how = How(crop, strength, weights, (crf, preset))
        if len(sources) > 1 or sources[0].is_dir():
            if compare is not None or plot is not None:
                raise ParameterError(
                    f"{sources[0]}: --compare and --plot are of one video; leave them out"
                )
            from deepstab.cli.folder import stabilize_many

            stabilize_many(sources, destination, how)
        else:
            _stabilize_one(sources[0], destination, how, compare=compare, plot=plot)


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
    with one_line_errors(), closing(Phases()) as phases:
        found = api.score(source, result, progress=phases.show)
    print(json.dumps(score_tree(found), indent=1) if as_json else score_table(found))


@app.command("app")
def show_page(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of 127.0.0.1.")] = 7860,
    most_mib: Annotated[int, typer.Option(min=1, help="Largest video, MiB.")] = 2048,
    most_minutes: Annotated[float, typer.Option(help="Longest video, minutes.")] = 30.0,
    most_megapixels: Annotated[float, typer.Option(help="Largest frame.")] = 17.0,
    most_memory: Annotated[int, typer.Option(min=1, help="Of the work on one, GiB.")] = 6,
) -> None:
    """Open a page on this machine: drop a video, see before and after.

    One video is worked on at a time, in a process that ends at four times the longest video's
    length. Uploads and results are removed when the page is closed or the command ends. Needs
    deepstab[app].
    """
    with one_line_errors():
        from deepstab.app.server import serve
        from deepstab.app.visits import Service
        from deepstab.video.confined import Confinement
        from deepstab.video.limits import Limits

        limits = Limits(
            num_bytes=most_mib * 2**20,
            duration_s=60 * most_minutes,
            num_pixels=round(1e6 * most_megapixels),
        )
        confinement = Confinement(
            memory_bytes=most_memory * 2**30, time_s=_SLOWEST * 60 * most_minutes
        )
        serve(Service(limits, confinement), port=port)


def _stabilize_one(
    source: Path, destination: Path, how: How, *, compare: Path | None, plot: Path | None
) -> None:
    started = time.monotonic()
    api.check_targets(source, destination, compare, plot=plot)
    with closing(Phases()) as phases:
        done = api.stabilize(source, destination, **how._asdict(), progress=phases.show)
    rate = done.num_frames / (time.monotonic() - started)
    print(
        f"{printable(str(destination))}: {done.num_frames} frames ({rate:.3g} frames/s), "
        f"{100 * done.zoom:.4g} % of width and height kept"
    )
    if plot is not None:
        _save_paths(done, plot)
    if compare is not None:
        _compare((source, destination), compare, how.encoding, num_frames=done.num_frames)


def _save_paths(done: Stabilization, plot: Path) -> None:
    from deepstab.stabilization.before_after import plot_paths, save_plot

    save_plot(plot_paths(done.input_path, done.output_path), plot)
    print(f"{printable(str(plot))}: camera path before and after")


def _compare(
    sides: tuple[Path, Path], target: Path, encoding: tuple[int, str], *, num_frames: int
) -> None:
    from deepstab.stabilization.before_after import write_comparison

    with progress(num_frames, label="compare", unit="frames") as bar:
        crf, preset = encoding
        write_comparison(*sides, target, crf=crf, preset=preset, on_frame=bar.advance)
    print(f"{printable(str(target))}: before left, after right")
