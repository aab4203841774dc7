"""The summary has every measure with its name, and says of generated data that they are."""

from __future__ import annotations

import math

from deepstab.data.manifest import Manifest
from deepstab.evaluation.results import ROWS, mean_measures
from deepstab.evaluation.tables import GENERATED, MEASURES, read_history, summary
from tests.unit.evaluation.test_results import video


def test_one_line_per_measure_and_one_column_per_row() -> None:
    means = mean_measures([video("a", input=4.0, stabilized=0.125)])
    lines = summary(means, Manifest("folder", "folder", (), ())).splitlines()
    assert lines[0].split()[-len(ROWS) :] == list(ROWS)
    for name in means:
        (line,) = (line for line in lines if line.startswith(f"{MEASURES[name].title}  "))
        assert len(line) == len(lines[0])
    (jitter,) = (line for line in lines if line.startswith("residual jitter"))
    assert jitter.split()[-len(ROWS) :] == ["4", "1", "1", "0.125"]


def test_generated_data_are_said_so_first() -> None:
    means = mean_measures([video("a")])
    assert summary(means, Manifest("auto", "flights", (), ())).startswith(GENERATED)
    assert GENERATED not in summary(means, Manifest("auto", "kaggle", (), ()))


def test_history_is_numbers_by_name_and_nothing_is_nan() -> None:
    start, first = read_history("epoch,psnr,gan\n0,30.5,\n1,31,0.25\n")
    assert (start["epoch"], start["psnr"]) == (0.0, 30.5)
    assert math.isnan(start["gan"])
    assert first == {"epoch": 1.0, "psnr": 31.0, "gan": 0.25}
