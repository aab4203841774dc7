"""The champion's rule, and a registry in a real SQLite store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.models import Model

from deepstab.config import RegistryParams
from deepstab.errors import RegistryError, TrackingError
from deepstab.experiments.records import Record, Records
from deepstab.experiments.registry import compare, local_weights, promote
from deepstab.models import checkpoints
from deepstab.models.checkpoints import load_weights
from deepstab.tracking.names import MODEL_CHECKPOINT_FILE
from deepstab.tracking.store import start_run

# Of mlflow and its dependencies, as mlflow 3.17 uses them.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

RULE = RegistryParams(name="gan", metric="jitter", direction="lower", min_improvement=0.05)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "dvc.yaml").touch()
    return root


@pytest.fixture
def root(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DEEPSTAB_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def store(root: Path) -> None:
    """A store that holds an experiment."""
    with start_run(experiment="tests", root=root, outbox=root / "outbox"):
        pass


@pytest.fixture
def rule(request: pytest.FixtureRequest) -> RegistryParams:
    """A registered model of its own for every test."""
    return RULE.model_copy(update={"name": request.node.name})


@pytest.mark.parametrize(
    ("direction", "value", "champions", "wins"),
    [
        ("lower", 0.40, 0.50, True),
        ("lower", 0.45, 0.50, True),
        ("lower", 0.46, 0.50, False),
        ("lower", 0.60, 0.50, False),
        ("higher", 0.60, 0.50, True),
        ("higher", 0.54, 0.50, False),
        ("higher", 0.40, 0.50, False),
    ],
)
def test_the_rule(direction: str, value: float, champions: float, wins: bool) -> None:
    rule = RULE.model_copy(update={"direction": direction, "min_improvement": 0.049})
    found, reason = compare(value, champions, rule)
    assert found is wins
    assert reason.startswith(f"jitter {value:g} {'beats' if wins else 'does not beat'} 0.5 ")


def test_a_tie_never_wins() -> None:
    assert compare(0.5, 0.5, RULE.model_copy(update={"min_improvement": 0.0}))[0] is False


def make_run(
    root: Path, weights: Path, *, jitter: float | None, manifest: str = 64 * "a", model: bool = True
) -> str:
    """A run as evaluate leaves it, its saved model without the pt2."""
    with start_run(experiment="tests", root=root, outbox=root / "outbox") as run:
        run.log_dataset("flights-test", sha256=manifest, source="flights", context="test")
        if jitter is not None:
            run.log_metrics({"test/stabilized/jitter": jitter}, step=0)
        checkpoint = root / "checkpoints" / "best_stab_gan.pth"
        checkpoint.parent.mkdir(exist_ok=True)
        shutil.copy(weights, checkpoint)
        run.log_artifact(checkpoint, "checkpoints")
        if model:
            folder = root / run.run_id / "stab_generator"
            (folder / MODEL_CHECKPOINT_FILE).parent.mkdir(parents=True)
            shutil.copy(weights, folder / MODEL_CHECKPOINT_FILE)
            Model().save(str(folder / "MLmodel"))
            run.log_model(folder)
    return run.run_id


def find(root: Path, run_id: str) -> tuple[Records, Record]:
    records = Records(root)
    return records, records.find(run_id)


def champion(root: Path, rule: RegistryParams) -> str:
    return Records(root).client.get_model_version_by_alias(rule.name, "champion").run_id


def test_the_alias_goes_to_the_better_and_stays_there(
    root: Path, rule: RegistryParams, untrained_weights: Path
) -> None:
    first, worse, slightly, better = (
        make_run(root, untrained_weights, jitter=jitter) for jitter in (0.5, 0.7, 0.48, 0.4)
    )
    outcomes = [
        promote(*find(root, run_id), rule=rule, force=False)
        for run_id in (first, first, worse, slightly, better, first)
    ]
    assert [done.is_champion for done in outcomes] == [True, True, False, False, True, False]
    # Registered once each.
    assert [done.version for done in outcomes] == ["1", "1", "2", "3", "4", "1"]
    assert champion(root, rule) == better
    assert "0.5 does not beat 0.4" in outcomes[-1].reason
    forced = promote(*find(root, worse), rule=rule, force=True)
    assert forced.is_champion
    assert forced.reason == "jitter 0.7; forced"
    assert champion(root, rule) == worse


def test_other_test_data_do_not_compare(
    root: Path, rule: RegistryParams, untrained_weights: Path
) -> None:
    first = make_run(root, untrained_weights, jitter=0.5)
    other = make_run(root, untrained_weights, jitter=0.1, manifest=64 * "b")
    promote(*find(root, first), rule=rule, force=False)
    with pytest.raises(RegistryError, match=r"tested on other data .manifest bbbbbbbbbbbb"):
        promote(*find(root, other), rule=rule, force=False)
    assert champion(root, rule) == first
    assert len(Records(root).client.search_model_versions(f"name = '{rule.name}'")) == 1
    assert promote(*find(root, other), rule=rule, force=True).is_champion
    assert champion(root, rule) == other


def test_a_run_without_model_or_figure_is_refused(
    root: Path, rule: RegistryParams, untrained_weights: Path
) -> None:
    bare = make_run(root, untrained_weights, jitter=0.5, model=False)
    with pytest.raises(RegistryError, match="has no model in the store"):
        promote(*find(root, bare), rule=rule, force=True)
    for jitter in (None, float("nan")):
        unmeasured = make_run(root, untrained_weights, jitter=jitter)
        with pytest.raises(RegistryError, match="no finite test/stabilized/jitter, which registry"):
            promote(*find(root, unmeasured), rule=rule, force=False)


def test_weights_by_their_names_in_the_store(
    root: Path, rule: RegistryParams, untrained_weights: Path
) -> None:
    run_id = make_run(root, untrained_weights, jitter=0.5)
    promote(*find(root, run_id), rule=rule, force=False)
    wanted = checkpoints.load(untrained_weights).weights_sha256()
    for uri in (f"models:/{rule.name}@champion", f"models:/{rule.name}/1", f"runs:/{run_id}"):
        with local_weights(uri, root=root) as path:
            assert load_weights(path).weights_sha256() == wanted
        assert not Path(path).exists()
    for name in (None, "models/a.pth"):
        with local_weights(name, root=root) as path:
            assert path == name


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/gan@champion", "models:/gan@champion is not in the registry"),
        ("models:/gan/7", "models:/gan/7 is not in the registry"),
        ("models:/gan", "write models:/NAME@ALIAS"),
        ("models:/gan@", "write models:/NAME@ALIAS"),
        ("runs:/abc/checkpoints", "write models:/NAME@ALIAS"),
        ("runs:/0123456789abcdef0123456789abcdef", "no run '0123456789abcdef0123456789abcdef'"),
    ],
)
def test_weights_that_are_not_in_the_store(root: Path, store: None, uri: str, message: str) -> None:
    with pytest.raises(TrackingError, match=message) as caught, local_weights(uri, root=root):
        pytest.fail("there are no such weights")
    assert "\n" not in str(caught.value)


def test_no_store_is_made_by_looking_for_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(TrackingError, match="there is no MLflow database"),
        local_weights("models:/gan@champion", root=tmp_path),
    ):
        pytest.fail("there is no store")
    assert not list(tmp_path.iterdir())
