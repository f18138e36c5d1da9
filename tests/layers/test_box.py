import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.layers.box import (
    clip_boxes,
    cxcywh_to_xyxy,
    decode_boxes,
    encode_boxes,
    pairwise_iou,
    scale_to_pixels,
    xyxy_to_cxcywh,
)

unit = st.floats(0.0, 1.0)
side = st.floats(0.01, 1.0)
centre_boxes = st.lists(st.tuples(unit, unit, side, side), min_size=1, max_size=8)


def test_iou_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 4.0], [5.0, 5.0, 5.0, 5.0]])
    others = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [2.0, 0.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    expected = [[1 / 7, 1.0, 0.0, 0.0], [0.0, 2 / 6, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert torch.allclose(pairwise_iou(boxes, others), torch.tensor(expected))


def test_iou_broadcasts_over_a_batch():
    boxes, others = torch.rand(3, 5, 4).sort(-1)[0], torch.rand(7, 4).sort(-1)[0]
    together = pairwise_iou(boxes, others)
    assert together.shape == (3, 5, 7)
    assert all(torch.equal(together[i], pairwise_iou(boxes[i], others)) for i in range(3))


@settings(max_examples=60, deadline=None)
@given(centre_boxes, centre_boxes)
def test_iou_is_symmetric_bounded_and_one_with_itself(first, second):
    a, b = (cxcywh_to_xyxy(torch.tensor(rows, dtype=torch.float64)) for rows in (first, second))
    iou = pairwise_iou(a, b)
    assert (iou >= 0).all() and (iou <= 1 + 1e-12).all()
    assert torch.allclose(iou, pairwise_iou(b, a).T)
    assert torch.allclose(pairwise_iou(a, a).diagonal(), torch.ones(len(a), dtype=torch.float64))


def test_encoding_by_hand():
    prior = torch.tensor([0.5, 0.5, 0.2, 0.4])
    box = torch.tensor([0.4, 0.2, 0.8, 1.0])  # centre (0.6, 0.6), size (0.4, 0.8)
    expected = torch.tensor([0.1 / 0.2 / 0.1, 0.1 / 0.4 / 0.1, math.log(2) / 0.2, math.log(2) / 0.2])
    assert torch.allclose(encode_boxes(box, prior, (0.1, 0.2)), expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(centre_boxes, st.tuples(unit, unit, side, side))
def test_decoding_inverts_encoding(rows, prior):
    boxes = cxcywh_to_xyxy(torch.tensor(rows, dtype=torch.float64))
    prior = torch.tensor(prior, dtype=torch.float64)
    assert torch.allclose(decode_boxes(encode_boxes(boxes, prior), prior), boxes, atol=1e-9)
    assert torch.allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, atol=1e-12)


def test_pixels_of_a_wide_image_and_clipping():
    boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0], [-0.5, 0.0, 2.0, 0.5]])
    pixels = scale_to_pixels(boxes, (100, 400))
    assert pixels.tolist() == [[100, 50, 200, 100], [-200, 0, 800, 50]]
    assert clip_boxes(pixels, 100, 400).tolist() == [[100, 50, 200, 100], [0, 0, 400, 50]]
    assert clip_boxes(torch.tensor([-1.0, 0.2, 0.5, 3.0])).tolist() == pytest.approx([0.0, 0.2, 0.5, 1.0])
