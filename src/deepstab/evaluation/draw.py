"""The report's files, drawn from what the evaluate and train stages left; nothing is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deepstab.data.manifest import Manifest
from deepstab.evaluation import plots, tables
from deepstab.evaluation.page import Training, render_page
from deepstab.evaluation.results import Evaluation, file_name, mean_measures
from deepstab.tracking.run import Plain


def draw_report(
    evaluation: Evaluation, manifest: Manifest, *, params: Mapping[str, Plain], reports: Path
) -> tuple[str, list[Path]]:
    """Draw camera paths, loss curves, the summary and the page.

    Args:
        evaluation: what evaluate measured.
        manifest: of the data.
        params: all parameters, dotted key to value.
        reports: folder to write to, which holds history.csv, train.json and the players.

    Returns:
        The summary, and the plots and the page that were written.
    """
    training = read_training(reports)
    folder = reports / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [reports / "loss_curves.png"]
    plots.save_figure(plots.loss_curves(training.history, training.as_filmed), drawn[0])
    for video in evaluation.videos:
        drawn.append(folder / f"path_{file_name(video.name)}.png")
        plots.save_figure(plots.camera_paths(video), drawn[-1])
    summary = tables.summary(mean_measures(evaluation.videos), manifest)
    (reports / "summary.txt").write_text(summary)
    html = reports / "report.html"
    html.unlink(missing_ok=True)  # a link to DVC's cache, where one runs without DVC
    html.write_text(
        render_page(
            evaluation, manifest, params=params, training=training, players=reports / "videos"
        ),
        encoding="utf-8",
    )
    return summary, [*drawn, html]


def read_training(reports: Path) -> Training:
    """Read the learning curves, and the input's own figures where train.json has `input_...`."""
    scores = json.loads((reports / "train.json").read_text())
    as_filmed = {
        name.removeprefix("input_"): value
        for name, value in scores.items()
        if name.startswith("input_")
    }
    return Training(tables.read_history((reports / "history.csv").read_text()), as_filmed)
