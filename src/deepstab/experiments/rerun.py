"""Rebuilding a run from its commit, uncommitted changes and parameters, to see if it comes out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepstab.errors import RerunError
from deepstab.experiments.records import Record, Records
from deepstab.experiments.worktree import Worktree, worktree_at
from deepstab.models import checkpoints
from deepstab.tracking import names

# The stage of the first result; those before it only prepare data, which digests identify.
_TRAINING = "train"
_PREPARATION = "flow"


@dataclass(frozen=True)
class Comparison:
    """What a rerun made beside what the run had made.

    `weights` is the path of a checkpoint to the SHA-256 of its weights then and now; `metrics` the
    name of a figure to its value then and now, where they differ; `packages` the lines of
    packages.txt that only one of the two has, with its sign.
    """

    run_id: str
    rerun_id: str
    weights: dict[str, tuple[str, str]]
    num_metrics: int
    metrics: dict[str, tuple[float | None, float | None]]
    processors: tuple[str, str]
    packages: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether the weights are the same to the bit and all metrics the same."""
        return all(then == now for then, now in self.weights.values()) and not self.metrics

    def as_text(self) -> str:
        """What is the same and what is not, and where they differ, what else was different."""
        lines = [f"run         {self.run_id}", f"rerun       {self.rerun_id}"]
        for path, (then, now) in self.weights.items():
            same = "identical, " if then == now else f"DIFFERENT, {then} -> "
            lines.append(f"weights     {path} {same}{now}")
        equal = self.num_metrics - len(self.metrics)
        lines.append(f"metrics     {equal} of {self.num_metrics} equal")
        lines += [f"  {name}: {then} -> {now}" for name, (then, now) in self.metrics.items()]
        if not self.identical:
            if self.processors[0] != self.processors[1]:
                lines.append("processor   " + " -> ".join(self.processors))
            if self.packages:
                lines.append("packages    " + ", ".join(self.packages))
        return "\n".join(lines)


def rerun(records: Records, record: Record, *, root: Path) -> Comparison:
    """Train and evaluate again in a temporary worktree, and compare.

    Data and flow come from DVC's cache where it has them. The rerun is a run of its own in the same
    store, tagged `deepstab.rerun_of`.

    Args:
        records: the store.
        record: the run.
        root: a checkout whose repository has the run's commit.

    Raises:
        RerunError: the run cannot be rebuilt, with the reason; or the pipeline failed.
    """
    commit, diff = _code_of(records, record)
    params = _params_of(records, record)
    figures = _figures_of(records, record)
    weights = {}
    for artifact in (names.BEST_FILE, names.FINAL_FILE):
        with records.checkpoint(record, artifact) as path:
            weights[artifact] = checkpoints.load(path).weights_sha256()
    with worktree_at(commit, root=root) as tree:
        if diff is not None:
            tree.apply(diff)
        tree.write_params(params)
        tree.link_inputs(record.params)
        tree.share_cache()
        _run_pipeline(tree, run_id=record.run_id, uri=records.uri)
        made = {artifact: checkpoints.load(tree.project / artifact) for artifact in weights}
        again = _by_row(json.loads((tree.project / names.METRICS_FILE).read_text("utf-8")))
    rebuilt = records.find(made[names.BEST_FILE].run_id)
    then, now = (run.tags.get(names.PROCESSOR_TAG, "") for run in (record, rebuilt))
    return Comparison(
        run_id=record.run_id,
        rerun_id=rebuilt.run_id,
        weights={path: (weights[path], made[path].weights_sha256()) for path in weights},
        num_metrics=len(figures.keys() | again.keys()),
        metrics={
            name: (figures.get(name), again.get(name))
            for name in sorted(figures.keys() | again.keys())
            if str(figures.get(name)) != str(again.get(name))  # nan is as good as nan
        },
        processors=(then, now),
        packages=_package_changes(records, record, rebuilt),
    )


def _run_pipeline(tree: Worktree, *, run_id: str, uri: str) -> None:
    """Restore or compute the data, then train and evaluate in any case."""
    environment = {
        "MLFLOW_TRACKING_URI": uri,
        "DEEPSTAB_TRACKING": "on",
        "DEEPSTAB_RERUN_OF": run_id,
    }
    tree.run(("dvc", "repro", _PREPARATION), environment=environment)
    # Without --force DVC would restore what the run itself left; and nothing of a rerun is
    # to be restored later in its place.
    forced = ("dvc", "repro", "--force", "--no-commit", "--downstream", _TRAINING)
    tree.run(forced, environment=environment)


def _code_of(records: Records, record: Record) -> tuple[str, str | None]:
    commit = record.tags.get(names.COMMIT_TAG)
    if commit is None:
        raise RerunError(f"run {record.run_id} recorded no git commit: it cannot be rebuilt")
    diff = None
    if record.tags.get(names.DIRTY_TAG) == "true":
        diff = records.read_text(record.run_id, names.DIFF_FILE)
        if diff is None:
            raise RerunError(
                f"run {record.run_id} was made with uncommitted changes and its "
                f"{names.DIFF_FILE} is not in the store: it cannot be rebuilt"
            )
    return commit, diff


def _params_of(records: Records, record: Record) -> str:
    text = records.read_text(record.run_id, names.PARAMS_FILE)
    if text is None:
        raise RerunError(
            f"run {record.run_id} kept no {names.PARAMS_FILE}, as runs did not before deepstab "
            "logged the file; rebuild it by hand from its commit and the parameters it lists"
        )
    return text


def _figures_of(records: Records, record: Record) -> dict[str, Any]:
    text = records.read_text(record.run_id, names.METRICS_FILE)
    if text is None:
        raise RerunError(
            f"run {record.run_id} ({record.status}) has no {names.METRICS_FILE} to compare "
            "with; choose a run whose evaluate stage finished"
        )
    return _by_row(json.loads(text))


def _by_row(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of a metrics.json by `measure/row`, and its data; the run's id is left out."""
    return {
        f"{name}/{row}": value
        for name, values in metrics.items()
        if isinstance(values, dict)
        for row, value in values.items()
    }


def _package_changes(records: Records, one: Record, other: Record) -> tuple[str, ...]:
    then, now = (
        set((records.read_text(run.run_id, names.PACKAGES_FILE) or "").split())
        for run in (one, other)
    )
    return tuple(sorted([f"-{line}" for line in then - now] + [f"+{line}" for line in now - then]))
