"""Cells against values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from deepstab.models.cells import CELL_PX, NUM_FEATURES, describe_cells

ASPECT = torch.tensor([16 / 9])
ROOT = 4 / 3  # of that aspect


def test_displacement_is_the_mean_flow_of_a_cell_in_isotropic_units() -> None:
    flow = torch.zeros(1, 2, 2, 16, 32)
    # One cell, the second of the first row: half of its pixels move by 4 px in x, all by 1 in y.
    flow[0, 0, 1, :2, 4:8] = 4
    flow[0, 1, 1, :4, 4:8] = 1
    cells = describe_cells(torch.rand(1, 3, 2, 16, 32), flow, ASPECT)
    expected = torch.zeros(1, 2, 4 * 8, 2)
    # 2 px of a width of 32 and 1 px of a height of 16 are both 1/8 of the normalized half size.
    expected[0, 1, 1] = torch.tensor([ROOT / 8, 1 / ROOT / 8])
    torch.testing.assert_close(cells.displacement, expected)


def test_points_are_the_centers_row_by_row() -> None:
    cells = describe_cells(torch.rand(1, 3, 2, 8, 12), torch.zeros(1, 2, 2, 8, 12), ASPECT)
    assert (CELL_PX, cells.rows) == (4, 2)
    xs, ys = (-2 / 3 * ROOT, 0.0, 2 / 3 * ROOT), (-0.5 / ROOT, 0.5 / ROOT)
    expected = torch.tensor([[[[x, y] for y in ys for x in xs]]])
    torch.testing.assert_close(cells.points, expected)
    # The maps are laid out alike: place is the last three features.
    place = cells.features[:, -3:, 0].flatten(2).transpose(1, 2)[:, None]
    torch.testing.assert_close(place[..., :2], expected)
    torch.testing.assert_close(place[..., 2], expected.square().sum(dim=-1))
    numbers = torch.arange(6.0).expand(1, 2, 6)
    assert cells.as_maps(numbers)[0, 1].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_evidence_is_where_something_can_be_seen_that_the_flow_explains() -> None:
    still = torch.rand(1, 3, 1, 32, 32).expand(-1, -1, 3, -1, -1).clone()
    still[..., :16] = 0.5  # the left half is flat,
    still[:, :, 2, 16:, 16:] = torch.rand(1, 3, 16, 16)  # lower right another picture comes in
    cells = describe_cells(still, torch.zeros(1, 2, 3, 32, 32), torch.ones(1))
    evidence = cells.as_maps(cells.evidence)[0]
    assert evidence[:, :, :3].max() == pytest.approx(2e-3)
    assert evidence[1, 1:-1, 5:-1].min() > 0.8
    assert evidence[2, 5:-1, 5:-1].max() < 0.1
    torch.testing.assert_close(cells.features[0, 0], evidence.log() / 3)


def test_spread_within_a_cell_and_luma_by_hand() -> None:
    flow = torch.zeros(1, 2, 2, 8, 8)
    flow[0, 0, :, ::2] = 2.0  # rows in turn: deviation 1 px, or 1/4 isotropic unit
    rgb = torch.full((1, 3, 2, 8, 8), 0.75)
    cells = describe_cells(rgb, flow, torch.ones(1))
    assert cells.features.shape == (1, NUM_FEATURES, 2, 2, 2)
    spread, luma = cells.features[0, 3], cells.features[0, 4]
    torch.testing.assert_close(spread, torch.full((2, 2, 2), math.log(0.2501) / 3 + 2))
    torch.testing.assert_close(luma, torch.full((2, 2, 2), 0.5))
