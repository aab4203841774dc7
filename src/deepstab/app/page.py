"""The page itself."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from deepstab.app import picture
from deepstab.app.job import Settings, Step, process, result_name
from deepstab.app.server import Service
from deepstab.errors import DeepStabError
from deepstab.stabilization.folder import SUFFIXES

_ABOUT = """# DeepStab
Drop a shaky video, get it back as if from a gimbal. It stays on this machine."""
_CROPS = {"as much as the shake is worth": "auto", "nothing (edges are repeated)": "none"}
_MOST_WAITING = 20
# How often Gradio looks for files of pages that were closed, and after how long they go, s.
_CLEAN_EVERY_S, _CLEAN_AFTER_S = 60, 24 * 3600


class Visits:
    """The folder of every open page, and whether its visitor wants the work to end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cancelled: dict[str, threading.Event] = {}

    def begin(self, visitor: str) -> tuple[Path, threading.Event]:
        """An empty folder for the next result of a visitor."""
        self.end(visitor)
        folder = Path(tempfile.mkdtemp(dir=self._root, prefix=f"result-{visitor}-"))
        self._cancelled[visitor] = threading.Event()
        return folder, self._cancelled[visitor]

    def cancel(self, visitor: str) -> None:
        """Let what is under way end."""
        if visitor in self._cancelled:
            self._cancelled[visitor].set()

    def end(self, visitor: str) -> None:
        """Remove what a visitor has."""
        self.cancel(visitor)
        for folder in self._root.glob(f"result-{visitor}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def build(service: Service, visits: Visits) -> gr.Blocks:
    """The page, not yet served."""

    def run(
        upload: str | None, crop: str, percent: float, strength: float, request: gr.Request
    ) -> Iterator[tuple[Any, str]]:
        running, idle = gr.Button(interactive=False), gr.Button(interactive=True)
        if upload is None:
            yield idle, picture.failure("no video: drop one above first")
            return
        folder, cancelled = visits.begin(str(request.session_hash))
        settings = Settings(_CROPS.get(crop, f"{percent:g}"), strength)
        for shown in _work(service, Path(upload), folder, settings, cancelled):
            yield running, shown
        yield idle, shown

    with gr.Blocks(
        title="DeepStab", delete_cache=(_CLEAN_EVERY_S, _CLEAN_AFTER_S), analytics_enabled=False
    ) as page:
        gr.Markdown(_ABOUT)
        upload = gr.File(label="Video", file_types=list(SUFFIXES), height=140)
        with gr.Row():
            crop = gr.Radio(
                [*_CROPS, "exactly this share"],
                value=next(iter(_CROPS)),
                label="Cut away",
                min_width=280,
            )
            percent = gr.Slider(1, 50, value=10, step=1, label="%", visible=False)
            strength = gr.Slider(
                0, 4, value=1, step=0.1, label="Strength, 1 as tuned", min_width=280
            )
        with gr.Row():
            start = gr.Button("Stabilize", variant="primary")
            cancel = gr.Button("Cancel")
        shown = gr.HTML()
        crop.change(lambda choice: gr.Slider(visible=choice not in _CROPS), crop, percent)
        start.click(run, [upload, crop, percent, strength], [start, shown], show_progress="hidden")
        cancel.click(_cancel_for(visits), None, None, queue=False)
        page.unload(_end_for(visits))
    return page.queue(default_concurrency_limit=1, max_size=_MOST_WAITING)


def _work(
    service: Service,
    source: Path,
    folder: Path,
    settings: Settings,
    cancelled: threading.Event,
) -> Iterator[str]:
    """What is shown while a video is worked on, and at last what became of it."""
    destination = folder / result_name(source.name)
    phase, began = "", 0.0
    steps = process(source, destination, settings, service.limits, service.confinement)
    with closing(steps):
        while not cancelled.is_set():
            try:
                step = next(steps)
            except StopIteration as done:
                yield picture.result(source, done.value)
                return
            except DeepStabError as error:
                yield picture.failure(str(error).replace(str(source), source.name))
                return
            if step is None:
                continue
            if step.phase != phase:
                phase, began = step.phase, time.monotonic()
            yield picture.progress(step, _left_s(step, time.monotonic() - began))
    yield "<p role='status'>Cancelled.</p>"


def _left_s(step: Step, spent_s: float) -> float | None:
    if not step.total or step.done < 10:
        return None
    return spent_s * (step.total - step.done) / step.done


def _cancel_for(visits: Visits) -> Any:
    def cancel(request: gr.Request) -> None:
        visits.cancel(str(request.session_hash))

    return cancel


def _end_for(visits: Visits) -> Any:
    def end(request: gr.Request) -> None:
        visits.end(str(request.session_hash))

    return end
