"""What `deepstab stabilize` can be told, with the help it shows for each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

Preset = Literal[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
]


class How(NamedTuple):
    """What `deepstab.stabilize` is told, by its names."""

    crop: str
    strength: float
    weights: str | None
    encoding: tuple[int, str]


InputsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT...", help="Video of any common format, several, or a folder."),
]
OutputArgument = Annotated[
    Path,
    typer.Argument(
        metavar="OUTPUT",
        help="Video to write: .mp4, .m4v, .mov or .mkv; of several or a folder, a folder.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|URI",
        help="Weights to use instead of those that ship: a checkpoint's path, or of the "
        "MLflow store models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID.",
    ),
]
CropOption = Annotated[
    str,
    typer.Option(
        metavar="auto|none|PERCENT",
        help="What may be cut away of width and height to hide the moving border: what the "
        "shake is worth, up to 20, nothing (the edge is repeated), or exactly so many percent.",
    ),
]
StrengthOption = Annotated[
    float,
    typer.Option(metavar="0..10", help="Smoothing over time: 0 none, 1 as tuned, 2 twice it."),
]
CompareOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Also write a video, before left and after right."),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Also plot the camera path before and after, .png."),
]
CrfOption = Annotated[
    int, typer.Option(min=0, max=51, metavar="0..51", help="Loss of x264, 0 is none, 51 most.")
]
PresetOption = Annotated[
    Preset, typer.Option(metavar="NAME", help="Speed of x264, ultrafast to veryslow.")
]
