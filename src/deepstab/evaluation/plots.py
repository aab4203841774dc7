"""Curves, camera paths and frame strips as image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display on servers
import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepstab.evaluation.measure import PairResult
from deepstab.evaluation.tables import MEASURES

_STRIP_WIDTH_PX = 480
# Deterministic bytes: no date in the file.
_PNG_METADATA = {"Software": None}


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
        axes.set(title=f"validation {MEASURES[name].title}", xlabel="epoch")
        axes.legend(fontsize="small")
    return figure


def camera_paths(result: PairResult) -> Figure:
    """The camera path of one video before and after, as measured on its frames."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.2), layout="constrained")
    for label, color in (("input", "tab:red"), ("stabilized", "tab:blue")):
        path = result.paths[label]
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
