"""The real pipeline by the real dvc, with a real MLflow store, on tiny generated data."""

from __future__ import annotations

import json
import urllib.request
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deepstab.data.shards import ShardIndex, verify_shards
from deepstab.models import checkpoints
from deepstab.tracking.names import PARAMS_FILE
from deepstab.video.frames import count_frames
from deepstab.video.writer import write_video
from tests.checkout import Checkout
from tests.conftest import ROOT, with_values
from tests.services import s3_server


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, reproduced: Checkout) -> Checkout:
    return reproduced.copy(tmp_path_factory.mktemp("project") / "checkout")


def test_outputs_are_valid(checkout: Checkout) -> None:
    root = checkout.root
    verify_shards(ShardIndex.load(root / "data/shards"))
    best = checkpoints.load(root / "checkpoints/best_stab_gan.pth")
    metrics = json.loads((root / "reports/metrics.json").read_text())
    assert metrics["data"] == {
        "source": "flights",
        "requested": "flights",
        "generated": True,
        "manifest": best.manifest_digest[:16],
        "test_videos": 1,
    }
    assert metrics["run_id"] == best.run_id != ""
    for name in ("psnr", "cropped_ssim", "jitter_px", "stability", "true_jitter_px"):
        assert set(metrics[name]) == {"input", "baseline", "untrained", "stabilized"}
    scores = json.loads((root / "reports/scores.json").read_text())
    assert scores == {
        name: pytest.approx(metrics[name]["stabilized"], abs=5.1e-4)
        for name in ("psnr", "cropped_ssim", "jitter_ratio", "stability", "crop")
    }
    assert json.loads((root / "reports/train.json").read_text()) == {
        f"val_{name}": pytest.approx(value, abs=5.1e-5) for name, value in best.validation.items()
    }
    per_video = (root / "reports/per_video.csv").read_text().splitlines()
    assert len(per_video) == 2
    for picture in ("loss_curves.png", "side_by_side.png", "plots/path_1.png"):
        assert (root / "reports" / picture).read_bytes().startswith(b"\x89PNG")
    for text in ("summary.txt", "report.html"):
        assert "GENERATED" in (root / "reports" / text).read_text()
    assert best.run_id in (root / "reports/report.html").read_text()


def test_one_finished_run_holds_everything(checkout: Checkout) -> None:
    runs = checkout.query("SELECT run_uuid, status FROM runs")
    best = checkpoints.load(checkout.root / "checkpoints/best_stab_gan.pth")
    assert runs == [(best.run_id, "FINISHED")]
    params = dict(checkout.query("SELECT key, value FROM params"))
    assert params["train.lr_g"] == "0.002"
    assert params["model.head"] == "motion"
    keys = {key for (key,) in checkout.query("SELECT DISTINCT key FROM metrics")}
    assert {"step/total", "step/smooth", "psnr", "cropped_ssim"} <= keys
    assert {"test/stabilized/jitter_px", "test/untrained/jitter_px"} <= keys
    # What no parameter changes is a tag or stands in the note.
    assert not {key for key in keys if "input" in key or "baseline" in key}
    tags = dict(checkout.query("SELECT key, value FROM tags"))
    assert tags["data.generated"] == "True"
    assert float(tags["input.psnr"]) > 10
    assert f"deepstab rerun {best.run_id}" in tags["mlflow.note.content"]
    assert "GENERATED" in tags["mlflow.note.content"]
    ((about,),) = checkout.query(
        "SELECT value FROM experiment_tags WHERE key = 'mlflow.note.content'"
    )
    assert "Model training" in about
    assert len(tags["mlflow.source.git.commit"]) == 40
    names = {name for (name,) in checkout.query("SELECT name FROM datasets")}
    assert names == {"flights-training", "flights-validation", "flights-test"}
    artifacts = {path.name for path in (checkout.root / "mlruns").rglob("*") if path.is_file()}
    assert {"best_stab_gan.pth", "final_stab_gan.pth"} <= artifacts
    assert {"metrics.json", "per_video.csv", "side_by_side.png", "manifest.json"} <= artifacts
    assert "report.html" in artifacts
    (kept,) = checkout.root.glob(f"mlruns/*/*/artifacts/{PARAMS_FILE}")
    assert kept.read_bytes() == (checkout.root / "params.yaml").read_bytes()
    (player,) = checkout.root.glob("mlruns/*/*/artifacts/videos/*.mp4")
    assert count_frames(player) == 40


