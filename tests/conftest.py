"""What all tests share: parameters small enough for seconds, and a tiny data set of real files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from filelock import FileLock
from hypothesis import settings

from deepstab.config import FaultParams, Params, parse_params
from deepstab.data.flow_cache import fill_cache
from deepstab.data.manifest import Manifest
from deepstab.data.shards import ShardIndex
from deepstab.data.sources import MANIFEST_NAME, prepare_data
from deepstab.models import checkpoints
from deepstab.models.checkpoints import Checkpoint
from deepstab.models.generator import StabGenerator

if TYPE_CHECKING:
    from tests.checkout import Checkout

ROOT = Path(__file__).resolve().parent.parent

# No test measures time: a busy machine is not a fault.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What makes the embedded default tiny; the rest stays as delivered.
TINY: dict[str, Any] = {
    "data.flights.num_flights": 6,
    "data.flights.num_frames": 40,
    "data.flights.width": 192,
    "data.flights.height": 128,
    "data.flights.shake_min": 0.01,
    # An easy world: what a stabilizer does wrong there is its own fault.
    "data.flights.parallax": 0,
    "data.flights.faults": dict.fromkeys(FaultParams.model_fields, 0),
    "flow.height": 64,
    "flow.width": 64,
    "model.clip_length": 12,
    "model.channels": 4,
    "model.smoothing_sigma": 3,
    # All parts take part.
    "loss.lambda_gan": 0.05,
    "train.epochs": 2,
    "train.lr_g": 0.002,
    "train.windows_per_video": 3,
    "evaluate.window_stride": 6,
    "tracking.log_model": False,
}


def with_values(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a parameter tree with dotted keys set."""
    tree = yaml.safe_load(yaml.safe_dump(tree))
    for key, value in values.items():
        *sections, name = key.split(".")
        section = tree
        for part in sections:
            section = section[part]
        assert name in section, key
        section[name] = value
    return tree


@pytest.fixture(scope="session")
def default_tree() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture(scope="session")
def tiny_tree(default_tree: dict[str, Any]) -> dict[str, Any]:
    return with_values(default_tree, TINY)


@pytest.fixture(scope="session")
def tiny_params(tiny_tree: dict[str, Any]) -> Params:
    return parse_params(tiny_tree, origin="tiny")


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory, tiny_params: Params) -> Path:
    """Six generated flights as real video files, with their manifest."""
    folder = tmp_path_factory.mktemp("tiny") / "raw"
    prepare_data(folder, params=tiny_params.data, seed=tiny_params.seed, vgg_weights="none")
    return folder


@pytest.fixture(scope="session")
def tiny_index(
    tmp_path_factory: pytest.TempPathFactory, tiny_raw: Path, tiny_params: Params
) -> ShardIndex:
    """The shards of the tiny flights."""
    folder = tmp_path_factory.mktemp("shards")
    fill_cache(
        Manifest.load(tiny_raw / MANIFEST_NAME),
        raw=tiny_raw,
        destination=folder / "out",
        scratch=folder / "scratch",
        params=tiny_params.flow,
    )
    return ShardIndex.load(folder / "out")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory, tiny_tree: dict[str, Any]) -> Checkout:
    """The tiny pipeline after `dvc repro`, once for all processes of tests; to be copied."""
    from tests.checkout import STAGES, Checkout

    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder = shared / "reproduced"
    with FileLock(shared / "reproduced.lock"):
        if not folder.exists():
            made = Checkout(shared / "unfinished", tiny_tree)
            assert made.repro() == STAGES
            made.root.rename(folder)
    return Checkout.at(folder)


@pytest.fixture(scope="session")
def untrained(tiny_params: Params) -> Checkpoint:
    """A tiny generator as it is initialized: least squares and a Gaussian, which stabilize."""
    torch.manual_seed(0)
    return Checkpoint(
        params=tiny_params.network,
        made_with=tiny_params.model_dump(mode="json"),
        manifest_digest="",
        run_id="",
        epoch=1,
        validation={},
        generator=StabGenerator(tiny_params.model).state_dict(),
        discriminator={},
    )


@pytest.fixture(scope="session")
def untrained_weights(tmp_path_factory: pytest.TempPathFactory, untrained: Checkpoint) -> Path:
    """The file of that checkpoint."""
    path = tmp_path_factory.mktemp("weights") / "untrained.pth"
    checkpoints.save(untrained.as_tree(), path)
    return path


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_store_leaks() -> Iterator[None]:
    """MLflow's fluent calls set the environment, which whatever is started later would inherit."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = [os.environ.get(name) for name in names]
    yield
    assert [os.environ.get(name) for name in names] == before
