"""`deepstab stabilize` of many videos: one after another here, or side by side on a cluster."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from deepstab import api
from deepstab.cli.console import Phases
from deepstab.cli.options import How
from deepstab.errors import DeepStabError, ParameterError, VideoError, printable
from deepstab.files import OWNER_VARIABLE, remove_partials, sha256_of, whole_or_absent
from deepstab.progress import progress
from deepstab.stabilization.folder import Journal, Outcome, Settings, Task, digest_of, plan
from deepstab.workers import Tick, run_all, scheduler_address

TABLE_NAME = "stabilized.csv"
_FIGURES = ("jitter before", "jitter after", "stability before", "stability after", "crop")


def stabilize_many(sources: Sequence[Path], results: Path, how: How) -> None:
    """Stabilize and score videos into a folder; what is done there already is kept.

    Raises:
        DeepStabError: nothing can be done, or at the end, some could not be.
    """
    api.parse_crop(how.crop)
    api.check_strength(how.strength)
    tasks, left_out = plan(sources, results)
    origin = api.load_network(how.weights).origin
    settings = Settings(how.crop, how.strength, *how.encoding, origin.generator_sha256)
    try:
        results.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=results).close()
    except OSError as error:
        raise ParameterError(
            f"folder {results} cannot be written to: {error.strerror}; choose another"
        ) from None
    journal = Journal(results)
    kept = {task.name: found for task in tasks if (found := journal.done(task, settings))}
    todo = [task for task in tasks if task.name not in kept]
    done = (_one_by_one if scheduler_address() is None else _side_by_side)(
        todo, settings, how, journal.add
    )
    by_name = kept | {outcome.name: outcome for outcome in done}
    outcomes = [by_name[task.name] for task in tasks]
    with whole_or_absent(results / TABLE_NAME) as unfinished:
        unfinished.write_text(_as_csv(outcomes), encoding="utf-8")
    print(_as_text(outcomes))
    print(f"{len(tasks)} videos, {len(kept)} of them done before; {results / TABLE_NAME}")
    if left_out:
        names = ", ".join(printable(str(path)) for path in left_out)
        print(f"left out, no videos by their suffix: {names}")
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        raise VideoError(
            f"{len(failed)} of {len(tasks)} videos could not be stabilized, "
            f"the first: {failed[0].error}"
        )


def _one_by_one(
    tasks: Sequence[Task], settings: Settings, how: How, on_done: Callable[[Outcome], None]
) -> list[Outcome]:
    outcomes = []
    for number, task in enumerate(tasks, 1):
        with closing(Phases(f"{number}/{len(tasks)} {printable(task.name)}")) as phases:
            outcomes.append(_work(task, settings, how, phases.show))
        on_done(outcomes[-1])
    return outcomes


def _side_by_side(
    tasks: Sequence[Task], settings: Settings, how: How, on_done: Callable[[Outcome], None]
) -> list[Outcome]:
    if how.weights is not None and Path(how.weights).exists():
        how = how._replace(weights=str(Path(how.weights).absolute()))
    there = [Task(task.name, task.source.absolute(), task.destination.absolute()) for task in tasks]
    owner = uuid.uuid4().hex
    with progress(len(tasks), label="stabilize", unit="videos") as bar:

        def show(outcome: Outcome) -> None:
            on_done(outcome)
            bar.advance()

        try:
            return run_all(partial(_work_there, settings, how, owner), there, on_done=show)
        finally:
            for folder in {task.destination.parent for task in there}:
                remove_partials(folder, owner=owner)  # of workers that died


def _work_there(settings: Settings, how: How, owner: str, task: Task, _tick: Tick) -> Outcome:
    os.environ[OWNER_VARIABLE] = owner
    try:
        return _work(task, settings, how, lambda phase, done, total: None)
    finally:
        del os.environ[OWNER_VARIABLE]


def _work(
    task: Task,
    settings: Settings,
    how: How,
    progress: Callable[[str, int, int | None], None],
) -> Outcome:
    sha256 = digest_of(task.source)
    try:
        task.destination.parent.mkdir(parents=True, exist_ok=True)
        api.check_targets(task.source, task.destination)
        api.stabilize(task.source, task.destination, **how._asdict(), progress=progress)
        found = api.score(task.source, task.destination, progress=progress)
    except (DeepStabError, OSError) as error:
        return Outcome(task.name, sha256, "", asdict(settings), {}, str(error))
    values = (
        found.input.jitter_px,
        found.output.jitter_px,
        found.input.stability,
        found.output.stability,
        found.crop,
    )
    figures = dict(zip(_FIGURES, values, strict=True))
    return Outcome(task.name, sha256, sha256_of(task.destination), asdict(settings), figures)


def _as_csv(outcomes: Sequence[Outcome]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video", *_FIGURES, "error"])
    for outcome in outcomes:
        values = [f"{outcome.figures[name]:.6g}" if outcome.figures else "" for name in _FIGURES]
        writer.writerow([outcome.name, *values, outcome.error])
    return table.getvalue()


def _as_text(outcomes: Sequence[Outcome]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table("video", box=None)
    for name in _FIGURES:
        table.add_column(name, justify="right")
    for outcome in outcomes:
        values = [f"{outcome.figures[name]:.3g}" if outcome.figures else "" for name in _FIGURES]
        table.add_row(printable(outcome.name), *(values if not outcome.error else ["failed"]))
    console = Console(highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")
