import pytest
import torch

from lib.layers.box import decode_boxes, pairwise_iou
from lib.layers.postprocess import PostProcess, class_scores
from lib.structures import Predictions


def predictions_of(boxes, scores):
    """Predictions whose decoded boxes are `boxes` (cxcywh [P, 4]) and whose softmax scores are `scores` [B, P, C]."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    loc = torch.zeros(*scores.shape[:2], 4)
    return Predictions(loc, scores.log(), torch.as_tensor(boxes, dtype=torch.float32), None)


def greedy(predictions, score_threshold, iou_threshold, max_detections, sigmoid=False):
    """The definition: per image and class, threshold, best candidates, greedy suppression."""
    found = []
    for loc, conf in zip(predictions.loc, predictions.conf, strict=True):
        boxes, scores = decode_boxes(loc, predictions.priors), conf.sigmoid() if sigmoid else conf.softmax(1)
        rows = []
        for label in range(1, conf.shape[1]):
            order = sorted(range(len(boxes)), key=lambda i: -scores[i, label].item())
            order = [i for i in order if scores[i, label] > score_threshold][:max_detections]
            kept = []
            for i in order:
                if all(pairwise_iou(boxes[i : i + 1], boxes[j : j + 1]).item() <= iou_threshold for j in kept):
                    kept.append(i)
            rows += [(label, round(scores[i, label].item(), 5), [round(v, 4) for v in boxes[i].tolist()]) for i in kept]
        found.append(sorted(rows))
    return found


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_definition(seed, sigmoid):
    generator = torch.Generator().manual_seed(seed)
    priors = torch.cat([torch.rand(60, 2, generator=generator), torch.rand(60, 2, generator=generator) * 0.4 + 0.1], 1)
    loc = torch.randn(3, 60, 4, generator=generator)
    conf = torch.randn(3, 60, 4, generator=generator)
    predictions = Predictions(loc, conf, priors, None)
    found = PostProcess(score_threshold=0.2, iou_threshold=0.4, max_detections=10, sigmoid=sigmoid)(predictions)
    expected = greedy(predictions, 0.2, 0.4, 10, sigmoid)
    for got, want in zip(found, expected, strict=True):
        rows = [
            (label, round(score, 5), [round(v, 4) for v in box])
            for label, score, box in zip(got.labels.tolist(), got.scores.tolist(), got.boxes.tolist(), strict=True)
        ]
        assert [row[:2] for row in sorted(rows)] == [row[:2] for row in want]
        boxes, wanted = (torch.tensor([row[2] for row in r]) for r in (sorted(rows), want))
        assert torch.allclose(boxes, wanted, atol=2e-4)
        assert got.scores.tolist() == sorted(got.scores.tolist(), reverse=True)


BOXES = [[0.3, 0.3, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]


def test_classes_do_not_suppress_each_other():
    predictions = predictions_of(BOXES, [[[0.05, 0.9, 0.05], [0.1, 0.1, 0.8], [0.98, 0.01, 0.01]]])
    (found,) = PostProcess(score_threshold=0.5)(predictions)
    assert found.labels.tolist() == [1, 2]


def test_sigmoid_scores_do_not_compete_and_ignore_the_background():
    conf = torch.tensor([[[50.0, 3.0, 2.0], [-50.0, -8.0, -8.0], [0.0, -8.0, 1.0]]])
    predictions = Predictions(torch.zeros(1, 3, 4), conf, torch.tensor(BOXES), None)
    (found,) = PostProcess(score_threshold=0.5, sigmoid=True)(predictions)
    assert found.labels.tolist() == [1, 2, 2]
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0, 1.0]).sigmoid().tolist())
    torch.testing.assert_close(class_scores(conf, sigmoid=True), conf[..., 1:].sigmoid())


def test_images_do_not_suppress_each_other():
    scores = [[0.1, 0.9], [0.9, 0.1], [0.9, 0.1]]
    found = PostProcess(score_threshold=0.5)(predictions_of(BOXES, [scores, scores]))
    assert [len(d) for d in found] == [1, 1]
    assert torch.equal(found[0].boxes, found[1].boxes)


def test_the_threshold_itself_is_out():
    predictions = predictions_of(BOXES, [[[0.5, 0.5], [0.4, 0.6], [0.9, 0.1]]])
    (found,) = PostProcess(score_threshold=0.5, iou_threshold=1.0)(predictions)
    assert found.scores.tolist() == pytest.approx([0.6])


def test_pixels_of_each_image_and_clipping():
    scores = [[0.1, 0.9], [0.9, 0.1], [0.9, 0.1]]
    boxes = [[0.1, 0.5, 0.4, 0.5], *BOXES[1:]]
    predictions = predictions_of(boxes, [scores, scores])
    sizes = torch.tensor([[100, 200], [1000, 10]])  # height, width
    found = PostProcess(score_threshold=0.5)(predictions, sizes)
    assert found[0].boxes.tolist()[0] == pytest.approx([-20, 25, 60, 75])
    assert found[1].boxes.tolist()[0] == pytest.approx([-1, 250, 3, 750])
    clipped = PostProcess(score_threshold=0.5, clip=True)(predictions, sizes)
    assert clipped[0].boxes.tolist()[0] == pytest.approx([0, 25, 60, 75])


def test_nothing_found_and_a_limit_over_all_classes():
    predictions = predictions_of(BOXES, [[[0.2, 0.5, 0.3], [0.2, 0.4, 0.4], [0.3, 0.35, 0.35]]])
    (nothing,) = PostProcess(score_threshold=0.9)(predictions, torch.tensor([[10, 10]]))
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4)
    (some,) = PostProcess(score_threshold=0.1, iou_threshold=1.0, max_per_image=2)(predictions)
    assert some.scores.tolist() == pytest.approx([0.5, 0.4])