def test_a_colleague_pulls_all_of_it_and_computes_nothing(
    checkout: Checkout, tmp_path: Path
) -> None:
    store = s3_server(tmp_path, tmp_path / "log")
    store.start()
    try:
        store.wait()
        bucket = urllib.request.Request(f"{store.uri}/team", method="PUT")
        urllib.request.urlopen(bucket, timeout=10).close()
        checkout.environment |= {"AWS_ACCESS_KEY_ID": "us", "AWS_SECRET_ACCESS_KEY": "secret"}
        checkout.run("dvc", "remote", "add", "--default", "team", "s3://team")
        checkout.run("dvc", "remote", "modify", "team", "endpointurl", store.uri)
        checkout.commit("shared")
        checkout.run("dvc", "push")
        colleague = checkout.clone(tmp_path / "colleague")
        colleague.run("dvc", "pull")
        assert colleague.repro() == []
    finally:
        store.kill()
    for folder in ("data/raw", "data/shards", "checkpoints", "reports"):
        files = [path for path in (checkout.root / folder).rglob("*") if path.is_file()]
        assert files
        for path in files:
            copy = colleague.root / path.relative_to(checkout.root)
            assert copy.read_bytes() == path.read_bytes(), path


def test_only_what_changed_runs_again(checkout: Checkout, tiny_tree: dict[str, Any]) -> None:
    assert checkout.repro() == []

    for change, first in (
        ({"evaluate.window_stride": 12}, "evaluate"),
        ({"train.lr_g": 0.0005}, "train"),
        ({"flow.winsize": 11}, "flow"),
    ):
        checkout.write_params(with_values(tiny_tree, change))
        assert checkout.would_run() == [first]
    checkout.write_params(tiny_tree)
    console = checkout.root / "src/deepstab/cli/console.py"
    console.write_text(console.read_text() + "\n# edited\n")
    assert checkout.would_run() == []
    page = checkout.root / "src/deepstab/evaluation/page.html"
    page.write_text(page.read_text().replace("Stabilization report</h1>", "Edited report</h1>"))
    assert checkout.repro() == ["report"]
    assert "Edited report" in (checkout.root / "reports/report.html").read_text()
    assert len(checkout.query("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")) == 1
    generator = checkout.root / "src/deepstab/models/generator.py"
    generator.write_text(generator.read_text() + "\n# edited\n")
    assert checkout.repro() == ["train", "evaluate", "report"]
    assert len(checkout.query("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")) == 2


def test_an_experiment_elsewhere_takes_videos_along_that_git_does_not_have(
    tmp_path: Path, tiny_tree: dict[str, Any]
) -> None:
    made = Checkout(tmp_path / "own", with_values(tiny_tree, {"data.source": "folder"}))
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)
    for side in ("stable", "unstable"):
        folder = made.root / "data/deepstab" / side
        folder.mkdir()
        for name in ("1", "2", "3"):
            path = folder / f"{name}.mp4"
            write_video(path, frames, frame_rate=Fraction(30), crf=40, preset="ultrafast")
    command = ("dvc", "exp", "run", "--temp", "download")
    copied = ("-C", "data/deepstab/stable", "-C", "data/deepstab/unstable")
    assert " ".join(copied) in made.run(*command, ok=False)
    assert "download: folder: 1 train, 1 validation, 1 test" in made.run(*command, *copied)


def test_published_settings_without_credentials_fail_at_once_and_leave_nothing(
    tmp_path: Path,
) -> None:
    tree = yaml.safe_load((ROOT / "params.deepstab.yaml").read_text())
    made = Checkout(tmp_path / "published", tree)
    made.environment = {k: v for k, v in made.environment.items() if not k.startswith("KAGGLE")} | {
        "HOME": str(tmp_path)
    }
    before = sorted(
        p for p in made.root.rglob("*") if ".dvc" not in p.parts and ".git" not in p.parts
    )
    output = made.run("dvc", "repro", ok=False)
    assert "error: " in output
    line = next(line for line in output.splitlines() if line.startswith("error: "))
    for remedy in ("KAGGLE", "flights"):
        assert remedy in line
    after = sorted(
        p for p in made.root.rglob("*") if ".dvc" not in p.parts and ".git" not in p.parts
    )
    assert after == before
