"""The report's files, drawn from what the evaluate and train stages left; nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deepstab.data.manifest import Manifest
from deepstab.evaluation import plots, tables
from deepstab.evaluation.page import render_page
from deepstab.evaluation.results import Evaluation, file_name, mean_measures
from deepstab.tracking import names
from deepstab.tracking.run import Plain


def draw_report(
    evaluation: Evaluation, manifest: Manifest, *, params: Mapping[str, Plain], reports: Path
) -> tuple[str, list[Path]]:
    """Draw camera paths, loss curves, the summary and the page.

    Args:
        evaluation: what evaluate measured.
        manifest: of the data.
        params: all parameters, dotted key to value.
        reports: folder to write to, which holds history.csv and the players.

    Returns:
        The summary, and the plots and the page that were written.
    """
    history = tables.read_history((reports / "history.csv").read_text())
    folder = reports / names.PLOTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [reports / "loss_curves.png"]
    plots.save_figure(plots.loss_curves(history), drawn[0])
    for video in evaluation.videos:
        drawn.append(folder / f"path_{file_name(video.name)}.png")
        plots.save_figure(plots.camera_paths(video), drawn[-1])
    summary = tables.summary(mean_measures(evaluation.videos), manifest)
    (reports / "summary.txt").write_text(summary)
    html = reports / "report.html"
    html.unlink(missing_ok=True)  # a link to DVC's cache, where one runs without DVC
    html.write_text(
        render_page(
            evaluation,
            manifest,
            params=params,
            history=history,
            players=reports / names.VIDEOS_FOLDER,
        ),
        encoding="utf-8",
    )
    return summary, [*drawn, html]
