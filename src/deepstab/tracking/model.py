"""The generator as a model in MLflow's own format, for whoever serves it without this package.

One clip at a time, as whole videos are stabilized: RGB, flow and aspect ratio in, thetas out, with
the convention of `StabGenerator.forward`. The checkpoint lies beside it under `extra_files/`.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepstab.config import NetworkParams
from deepstab.errors import TrackingError
from deepstab.models.generator import StabGenerator
from deepstab.tracking import names
from deepstab.tracking.run import Tracker

MODEL_NAME = "stab_generator"
# A thousandth of a pixel at width 640 is 3e-6 in normalized coordinates.
_THETA_TOLERANCE = 1e-6


class Thetas(nn.Module):
    """A generator that returns the thetas alone."""

    def __init__(self, generator: StabGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, rgb: Tensor, flow: Tensor, aspect: Tensor) -> Tensor:
        """Thetas (batch, time, 2, 3); arguments as for `StabGenerator.forward`."""
        return self.generator(rgb, flow, aspect).theta


def log_generator(
    tracker: Tracker, generator: StabGenerator, *, network: NetworkParams, checkpoint: Path
) -> None:
    """Save a generator in MLflow's format, verify it, and hand it to the run; untracked: nothing.

    Raises:
        TrackingError: the saved model gives other thetas.
    """
    if not tracker.run_id:
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / MODEL_NAME
        save_generator(generator, folder, network=network, checkpoint=checkpoint)
        verify_generator(folder, generator, network=network)
        tracker.log_model(folder)


def save_generator(
    generator: StabGenerator, folder: Path, *, network: NetworkParams, checkpoint: Path
) -> None:
    """Export to pt2, which holds no pickle, with signature and the checkpoint it was made from."""
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(**tensors: Tensor) -> Schema:
        dtype = np.dtype(np.float32)
        return Schema([TensorSpec(dtype, tuple(v.shape), name) for name, v in tensors.items()])

    rgb, flow, aspect = clip = _example_clip(network)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export and mlflow about themselves
        model = Thetas(generator).eval()
        mlflow.pytorch.save_model(
            model,
            str(folder),
            signature=ModelSignature(
                inputs=schema(rgb=rgb, flow=flow, aspect=aspect), outputs=schema(theta=model(*clip))
            ),
            input_example=clip,
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
            extra_files=[str(checkpoint)],
        )


def verify_generator(folder: Path, generator: StabGenerator, *, network: NetworkParams) -> None:
    """Compare the thetas of a saved model with those of the generator.

    Raises:
        TrackingError: they differ.
    """
    import mlflow.pytorch

    clip = _example_clip(network)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = mlflow.pytorch.load_model(str(folder))(*clip)
        difference = float((saved - generator(*clip).theta).abs().max())
    if not difference <= _THETA_TOLERANCE:
        raise TrackingError(
            f"the model in MLflow's format gives other thetas than the checkpoint (by up to "
            f"{difference:.3g}, allowed {_THETA_TOLERANCE:g}); report it with the version of torch"
        )


def _example_clip(network: NetworkParams) -> tuple[Tensor, Tensor, Tensor]:
    """A clip shaken by a few px: every frame moves as a whole, with some noise."""
    source = torch.Generator().manual_seed(0)
    time, height, width = network.model.clip_length, network.flow.height, network.flow.width
    rgb = torch.rand(1, 3, time, height, width, generator=source)
    shake = 2 * torch.randn(1, 2, time, 1, 1, generator=source)
    noise = 0.1 * torch.randn(1, 2, time, height, width, generator=source)
    return rgb, shake + noise, torch.tensor([16 / 9])


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
    tags = {names.SAVED_AS_TAG: description.model_uuid}
    run = client.get_run(run_id)
    experiment_id = run.info.experiment_id
    found = client.search_logged_models(
        [experiment_id], filter_string=f"tags.`{names.SAVED_AS_TAG}` = '{description.model_uuid}'"
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
