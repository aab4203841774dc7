"""Kill the pipeline anywhere, run it again, and compare with one that was left alone.

    python -m tests.campaigns.chaos --tries 100 --seed 0

Every try starts where the stages before are done, kills a real `dvc repro` of one stage once or
twice, by chance in time or at a write (the n-th rename, removal or flush to disk of a process), and
then repeats it as a user would. Try N of a seed is the same every time: `--only N`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deepstab.models import checkpoints
from tests.checkout import STAGES, Checkout
from tests.conftest import ROOT, TINY, with_values

SMALLER = {"train.windows_per_video": 1, "data.flights.num_frames": 32, "evaluate.window_stride": 6}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Training and what follows it have the most to lose.
KILLED = ("download", "flow", "train", "train", "train", "evaluate", "evaluate", "report")
MOST_S = 300.0

# Loaded by every Python process of a try; only those that run a stage count and die.
HOOK = """
import os, sys
_left = int(os.environ.get("CHAOS_WRITES", "0"))
_number = int(os.environ.get("CHAOS_SIGNAL", "9"))
def _counted(function):
    def call(*arguments, **options):
        global _left
        if "stages/" in getattr(sys, "argv", [""])[0]:
            _left -= 1
            if _left == 0:
                os.kill(os.getpid(), _number)
        return function(*arguments, **options)
    return call
if _left:
    for _name in ("replace", "rename", "unlink", "fsync", "rmdir", "mkdir"):
        setattr(os, _name, _counted(getattr(os, _name)))
