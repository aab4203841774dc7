"""Quadratic fields found in cells that bend as told."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from deepstab.models.cells import Cells
from deepstab.models.wobble import NUM_TERMS, field_terms, fit_wobble
from tests.unit.models.scenes import cells_of

MOTION = torch.tensor([[[0.0, 0, 0, 0], [0.05, -0.02, 0.03, 0.01]]], dtype=torch.float64)
# (1, x, y, x^2, xy, y^2) by coordinate, asymmetric; up to about .01, 3 px at width 640.
FIELD = torch.tensor(
    [[0.001, -0.002], [0.004, 0.001], [-0.003, 0.002], [0.002, 0], [-0.001, 0.003], [0, -0.002]],
    dtype=torch.float64,
)


def bent(cells: Cells, field: Tensor) -> Cells:
    points = cells.points[0, 0].numpy()
    x, y = points[:, 0], points[:, 1]
    written_out = np.stack([1 + 0 * x, x, y, x**2, x * y, y**2], axis=1) @ field.numpy()
    return dataclasses.replace(
        cells, displacement=cells.displacement + torch.from_numpy(written_out)
    )


def test_terms_by_hand() -> None:
    assert field_terms(torch.tensor([2.0, -3.0])).tolist() == [1, 2, -3, 4, -6, 9]


def test_a_quadratic_field_is_recovered() -> None:
    found = fit_wobble(bent(cells_of(MOTION), FIELD), MOTION)
    assert found.shape == (1, 2, NUM_TERMS, 2)
    # The ridge takes up to a tenth of a term, but of the field less than a hundredth.
    torch.testing.assert_close(found, FIELD.expand_as(found), atol=3e-4, rtol=0)
    missed = (field_terms(cells_of(MOTION).points) @ (found - FIELD)).norm(dim=-1)
    assert missed.max() < 0.03 * (field_terms(cells_of(MOTION).points) @ FIELD).norm(dim=-1).max()


def test_an_object_does_not_bend_it() -> None:
    cells = bent(cells_of(MOTION), FIELD)
    displacement = cells.displacement.clone()
    displacement[:, :, :48] += torch.tensor([0.2, -0.1], dtype=torch.float64)
    found = fit_wobble(dataclasses.replace(cells, displacement=displacement), MOTION)
    torch.testing.assert_close(found, FIELD.expand_as(found), atol=6e-4, rtol=0)


def test_there_is_none_where_the_similarity_explains_all() -> None:
    found = fit_wobble(cells_of(MOTION), MOTION)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-12, rtol=0)


def test_without_evidence_it_does_not_bend() -> None:
    cells = cells_of(MOTION)
    # Every cell goes somewhere else, as far as half the frame: nothing to be explained.
    displacement = cells.displacement + 0.3 * torch.randn_like(cells.displacement)
    found = fit_wobble(dataclasses.replace(cells, displacement=displacement), MOTION)
    assert found[:, :, 1:].abs().max() < 2e-3
    assert torch.isfinite(found).all()


def test_one_corner_alone_bends_little() -> None:
    cells = bent(cells_of(MOTION), 3 * FIELD)
    evidence = torch.full_like(cells.evidence, 1e-9)
    evidence.unflatten(-1, (16, 16))[..., :4, :4] = 0.5
    found = fit_wobble(dataclasses.replace(cells, evidence=evidence), MOTION)
    # From there the ridge does not continue a steep field over the whole frame.
    whole = field_terms(cells.points) @ found
    steep = field_terms(cells.points) @ (3 * FIELD)
    assert whole.norm(dim=-1).max() < steep.norm(dim=-1).max()
