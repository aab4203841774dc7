"""A model saved in MLflow's format, made a LoggedModel of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Where `save_generator` puts the checkpoint among a model's files.
CHECKPOINT_PATH = "extra_files/best_stab_gan.pth"
_SAVED_AS_TAG = "deepstab.saved_as"


def send_model(client: Any, run_id: str, folder: Path) -> None:
    """Make a saved model a LoggedModel of a run; sending it again goes on with the same one.

    Args:
        client: an `mlflow.MlflowClient`.
        run_id: the run it belongs to.
        folder: the saved model; its name becomes the LoggedModel's.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    description = Model.load(str(folder / "MLmodel"))
    tags = {_SAVED_AS_TAG: description.model_uuid}
    run = client.get_run(run_id)
    experiment_id = run.info.experiment_id
    found = client.search_logged_models(
        [experiment_id], filter_string=f"tags.`{_SAVED_AS_TAG}` = '{description.model_uuid}'"
    )
    model = (
        found[0]
        if found
        else client.create_logged_model(
            experiment_id,
            name=folder.name,
            source_run_id=run_id,
            tags=tags,
            params=run.data.params,
            model_type="stabilizer",
        )
    )
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    description.model_id, description.run_id = model.model_id, run_id
    description.artifact_path = model.artifact_location
    description.save(str(folder / "MLmodel"))
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
