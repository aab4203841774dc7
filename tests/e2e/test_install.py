"""The wheel in an empty environment, outside the checkout: what a user with a video installs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.test_cli import make_clip

pytestmark = pytest.mark.skipif(
    "INSTALL" not in os.environ, reason="needs a package index: make install-test"
)

MOST_PACKAGES = 30
MOST_MEGABYTES = 800


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("install")
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    run(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("deepstab-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    constraints = ("--constraint", ROOT / "constraints.txt")
    run(folder / "venv/bin/python", *pip, "install", *constraints, wheel, cwd=folder)
    return folder / "venv"


def run(*command: str | Path, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_light(environment: Path) -> None:
    listed = run(environment / "bin/pip", "list", "--format", "freeze", cwd=environment)
    packages = {line.partition("==")[0] for line in listed.splitlines()} - {"pip", "setuptools"}
    assert "deepstab" in packages
    assert "torch" not in packages
    assert len(packages) <= MOST_PACKAGES, packages
    sizes = [path.stat().st_size for path in environment.rglob("*") if path.is_file()]
    print(f"{len(packages)} packages, {sum(sizes) / 1e6:.0f} MB")
    assert sum(sizes) / 1e6 <= MOST_MEGABYTES


def test_a_video_is_stabilized_and_scored(environment: Path, tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4")
    command = environment / "bin/deepstab"
    assert "kept" in run(command, "stabilize", "in.mp4", "out.mp4", cwd=tmp_path)
    assert "jitter" in run(command, "score", "in.mp4", "out.mp4", cwd=tmp_path)
