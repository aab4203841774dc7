"""What the measures are called and mean, and their means as plain text."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Literal

from deepstab.data.manifest import Manifest
from deepstab.evaluation.results import ROWS, Means

GENERATED = "These are GENERATED virtual flights, not filmed videos."


@dataclass(frozen=True)
class Measure:
    """How a measure is shown.

    Attributes:
        title: with the unit.
        better: which way is better.
        meaning: one clause for who has not met it.
    """

    title: str
    better: Literal["higher", "lower"]
    meaning: str


MEASURES = {
    "psnr": Measure("PSNR, dB", "higher", "likeness to the stable recording"),
    "cropped_ssim": Measure("Cropped SSIM", "higher", "the same, structure, center of the frame"),
    "jitter_px": Measure("residual jitter, px @640", "lower", "RMS second difference of the path"),
    "roll_jitter_deg": Measure("roll jitter, deg", "lower", "the same of the rotation"),
    "stability": Measure("stability", "higher", "share of slow movement in the camera path"),
    "interframe_psnr": Measure("inter-frame PSNR, dB", "higher", "likeness of successive frames"),
    "crop": Measure("cropping ratio", "higher", "share of the field of view that is left"),
    "distortion": Measure("distortion, worst frame", "higher", "1 is a frame without stretch"),
    "true_jitter_px": Measure(
        "true residual jitter, px @640", "lower", "of the shake that was put in"
    ),
    "true_error_px": Measure(
        "true corner error, px @640", "lower", "from where the stable camera has the corners"
    ),
    "jitter_ratio": Measure("jitter / input's (of the means)", "lower", "share of the shake left"),
    "jitter_ratio_geomean": Measure(
        "jitter / input's (geometric mean)", "lower", "the same, every video counting alike"
    ),
}


def summary(means: Means, manifest: Manifest) -> str:
    """The means as aligned plain text, and where to look next."""
    lines = [f"{'mean over the test videos':<33}" + "".join(f"{row:>12}" for row in ROWS)]
    lines.append("-" * len(lines[0]))
    lines += [
        f"{MEASURES[name].title:<33}" + "".join(f"{values[row]:>12.4g}" for row in ROWS)
        for name, values in means.items()
    ]
    if manifest.generated:
        lines.insert(0, GENERATED)
    lines += [
        "",
        "all of this, to look at            reports/report.html",
        "camera paths                       reports/plots/",
        "frames side by side                reports/side_by_side.png",
        "every test video                   reports/per_video.csv",
        "all runs, in the browser           make ui",
    ]
    return "\n".join(lines) + "\n"


def note(means: Means, manifest: Manifest, *, trained_in: str) -> str:
    """What a run is, in the Markdown that MLflow shows of it first.

    Args:
        means: of the test videos.
        manifest: of the data.
        trained_in: id of the run that trained the checkpoint.
    """
    videos = len(manifest.of_split("test"))
    head = f"**{GENERATED}**\n\n" if manifest.generated else ""
    rows = "\n".join(
        f"| {MEASURES[name].title} | "
        + " | ".join(f"{values[row]:.4g}" for row in ROWS)
        + f" | {MEASURES[name].better} is better |"
        for name, values in means.items()
    )
    return (
        f"{head}Means over {videos} test videos that training never saw:\n\n"
        f"| | {' | '.join(ROWS)} | |\n|---|{'---:|' * len(ROWS)}---|\n{rows}\n\n"
        "Before and after, to play: artifacts, `videos/`; all of it on one page: "
        "`reports/report.html`.\n\n"
        f"The same again, to the bit: `deepstab rerun {trained_in}`. Where it came from: "
        f"`deepstab lineage {trained_in}`.\n"
    )


def read_history(text: str) -> list[dict[str, float]]:
    """The rows of reports/history.csv; an empty cell is NaN."""
    rows = csv.DictReader(io.StringIO(text))
    return [{name: float(value or "nan") for name, value in row.items()} for row in rows]
