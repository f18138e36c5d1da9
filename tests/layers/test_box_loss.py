import pytest
import torch
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from lib.layers.box import decode_boxes, encode_boxes
from lib.layers.box_loss import BoxLoss, overlap_loss
from lib.layers.matcher import Matcher

from .test_multibox_loss import random_case

TORCHVISION = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}
KINDS = ["smooth_l1", *TORCHVISION]


def matched_case(kind, **more):
    """(loss, loc with a graph, boxes, priors, positive) of random predictions."""
    predictions, targets = random_case()
    boxes, labels, _ = Matcher()(targets, predictions.priors)
    return BoxLoss(kind, **more), predictions.loc, boxes, predictions.priors, labels > 0


def test_values_by_hand():
    """Two squares of 2 that share a corner of 1: IoU 1/7, hull of 9, centres sqrt(2), hull corners sqrt(18) apart."""
    boxes, others = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
    assert overlap_loss("giou", boxes, others).item() == pytest.approx(1 - 1 / 7 + 2 / 9)
    assert overlap_loss("diou", boxes, others).item() == pytest.approx(1 - 1 / 7 + 2 / 18)
    assert overlap_loss("ciou", boxes, others).item() == pytest.approx(1 - 1 / 7 + 2 / 18)


@pytest.mark.parametrize("kind", TORCHVISION)
def test_agrees_with_torchvision_in_pixels(kind):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 500, 2, generator=generator) * 200
    boxes = torch.cat([low, low + 5 + torch.rand(2, 500, 2, generator=generator) * 100], 2)
    ours, theirs = boxes.clone().requires_grad_(), boxes.clone().requires_grad_()
    loss, expected = overlap_loss(kind, ours[0], ours[1].detach()), TORCHVISION[kind](theirs[0], theirs[1].detach())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", TORCHVISION)
def test_the_size_of_the_objects_does_not_matter(kind):
    boxes, others = torch.tensor([[0.1, 0.1, 0.3, 0.2]]), torch.tensor([[0.15, 0.05, 0.4, 0.3]])
    tiny = overlap_loss(kind, boxes / 500, others / 500)
    torch.testing.assert_close(tiny, overlap_loss(kind, boxes, others), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_offsets_cost_nothing(kind):
    loss, _, boxes, priors, positive = matched_case(kind)
    right = encode_boxes(boxes, priors)
    assert loss(right, boxes, priors, positive).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", TORCHVISION)
def test_sums_the_overlaps_of_the_decoded_positives(kind):
    loss, loc, boxes, priors, positive = matched_case(kind)
    decoded = decode_boxes(loc, priors) * 1000
    expected = TORCHVISION[kind](decoded[positive], boxes[positive] * 1000, reduction="sum")
    assert loss(loc, boxes, priors, positive).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_weight_and_gradient(kind):
    loss, loc, boxes, priors, positive = matched_case(kind)
    double, *_ = matched_case(kind, weight=2.0)
    value = loss(loc, boxes, priors, positive)
    assert double(loc, boxes, priors, positive).item() == pytest.approx(2 * value.item())
    value.backward()
    assert torch.equal(loc.grad.abs().sum(2) > 0, positive)


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_for_gpus_gives_the_same(kind):
    loss, loc, boxes, priors, positive = matched_case(kind)
    boxes = torch.where(positive[..., None], boxes, 0)  # as in a batch without objects
    (expected,) = torch.autograd.grad(loss(loc, boxes, priors, positive), loc)
    dense = loss._dense(loc, boxes, priors, positive)
    (gradient,) = torch.autograd.grad(dense, loc)
    assert dense.item() == pytest.approx(loss(loc, boxes, priors, positive).item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("kind", TORCHVISION)
@pytest.mark.parametrize("size", [30.0, -30.0, 1e4, -1e6, 1e20])
def test_wild_offsets_stay_finite(kind, size):
    loss, loc, boxes, priors, positive = matched_case(kind)
    wild = (loc.detach() * size).requires_grad_()
    value = loss(wild, boxes, priors, positive)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(wild.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_positive(kind):
    loss, loc, boxes, priors, positive = matched_case(kind)
    value = loss(loc, boxes, priors, torch.zeros_like(positive))
    value.backward()
    assert value.item() == 0 and loc.grad.abs().sum() == 0
