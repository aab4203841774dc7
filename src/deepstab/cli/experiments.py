"""Commands about runs of the MLflow store: where things came from, again, and the champion.

The store is the one MLFLOW_TRACKING_URI names, or the project's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepstab.cli.console import one_line_errors

if TYPE_CHECKING:
    from deepstab.experiments.lineage import Chain

app = typer.Typer()

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id or name of a run, as the MLflow UI shows it.")
]


@app.command()
def lineage(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RUN",
            help="A checkpoint, .safetensors, metrics.json or stabilized video; or a run's id or "
            "name.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print where FILE or RUN came from: data, shards, run, checkpoint, metrics.

    A FILE that is not what its run made is an error; of one whose run is not in the store, what it
    says itself is printed first. Weights trained untracked, such as those that ship, tell their own
    data, commit and parameters.
    """
    with one_line_errors():
        from deepstab.errors import TrackingError
        from deepstab.experiments.lineage import contradiction, is_file, read_file, trace

        origin = read_file(Path(subject)) if is_file(subject) else None
        own: Chain = {}
        if origin is not None:
            own = {"file": {"path": subject, "run": origin.run_id, **origin.facts}}
        if origin is not None and origin.chain:
            _show(own | origin.chain, as_json=as_json)
            return
        try:
            if origin is not None and not origin.run_id:
                raise TrackingError(
                    f"{subject}: its weights were trained untracked; nothing more is known of them"
                )
            from deepstab.experiments.records import Records
            from deepstab.tracking.store import project_root

            records = Records(project_root())
            chain = trace(records, records.find(subject if origin is None else origin.run_id))
        except TrackingError:
            if own:
                _show(own, as_json=as_json)
            raise
        _show(own | chain, as_json=as_json)
        if origin is not None and (difference := contradiction(origin, chain)):
            raise TrackingError(f"{subject} is not what its run made: {difference}")


def _show(chain: Chain, *, as_json: bool) -> None:
    from deepstab.experiments.lineage import as_text

    print(json.dumps(chain, indent=1) if as_json else as_text(chain))


@app.command()
def rerun(run: RunArgument) -> None:
    """Rebuild RUN in a temporary worktree and say whether it comes out the same.

    Its commit, its uncommitted changes and its parameters; data and flow from DVC's cache where it
    has them, training and evaluation anew. Exit code 0 if the checkpoint is the same to the bit and
    every metric equal, else 1.
    """
    with one_line_errors():
        from deepstab.experiments.records import Records
        from deepstab.tracking.store import project_root

        root = project_root()
        records = Records(root)
        record = records.find(run)
        # torch only now: what is wrong shows at once.
        from deepstab.experiments import rerun as rebuilding

        found = rebuilding.rerun(records, record, root=root)
        print(found.as_text())
        if not found.identical:
            raise typer.Exit(1)


@app.command()
def promote(
    run: RunArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Make it champion without comparing.")
    ] = False,
    params: Annotated[
        Path, typer.Option(metavar="PATH", help="File with the rule, section `registry`.")
    ] = Path("params.yaml"),
) -> None:
    """Register the model of RUN, and make it champion if it beats the present one.

    Exit code 0 if it is the champion now, else 1; it stays registered then.
    """
    with one_line_errors():
        from deepstab.config import load_params
        from deepstab.experiments import registry
        from deepstab.experiments.records import Records
        from deepstab.tracking.store import project_root

        rule = load_params(params).registry
        records = Records(project_root())
        done = registry.promote(records, records.find(run), rule=rule, force=force)
        standing = "is the champion" if done.is_champion else "is registered, not the champion"
        print(f"models:/{rule.name}/{done.version} {standing}: {done.reason}")
        if not done.is_champion:
            raise typer.Exit(1)
