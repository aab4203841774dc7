"""The generator in MLflow's own format, in a real SQLite store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow.pytorch
import pytest
import torch

from deepstab.errors import TrackingError
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.tracking.connection import connect, tracking_uri
from deepstab.tracking.model import (
    log_generator,
    save_generator,
    send_model,
    verify_generator,
)
from deepstab.tracking.names import MODEL_CHECKPOINT_FILE
from deepstab.tracking.run import Tracker
from deepstab.tracking.store import start_run

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, untrained: Checkpoint, untrained_weights: Path
) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    shutil.copy(untrained_weights, folder / "best_stab_gan.pth")
    save_generator(
        untrained.build_generator(),
        folder / "stab_generator",
        network=untrained.params,
        checkpoint=folder / "best_stab_gan.pth",
    )
    return folder / "stab_generator"


def test_the_saved_model_gives_the_thetas_of_the_checkpoint(
    saved: Path, untrained: Checkpoint
) -> None:
    generator = untrained.build_generator()
    verify_generator(saved, generator, network=untrained.params)
    size = (12, 64, 64)
    flow = 2 * torch.randn(1, 2, 12, 1, 1) + torch.randn(1, 2, *size)
    clip = (torch.rand(1, 3, *size), flow, torch.tensor([1.5]))
    thetas = mlflow.pytorch.load_model(str(saved))(*clip)
    assert thetas.std() > 0.01
    torch.testing.assert_close(thetas, generator(*clip).theta, rtol=0, atol=1e-6)


def test_other_weights_are_noticed(saved: Path, untrained: Checkpoint) -> None:
    generator = untrained.build_generator()
    with torch.no_grad():
        torch.nn.init.normal_(generator.head.reweighter.change.weight, std=3.0)
    with pytest.raises(TrackingError, match="other thetas than the checkpoint"):
        verify_generator(saved, generator, network=untrained.params)


def test_signature_and_checkpoint_are_inside_and_no_pickle(
    saved: Path, untrained: Checkpoint
) -> None:
    signature = mlflow.models.get_model_info(str(saved)).signature
    assert {spec.name: spec.shape for spec in signature.inputs} == {
        "rgb": (1, 3, 12, 64, 64),
        "flow": (1, 2, 12, 64, 64),
        "aspect": (1,),
    }
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("theta", (1, 12, 2, 3))]
    inside = checkpoints.load(saved / MODEL_CHECKPOINT_FILE)
    assert inside.weights_sha256() == untrained.weights_sha256()
    assert (saved / "data" / "model.pt2").is_file()


def test_nothing_is_done_without_tracking(untrained: Checkpoint, tmp_path: Path) -> None:
    log_generator(
        Tracker(),
        untrained.build_generator(),
        network=untrained.params,
        checkpoint=tmp_path / "not there.pth",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DEEPSTAB_TRACKING"):
        monkeypatch.delenv(name, raising=False)


class LostAnswer:
    """A client whose first call of one method is carried out, but its answer lost."""

    def __init__(self, client: Any, method: str) -> None:
        self._client, self._method = client, method

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name != self._method:
            return method

        def call(*arguments: Any, **options: Any) -> None:
            method(*arguments, **options)
            raise ConnectionError(name)

        return call


@pytest.mark.parametrize(
    "lost", ["create_logged_model", "log_outputs", "log_model_artifacts", "finalize_logged_model"]
)
def test_an_answer_lost_makes_no_second_model(
    saved: Path, root: Path, tmp_path: Path, lost: str
) -> None:
    with start_run(experiment=f"lost {lost}", root=root, outbox=root / "outbox") as run:
        run.log_params({"train.lr_g": 0.001})
    client = connect(tracking_uri(root))
    folder = tmp_path / "copy" / "stab_generator"
    shutil.copytree(saved, folder)
    with pytest.raises(ConnectionError):
        send_model(LostAnswer(client, lost), run.run_id, folder)
    send_model(client, run.run_id, folder)

    found = client.get_run(run.run_id)
    models = client.search_logged_models([found.info.experiment_id])
    assert [(m.name, str(m.status), m.source_run_id) for m in models] == [
        ("stab_generator", "READY", run.run_id)
    ]
    assert [output.model_id for output in found.outputs.model_outputs] == [models[0].model_id]
    assert models[0].params == {"train.lr_g": "0.001"}
    files = {entry.path for entry in client.list_logged_model_artifacts(models[0].model_id)}
    assert {"MLmodel", "data", "extra_files", "requirements.txt"} <= files


def test_a_tracked_model_arrives_by_the_outbox(saved: Path, root: Path) -> None:
    with start_run(experiment="tests", root=root, outbox=root / "outbox") as run:
        run.log_model(saved)
    client = connect(tracking_uri(root))
    outputs = client.get_run(run.run_id).outputs.model_outputs
    assert str(client.get_logged_model(outputs[0].model_id).status) == "READY"
    assert not list((root / "outbox").iterdir())
