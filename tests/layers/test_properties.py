"""What holds for any boxes, priors, objects and scores: overlap losses, coding, matching and NMS."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lib.layers.box import cxcywh_to_xyxy, decode_boxes, encode_boxes, pairwise_iou
from lib.layers.box_loss import overlap_loss
from lib.layers.matcher import Matcher
from lib.layers.postprocess import PostProcess
from lib.structures import Predictions, Target

FIXED = settings(max_examples=60, deadline=None, derandomize=True)

UNIT, SIDE = st.floats(0, 1), st.floats(0.02, 1)
BOX = st.tuples(UNIT, UNIT, SIDE, SIDE)
VARIANCES = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1))
PRIORS = torch.tensor([[x / 8 + 1 / 16, y / 8 + 1 / 16, s, s] for s in (0.1, 0.3) for y in range(8) for x in range(8)])


def corners(rows):
    return cxcywh_to_xyxy(torch.tensor(rows, dtype=torch.float64).reshape(-1, 4))


@FIXED
@given(st.lists(st.tuples(BOX, BOX), min_size=1, max_size=8))
def test_losses_of_overlap_are_bounded_symmetric_and_none_for_the_same_box(pairs):
    a, b = (corners([pair[side] for pair in pairs]) for side in (0, 1))
    iou = pairwise_iou(a, b).diagonal()
    losses = {kind: overlap_loss(kind, a, b) for kind in ("giou", "diou", "ciou")}
    assert (losses["giou"] <= 2).all() and (losses["diou"] <= 2).all() and (losses["ciou"] <= 3).all()
    assert (losses["giou"] >= 1 - iou - 1e-9).all() and (losses["diou"] >= 1 - iou - 1e-9).all()
    assert (losses["ciou"] >= losses["diou"] - 1e-9).all()
    for kind, loss in losses.items():
        assert torch.allclose(loss, overlap_loss(kind, b, a), atol=1e-9)
        assert overlap_loss(kind, a, a).abs().max() < 1e-9


@FIXED
@given(st.lists(BOX, min_size=1, max_size=8), BOX, VARIANCES)
def test_decoding_inverts_encoding_for_any_variance(rows, prior, variance):
    boxes, prior = corners(rows), torch.tensor(prior, dtype=torch.float64)
    assert torch.allclose(decode_boxes(encode_boxes(boxes, prior, variance), prior, variance), boxes, atol=1e-9)


@FIXED
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), BOX, VARIANCES)
def test_encoding_inverts_decoding_for_any_variance(loc, prior, variance):
    loc, prior = torch.tensor(loc, dtype=torch.float64), torch.tensor(prior, dtype=torch.float64)
    assert torch.allclose(encode_boxes(decode_boxes(loc, prior, variance), prior, variance), loc, atol=1e-6)


def scene(rows):
    boxes = cxcywh_to_xyxy(torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4))
    crowd = torch.tensor([row[4] for row in rows], dtype=torch.bool)
    return Target(boxes, torch.arange(1, len(rows) + 1), crowd=crowd)


OBJECTS = st.lists(st.tuples(UNIT, UNIT, SIDE, SIDE, st.booleans()), min_size=1, max_size=6)


@FIXED
@given(OBJECTS, st.floats(0.3, 0.7))
def test_every_object_that_overlaps_a_prior_has_one_and_crowds_have_none(rows, threshold):
    target = scene(rows)
    matches = Matcher(threshold)([target], PRIORS)
    labels, positive = matches.labels[0], matches.labels[0] > 0
    iou = pairwise_iou(target.boxes, cxcywh_to_xyxy(PRIORS))
    assert not set(labels.tolist()) & set(target.labels[target.crowd].tolist())
    assert not (positive & matches.ignored[0]).any()
    for number in (~target.crowd & (iou.amax(1) > 0)).nonzero()[:, 0].tolist():
        assert labels[iou[number].argmax()] > 0  # its own, unless a later object wants the same prior
    matched = iou[(labels - 1).clamp(min=0), torch.arange(len(PRIORS))]
    rivals = torch.where(target.crowd[:, None], 0.0, iou)
    forced = torch.zeros_like(positive).index_fill_(0, rivals.argmax(1), True)
    assert (matched[positive & ~forced] >= threshold).all()
    assert (rivals.amax(0)[~positive] < threshold).all()
    assert torch.equal(matches.boxes[0][positive], target.boxes[labels[positive] - 1])


@FIXED
@given(OBJECTS, st.randoms(use_true_random=False))
def test_the_order_of_the_objects_does_not_matter(rows, random):
    target, order = scene(rows), list(range(len(rows)))
    random.shuffle(order)
    iou = pairwise_iou(target.boxes, cxcywh_to_xyxy(PRIORS))[~target.crowd]
    best = iou.argmax(1)
    assume(len(set(best.tolist())) == len(best))  # of two that want one prior the later one wins
    two = iou.topk(min(2, len(iou)), 0).values
    assume(len(two) < 2 or not ((two[0] == two[1]) & (two[0] >= 0.5)).any())
    shuffled = Target(target.boxes[order], target.labels[order], crowd=target.crowd[order])
    one, other = (Matcher(0.5)([each], PRIORS) for each in (target, shuffled))
    assert torch.equal(one.labels, other.labels) and torch.equal(one.ignored, other.ignored)
    positive = one.labels > 0
    assert torch.equal(one.boxes[positive], other.boxes[positive])


SCORED = st.lists(
    st.tuples(BOX, st.integers(1, 3), st.integers(10, 999)), min_size=1, max_size=20, unique_by=lambda r: r[2]
)


def predicted(boxes, labels, scores):
    """Predictions whose boxes are the priors, each with one class that has its score."""
    conf = torch.full((len(labels), 4), 1e-12)
    conf[torch.arange(len(labels)), labels] = scores
    conf[:, 0] = 1 - scores
    return Predictions(torch.zeros(1, len(labels), 4), conf.log()[None], boxes, None)


@FIXED
@given(SCORED, st.sampled_from([0.3, 0.5, 0.7]), st.randoms(use_true_random=False))
def test_nms_leaves_a_sorted_set_without_rivals_whatever_the_order(rows, threshold, random):
    process = PostProcess(score_threshold=0.005, iou_threshold=threshold)

    def found(rows):
        boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32)
        labels, scores = (torch.tensor([row[i] for row in rows]) for i in (1, 2))
        return process(predicted(boxes, labels, scores / 1000))[0]

    kept = found(rows)
    assert (kept.scores.diff() <= 0).all() and len(kept)
    rival = pairwise_iou(kept.boxes, kept.boxes).fill_diagonal_(0) > threshold + 1e-5
    assert not (rival & (kept.labels[:, None] == kept.labels)).any()
    random.shuffle(rows)
    again = found(rows)
    for name in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(kept, name), getattr(again, name))
    sizes = kept.boxes[:, 2:] - kept.boxes[:, :2]
    twice = process(predicted(torch.cat([kept.boxes[:, :2] + sizes / 2, sizes], 1), kept.labels, kept.scores))[0]
    assert len(twice) == len(kept) and torch.allclose(twice.boxes, kept.boxes, atol=1e-6)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_box_of_certain_score_is_no_exception(score):
    kept = PostProcess(score_threshold=0.01)(predicted(torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([1]),
                                                       torch.tensor([score])))[0]  # fmt: skip
    assert len(kept) == score and math.isclose(float(kept.scores.sum()), score, abs_tol=1e-6)
