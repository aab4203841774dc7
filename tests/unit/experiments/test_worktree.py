"""Temporary checkouts of a real repository."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from deepstab.errors import RerunError
from deepstab.experiments.worktree import worktree_at
from tests.conftest import ROOT


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    command = ("git", *identity, *arguments)
    return subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project in a subfolder of a repository, with a hook that would stop every checkout."""
    root = tmp_path / "repository" / "project"
    root.mkdir(parents=True)
    git(root.parent, "init", "-q")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (root / ".gitignore").write_text("/.scratch/\n/videos/*.mp4\n")
    (root / "videos").mkdir()
    (root / "videos" / "README.md").write_text("put videos here\n")
    (root / "picture.png").write_bytes(b"\x89PNG\0\0")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    hook = root.parent / ".git" / "hooks" / "post-checkout"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    return root


def left_in(root: Path) -> list[str]:
    assert len(git(root, "worktree", "list").splitlines()) == 1
    return [path.name for path in (root / ".scratch").iterdir()]


def test_changes_apply_and_everything_goes(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    params = repository / "params.yaml"
    params.write_text(params.read_text().replace("seed: 7", "seed: 8"))
    diff = git(repository, "diff", "HEAD") + "\n"
    git(repository, "commit", "-q", "-a", "-m", "second")
    with worktree_at(commit, root=repository) as tree:
        assert "seed: 7" in (tree.project / "params.yaml").read_text()
        tree.apply(diff)
        assert "seed: 8" in (tree.project / "params.yaml").read_text()
    assert left_in(repository) == []
    assert git(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_it_goes_however_the_block_ends_but_what_was_not_sent_stays(
    repository: Path, ending: type[BaseException]
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(ending))
        tree = stack.enter_context(worktree_at(commit, root=repository))
        unsent = tree.project / ".scratch" / "outbox" / "run-1"
        unsent.mkdir(parents=True)
        (unsent / "journal.jsonl").write_text("{}\n")
        raise ending
    assert left_in(repository) == ["outbox"]
    assert (repository / ".scratch" / "outbox" / "run-1" / "journal.jsonl").is_file()


def test_what_cannot_be_rebuilt_is_refused_with_the_reason(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "picture.png").write_bytes(b"\x89PNG\0\0\0")
    binary = git(repository, "diff", "HEAD") + "\n"
    with (
        pytest.raises(RerunError, match=r"cannot be applied .*binary patch to 'project/picture"),
        worktree_at(commit, root=repository) as tree,
    ):
        tree.apply(binary)
    with (
        pytest.raises(RerunError, match="fetch the run's commit"),
        worktree_at(40 * "0", root=repository),
    ):
        pytest.fail("there is no such commit")
    assert left_in(repository) == []


def test_the_parameter_file_is_the_runs_to_the_byte(repository: Path) -> None:
    kept = "seed: 8  # comments and\r\nline ends too"
    with worktree_at("HEAD", root=repository) as tree:
        tree.write_params(kept)
        assert (tree.project / "params.yaml").read_bytes() == kept.encode()


def test_videos_outside_git_are_linked(repository: Path) -> None:
    (repository / "videos" / "1.mp4").write_bytes(b"video")
    (repository / "data" / "material" / "video").mkdir(parents=True)
    (repository / "data" / "material" / "video" / "a.mp4").write_bytes(b"fetched")
    (repository.parent / ".git" / "info" / "exclude").write_text("material\n")
    params = {
        "data.kaggle_root": "videos",
        "data.flights.photos": "skimage",
        "data.videos.folder": "material",
        "loss.vgg_weights": "/elsewhere/vgg19.pth",
    }
    with worktree_at("HEAD", root=repository) as tree:
        tree.link_inputs(params)
        assert (tree.project / "videos" / "1.mp4").read_bytes() == b"video"
        fetched = tree.project / "data" / "material" / "video" / "a.mp4"
        assert fetched.read_bytes() == b"fetched"
        assert not (tree.project / "videos" / "README.md").is_symlink()
        assert git(tree.project, "status", "--porcelain") == ""
    assert (repository / "videos" / "1.mp4").read_bytes() == b"video"


def test_a_command_runs_with_the_checkouts_code_and_its_failure_is_said(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    script = (
        "import os, pathlib, sys; pathlib.Path('seen').write_text("
        "f\"{sys.path[1]} {os.environ.get('DVC_ROOT')} {os.environ['GIVEN']}\")"
    )
    with worktree_at("HEAD", root=repository) as tree:
        tree.run((sys.executable, "-c", script), environment={"GIVEN": "x"})
        assert (tree.project / "seen").read_text() == f"{tree.project / 'src'} None x"
        with pytest.raises(RerunError, match="exit code 3"):
            tree.run((sys.executable, "-c", "raise SystemExit(3)"), environment={})


def test_an_interrupt_ends_what_runs_and_its_children(repository: Path, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    pid = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {pid}.part; mv {pid}.part {pid}; wait"
    before = signal.signal(signal.SIGALRM, interrupt)
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGALRM, before)
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        tree = stack.enter_context(worktree_at("HEAD", root=repository))
        signal.setitimer(signal.ITIMER_REAL, 2)
        tree.run(("bash", "-c", script), environment={})
    assert left_in(repository) == []
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"
