"""What an evaluation found, as it is kept in files between the measuring and the drawing.

Nothing here imports the networks, so that a report is drawn in seconds.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepstab.data.manifest import Manifest
from deepstab.errors import DataError
from deepstab.metrics.ratios import geometric_mean
from deepstab.metrics.stability import CameraPath

ROWS = ("input", "baseline", "untrained", "stabilized")
"""What every measure is taken of: the video as filmed; tracked corners and a Gaussian path; the
generator as it is initialized; the trained generator."""

NUM_SHOWN = 3
"""So many videos, the worst, have a player, frames side by side and their path in the page."""

MAX_FRAMES = 300
"""Players and paths in the page show the beginning of longer videos."""

Means = Mapping[str, Mapping[str, float]]

# Digits of the few figures that experiments are compared by.
_SCORES = {"psnr": 3, "cropped_ssim": 4, "jitter_ratio": 4, "stability": 4, "crop": 4}


@dataclass(frozen=True, eq=False)
class VideoResult:
    """One test video.

    Attributes:
        name: of the pair of videos.
        num_frames: that were measured.
        width: of a frame, px.
        height: of a frame, px.
        measures: name -> row (of `ROWS`) -> value; crop and distortion compare a video with the
            input, whose own value is 1.
        paths: row -> camera path, as measured on the frames.
        thetas: row -> (num_frames, 2, 3), the corrections as shown, zoom included.
    """

    name: str
    num_frames: int
    width: int
    height: int
    measures: dict[str, dict[str, float]]
    paths: dict[str, CameraPath]
    thetas: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the evaluate stage hands to the report.

    Attributes:
        run_id: the MLflow run the figures are in; empty: not tracked.
        trained_in: the run that trained; empty: not tracked.
        epoch: the epoch whose weights were measured.
        facts: commit, machine and the like by tag name, see `deepstab.tracking.provenance`.
        videos: of the test split, in the manifest's order.
    """

    run_id: str
    trained_in: str
    epoch: int
    facts: dict[str, str]
    videos: tuple[VideoResult, ...]

    def save(self, path: Path) -> None:
        """Write everything as JSON, floats to their last digit."""
        path.write_text(json.dumps(dataclasses.asdict(self), default=_plain) + "\n")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """The inverse of `save`.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            videos = tuple(_video(video) for video in tree.pop("videos"))
            return cls(**tree, videos=videos)
        except FileNotFoundError:
            raise DataError(f"{path}: no measures; run the evaluate stage first") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged measures ({error}); run evaluate again") from None


def mean_measures(videos: Sequence[VideoResult]) -> dict[str, dict[str, float]]:
    """Means over videos: name -> row -> value, and jitter ratios.

    `jitter_ratio` is the ratio of the mean jitters; `jitter_ratio_geomean` the geometric mean of
    the videos' own ratios.
    """
    means = {
        name: {row: float(np.mean([video.measures[name][row] for video in videos])) for row in ROWS}
        for name in videos[0].measures
    }
    jitter = {row: np.array([video.measures["jitter_px"][row] for video in videos]) for row in ROWS}
    means["jitter_ratio"] = {
        row: means["jitter_px"][row] / means["jitter_px"]["input"] for row in ROWS
    }
    means["jitter_ratio_geomean"] = {
        row: geometric_mean(list(jitter[row] / jitter["input"])) for row in ROWS
    }
    return means


def worst_first(videos: Sequence[VideoResult]) -> list[VideoResult]:
    """Ordered by the jitter that the network left, most first; what cannot be measured is worst."""

    def left(video: VideoResult) -> float:
        value = video.measures["jitter_px"]["stabilized"]
        return math.inf if math.isnan(value) else value

    return sorted(videos, key=lambda video: (-left(video), video.name))


def file_name(video: str) -> str:
    """The name of a video as the stem of one file."""
    return video.replace("/", "_")


def metrics_json(means: Means, manifest: Manifest, *, run_id: str) -> str:
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


def scores_json(means: Means) -> str:
    """The stabilized videos' few figures that experiments are compared by, for DVC."""
    scores = {name: round(means[name]["stabilized"], digits) for name, digits in _SCORES.items()}
    return json.dumps(scores, indent=1) + "\n"


def per_video_csv(videos: Sequence[VideoResult]) -> str:
    """One line per test video: every measure of every row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(videos[0].measures)
    writer.writerow(["video", "frames", *(f"{name}_{row}" for name in names for row in ROWS)])
    for video in videos:
        values = [f"{video.measures[name][row]:.6g}" for name in names for row in ROWS]
        writer.writerow([video.name, video.num_frames, *values])
    return text.getvalue()


def _plain(value: object) -> object:
    assert isinstance(value, np.ndarray), type(value)
    return value.tolist()


def _video(tree: dict[str, Any]) -> VideoResult:
    paths = {
        row: CameraPath(**{name: np.array(values) for name, values in path.items()})
        for row, path in tree.pop("paths").items()
    }
    thetas = {row: np.array(values) for row, values in tree.pop("thetas").items()}
    return VideoResult(**tree, paths=paths, thetas=thetas)
