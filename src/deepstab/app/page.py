"""The page itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from deepstab.app import picture
from deepstab.app.job import Settings
from deepstab.app.visits import Job, Visits
from deepstab.errors import DeepStabError
from deepstab.stabilization.folder import SUFFIXES
from deepstab.video.limits import Limits

_ABOUT = """<h1>DeepStab</h1>
<p>Drop a shaky video, get it back as if from a gimbal. It stays on this machine.</p>"""
_CROPS = {"as much as the shake is worth": "auto", "nothing (edges are repeated)": "none"}
# How often Gradio looks for what pages that were closed have left, and after how long it goes, s.
_CLEAN_EVERY_S, _CLEAN_AFTER_S = 600, 24 * 3600
_LOOK_EVERY_S = 0.3

# What is to change on the page, by component.
Changes = dict[Any, Any]


@dataclass(frozen=True, eq=False)
class _Parts:
    """What is on the page; a visitor's choices are in the order that `_start` takes them in."""

    choices: tuple[gr.File, gr.Radio, gr.Slider, gr.Slider]
    start: gr.Button
    cancel: gr.Button
    status: gr.HTML
    results: tuple[gr.HTML, gr.HTML, gr.HTML]


def build(visits: Visits, limits: Limits) -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(
        title="DeepStab", delete_cache=(_CLEAN_EVERY_S, _CLEAN_AFTER_S), analytics_enabled=False
    ) as page:
        gr.HTML(_ABOUT)
        with gr.Row():
            upload = gr.File(
                label="Video", file_types=list(SUFFIXES), height=196, scale=2, min_width=280
            )
            with gr.Column(scale=3, min_width=280):
                crop = gr.Radio(
                    [*_CROPS, "exactly this share"], value=next(iter(_CROPS)), label="Cut away"
                )
                percent = gr.Slider(1, 50, value=10, step=1, label="%", visible=False)
                strength = gr.Slider(0, 4, value=1, step=0.1, label="Strength, 1 as tuned")
        with gr.Row():
            start = gr.Button("Stabilize", variant="primary")
            cancel = gr.Button("Cancel", interactive=False)
        status = gr.HTML(picture.hint(limits), min_height=60)
        parts = _Parts(
            (upload, crop, percent, strength),
            start,
            cancel,
            status,
            (gr.HTML(), gr.HTML(), gr.HTML()),
        )
        _connect(page, parts, visits)
    return page


def _connect(page: gr.Blocks, parts: _Parts, visits: Visits) -> None:
    """Say what happens when."""
    upload, crop, percent, _ = parts.choices

    def run(
        source: str | None, choice: str, share: float, amount: float, request: gr.Request
    ) -> Iterator[Changes]:
        settings = Settings(_CROPS.get(choice, f"{share:g}"), amount)
        yield from _start(parts, visits, str(request.session_hash), source, settings)

    def take(source: str, request: gr.Request) -> None:
        visits.upload(str(request.session_hash), Path(source))

    def stop(request: gr.Request) -> None:
        visits.cancel(str(request.session_hash))

    def leave(request: gr.Request) -> None:
        visits.end(str(request.session_hash))

    crop.change(
        lambda choice: gr.Slider(visible=choice not in _CROPS),
        crop,
        percent,
        api_visibility="private",
    )
    upload.upload(take, upload, api_visibility="private")
    parts.start.click(
        run,
        list(parts.choices),
        [parts.start, parts.cancel, parts.status, *parts.results],
        show_progress="hidden",
        # The visits have a queue of their own, in which one that waits can be canceled.
        concurrency_limit=None,
        api_visibility="private",
    )
    parts.cancel.click(stop, queue=False, api_visibility="private")
    page.unload(leave)


def _start(
    parts: _Parts, visits: Visits, visitor: str, source: str | None, settings: Settings
) -> Iterator[Changes]:
    """What changes on the page from a click to the end of what it began."""
    if source is None:
        yield {parts.status: picture.failure("no video: drop one above first")}
        return
    yield {
        parts.start: gr.Button(interactive=False),
        parts.cancel: gr.Button(interactive=True),
        parts.status: picture.note("Waiting…"),
        **dict.fromkeys(parts.results, ""),
    }
    try:
        job = visits.begin(visitor, Path(source), settings)
        yield from _follow(job, visits, parts.status, parts.results)
    except DeepStabError as error:
        line = str(error).replace(f"{Path(source).parent}/", "")
        yield {parts.status: picture.failure(line)}
    except Exception:
        logging.getLogger(__name__).exception("a fault of deepstab app")
        message = "a fault of this program; the terminal has more"
        yield {parts.status: picture.failure(message)}
    yield {parts.start: gr.Button(interactive=True), parts.cancel: gr.Button(interactive=False)}


def _follow(
    job: Job, visits: Visits, status: gr.HTML, results: tuple[gr.HTML, gr.HTML, gr.HTML]
) -> Iterator[Changes]:
    """What changes on the page while a job waits, is under way and ends.

    Raises:
        DeepStabError: what went wrong.
    """
    players, scores, paths = results
    is_shown = False
    is_done = False
    while not is_done:
        is_done = job.is_done(within_s=_LOOK_EVERY_S)
        if job.made is not None and not is_shown:
            is_shown = True
            yield {players: picture.players(job.made), paths: picture.paths(job.made)}
        if job.step is not None:
            spent_s = time.monotonic() - job.step_began_s
            yield {status: picture.progress(job.step, spent_s)}
        else:
            yield {status: picture.waiting(visits.num_ahead(job))}
    try:
        yield {scores: picture.scores(job.scores.result()), status: picture.note("Done.")}
    except CancelledError:
        kept = "" if job.made is None else " The video was whole already."
        yield {status: picture.note(f"Canceled.{kept}")}
