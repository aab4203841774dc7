"""A temporary checkout of an earlier commit, with uncommitted changes, data and cache as they were.

Git's worktree lies in the project's scratch folder: on the same disk, so that DVC can link to its
cache instead of copying.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deepstab.errors import RerunError
from deepstab.tracking import names

_GIVE_UP_S = 60.0
# Parameters that may name a folder or a file outside git.
_PATH_PARAMS = (
    "data.kaggle_root",
    "data.flights.photos",
    "data.videos.folder",
    "loss.vgg_weights",
)
# Fetched already, it need not come from the web once more.
_MATERIAL = Path("data/material")


class Worktree:
    """A checkout to run the pipeline in. Nothing in it touches the project's own files."""

    def __init__(self, root: Path, project: Path) -> None:
        """Describe a checkout; `worktree_at` makes one.

        Args:
            root: of the project it is a checkout of.
            project: of the checkout: the folder with dvc.yaml.
        """
        self.root, self.project = root, project

    def apply(self, diff: str) -> None:
        """Apply uncommitted changes.

        Raises:
            RerunError: they do not apply, for instance because a changed file is binary.
        """
        command = ("git", "apply", "--whitespace=nowarn", "-")
        done = subprocess.run(
            command, cwd=self.project, input=diff.encode(), capture_output=True, check=False
        )
        if done.returncode != 0:
            reason = " ".join(done.stderr.decode(errors="replace").split())
            raise RerunError(
                f"the run's uncommitted changes cannot be applied ({reason}); rebuild it by hand "
                f"from its commit and {names.DIFF_FILE}"
            )

    def write_params(self, text: str) -> None:
        """Give the checkout the params.yaml a run kept, to the byte."""
        (self.project / "params.yaml").write_bytes(text.encode())

    def link_inputs(self, params: Mapping[str, str]) -> None:
        """Link what parameters name by a relative path and git does not hold: videos, photos."""
        named = [Path(params[name]) for name in _PATH_PARAMS if name in params]
        for given in (*named, _MATERIAL):
            if not given.is_absolute() and ".." not in given.parts:
                _link_missing(self.root / given, self.project / given)

    def share_cache(self) -> None:
        """Let DVC here read and fill the project's cache."""
        done = subprocess.run(
            ("dvc", "cache", "dir"),
            cwd=self.root,
            env=_environment(self.root),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RerunError(f"{self.root}: no DVC project ({done.stderr.strip()}); run there")
        local = self.project / ".dvc" / "config.local"
        local.write_text(f'[cache]\n    dir = "{done.stdout.strip()}"\n', encoding="utf-8")

    def run(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Run a command with this checkout's code, its output shown as it comes.

        Raises:
            RerunError: it failed.
        """
        process = subprocess.Popen(
            command,
            cwd=self.project,
            env=_environment(self.project) | dict(environment),
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        if code != 0:
            raise RerunError(
                f"`{' '.join(command)}` failed with exit code {code}; what it said is above"
            )


@contextmanager
def worktree_at(commit: str, *, root: Path) -> Iterator[Worktree]:
    """A checkout of a commit that is gone after the block, however that ends.

    Raises:
        RerunError: the repository does not have the commit.
    """
    prefix = _git(root, "rev-parse", "--show-prefix")
    scratch = root / ".scratch"
    scratch.mkdir(exist_ok=True)
    parent = Path(tempfile.mkdtemp(prefix="rerun-", dir=scratch))
    checkout = parent / "worktree"
    try:
        # Without hooks: DVC's own would check out every output.
        no_hooks = ("-c", f"core.hooksPath={os.devnull}")
        _git(root, *no_hooks, "worktree", "add", "--quiet", "--detach", str(checkout), commit)
        yield Worktree(root, checkout / prefix)
    finally:
        _keep_unsent(checkout / prefix, root)
        shutil.rmtree(parent)
        _git(root, "worktree", "prune")


def _keep_unsent(project: Path, root: Path) -> None:
    """Move what could not be sent to the store to where the next run looks for it."""
    for left in (project / ".scratch" / "outbox").glob("*"):
        target = root / ".scratch" / "outbox"
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(left, target / left.name)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ("git", *arguments), cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RerunError(
            f"git in {root}: {' '.join(done.stderr.split())}; fetch the run's commit, or call from "
            "a clone that has it"
        )
    return done.stdout.strip()


def _environment(project: Path) -> dict[str, str]:
    """This process's environment, with the project's code first and without DVC's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    folder = str(Path(sys.executable).parent)
    return kept | {
        "PATH": os.pathsep.join(filter(None, [folder, os.environ.get("PATH")])),
        "PYTHONPATH": str(project / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process and its children, and kill what is left."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(_GIVE_UP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _link_missing(source: Path, target: Path) -> None:
    if source.is_dir() and target.is_dir():
        for entry in source.iterdir():
            _link_missing(entry, target / entry.name)
    elif source.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.absolute())
