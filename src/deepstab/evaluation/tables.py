"""An evaluation's figures as JSON, CSV and plain text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deepstab.data.manifest import Manifest
from deepstab.evaluation.measure import ROWS, PairResult

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


def metrics_json(
    means: Mapping[str, Mapping[str, float]], manifest: Manifest, *, run_id: str
) -> str:
    """The evaluation's figures and what they were measured on, to six digits."""
    tree: dict[str, Any] = {
        "data": {
            "source": manifest.source,
            "requested": manifest.requested,
            "generated": manifest.generated,
            "manifest": manifest.digest()[:16],
            "test_videos": len(manifest.of_split("test")),
        },
        "run_id": run_id,
        **{
            name: {row: float(f"{value:.6g}") for row, value in values.items()}
            for name, values in means.items()
        },
    }
    return json.dumps(tree, indent=1) + "\n"


def scores_json(means: Mapping[str, Mapping[str, float]]) -> str:
    """The stabilized videos' few figures that experiments are compared by, for DVC."""
    digits = {"psnr": 3, "cropped_ssim": 4, "jitter_ratio": 4, "stability": 4, "crop": 4}
    scores = {name: round(means[name]["stabilized"], num) for name, num in digits.items()}
    return json.dumps(scores, indent=1) + "\n"


def per_video_csv(results: Sequence[PairResult]) -> str:
    """One line per test video: every measure of the input, the baseline and the network."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(results[0].measures)
    columns = [f"{name}_{row}" for name in names for row in ROWS]
    writer.writerow(["video", "frames", *columns])
    for result in results:
        values = [f"{result.measures[name][row]:.6g}" for name in names for row in ROWS]
        writer.writerow([result.name, result.num_frames, *values])
    return text.getvalue()


def summary(means: Mapping[str, Mapping[str, float]], manifest: Manifest) -> str:
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
        "frames side by side, camera paths  reports/plots/",
        "every test video                   reports/per_video.csv",
        "all runs, in the browser           make ui",
    ]
    return "\n".join(lines) + "\n"


def read_history(text: str) -> list[dict[str, float]]:
    """The rows of reports/history.csv."""
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]


def worst_first(results: Sequence[PairResult]) -> list[PairResult]:
    """Ordered by the jitter that the network left, most first; what cannot be measured is worst."""

    def left(result: PairResult) -> float:
        value = result.measures["jitter_px"]["stabilized"]
        return math.inf if math.isnan(value) else value

    return sorted(results, key=lambda result: (-left(result), result.name))
