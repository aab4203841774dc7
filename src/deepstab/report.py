"""What people look at: tables, plots and frame strips of an evaluation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display on servers
import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepstab.data.manifest import Manifest
from deepstab.evaluation import PairResult

_STRIP_WIDTH_PX = 480
# Deterministic bytes: no date in the file.
_PNG_METADATA = {"Software": None}

_TITLES = {
    "psnr": "PSNR, dB",
    "cropped_ssim": "Cropped SSIM",
    "jitter_px": "residual jitter, px @640",
    "jitter_ratio": "jitter / input's (of the means)",
    "jitter_ratio_geomean": "jitter / input's (geometric mean)",
    "roll_jitter_deg": "roll jitter, deg",
    "stability": "stability",
    "interframe_psnr": "inter-frame PSNR, dB",
    "crop": "cropping ratio",
    "distortion": "distortion, worst frame",
    "true_jitter_px": "true residual jitter, px @640",
    "true_error_px": "true corner error, px @640",
}


def metrics_json(means: dict[str, dict[str, float]], manifest: Manifest, *, run_id: str) -> str:
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


def scores_json(means: dict[str, dict[str, float]]) -> str:
    """The stabilized videos' few figures that experiments are compared by, for DVC."""
    digits = {"psnr": 3, "cropped_ssim": 4, "jitter_ratio": 4, "stability": 4, "crop": 4}
    scores = {name: round(means[name]["stabilized"], num) for name, num in digits.items()}
    return json.dumps(scores, indent=1) + "\n"


def per_video_csv(results: Sequence[PairResult]) -> str:
    """One line per test video: every measure without and with stabilization."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(results[0].measures)
    columns = [f"{name}_{row}" for name in names for row in ("input", "stabilized")]
    writer.writerow(["video", "frames", *columns])
    for result in results:
        values = [f"{value:.6g}" for name in names for value in result.measures[name]]
        writer.writerow([result.name, result.num_frames, *values])
    return text.getvalue()


def summary(means: dict[str, dict[str, float]], manifest: Manifest) -> str:
    """The means as aligned plain text, input beside stabilized, and where to look next."""
    rows = [("mean over the test videos", "input", "stabilized")] + [
        (_TITLES[name], f"{values['input']:.4g}", f"{values['stabilized']:.4g}")
        for name, values in means.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    if manifest.generated:
        lines.insert(0, "These are GENERATED virtual flights, not filmed videos.")
    lines += [
        "",
        "frames side by side, camera paths  reports/plots/",
        "every test video                   reports/per_video.csv",
        "loss curves                        reports/loss_curves.png",
        "all runs, in the browser           make ui",
    ]
    return "\n".join(lines) + "\n"


def loss_curves(history: Sequence[dict[str, float]], as_filmed: dict[str, float]) -> Figure:
    """Mean training terms per epoch, and validation PSNR and Cropped SSIM beside the input's."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for name in ("total", "gan", "pixel", "vgg", "smooth", "identity", "discriminator"):
        values = [row[name] for row in history]
        if any(values):
            left.plot(epochs, values, marker=".", label=name)
    left.set(title="training loss, unweighted terms", xlabel="epoch", yscale="log")
    left.legend(fontsize="small")
    for axes, name in ((middle, "psnr"), (right, "cropped_ssim")):
        axes.plot(epochs, [row[name] for row in history], marker=".", label="stabilized")
        axes.axhline(as_filmed[name], color="gray", linestyle="--", label="input")
        axes.set(title=f"validation {_TITLES[name]}", xlabel="epoch")
        axes.legend(fontsize="small")
    return figure


def camera_paths(result: PairResult) -> Figure:
    """The camera path of one video before and after, as measured on its frames."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.2), layout="constrained")
    for path, label, color in (
        (result.input_path, "input", "tab:red"),
        (result.stabilized_path, "stabilized", "tab:blue"),
    ):
        signals = (path.shift_px[:, 0], path.shift_px[:, 1], np.degrees(path.angle_rad))
        for panel, signal in zip(axes, signals, strict=True):
            panel.plot(signal, label=label, color=color, linewidth=1.2)
    titles = ("x, px @640", "y, px @640", "roll, deg")
    for panel, title in zip(axes, titles, strict=True):
        panel.set(title=f"video {result.name}: {title}", xlabel="frame")
    axes[0].legend(fontsize="small")
    return figure


def frame_strip(results: Sequence[PairResult]) -> NDArray[np.uint8]:
    """Rows of unstable, stabilized and stable middle frames, (height, width, 3) uint8 RGB."""
    rows = [
        np.hstack(
            [
                _labeled(frame, f"{result.name}: {label}")
                for frame, label in zip(
                    result.frames, ("input", "stabilized", "stable reference"), strict=True
                )
            ]
        )
        for result in results
    ]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.vstack(padded)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure, and close it."""
    figure.savefig(path, dpi=110, metadata=_PNG_METADATA)
    plt.close(figure)


def save_image(image: NDArray[np.uint8], path: Path) -> None:
    """Write an RGB image by the suffix of its name."""
    _, encoded = cv2.imencode(path.suffix, image[:, :, ::-1])
    path.write_bytes(encoded.tobytes())


def _labeled(frame: NDArray[np.uint8], label: str) -> NDArray[np.uint8]:
    height = round(frame.shape[0] * _STRIP_WIDTH_PX / frame.shape[1])
    image = cv2.resize(frame, (_STRIP_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    cv2.rectangle(image, (0, 0), (12 * len(label) + 16, 30), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, label, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255))
    return np.asarray(image, np.uint8)
