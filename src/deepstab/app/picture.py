"""The pieces of the page that Gradio has no component for, as HTML."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from deepstab.app.job import Made, Step
from deepstab.metrics.stability import StabilityScore
from deepstab.video.limits import Limits

CSS = Path(__file__).with_name("page.css")

# Phases, and after how many like it the steady video is there.
_PHASES = {
    "load": ("Loading", 2),
    "analyze": ("Seeing how the camera moved", 1),
    "render": ("Writing the steady video", 0),
    "convert": ("Copying the original for this browser", 0),
    "score": ("Measuring before and after", 0),
}
# Of the first frames no speed can be told.
_LEAST_FRAMES = 5
_WIDTH, _HEIGHT, _MARGIN = 360, 170, 18
_MOST_POINTS = 1200
# Columns of a camera path, what a unit of theirs is shown as, and the least height of a plot.
_SIGNALS = (
    ("sideways", " px", 0, 1.0, 4.0),
    ("up and down", " px", 1, 1.0, 4.0),
    ("roll", "°", 2, 180 / math.pi, 0.4),
)

# The right player leads; the left one follows whatever is done to it.
_FOLLOW = (
    "const b=this.closest('.players').querySelector('.follows');"
    "if(Math.abs(b.currentTime-this.currentTime)>.05)b.currentTime=this.currentTime;"
)
_TOGGLE = (
    "const a=this.closest('.players').querySelector('.leads');if(a.paused)a.play();else a.pause()"
)
_UNPLAYABLE = "this.parentNode.querySelector('.note').hidden=false"


def hint(limits: Limits) -> str:
    """What may be dropped, in words."""
    parts = []
    if limits.num_bytes is not None:
        parts.append(f"{limits.num_bytes / 2**20:.4g} MiB")
    if limits.duration_s is not None:
        parts.append(f"{_time(limits.duration_s)}")
    if limits.num_pixels is not None:
        parts.append(f"{limits.num_pixels / 1e6:.3g} megapixels a frame")
    most = f"At most {', '.join(parts)}. " if parts else ""
    return f"<p class='hint'>{most}Before, after and scores will be shown here.</p>"


def waiting(num_ahead: int) -> str:
    """How many others come first."""
    others = "one video comes" if num_ahead == 1 else f"{num_ahead} videos come"
    return _working(f"Waiting: {others} first", "")


def progress(step: Step, spent_s: float) -> str:
    """How far a job is, and the time that is left, to the video and then to its scores."""
    words, phases_after = _PHASES[step.phase]
    if not step.total:
        return _working(f"{words}…", "")
    left = ""
    if step.done >= _LEAST_FRAMES:
        frames_left = max(step.total - step.done, 0) + phases_after * step.total
        left = f", about {_time(math.ceil(spent_s * frames_left / step.done))} left"
    return _working(
        f"{words}… {step.done} of {step.total} frames{left}",
        f" value='{step.done}' max='{step.total}'",
    )


def failure(message: str) -> str:
    """The one line that says what is wrong."""
    return f"<div class='failed' role='alert'>{escape(message)}</div>"


def note(message: str) -> str:
    """A line that says what happened."""
    return f"<p class='hint' role='status'>{escape(message)}</p>"


def players(made: Made) -> str:
    """Before and after, playing together, with a link to download."""
    together = (
        f'onplay="{_FOLLOW}b.play()" onpause="{_FOLLOW}b.pause()" onseeking="{_FOLLOW}" '
        f'ontimeupdate="{_FOLLOW}" onratechange="{_FOLLOW}b.playbackRate=this.playbackRate"'
    )
    name = escape(made.path.name, quote=True)
    notes = "".join(f"<p class='hint'>{escape(line)}</p>" for line in made.notes)
    return (
        "<div class='players'><figure><figcaption>Before</figcaption>"
        f"<video class='follows' src='{_address(made.before)}' muted playsinline preload='auto' "
        f'onclick="{_TOGGLE}" onerror="{_UNPLAYABLE}"></video>'
        "<p class='note hint' hidden>This browser cannot play the original.</p></figure>"
        "<figure><figcaption>After</figcaption>"
        f"<video class='leads' src='{_address(made.path)}' muted autoplay loop controls playsinline"
        f" preload='auto' {together}></video></figure></div>"
        f"<div class='actions'><a href='{_address(made.path)}' download='{name}'>Download</a>"
        f"<span class='hint'>{name}, {100 * made.kept:.3g} % of width and height kept</span></div>"
        f"{notes}"
    )


def paths(made: Made) -> str:
    """Plots of the camera path."""
    figures = "".join(
        f"<figure><figcaption>{title}</figcaption>"
        + _plot(
            [factor * path[:, column] for path in made.paths],
            unit=unit,
            duration_s=made.duration_s,
            least=least,
            label=title,
        )
        + "</figure>"
        for title, unit, column, factor, least in _SIGNALS
    )
    return (
        "<h2>Camera path <small><span class='before'>before</span> and "
        "<span class='after'>after</span>; px at a width of 640</small></h2>"
        f"<div class='paths'>{figures}</div>"
    )


def scores(score: StabilityScore) -> str:
    """A table of figures, before and after."""
    before, after = score.input, score.output
    rows = (
        ("Stability", "1 is best", before.stability, after.stability),
        ("Jitter", "px at a width of 640", before.jitter_px, after.jitter_px),
        ("Roll jitter", "degrees", before.roll_jitter_deg, after.roll_jitter_deg),
        ("Crop", "1 keeps all", 1.0, score.crop),
        ("Distortion, worst frame", "1 is none", 1.0, score.distortion_worst),
    )
    cells = "".join(
        f"<tr><td>{name} <small>{unit}</small></td><td>{_figure(first)}</td>"
        f"<td>{_figure(second)}</td></tr>"
        for name, unit, first, second in rows
    )
    return (
        "<h2>Scores</h2><table class='scores'>"
        "<thead><tr><th></th><th>before</th><th>after</th></tr></thead>"
        f"<tbody>{cells}</tbody></table>"
    )


def _working(text: str, counted: str) -> str:
    return (
        f"<div class='working'><p role='status'>{text}</p>"
        f"<progress aria-label='progress'{counted}></progress></div>"
    )


def _address(path: Path) -> str:
    return f"/gradio_api/file={quote(str(path))}"


def _figure(value: float) -> str:
    """Three digits, or that it could not be measured."""
    return "unknown" if math.isnan(value) else f"{value:.3g}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return " ".join([f"{minutes} min"] * (minutes > 0) + [f"{rest} s"] * (rest > 0 or not minutes))


def _plot(
    lines: list[NDArray[np.float64]], *, unit: str, duration_s: float, least: float, label: str
) -> str:
    values = np.concatenate(lines)
    low, high = float(values.min()), float(values.max())
    middle, span = (low + high) / 2, max(high - low, least)
    bottom = _HEIGHT - _MARGIN
    scale = (bottom - _MARGIN) / span
    drawn = []
    for name, line in zip(("before", "after"), lines, strict=True):
        chosen = np.unique(np.linspace(0, len(line) - 1, _MOST_POINTS).round().astype(int))
        x = chosen * (_WIDTH / max(len(line) - 1, 1))
        y = bottom - (line[chosen] - middle + span / 2) * scale
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        drawn.append(f"<polyline class='{name}' points='{points}'/>")
    ends = [f"{value:.3g}{unit}" for value in (middle + span / 2, middle - span / 2)]
    below = _HEIGHT - 5
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' "
        f"aria-label='camera path, {label}, from {ends[1]} to {ends[0]}'>"
        f"<path d='M0 {_MARGIN}H{_WIDTH}M0 {bottom}H{_WIDTH}'/>{''.join(drawn)}"
        f"<text x='4' y='{_MARGIN - 5}'>{ends[0]}</text><text x='4' y='{below}'>{ends[1]}</text>"
        f"<text x='{_WIDTH - 4}' y='{below}' text-anchor='end'>{_time(duration_s)}</text></svg>"
    )
