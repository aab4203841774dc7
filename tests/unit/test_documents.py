"""Every command of README and docs is run by a test, or it is said here why not."""

# ruff: noqa: E501  # a table
from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from deepstab.config import flatten, load_params
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What commands look like -> the test that runs them.
RUN_BY = {
    r"^pip install \.": "e2e/test_install.py::test_it_is_light",
    r"deepstab (stabilize shaky|score)": "e2e/test_install.py::test_a_video_is_stabilized_and_scored",
    r"deepstab stabilize (.*RESULTS|holiday steady)": "e2e/test_cli.py::test_a_folder_that_was_killed_comes_out_the_same",
    r"deepstab stabilize .*--plot": "e2e/test_cli.py::test_a_video_becomes_steadier_and_keeps_the_rest",
    r"deepstab app": "browser/test_app.py::test_before_and_after_play_together_with_scores_and_a_download",
    r"deepstab lineage": "pipeline/test_lineage.py::test_a_run_tells_its_whole_story",
    r"deepstab rerun": "pipeline/test_lineage.py::test_a_clean_run_comes_out_the_same",
    r"deepstab promote|models:/": "pipeline/test_lineage.py::test_the_champion_gives_way_to_the_better_alone",
    r"dvc (repro|exp run -S|exp show)": "pipeline/test_walkthrough.py::test_the_output_is_what_the_document_shows",
    r"dvc (remote|push|pull)|git (commit|clone)": "pipeline/test_dvc_pipeline.py::"
    "test_a_colleague_pulls_all_of_it_and_computes_nothing",
    r"dvc exp run --temp -C": "pipeline/test_dvc_pipeline.py::"
    "test_an_experiment_elsewhere_takes_videos_along_that_git_does_not_have",
    r"mlflow server|export MLFLOW_TRACKING_URI": "server/test_server.py::test_kills_lose_and_double_nothing",
    r"dask (scheduler|worker)|export DASK_SCHEDULER_ADDRESS": "cluster/test_cluster.py::test_shards_are_the_same",
    r"make bench-throughput": "benchmarks/test_throughput.py::test_stages_are_measured_on_videos",
    r"accelerate launch --num|torchrun --standalone|dvc commit": "unit/training/test_launch.py::test_a_launched_training_killed_goes_on_as_one_run",
    r"cp params\.deepstab\.yaml": "pipeline/test_dvc_pipeline.py::"
    "test_published_settings_without_credentials_fail_at_once_and_leave_nothing",
}
NOT_RUN = {
    r"--multi_gpu|--nnodes": "no GPU and no second machine is at hand; the page says so",
    r"^# ": "are remarks",
    r"pip install '\.\[": "would fetch what `make setup` has; the extra's page is tried in the browser",
    r"make test": "is what runs this",
    r"make repro": "is `make setup` and `dvc repro`, minutes long; reports/ is its outcome, and "
    "`make check` says where it is not of this code",
    r"make ui": "is `mlflow ui`; the page itself is looked at in browser/test_browser.py",
    r"source |cat ": "are the shell's",
}


def commands() -> list[str]:
    found = []
    for document in DOCUMENTS:
        # The walk-through is run line by line by a test of its own.
        if document.name != "experiments-walkthrough.md":
            blocks = re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL)
            lines = [
                line.split("  #")[0].strip() for block in blocks for line in block.splitlines()
            ]
            found += [line for line in lines if line]
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_a_command_is_run_or_it_is_said_why_not(command: str) -> None:
    assert any(re.search(pattern, command) for pattern in (*RUN_BY, *NOT_RUN))


@pytest.mark.parametrize("test", sorted(set(RUN_BY.values())))
def test_what_runs_them_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"def {name}" in (Path(ROOT) / "tests" / path).read_text()


def test_the_page_of_parameters_says_each_as_params_yaml_has_it() -> None:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/generated.py")
    assert spec is not None
    assert spec.loader is not None
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    rows = [line.split(" | ") for line in generated.parameters().splitlines()[6:]]
    found = {row[0].strip("| `"): row[2].strip("`") for row in rows}
    params = flatten(load_params(ROOT / "params.yaml"))
    assert found.keys() == params.keys()
    assert found["train.windows_per_video"] == str(params["train.windows_per_video"])
    assert [
        row for row in rows if "Ellipsis" in row[1] or "e+" in row[1] or "<" in row[1][:2]
    ] == []
