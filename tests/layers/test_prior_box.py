"""Priors against figures worked out by hand and the counts and sums of the reference family's geometries."""

import math

import pytest
import torch

from lib.layers.prior_box import build_priors, num_boxes_per_cell


def pairs(*values):
    return [[value, value] for value in values]


G38 = dict(
    steps=pairs(8, 16, 32, 64, 100, 300),
    sizes=pairs(30, 60, 111, 162, 213, 264, 315),
    aspect_ratios=[[1, 2, 3]] * 4 + [[1, 2]] * 2,
)
G19 = dict(
    steps=pairs(16, 32, 64, 100, 150, 300),
    sizes=pairs(45, 90, 135, 180, 225, 270, 315),
    aspect_ratios=[[1, 2, 3]] * 4 + [[1, 2]] * 2,
)
YOLO2 = dict(sizes=pairs(416), aspect_ratios=[[[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.5, 0.5], [0.9, 0.9]]])

# image side, maps, geometry, number of priors, sums of cx, w, h (float64 sums of the reference rule)
REFERENCE = [
    (300, (38, 19, 10, 5, 3, 1), G38, 11620, 5906.4000, 1843.6255, 1843.6255),
    (300, (19, 10, 5, 3, 2, 1), G19, 2990, 1533.6400, 695.3296, 695.3296),
    (300, (18, 9, 5, 3, 2, 1), G19, 2654, 1283.4000, 619.4040, 619.4040),
    (300, (37, 19, 10, 5, 3, 1), G38, 11170, 5568.8800, 1792.2885, 1792.2885),
    (416, (13,), YOLO2, 845, 422.5000, 338.0000, 338.0000),
]


@pytest.mark.parametrize("side, maps, geometry, count, cx, w, h", REFERENCE)
def test_reference_geometries(side, maps, geometry, count, cx, w, h):
    sizes = geometry["sizes"] + (pairs(side) if len(geometry["sizes"]) == len(maps) else [])
    priors = build_priors((side, side), [(m, m) for m in maps], **{**geometry, "sizes": sizes})
    sums = priors.double().sum(0).tolist()
    assert priors.shape == (count, 4) and priors.dtype == torch.float32
    assert sums == pytest.approx([cx, cx, w, h], abs=2e-3)


def test_order_within_a_cell_and_over_the_map():
    priors = build_priors((100, 200), [(1, 2)], [[1, 2]], pairs(20, 40), clip=False)
    small, between = 0.1, math.sqrt(0.1 * 0.2)  # the smaller of 20/100 and 20/200 counts
    cell = [[small, small], [between, between], [0.1 * 2**0.5, 0.1 / 2**0.5], [0.1 / 2**0.5, 0.1 * 2**0.5]]
    assert torch.allclose(priors[:, 2:], torch.tensor(cell + cell))
    assert torch.allclose(priors[:4, :2], torch.tensor([0.25, 0.5]))
    assert torch.allclose(priors[4:, :2], torch.tensor([0.75, 0.5]))


def test_steps_place_the_centres_and_clip_holds_them():
    free = build_priors((100, 100), [(2, 1)], [[1]], pairs(50, 100), steps=[[80, 60]], clip=False)
    assert torch.allclose(free[::2, :2], torch.tensor([[0.3, 0.4], [0.3, 1.2]]))
    assert build_priors((100, 100), [(2, 1)], [[1]], pairs(50, 100), steps=[[80, 60]])[2, 1] == 1.0


def test_fractions_spread_over_the_levels():
    priors = build_priors((64, 64), [(1, 1)] * 3, [[1]] * 3, [0.2, 0.8], clip=False)
    assert priors[:, 2].tolist() == pytest.approx([0.2, 0.1**0.5, 0.5, 0.4**0.5, 0.8, 0.8**0.5])


def test_boxes_per_cell():
    assert num_boxes_per_cell([1, 2, 3]) == 6
    assert num_boxes_per_cell([[0.1, 0.2]] * 5) == 5


def test_fractions_grow_with_the_cells_whatever_the_order_of_the_levels():
    """Detectors that go from coarse to fine maps get the same priors, level by level."""
    maps, ratios = [(8, 8), (4, 4), (2, 2)], [[1, 2], [1, 3], [1]]
    fine_first = build_priors((64, 64), maps, ratios, [0.2, 0.8]).split([8 * 8 * 4, 4 * 4 * 4, 2 * 2 * 2])
    coarse_first = build_priors((64, 64), maps[::-1], ratios[::-1], [0.2, 0.8])
    assert torch.equal(coarse_first, torch.cat(fine_first[::-1]))
    assert fine_first[0][0, 2] == pytest.approx(0.2) and fine_first[2][1, 2] == pytest.approx(0.8**0.5)
