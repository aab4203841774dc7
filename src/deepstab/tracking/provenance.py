"""Which code ran, and on what."""

from __future__ import annotations

import getpass
import importlib.metadata
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from deepstab.config import flatten, load_params, parse_params
from deepstab.errors import ParameterError
from deepstab.tracking import names

_log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_NAME_LENGTH = 60  # what a column of MLflow's table shows
# Not what stages read and write, which digests identify: DVC rewrites dvc.lock after every stage,
# and removes a stage's reports before it. The folders are those beside params.yaml.
_NO_CODE = (":(exclude,top,glob)**/dvc.lock", ":(exclude)data", ":(exclude)reports")
# Of files that git does not know, those that a stage can import, or a package reads.
_NEW_CODE = (":(top,glob)**/*.py", "src", "stages")
# A run's artifacts are for many to read.
_SECRET_NAMES = (
    ".env*",
    "*.env",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".npmrc",
    ".git-credentials",
    ".htpasswd",
    "kaggle.json",
    "access_token*",
    "credentials*",
    "secrets*",
    "service[-_]account*",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.kdbx",
    "*.token",
)
_SECRET_FOLDERS = (".ssh", ".aws", ".kaggle", ".gnupg")
_SECRETS = (
    *(f"top,icase,glob)**/{name}" for name in _SECRET_NAMES),
    *(f"top,icase,glob)**/{name}/**" for name in _SECRET_FOLDERS),
)


@dataclass(frozen=True)
class Provenance:
    """Short facts by MLflow's tag names, and texts by their artifact paths.

    The name tells one run from another in a table: the DVC experiment, else the parameters that
    differ from the commit's, else branch and commit; None outside a repository.
    """

    name: str | None
    tags: dict[str, str]
    texts: dict[str, str]


def read_provenance() -> Provenance:
    """Describe this process: commit, branch, uncommitted changes, packages, machine.

    Facts that cannot be read (no git, no GPU) are left out.
    """
    tags = {
        names.SOURCE_TYPE_TAG: "LOCAL",
        names.SOURCE_NAME_TAG: Path(sys.argv[0]).name,
        names.PYTHON_TAG: platform.python_version(),
        names.PLATFORM_TAG: platform.platform(),
        names.PROCESSOR_TAG: _processor(),
    }
    with suppress(OSError, KeyError):  # a container's user may have no name
        tags[names.USER_TAG] = getpass.getuser()
    if gpus := _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"):
        tags[names.GPU_TAG] = ", ".join(gpus.splitlines())
    if rerun_of := os.environ.get("DEEPSTAB_RERUN_OF"):
        tags[names.RERUN_OF_TAG] = rerun_of
    name = os.environ.get("DVC_EXP_NAME")
    if name:
        tags[names.EXPERIMENT_TAG] = name
    packages = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    texts = {names.PACKAGES_FILE: "\n".join(sorted(packages, key=str.lower)) + "\n"}
    if commit := _output("git", "rev-parse", "HEAD"):
        changes = _uncommitted_diff()
        tags[names.COMMIT_TAG] = commit
        tags[names.DIRTY_TAG] = str(bool(changes)).lower()
        if branch := _output("git", "symbolic-ref", "--short", "-q", "HEAD"):
            tags[names.BRANCH_TAG] = branch
        if changes:
            texts[names.DIFF_FILE] = changes + "\n"
        if params := _changed_params():
            tags[names.CHANGED_PARAMS_TAG] = params
        described = params if 0 < len(params) <= _NAME_LENGTH else ""
        name = name or described or "@".join(filter(None, (branch, commit[:7])))
    return Provenance(name, tags, texts)


def _changed_params() -> str:
    """The parameters that differ from the last commit's, as `train.lr_g=0.0005, train.epochs=4`."""
    committed = _output("git", "show", "HEAD:./params.yaml")
    with suppress(ParameterError, yaml.YAMLError):
        before = flatten(parse_params(yaml.safe_load(committed or ""), origin="HEAD"))
        now = flatten(load_params(Path("params.yaml")))
        return ", ".join(f"{key}={now[key]}" for key in now if now[key] != before[key])
    return ""


def _uncommitted_diff() -> str | None:
    """Changed files, and new ones that are code, as a patch to HEAD; never what may be secret.

    A fresh index makes git compare contents: in the workspaces of `dvc exp run --temp` the index
    takes a file that changed but kept its length (`0.1` to `0.2`) for unchanged.
    """
    taken = (*_NO_CODE, *(f":(exclude,{secret}" for secret in _SECRETS))
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _output("git", "read-tree", "HEAD", **index)
        for new in _NEW_CODE:  # one at a time: git refuses all where one matches nothing
            _output("git", "add", "--intent-to-add", "--", new, *taken, **index)
        secret = (*_NO_CODE, *(f":({secret}" for secret in _SECRETS))
        status = ("git", "status", "--porcelain", "--untracked-files=all", "--", *secret)
        if left_out := _output(*status, **index):
            named = ", ".join(line[3:] for line in left_out.splitlines())
            _log.warning("not kept in the run, for they may be secret: %s", named)
        return _output("git", "diff", "HEAD", "--", ":/", *taken, **index)


def _output(*command: str, **environment: str) -> str | None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=True,
            timeout=_TIMEOUT_S,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n")


def _processor() -> str:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M):
            return found[1]
    return platform.processor() or platform.machine()
