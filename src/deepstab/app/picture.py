"""The pieces of the page that Gradio has no component for, as HTML."""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from deepstab.app.job import Result, Step
from deepstab.metrics.stability import StabilityScore

_PHASES = {
    "load": "Loading",
    "analyze": "Seeing how the camera moved",
    "render": "Writing the steady video",
    "score": "Measuring before and after",
}
_WIDTH, _HEIGHT, _MARGIN = 600, 120, 6
_MOST_POINTS = 1200
# Columns of a camera path, and what a unit of theirs is shown as.
_SIGNALS = (("sideways, px", 0, 1.0), ("up and down, px", 1, 1.0), ("roll, degrees", 2, 57.29578))

CSS = """
.gradio-container { max-width: 1100px !important; margin: 0 auto !important; }
.players { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
.players figure, .paths figure { margin: 0; min-width: 0; }
.players figcaption, .paths figcaption { font-weight: 600; margin: 0 0 4px; }
.players video { width: 100%; max-height: 60vh; background: #000; border-radius: 8px; }
.buttons { display: flex; gap: 8px; flex-wrap: wrap; margin: 10px 0 18px; }
.buttons a, .buttons button { padding: 8px 16px; border-radius: 8px; cursor: pointer;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color);
  background: var(--background-fill-secondary); text-decoration: none; font-size: 16px; }
.buttons a.main { background: var(--button-primary-background-fill);
  color: var(--button-primary-text-color); border-color: transparent; }
.scores { width: 100%; border-collapse: collapse; border: 0 !important; margin-bottom: 18px; }
.scores tr { border: 0 !important; }
.scores th, .scores td { text-align: right; padding: 6px 8px; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important;
  font-variant-numeric: tabular-nums; }
.scores th:first-child, .scores td:first-child { text-align: left; }
.scores small { opacity: 0.7; }
.paths { display: grid; gap: 12px; }
.paths svg { width: 100%; height: auto; display: block; border-radius: 8px;
  background: var(--background-fill-secondary); }
.paths polyline { fill: none; stroke-width: 1.6; vector-effect: non-scaling-stroke; }
.before { stroke: #9aa3ad; color: #6b7280; } .after { stroke: #f97316; color: #ea580c; }
.dark .before { color: #b6bec8; } .dark .after { color: #fb923c; }
.working progress { width: 100%; height: 10px; accent-color: #f97316; }
.failed { border-left: 4px solid #dc2626; padding: 8px 12px;
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
@media (max-width: 640px) { .players { grid-template-columns: 1fr; } }
"""

# The right player leads; the left one follows whatever is done to it.
_FOLLOW = (
    "const b=this.closest('.players').querySelector('.follows');"
    "if(Math.abs(b.currentTime-this.currentTime)>.05)b.currentTime=this.currentTime;"
)
_UNPLAYABLE = "this.parentNode.querySelector('.note').hidden=false"


def progress(step: Step, left_s: float | None) -> str:
    """How far a job is, and the seconds that are left of this phase."""
    counted = f"value='{step.done}' max='{step.total}'" if step.total else ""
    frames = f"{step.done} of {step.total} frames" if step.total else ""
    left = "" if left_s is None else f", {left_s:.0f} s left"
    return (
        f"<div class='working' role='status'><p>{_PHASES[step.phase]}&hellip; {frames}{left}</p>"
        f"<progress {counted}></progress></div>"
    )


def failure(message: str) -> str:
    """The one line that says what is wrong."""
    return f"<div class='failed' role='alert'>{escape(message)}</div>"


def result(source: Path, found: Result) -> str:
    """Before and after, playing together, with figures and camera paths."""
    return _players(source, found) + _scores(found.score, found.kept) + _paths(found)


def _address(path: Path) -> str:
    return f"/gradio_api/file={quote(str(path))}"


def _players(source: Path, found: Result) -> str:
    together = (
        f'onplay="{_FOLLOW}b.play()" onpause="{_FOLLOW}b.pause()" onseeking="{_FOLLOW}" '
        f'ontimeupdate="{_FOLLOW}" onratechange="{_FOLLOW}b.playbackRate=this.playbackRate"'
    )
    name = escape(found.path.name, quote=True)
    return (
        "<div class='players'><figure><figcaption>Before</figcaption>"
        f"<video class='follows' src='{_address(source)}' muted playsinline preload='auto' "
        f'onerror="{_UNPLAYABLE}"></video>'
        "<p class='note' hidden>This browser cannot play the video as it was uploaded.</p></figure>"
        "<figure><figcaption>After</figcaption>"
        f"<video class='leads' src='{_address(found.path)}' muted autoplay loop controls "
        f"playsinline preload='auto' {together}></video></figure></div>"
        f"<div class='buttons'><a class='main' href='{_address(found.path)}' download='{name}'>"
        "Download</a></div>"
    )


def _scores(score: StabilityScore, kept: float) -> str:
    before, after = score.input, score.output
    rows = (
        ("Jitter", "px at a width of 640", before.jitter_px, after.jitter_px),
        ("Roll jitter", "degrees", before.roll_jitter_deg, after.roll_jitter_deg),
        ("Stability", "1 is best", before.stability, after.stability),
        ("Width and height kept", "%", 100, 100 * kept),
        ("Distortion, worst frame", "1 is none", 1, score.distortion_worst),
    )
    cells = "".join(
        f"<tr><td>{name} <small>{unit}</small></td><td>{first:.3g}</td><td>{second:.3g}</td></tr>"
        for name, unit, first, second in rows
    )
    return (
        "<table class='scores'><thead><tr><th></th><th>before</th><th>after</th></tr></thead>"
        f"<tbody>{cells}</tbody></table>"
    )


def _paths(found: Result) -> str:
    figures = "".join(
        f"<figure><figcaption>{title}: <span class='before'>before</span>, "
        f"<span class='after'>after</span></figcaption>"
        f"{_plot([factor * path[:, column] for path in found.paths], title)}</figure>"
        for title, column, factor in _SIGNALS
    )
    return f"<div class='paths'>{figures}</div>"


def _plot(lines: list[NDArray[np.float64]], title: str) -> str:
    values = np.concatenate(lines)
    low, high = float(values.min()), float(values.max())
    scale = (_HEIGHT - 2 * _MARGIN) / max(high - low, 1e-9)
    drawn = []
    for name, line in zip(("before", "after"), lines, strict=True):
        chosen = np.unique(np.linspace(0, len(line) - 1, _MOST_POINTS).round().astype(int))
        x = chosen * (_WIDTH / max(len(line) - 1, 1))
        y = _HEIGHT - _MARGIN - (line[chosen] - low) * scale
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        drawn.append(f"<polyline class='{name}' points='{points}'/>")
    label = f"camera path, {title}, from {low:.3g} to {high:.3g}"
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' preserveAspectRatio='none' role='img' "
        f"aria-label='{label}'>{''.join(drawn)}</svg>"
    )
