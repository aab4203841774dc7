"""A run rebuilt, traced and promoted: the real dvc, git, MLflow store and command."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from deepstab.models import checkpoints
from tests.checkout import STAGES, Checkout
from tests.conftest import with_values


def run_id_of(checkout: Checkout) -> str:
    return json.loads((checkout.root / "reports/metrics.json").read_text())["run_id"]


def worktrees(checkout: Checkout) -> list[str]:
    """The lines of `git worktree list`, and what reruns left in the scratch folder."""
    left = [str(path) for path in (checkout.root / ".scratch").glob("rerun-*")]
    return checkout.run("git", "worktree", "list").splitlines() + left


def weights_of(checkout: Checkout) -> str:
    return checkpoints.load(checkout.root / "checkpoints/best_stab_gan.pth").weights_sha256()


@pytest.fixture(scope="module")
def tree(tiny_tree: dict[str, Any]) -> dict[str, Any]:
    smaller = {"data.flights.num_flights": 3, "data.flights.num_frames": 32}
    return with_values(tiny_tree, {**smaller, "tracking.log_model": True})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> Checkout:
    made = Checkout(tmp_path_factory.mktemp("project") / "checkout", tree)
    assert made.repro() == STAGES
    return made


@pytest.fixture(scope="module")
def clean(checkout: Checkout) -> str:
    """The run of the committed state."""
    return run_id_of(checkout)


@pytest.fixture(scope="module")
def dirty(
    checkout: Checkout,
    clean: str,
    tree: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A run made with other parameters and edited code, all thrown away since."""
    before, kept = weights_of(checkout), tmp_path_factory.mktemp("kept") / "checkout"
    shutil.copytree(checkout.root, kept, ignore=shutil.ignore_patterns("mlruns", "mlflow.db*"))
    generator = checkout.root / "src/deepstab/models/generator.py"
    original = generator.read_text()
    generator.write_text(original.replace("_FLOW_GAIN = 10.0", "_FLOW_GAIN = 3.0"))
    (checkout.root / "src/deepstab/models/new.py").write_text('"""Not in git."""\n')
    checkout.write_params(with_values(tree, {"train.lr_g": 0.02}))
    assert checkout.repro() == ["train", "evaluate", "report"]
    made = run_id_of(checkout)
    assert weights_of(checkout) != before
    for name in ("src", "reports", "checkpoints"):
        shutil.rmtree(checkout.root / name)
        shutil.copytree(kept / name, checkout.root / name)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(kept / name, checkout.root / name)
    return made


def test_a_run_tells_its_whole_story(checkout: Checkout, clean: str) -> None:
    chain = json.loads(checkout.run("deepstab", "lineage", "--json", clean))
    best = checkpoints.load(checkout.root / "checkpoints/best_stab_gan.pth")
    lock = (checkout.root / "dvc.lock").read_text()
    assert chain["data"]["generated"] == "True"
    assert chain["data"]["manifest_sha256"] == best.manifest_digest
    for link, path in (
        ("data", "data/raw"),
        ("shards", "data/shards"),
        ("checkpoint", "checkpoints/best_stab_gan.pth"),
    ):
        assert chain[link]["path"] == path
        assert f"- path: {path}\n      hash: md5\n      md5: {chain[link]['dvc_md5']}\n" in lock
    assert chain["shards"]["flow"]["winsize"] == "15"
    assert chain["run"]["commit"] == checkout.run("git", "rev-parse", "HEAD").strip()
    assert (chain["run"]["branch"], chain["run"]["uncommitted_changes"]) == ("main", "false")
    assert chain["run"]["seed"] == "7"
    assert set(chain["run"]["duration_s"]) == set(STAGES)
    assert all(seconds > 0 for seconds in chain["run"]["duration_s"].values())
    assert chain["checkpoint"]["generator_sha256"] == best.generator_sha256()
    metrics = json.loads((checkout.root / "reports/metrics.json").read_text())
    assert f"{chain['metrics']['psnr']:.6g}" == f"{metrics['psnr']['stabilized']:.6g}"


def test_a_clean_run_comes_out_the_same(checkout: Checkout, clean: str) -> None:
    before = worktrees(checkout)
    output = checkout.run("deepstab", "rerun", clean)
    for stage in ("train", "evaluate"):
        assert f"Running stage '{stage}'" in output
    for stage in ("download", "flow"):
        assert f"Stage '{stage}' is cached" in output
    assert len(re.findall(r"^weights +checkpoints/\w+.pth identical, \w{64}$", output, re.M)) == 2
    assert re.search(r"^metrics +(\d+) of \1 equal$", output, re.M)
    again = re.search(r"^rerun +(\w+)$", output, re.M)
    assert again is not None
    assert again[1] != clean
    tags = dict(checkout.query(f"SELECT key, value FROM tags WHERE run_uuid = '{again[1]}'"))
    assert tags["deepstab.rerun_of"] == clean
    assert tags["mlflow.source.git.dirty"] == "false"
    assert worktrees(checkout) == before
    # What it made does not take the place of what was there.
    assert run_id_of(checkout) == clean
    assert checkout.repro() == []


@pytest.mark.skipif("WALKTHROUGH" not in os.environ, reason="a minute: make walkthrough")
def test_a_run_with_uncommitted_changes_comes_out_the_same(checkout: Checkout, dirty: str) -> None:
    before = worktrees(checkout)
    output = checkout.run("deepstab", "rerun", dirty)
    assert len(re.findall(r"^weights .* identical, ", output, re.M)) == 2
    assert re.search(r"^metrics +(\d+) of \1 equal$", output, re.M)
    assert worktrees(checkout) == before


def test_the_champion_gives_way_to_the_better_alone(
    checkout: Checkout, clean: str, dirty: str, tmp_path: Path
) -> None:
    key = "test/stabilized/jitter_ratio_geomean"
    jitter = dict(checkout.query(f"SELECT run_uuid, value FROM metrics WHERE key = '{key}'"))
    better, worse = sorted((clean, dirty), key=jitter.__getitem__)
    assert jitter[worse] > jitter[better]
    assert "is the champion: " in checkout.run("deepstab", "promote", better)
    said = checkout.run("deepstab", "promote", worse, ok=False)
    assert "models:/deepstab-gan/2 is registered, not the champion: jitter_ratio_geomean" in said

    video = next((checkout.root / "data/raw").rglob("unstable/1.*"))
    steady = tmp_path / "steady.mp4"
    champion = ("--weights", "models:/deepstab-gan@champion")
    checkout.run("deepstab", "stabilize", *champion, str(video), str(steady))
    chain = json.loads(checkout.run("deepstab", "lineage", "--json", str(steady)))
    assert chain["run"]["id"] == better
    assert chain["file"]["generator_sha256"] == chain["checkpoint"]["generator_sha256"]


def test_a_file_that_is_not_what_its_run_made_is_noticed(
    checkout: Checkout, clean: str, tmp_path: Path
) -> None:
    metrics = json.loads((checkout.root / "reports/metrics.json").read_text())
    assert metrics["run_id"] == clean
    metrics["psnr"]["stabilized"] += 1
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    output = checkout.run("deepstab", "lineage", str(tmp_path / "metrics.json"), ok=False)
    assert re.search(rf"^  id +{clean}$", output, re.M)
    assert "is not what its run made: psnr is" in output
