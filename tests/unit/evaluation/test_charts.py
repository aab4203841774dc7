from __future__ import annotations

import pytest

from deepstab.evaluation.charts import HEIGHT, WIDTH, line_chart


@pytest.mark.parametrize(
    "values", [[3.0], [2.0, 2.0], [0.0, 0.0], [-1e-9, 1e-9], [32.0026, 32.0895], [-5e4, 1e6]]
)
def test_every_point_lies_between_ticks_inside_the_picture(values: list[float]) -> None:
    chart = line_chart("signal", {"line": values}, first_x=1, x_title="epoch")
    ys = [tick.position for tick in chart.y_ticks]
    assert 2 <= len(ys) <= 6
    assert len({tick.label for tick in chart.y_ticks}) == len(ys)
    for x, y in chart.lines[0].markers:
        assert 0 < x < WIDTH
        assert min(ys) <= y <= max(ys)
    assert 0 < min(ys) < max(ys) < HEIGHT


def test_larger_values_lie_higher_and_later_ones_to_the_right() -> None:
    chart = line_chart("signal", {"a": [1.0, 3.0], "b": [2.0, 2.0]}, first_x=7, x_title="frame")
    (first, last), (other, _) = (line.markers for line in chart.lines)
    assert first[0] < last[0]
    assert first[1] > other[1] > last[1]
    assert [tick.label for tick in chart.x_ticks] == ["7", "8"]
    assert "a from 1 to 3" in chart.description
