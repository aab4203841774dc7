"""The evaluation as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from deepstab.data.manifest import Manifest
from deepstab.evaluation import charts
from deepstab.evaluation.charts import Chart, line_chart
from deepstab.evaluation.measure import ROWS, PairResult
from deepstab.evaluation.players import MAX_FRAMES
from deepstab.evaluation.tables import GENERATED, MEASURES, Measure, worst_first
from deepstab.tracking.run import Plain

NUM_SHOWN = 3
"""So many videos, the worst, have a player and their camera path in the page."""

_NONE = "n/a"
_MAX_PLAYERS_BYTES = 5_000_000
_KEY_PARAMS = (
    *("seed", "data.source", "model.head", "model.clip_length", "flow.width", "flow.height"),
    *("train.epochs", "train.batch_size", "train.lr_g", "train.lr_d"),
    *("loss.lambda_gan", "loss.lambda_pixel", "loss.lambda_vgg", "loss.lambda_smooth"),
)
_LOSSES = ("total", "gan", "pixel", "vgg", "smooth", "identity", "discriminator")
_VIDEO_COLUMNS = {
    **dict.fromkeys(("jitter_px", "psnr"), ROWS),
    **dict.fromkeys(("cropped_ssim", "stability", "crop", "distortion"), ROWS[2:]),
}
_FACTS = {
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.branch": "branch",
    "mlflow.source.git.dirty": "uncommitted changes",
    "dvc.experiment": "experiment",
    "python": "Python",
    "platform": "platform",
    "processor": "processor",
    "gpu": "GPU",
}


@dataclass(frozen=True)
class Training:
    """What the training stage left.

    Attributes:
        history: one row per epoch, as in reports/history.csv.
        best_epoch: the epoch that is evaluated.
        run_id: the run that trained; empty: not tracked.
    """

    history: Sequence[Mapping[str, float]]
    best_epoch: int
    run_id: str


@dataclass(frozen=True)
class _Row:
    title: str
    meaning: str
    better: str
    cells: tuple[tuple[str, bool], ...]  # text, whether it is the best of baseline and network


@dataclass(frozen=True)
class _Video:
    name: str
    scene: str
    cells: tuple[str, ...]
    left: str
    worse: bool


@dataclass(frozen=True)
class _Shown:
    name: str
    scene: str
    num_frames: int
    num_played: int
    width: int
    height: int
    player: str | None  # data URI
    paths: tuple[Chart, ...]


def render_page(
    results: Sequence[PairResult],
    means: Mapping[str, Mapping[str, float]],
    manifest: Manifest,
    *,
    params: Mapping[str, Plain],
    run_id: str,
    facts: Mapping[str, str],
    training: Training,
    players: Mapping[str, Path],
) -> str:
    """The page, the same bytes for the same arguments.

    Args:
        results: of all test videos.
        means: of them, as `mean_measures` gives them.
        manifest: of the data.
        params: all parameters, dotted key to value.
        run_id: the MLflow run; empty: not tracked.
        facts: commit, machine and the like by tag name, see `deepstab.tracking.provenance`.
        training: learning curves.
        players: video name -> before/after video, of the `NUM_SHOWN` worst.
    """
    environment = Environment(
        loader=PackageLoader("deepstab", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ordered = worst_first(results)
    scenes = {pair.name: pair.scene for pair in manifest.pairs}
    return environment.get_template("page.html").render(
        banner=GENERATED if manifest.generated else "",
        rows=ROWS,
        means=[_row(MEASURES[name], values) for name, values in means.items()],
        left={row: _percent(means["jitter_ratio"][row]) for row in ROWS},
        psnr={row: f"{means['psnr'][row]:.1f}" for row in ROWS},
        crop={row: _percent(means["crop"][row]) for row in ROWS},
        video_columns={MEASURES[name].title: rows for name, rows in _VIDEO_COLUMNS.items()},
        videos=[_video(result, scenes[result.name]) for result in ordered],
        shown=_shown(ordered[:NUM_SHOWN], scenes, players),
        max_frames=MAX_FRAMES,
        curves=_curves(training),
        training=training,
        run_id=run_id,
        facts={label: facts[tag] for tag, label in _FACTS.items() if tag in facts},
        key_params={key: params[key] for key in _KEY_PARAMS},
        other_params={key: value for key, value in params.items() if key not in _KEY_PARAMS},
        manifest=manifest,
        counts=manifest.counts(),
        digest=manifest.digest(),
        plot=charts,
    )


def _row(measure: Measure, values: Mapping[str, float]) -> _Row:
    contenders = [values[row] for row in ROWS[1:] if not math.isnan(values[row])]
    choose = max if measure.better == "higher" else min
    best = _figure(choose(contenders)) if contenders else ""
    texts = [_figure(values[row]) for row in ROWS]
    cells = [(text, row != "input" and text == best) for row, text in zip(ROWS, texts, strict=True)]
    return _Row(measure.title, measure.meaning, measure.better, tuple(cells))


def _video(result: PairResult, scene: str) -> _Video:
    measures = result.measures
    cells = [_figure(measures[name][row]) for name, rows in _VIDEO_COLUMNS.items() for row in rows]
    before, after = (measures["jitter_px"][row] for row in ("input", "stabilized"))
    left = _percent(after / before) if before else _NONE
    return _Video(result.name, scene, tuple(cells), left, worse=after > before)


def _shown(
    results: Sequence[PairResult], scenes: Mapping[str, str], players: Mapping[str, Path]
) -> list[_Shown]:
    left = _MAX_PLAYERS_BYTES
    shown = []
    for result in results:
        content = players[result.name].read_bytes()
        fits = len(content) <= left
        left -= len(content) if fits else 0
        player = f"data:video/mp4;base64,{base64.b64encode(content).decode()}" if fits else None
        height, width = result.frames[0].shape[:2]
        shown.append(
            _Shown(
                name=result.name,
                scene=scenes[result.name],
                num_frames=result.num_frames,
                num_played=min(result.num_frames, MAX_FRAMES),
                width=width,
                height=height,
                player=player,
                paths=_camera_path(result),
            )
        )
    return shown


def _camera_path(result: PairResult) -> tuple[Chart, ...]:
    signals = {
        row: (path.shift_px[:, 0], path.shift_px[:, 1], np.degrees(path.angle_rad))
        for row, path in result.paths.items()
    }
    return tuple(
        line_chart(
            title,
            {row: signals[row][number][:MAX_FRAMES].tolist() for row in ROWS},
            first_x=0,
            x_title="frame",
        )
        for number, title in enumerate(("x, px @640", "y, px @640", "roll, deg"))
    )


def _curves(training: Training) -> list[Chart]:
    series = {f"validation {MEASURES[name].title}": name for name in ("psnr", "cropped_ssim")}
    series |= {f"training loss: {name}": name for name in _LOSSES}
    curves = []
    for title, name in series.items():
        values = [row[name] for row in training.history]
        if any(values):
            curves.append(line_chart(title, {name: values}, first_x=1, x_title="epoch"))
    return curves


def _figure(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.4g}"


def _percent(ratio: float) -> str:
    return _NONE if math.isnan(ratio) else f"{100 * ratio:.3g} %"
