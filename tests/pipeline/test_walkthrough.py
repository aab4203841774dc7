"""docs/experiments-walkthrough.md, pasted into a fresh clone line by line."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import Checkout
from tests.conftest import ROOT

DOCUMENT = ROOT / "docs/experiments-walkthrough.md"
QUEUED = {  # and what differs from the baseline
    "lr-low": "train.lr_g=0.0002",
    "sigma-12": "model.smoothing_sigma=12.0",
    "both": "model.smoothing_sigma=12.0, train.lr_g=0.005",
}
pytestmark = [
    pytest.mark.timeout(1800),  # five runs of the pipeline
    pytest.mark.skipif("WALKTHROUGH" not in os.environ, reason="minutes long: make walkthrough"),
]
NUM_EPOCHS, STEPS_PER_EPOCH = 3, 2

# The checkout afterwards, and of every command the output the document shows and its own.
Walk = tuple[Checkout, list[tuple[str, str, str]]]


def commands(document: str) -> list[tuple[str, str]]:
    """Every command of the console blocks, with the output that follows it."""
    blocks = re.findall(r"^```console\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)
    return [
        (command, shown)
        for block in blocks
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def lines(output: str) -> Counter[str]:
    """The lines of an output without what differs from run to run: figures, ids, order."""
    for pattern, replacement in (
        (r"file://\S*/", "file:///"),
        (r"\b[0-9a-f]{7,}\b", "#"),
        (r"[-+]?\d[\d.:-]*(e[-+]\d+)?( [AP]M\b)?", "#"),
        (r"─+", "─"),
        (r"[├└]", "└"),
        (r"[ \t]+", " "),
    ):
        output = re.sub(pattern, replacement, output)
    return Counter(line.strip() for line in output.splitlines() if line.strip())


def difference(shown: str, output: str) -> Counter[str]:
    """Lines that only one has. Where the document has `...`, there may be any others."""
    expected, found = lines(shown), lines(output)
    if expected.pop("...", 0):
        return expected - found
    return (expected - found) + (found - expected)


def test_lines_are_compared_by_what_they_say() -> None:
    assert not difference("├── 64c76f5 [a]  0.76\n", "└── bdf68b3 [a]   1.5e-05\n")
    assert not difference("...\nRan experiment(s): a\n", "epoch 1\nRan experiment(s): a\n")
    assert difference("params.yaml  train.lr_g  0.1  0.2\n", "params.yaml  seed  1  2\n")
    assert difference("", "Traceback\n")
    assert difference("...\nRan experiment(s): a\n", "failed\n")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, tiny_tree: dict[str, Any]) -> Walk:
    checkout = Checkout(tmp_path_factory.mktemp("project") / "clone", tiny_tree)
    for role in ("AUTHOR", "COMMITTER"):
        checkout.environment |= {f"GIT_{role}_NAME": "t", f"GIT_{role}_EMAIL": "t@example.org"}
    output = tmp_path_factory.mktemp("output") / "output"
    try:
        done = [
            (command, shown, paste(checkout, command, output))
            for command, shown in commands(DOCUMENT.read_text())
        ]
    finally:
        checkout.run("dvc", "queue", "stop", "--kill")
    return checkout, done


def paste(checkout: Checkout, command: str, file: Path) -> str:
    """The command's output; not through a pipe, which the queue's workers would hold open."""
    with file.open("wb") as output:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=checkout.root,
            env=checkout.environment,
            stdout=output,
            stderr=output,
            check=False,
        )
    assert done.returncode == 0, f"$ {command}\n{file.read_text()}"
    return file.read_text()


def test_the_output_is_what_the_document_shows(walk: Walk) -> None:
    _, done = walk
    assert len(done) > 20
    wrong = [
        f"$ {command}\n{output}\ndifferent: {list(different)}"
        for command, shown, output in done
        if (different := difference(shown, output))
    ]
    assert not wrong, "\n\n".join(wrong)


def test_queued_experiments_are_complete_and_distinct_runs(walk: Walk) -> None:
    checkout, _ = walk
    assert checkout.query("PRAGMA integrity_check") == [("ok",)]
    runs = checkout.query("SELECT name, run_uuid, status FROM runs")
    assert len(runs) == 5
    assert {status for _, _, status in runs} == {"FINISHED"}
    run_ids = {name: run_id for name, run_id, _ in runs}
    assert {"lr-high", *QUEUED} < set(run_ids)
    all_params = {}
    for name, run_id in run_ids.items():
        where = f"WHERE run_uuid = '{run_id}'"
        all_params[name] = dict(checkout.query(f"SELECT key, value FROM params {where}"))
        tags = dict(checkout.query(f"SELECT key, value FROM tags {where}"))
        if name in QUEUED:
            assert tags["params.changed"] == QUEUED[name]
            assert tags["dvc.experiment"] == name
        steps = f"SELECT step FROM metrics {where} AND key = 'step/total' ORDER BY step"
        assert checkout.query(steps) == [(s,) for s in range(NUM_EPOCHS * STEPS_PER_EPOCH)]
        epochs = f"SELECT step FROM metrics {where} AND key = 'psnr' ORDER BY step"
        assert checkout.query(epochs) == [(STEPS_PER_EPOCH * (n + 1),) for n in range(NUM_EPOCHS)]
        measured = f"SELECT COUNT(*) FROM metrics {where} AND key = 'test/stabilized/psnr'"
        assert checkout.query(measured) == [(1,)]
        artifacts = checkout.root / "mlruns" / "1" / run_id / "artifacts"
        for path in ("checkpoints/best_stab_gan.pth", "plots/side_by_side.png"):
            assert (artifacts / path).stat().st_size > 0
        assert f'"run_id": "{run_id}"' in (artifacts / "reports/metrics.json").read_text()
    for one, two in combinations(all_params.values(), 2):
        assert one != two
    assert not list((checkout.root / ".scratch" / "outbox").iterdir())


def test_two_experiments_ran_at_a_time(walk: Walk) -> None:
    checkout, _ = walk
    times = checkout.query("SELECT start_time, end_time FROM runs ORDER BY start_time")[2:]
    assert any(next_start < end for (_, end), (next_start, _) in pairwise(times))


def test_plots_have_every_experiment(walk: Walk, tmp_path: Path) -> None:
    checkout, done = walk
    assert [output for command, _, output in done if command.startswith("dvc plots diff")] == [
        f"file://{checkout.root}/dvc_plots/index.html\n"
    ]
    checkout.run("dvc", "plots", "diff", "HEAD", "sigma-12", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    for title in ("Validation PSNR, dB", "Smoothness loss"):
        assert title in page
    pictures = {path.name for path in (tmp_path / "plots" / "static").iterdir()}
    assert pictures == {f"{name}_reports_side_by_side.png" for name in ("HEAD", "sigma-12")}
