"""Provenance of real git repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepstab.tracking.provenance import read_provenance
from tests.conftest import ROOT, with_values


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "trunk")
    (tmp_path / ".gitignore").write_text("/data/\n")
    (tmp_path / "params.yaml").write_text("lr: 0.1\n")
    (tmp_path / "dvc.lock").write_text("a\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout(repository: Path) -> None:
    (repository / "data").mkdir()
    (repository / "data" / "ignored").touch()
    (repository / "dvc.lock").write_text("b\n")  # DVC rewrites it while the pipeline runs
    found = read_provenance()
    assert found.tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
    assert found.tags["mlflow.source.git.branch"] == "trunk"
    assert found.tags["mlflow.source.git.dirty"] == "false"
    assert "code/uncommitted.diff" not in found.texts
    assert "dvc.experiment" not in found.tags
    assert found.name == f"trunk@{git('rev-parse', 'HEAD')[:7]}"
    assert "pytest==" in found.texts["environment/packages.txt"]


def test_uncommitted_changes_can_be_applied_to_the_commit(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (repository / "params.yaml").write_text("lr: 0.2\n")
    # In the workspaces of `dvc exp run --temp` git overlooks such a change; here it is told to.
    git("update-index", "--assume-unchanged", "params.yaml")
    inside = repository / "stages"
    inside.mkdir()
    (inside / "new.py").write_text("print(1)\n")
    git("checkout", "-q", "--detach")
    status = git("status", "--porcelain")
    monkeypatch.setenv("DVC_EXP_NAME", "exp-1")
    monkeypatch.chdir(inside)

    found = read_provenance()
    assert found.tags["mlflow.source.git.dirty"] == "true"
    assert "mlflow.source.git.branch" not in found.tags
    assert found.name == found.tags["dvc.experiment"] == "exp-1"
    assert git("status", "--porcelain") == status  # the user's index is untouched

    clone = tmp_path_factory.mktemp("clone")
    git("clone", "-q", str(repository), str(clone))
    monkeypatch.chdir(clone)
    Path("patch").write_text(found.texts["code/uncommitted.diff"])
    git("apply", "patch")
    assert Path("params.yaml").read_text() == "lr: 0.2\n"
    assert Path("stages/new.py").read_text() == "print(1)\n"


def test_a_run_is_named_after_the_parameters_that_changed(
    repository: Path, default_tree: dict[str, Any]
) -> None:
    (repository / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    git("commit", "-q", "-am", "parameters")
    for values, changed in (
        ({}, None),  # though `lr_g: 3e-3` is another text now
        ({"train.lr_g": 0.0004}, "train.lr_g=0.0004"),
        ({"seed": 8, "train.epochs": 3}, "seed=8, train.epochs=3"),
    ):
        tree = with_values(default_tree, values)
        (repository / "params.yaml").write_text(yaml.safe_dump(tree))
        found = read_provenance()
        assert found.tags.get("params.changed") == changed
        assert found.name == (changed or f"trunk@{git('rev-parse', 'HEAD')[:7]}")
    published = (ROOT / "params.deepstab.yaml").read_text()
    (repository / "params.yaml").write_text(published)
    found = read_provenance()
    assert "data.source=kaggle, " in found.tags["params.changed"]
    assert found.name == f"trunk@{git('rev-parse', 'HEAD')[:7]}"


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = read_provenance()
    assert not [name for name in found.tags if "git" in name]
    assert {"python", "platform", "processor"} <= set(found.tags)


def test_what_stages_read_and_write_is_no_change_of_code(repository: Path) -> None:
    for name in ("data/deepstab/stable/1.mp4", "reports/plots/path.png"):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_bytes(b"\0binary")
    (repository / ".gitignore").write_text("")
    git("commit", "-q", "-a", "-m", "second")
    assert read_provenance().tags["mlflow.source.git.dirty"] == "false"
    code = repository / "src" / "package" / "data"
    code.mkdir(parents=True)
    (code / "new.py").write_text("print(1)\n")
    assert "+++ b/src/package/data/new.py" in read_provenance().texts["code/uncommitted.diff"]


SECRETS = (
    ".env",
    ".env.local",
    "kaggle.json",
    "src/.netrc",
    "stages/server.pem",
    "src/package/Credentials.json",
    "src/package/credentials.py",
    ".kaggle/anything.py",
    "stages/id_ed25519",
    "id_rsa.pub",
)
CODE = ("src/package/new.py", "src/package/table.json", "tool.py", "src/id_map.py")


def test_new_code_is_kept_and_what_may_be_secret_is_named_instead(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (repository / "settings.env").write_text("KEY=no key yet\n")
    git("add", ".")
    git("commit", "-q", "-m", "settings")
    (repository / "settings.env").write_text("KEY=hunter2\n")
    (repository / "params.yaml").write_text("lr: 0.2\n")
    for name in (*SECRETS, *CODE):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("hunter2" if name in SECRETS else "print(1)\n")
    for name in ("notes.txt", "shaky.mp4", "other/key.txt"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("my password is hunter2\n")
    found = read_provenance()
    diff = found.texts["code/uncommitted.diff"]
    assert "hunter2" not in diff
    kept = {line.removeprefix("+++ b/") for line in diff.splitlines() if line.startswith("+++ ")}
    assert kept == {"params.yaml", *CODE}
    (said,) = caplog.messages
    what, names = said.split(": ")
    assert what == "not kept in the run, for they may be secret"
    assert set(names.split(", ")) == {"settings.env", *SECRETS}


def test_a_new_file_that_is_no_code_changes_nothing(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (repository / "notes.txt").write_text("to do\n")
    (repository / ".gitignore").write_text("/data/\n.env\n")
    git("commit", "-q", "-am", "ignore")
    (repository / ".env").write_text("KEY=hunter2\n")
    assert read_provenance().tags["mlflow.source.git.dirty"] == "false"
    assert not caplog.messages
