"""The evaluation as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from deepstab.data.manifest import Manifest
from deepstab.evaluation.plots import Chart, History, learning_charts, path_charts
from deepstab.evaluation.results import (
    MAX_FRAMES,
    NUM_SHOWN,
    ROWS,
    Evaluation,
    VideoResult,
    file_name,
    mean_measures,
    worst_first,
)
from deepstab.evaluation.tables import GENERATED, MEASURES, Measure
from deepstab.tracking import names
from deepstab.tracking.run import Plain

_NONE = "n/a"
_MAX_PLAYERS_BYTES = 5_000_000
_KEY_PARAMS = (
    "seed",
    "data.source",
    "model.head",
    "model.clip_length",
    "flow.width",
    "flow.height",
    "train.epochs",
    "train.batch_size",
    "train.lr_g",
    "train.lr_d",
    "loss.lambda_gan",
    "loss.lambda_pixel",
    "loss.lambda_vgg",
    "loss.lambda_smooth",
)
# More columns would not fit a screen.
_VIDEO_COLUMNS = {
    "jitter_px": ROWS,
    "psnr": ("input", "stabilized"),
    **dict.fromkeys(("cropped_ssim", "stability", "crop", "distortion"), ("stabilized",)),
}
_FACTS = {
    names.COMMIT_TAG: "commit",
    names.BRANCH_TAG: "branch",
    names.DIRTY_TAG: "uncommitted changes",
    names.EXPERIMENT_TAG: "experiment",
    names.PYTHON_TAG: "Python",
    names.PLATFORM_TAG: "platform",
    names.PROCESSOR_TAG: "processor",
    names.GPU_TAG: "GPU",
}


@dataclass(frozen=True)
class _Row:
    title: str
    meaning: str
    better: str
    cells: tuple[tuple[str, bool], ...]  # text, whether it is the best of the corrections


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
    player: str | None  # data URI
    paths: list[Chart]


def render_page(
    evaluation: Evaluation,
    manifest: Manifest,
    *,
    params: Mapping[str, Plain],
    history: History,
    players: Path,
) -> str:
    """The page, the same bytes for the same arguments.

    Args:
        evaluation: of all test videos.
        manifest: of the data.
        params: all parameters, dotted key to value.
        history: of the training.
        players: folder of the before/after videos of the `NUM_SHOWN` worst.
    """
    environment = Environment(
        loader=PackageLoader("deepstab", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ordered = worst_first(evaluation.videos)
    means = mean_measures(evaluation.videos)
    scenes = {pair.name: pair.scene for pair in manifest.pairs}
    facts = evaluation.facts
    return environment.get_template("page.html").render(
        banner=GENERATED if manifest.generated else "",
        rows=ROWS,
        planned=params["model.head"] == "motion",
        means=[_row(MEASURES[name], values) for name, values in means.items()],
        left={row: _percent(means["jitter_ratio"][row]) for row in ROWS},
        psnr={row: f"{means['psnr'][row]:.1f}" for row in ROWS},
        crop={row: _percent(means["crop"][row]) for row in ROWS},
        video_columns={MEASURES[name].title: rows for name, rows in _VIDEO_COLUMNS.items()},
        videos=[_video(video, scenes[video.name]) for video in ordered],
        shown=_shown(ordered[:NUM_SHOWN], scenes, players),
        max_frames=MAX_FRAMES,
        curves=learning_charts(history),
        evaluation=evaluation,
        run_id=evaluation.run_id,
        facts={label: facts[tag] for tag, label in _FACTS.items() if tag in facts},
        key_params={key: params[key] for key in _KEY_PARAMS},
        other_params={key: value for key, value in params.items() if key not in _KEY_PARAMS},
        manifest=manifest,
        counts=manifest.counts(),
        digest=manifest.digest(),
    )


def _row(measure: Measure, values: Mapping[str, float]) -> _Row:
    contenders = [values[row] for row in ROWS[1:] if not math.isnan(values[row])]
    choose = max if measure.better == "higher" else min
    best = _figure(choose(contenders)) if contenders else ""
    texts = [_figure(values[row]) for row in ROWS]
    cells = [(text, row != "input" and text == best) for row, text in zip(ROWS, texts, strict=True)]
    return _Row(measure.title, measure.meaning, measure.better, tuple(cells))


def _video(video: VideoResult, scene: str) -> _Video:
    measures = video.measures
    cells = [_figure(measures[name][row]) for name, rows in _VIDEO_COLUMNS.items() for row in rows]
    before, after = (measures["jitter_px"][row] for row in ("input", "stabilized"))
    left = _percent(after / before) if before else _NONE
    return _Video(video.name, scene, tuple(cells), left, worse=after > before)


def _shown(videos: Sequence[VideoResult], scenes: Mapping[str, str], players: Path) -> list[_Shown]:
    left = _MAX_PLAYERS_BYTES
    shown = []
    for video in videos:
        content = (players / f"{file_name(video.name)}.mp4").read_bytes()
        fits = len(content) <= left
        left -= len(content) if fits else 0
        player = f"data:video/mp4;base64,{base64.b64encode(content).decode()}" if fits else None
        shown.append(
            _Shown(
                name=video.name,
                scene=scenes[video.name],
                num_frames=video.num_frames,
                num_played=min(video.num_frames, MAX_FRAMES),
                player=player,
                paths=path_charts(video, num_frames=MAX_FRAMES),
            )
        )
    return shown


def _figure(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.4g}"


def _percent(ratio: float) -> str:
    return _NONE if math.isnan(ratio) else f"{100 * ratio:.3g} %"
