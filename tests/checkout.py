"""A copy of the project to run the real dvc in."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

STAGES = ["download", "flow", "train", "evaluate", "report"]


def environment_of(root: Path) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class Checkout:
    """A copy of the project in a git repository of its own."""

    def __init__(self, root: Path, tree: dict[str, Any]) -> None:
        self.root = root
        for name in ("src", "stages", "data/deepstab"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, root / name)
        self.write_params(tree)
        self.environment = environment_of(root)
        self.run("git", "init", "-q", "-b", "main")
        self.run("dvc", "init", "-q")
        self.commit("start")

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        self.run("git", *identity, "commit", "-q", "-m", message)

    @classmethod
    def at(cls, root: Path) -> Checkout:
        """One that is there."""
        found = object.__new__(cls)
        found.root, found.environment = root, environment_of(root)
        return found

    def clone(self, root: Path) -> Checkout:
        """What a colleague gets: what git has."""
        self.run("git", "clone", "-q", str(self.root), str(root))
        copy = Checkout.at(root)
        copy.environment = self.environment | {"PYTHONPATH": str(root / "src")}
        return copy

    def copy(self, root: Path) -> Checkout:
        """All of it, elsewhere."""
        return Checkout.at(shutil.copytree(self.root, root, symlinks=True))

    def write_params(self, tree: dict[str, Any]) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(tree))

    def run(self, *command: str, ok: bool = True) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self) -> list[str]:
        """The stages that ran."""
        output = self.run("dvc", "repro")
        return [stage for stage in STAGES if f"Running stage '{stage}'" in output]

    def would_run(self) -> list[str]:
        """The stages whose inputs changed, found without running them. A stage behind one of them
        is not listed."""
        output = self.run("dvc", "repro", "--dry")
        return [stage for stage in STAGES if f"Running stage '{stage}'" in output]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.root / "mlflow.db") as database:
            rows = database.execute(sql).fetchall()
        database.close()
        return rows
