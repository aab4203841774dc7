"""Damage files by chance, and see that nothing is lost in silence.

    python -m tests.campaigns.fuzz --tries 200 --seed 0

Every try damages sound files: videos of many containers, a manifest, shards, the flow cache, the
state of a training, checkpoints, mlflow.db and an outbox. Real code then works on them in a process
of its own. A fault is a traceback, a crash, more than 60 s, more than one line of error, files or
threads left behind, and a result that is another in silence, but where SECURITY.md says that it
cannot be noticed. Try N of a seed is the same every time: `--seed S --only N`.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.campaigns.fuzz.damage import damage_file
from tests.campaigns.fuzz.sound import SUBJECTS, Subject
from tests.conftest import ROOT

MOST_S = 60.0
# A process that works on many databases keeps them all open.
TRIES_PER_WORKER = 50


class Worker:
    """A process that does what it is told, made anew when it has died or worked for long."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._num_done = 0

    def ask(self, call: str, folder: Path) -> dict[str, Any]:
        """The answer, see `tests.campaigns.fuzz.worker`; `died` or `hangs` where there is none."""
        if self._process is None or self._num_done == TRIES_PER_WORKER:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.campaigns.fuzz.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=ROOT,
            )
            self._num_done = 0
        self._num_done += 1
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({"call": call, "folder": str(folder)}), file=process.stdin, flush=True)
        if not select.select([process.stdout], [], [], MOST_S)[0]:
            self.close()
            return {"hangs": True}
        line = process.stdout.readline()
        if line:
            return dict(json.loads(line))
        code = process.wait()
        self.close()
        return {"died": code}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Campaign:
    """Sound files of every subject, what comes of them, and a place to damage copies of them."""

    def __init__(self, folder: Path, subjects: Sequence[Subject]) -> None:
        self.folder, self.subjects = folder, subjects
        self.worker = Worker(folder)
        self._wanted: dict[str, dict[str, Any]] = {}
        for subject in subjects:
            self._sound(subject).mkdir(parents=True)
            subject.make(self._sound(subject))

    def _sound(self, subject: Subject) -> Path:
        return self.folder / "sound" / subject.name

    def run(self, seed: int, number: int) -> tuple[str, str, list[str]]:
        """One try: what was done, what came of it in a word, and what is wrong."""
        chance = random.Random(f"{seed} {number}")
        (subject,) = chance.choices(self.subjects, [each.share for each in self.subjects])
        wanted = self._wanted.get(subject.name)
        if wanted is None:
            wanted = self._wanted[subject.name] = self._work(subject, number, None)[1]
            assert wanted.get("code") == 0, wanted
        done, answer = self._work(subject, number, chance)
        outcome, faults = judge(subject, done, answer, wanted)
        return f"try {number}: {subject.name}, {done}", outcome, faults

    def _work(
        self, subject: Subject, number: int, chance: random.Random | None
    ) -> tuple[str, dict[str, Any]]:
        """Let the worker have a copy, damaged if there is a chance."""
        work = self.folder / f"work {number}{'' if chance else ' sound'}"
        shutil.copytree(self._sound(subject), work)
        done = ""
        if chance is not None:
            files = sorted(path for path in work.rglob("*") if path.is_file())
            # Large files hold no more ways to go wrong than small ones.
            done = damage_file(chance.choice(files), chance, subject.aims)
        before = set(work.rglob("*"))
        answer = self.worker.ask(subject.call, work)
        answer["left"] = sorted(
            path.relative_to(work).as_posix() for path in set(work.rglob("*")) - before
        )
        shutil.rmtree(work)
        return done, answer

    def close(self) -> None:
        self.worker.close()


def judge(
    subject: Subject, done: str, answer: dict[str, Any], wanted: dict[str, Any]
) -> tuple[str, list[str]]:
    """What came of a try in a word, and what is wrong with it.

    Args:
        subject: what was damaged.
        done: how; the name of the file comes first.
        answer: of the worker.
        wanted: its answer where nothing is damaged.
    """
    if "hangs" in answer:
        return "fault", [f"no answer within {MOST_S:g} s"]
    if "died" in answer:
        return "fault", [f"the process died with {answer['died']}"]
    said, faults = answer["said"], []
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    if "Traceback" in said:
        faults.append(f"a traceback: {said[-1500:]}")
    elif answer["code"] and (lines != said.splitlines()[-1:] or not lines):
        faults.append(f"exit code {answer['code']} without one line of error: {said[-500:]!r}")
    # A refusal leaves nothing; work that was done leaves what it leaves of sound files.
    may_stay = set(wanted["left"]) if answer["code"] == 0 else {"shards", "outbox"}
    left = [n for n in answer["left"] if n not in may_stay and not _is_kept(n)]
    if left:
        faults.append(f"left behind: {', '.join(left)}")
    if answer["threads"]:
        faults.append(f"threads left: {answer['threads']}")
    if faults:
        return "fault", faults
    if answer["code"]:
        return "refused", []
    if answer["outcome"] == wanted["outcome"]:
        return ("warned, and the same" if warnings else "the same"), []
    if warnings:
        return "warned", []
    return _silent(subject, done.partition(":")[0], answer["outcome"], wanted["outcome"])


def _is_kept(name: str) -> bool:
    """Whether a file is one of those that stay for the next time, whatever comes of this one."""
    return name.startswith(("scratch/", "outbox/", "mlruns", "mlflow.db")) or name.endswith(".lock")


def _silent(
    subject: Subject, file: str, found: dict[str, Any], wanted: dict[str, Any]
) -> tuple[str, list[str]]:
    """Judge a result that is another, of which nothing was said."""
    differs = [name for name in wanted if found[name] != wanted[name]]
    if subject.call != "video":
        if file in subject.unchecked:
            return "believed", []
        return "fault", [f"another result in silence: {', '.join(differs)}"]
    if "frames" not in differs:
        return f"other {' and '.join(differs)}", []
    if subject.loses_frames:
        return "believed", []
    return "fault", [f"{found['frames']} of {wanted['frames']} frames in silence"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one try, by its number")
    args = parser.parse_args(arguments)
    numbers = range(args.tries) if args.only is None else [args.only]
    began, outcomes = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        campaign = Campaign(Path(folder), SUBJECTS)
        try:
            for number in numbers:
                plan, outcome, faults = campaign.run(args.seed, number)
                outcomes[outcome] += 1
                print(f"{plan}: {outcome}", flush=True)
                for fault in faults:
                    print(f"  {fault}\n  again: --seed {args.seed} --only {number}", flush=True)
        finally:
            campaign.close()
    seconds = time.monotonic() - began
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))
    print(f"{len(numbers)} tries, {outcomes['fault']} with faults, {seconds:.0f} s")
    return outcomes["fault"] > 0


if __name__ == "__main__":
    sys.exit(main())