"""


@dataclass(frozen=True)
class Try:
    """What one try does, decided by its number."""

    number: int
    stage: str
    kills: tuple[tuple[str, float, int], ...]
    to_the_end: bool

    @classmethod
    def of(cls, seed: int, number: int) -> Try:
        chance = random.Random(f"{seed} {number}")
        kills = tuple(
            (
                chance.choice(["group", "stage", "write", "write"]),
                chance.random(),
                chance.choice(SIGNALS).value,
            )
            for _ in range(chance.choice([1, 1, 2]))
        )
        return cls(number, chance.choice(KILLED), kills, chance.random() < 0.25)

    def __str__(self) -> str:
        kills = ", ".join(f"{signal.Signals(n).name} to {v} at {at:.2f}" for v, at, n in self.kills)
        return f"try {self.number}: {self.stage}, {kills}{', to the end' * self.to_the_end}"


class Campaign:
    """The undisturbed pipeline, and the place where it is disturbed."""

    def __init__(self, folder: Path) -> None:
        tree = yaml.safe_load((ROOT / "params.yaml").read_text())
        self.folder, self.work = folder, folder / "work"
        hook = folder / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK)
        checkout = Checkout(self.work, with_values(tree, {**TINY, **SMALLER}))
        self.environment = checkout.environment
        self.environment["PYTHONPATH"] = f"{hook}:{self.environment['PYTHONPATH']}"
        self.environment["TMPDIR"] = str(folder / "tmp")
        self.seconds: dict[str, float] = {}
        for stage in STAGES:
            self._keep(f"before {stage}")
            began = time.monotonic()
            code, said = self.repro(stage)
            assert code == 0, said
            self.seconds[stage] = time.monotonic() - began
        self._keep("after report")
        self.wanted = {
            stage: self.state(folder / f"before {after}" if after else folder / "after report")
            for stage, after in zip(STAGES, [*STAGES[1:], ""], strict=True)
        }

    def _keep(self, name: str) -> None:
        shutil.copytree(self.work, self.folder / name, symlinks=True)

    def repro(self, *stages: str, kill: tuple[str, float, int] | None = None) -> tuple[int, str]:
        """Run `dvc repro`, and kill it if told to; its exit code and what it said."""
        temporary = Path(self.environment["TMPDIR"])
        temporary.mkdir(exist_ok=True)
        environment = dict(self.environment)
        victim, at, number = kill or ("", 0.0, 0)
        if victim == "write":
            # Few writes end a stage's output, many are of its middle: near and far alike.
            environment |= {"CHAOS_WRITES": str(int(400**at)), "CHAOS_SIGNAL": str(number)}
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                ["dvc", "repro", *stages],
                cwd=self.work,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            if victim in ("group", "stage"):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(at * 1.1 * self.seconds[stages[0]])
                for pid in members(process.pid, only_stage=victim == "stage"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            code = process.wait(MOST_S)
            give_up = time.monotonic() + 60
            while members(process.pid) and time.monotonic() < give_up:
                time.sleep(0.05)
            for pid in members(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def run(self, plan: Try) -> list[str]:
        """One try; what is wrong."""
        shutil.rmtree(self.work)
        shutil.copytree(self.folder / f"before {plan.stage}", self.work, symlinks=True)
        faults = []
        for kill in plan.kills:
            _, said = self.repro(plan.stage, kill=kill)
            # Python itself, interrupted before it has imported a line of ours, says so at length.
            is_ours = "/src/deepstab/" in said
            if "Traceback" in said and is_ours and kill[2] != signal.SIGKILL:
                faults.append(f"a traceback when killed: {said[-1500:]}")
        stage = "report" if plan.to_the_end else plan.stage
        code, said = self.repro(stage)
        if code:
            return [*faults, f"dvc repro {stage} fails afterwards: {said[-1500:]}"]
        found, wanted = self.state(self.work), self.wanted[stage]
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                was, is_ = (lines_of(side.get(name)) for side in (wanted, found))
                faults.append(f"{name}: has {sorted(is_ - was)}, has not {sorted(was - is_)}")
        return faults

    def state(self, root: Path) -> dict[str, Any]:
        """All that two runs of the pipeline have in common, and what should not be there."""
        found: dict[str, Any] = {}
        for folder in ("data/raw", "data/shards"):
            files = sorted(p for p in (root / folder).rglob("*") if p.is_file())
            for path in files:
                found[path.relative_to(root).as_posix()] = digest(path.read_bytes())
        for path in sorted((root / "checkpoints").glob("*.pth")):
            found[path.name] = checkpoints.load(path).weights_sha256()
        runs = self._runs(root)
        found["runs"] = sorted(run["status"] for run in runs.values())
        for path in sorted((root / "reports").rglob("*")):
            if path.suffix in (".csv", ".json", ".txt"):
                text = path.read_text()
                for run_id in runs:
                    text = text.replace(run_id, "RUN")
                found[path.relative_to(root).as_posix()] = digest(text.encode())
        found["metrics"] = [run["points"] for run in runs.values()]
        found["artifacts"] = [run["artifacts"] for run in runs.values()]
        found["left over"] = sorted(left_over(root, Path(self.environment["TMPDIR"])))
        return found

    def _runs(self, root: Path) -> dict[str, dict[str, Any]]:
        if not (root / "mlflow.db").exists():
            return {}
        checkout = object.__new__(Checkout)
        checkout.root = root
        runs: dict[str, dict[str, Any]] = {}
        for run_id, status in checkout.query("SELECT run_uuid, status FROM runs"):
            points = Counter(
                checkout.query(f"SELECT key, step FROM metrics WHERE run_uuid = '{run_id}'")
            )
            kept = {
                f"{key} {step}": count
                for (key, step), count in points.items()
                if not key.startswith(("system/", "duration_s/"))
            }
            folder = next((root / "mlruns").glob(f"*/{run_id}/artifacts"), None)
            files = sorted(folder.rglob("*")) if folder else []
            artifacts = [p.relative_to(folder).as_posix() for p in files if p.is_file()]
            runs[run_id] = {"status": status, "points": kept, "artifacts": artifacts}
        return runs


def lines_of(state: Any) -> set[str]:
    """What a part of a state consists of, so that two can be compared."""
    if isinstance(state, dict):
        return {f"{key} {value}" for key, value in state.items()}
    if isinstance(state, list):
        return {f"{number}: {line}" for number, one in enumerate(state) for line in lines_of(one)}
    return {str(state)}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def members(session: int, *, only_stage: bool = False) -> list[int]:
    """The processes of a session, or those of it that run a stage."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
                is_wanted = b"stages/" in command or not only_stage
                if int(stat[3]) == session and stat[0] != "Z" and is_wanted:
                    found.append(int(entry.name))
    return found


def left_over(root: Path, temporary: Path) -> Iterator[str]:
    """Files that nobody waits for."""
    for pattern in ("*.partial*", "*.part", ".deepstab-*", "*.tmp", "mlflow.db.new*"):
        for folder in (root, root / "data", root / "reports", root / "checkpoints"):
            yield from (path.relative_to(root).as_posix() for path in folder.glob(pattern))
    for pattern in (".scratch/outbox/*", ".scratch/train/*", ".scratch/train/*/.deepstab-*"):
        yield from (path.relative_to(root).as_posix() for path in root.glob(pattern))
    if temporary.is_dir():
        yield from (str(path) for path in temporary.iterdir() if "deepstab" in path.name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one try, by its number")
    args = parser.parse_args(arguments)
    numbers = range(args.tries) if args.only is None else [args.only]
    began, num_faulty = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        campaign = Campaign(Path(folder))
        for number in numbers:
            plan = Try.of(args.seed, number)
            faults = campaign.run(plan)
            num_faulty += bool(faults)
            print(plan, "ok" if not faults else "FAULT", flush=True)
            for fault in faults:
                print(f"  {fault}", flush=True)
    seconds = time.monotonic() - began
    print(f"{len(numbers)} tries, {num_faulty} with faults, {seconds:.0f} s")
    return num_faulty > 0


if __name__ == "__main__":
    sys.exit(main())
