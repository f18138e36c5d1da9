"""torchvision's SSD300 as an independent witness: its own code against our model filled from its state dict."""

from pathlib import Path

import pytest
import torch
from torchvision.models.detection import ssd300_vgg16
from torchvision.ops import nms

from lib.config import load_config
from lib.layers.box import clip_boxes, decode_boxes
from lib.modeling.model_builder import create_model
from lib.solver.checkpoint import load_weights

CFG = Path(__file__).parents[2] / "experiments" / "cfgs" / "imported" / "torchvision__ssd300_vgg16.yml"
CLASSES = 21


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(their model, what ours predicts for an image, their raw outputs, their detections)."""
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES).double().eval()
    # Fresh heads say nearly the same everywhere; offsets stay small, since torchvision bounds how much a box may grow.
    for part, deviation in ((theirs.head.classification_head, 0.02), (theirs.head.regression_head, 0.002)):
        for parameter in part.parameters():
            parameter.data.normal_(0, deviation)
    path = tmp_path_factory.mktemp("torchvision") / "w.pth"
    torch.save(theirs.state_dict(), path)
    ours = create_model(load_config(CFG, [f"MODEL.NUM_CLASSES={CLASSES}"])).double().eval()
    report = load_weights(ours, path)
    assert report.complete and not report.unexpected and "torchvision" in str(report)
    images = torch.rand(1, 3, 300, 300, dtype=torch.float64)
    seen = {}
    theirs.head.register_forward_hook(lambda module, args, output: seen.update(output))
    theirs.anchor_generator.register_forward_hook(lambda module, args, output: seen.update(anchors=output))
    with torch.inference_mode():
        detections = theirs(list(images))
        predictions = ours(theirs.transform(list(images))[0].tensors)
    return theirs, predictions, seen, detections


def test_the_same_offsets_and_logits(both):
    _, predictions, seen, _ = both
    for got, want in ((predictions.loc, seen["bbox_regression"]), (predictions.conf, seen["cls_logits"])):
        assert got.shape == want.shape
        ends = [0, 5776, 7942, 8542, 8692, 8728, 8732]
        for start, stop in zip(ends, ends[1:], strict=False):
            level = want[:, start:stop]
            assert (got[:, start:stop] - level).abs().max() < 1e-10 * level.abs().max()


def clamped(priors):
    """Priors whose sizes alone are clamped, as theirs are; MODEL.CLIP clamps centres too or nothing."""
    return torch.cat([priors[:, :2], priors[:, 2:].clamp(0, 1)], 1)


def test_the_same_boxes(both):
    theirs, predictions, seen, _ = both
    priors = clamped(predictions.priors.double())
    want = theirs.box_coder.decode_single(seen["bbox_regression"][0], seen["anchors"][0].double()) / 300
    assert (decode_boxes(predictions.loc[0], priors) - want).abs().max() < 1e-6 * want.abs().max()


def test_the_same_detections_where_boxes_are_cut_before_nms(both):
    theirs, predictions, seen, detections = both
    (found,), scores = detections, predictions.conf[0].softmax(1)
    boxes = clip_boxes(decode_boxes(predictions.loc[0], clamped(predictions.priors.double()))) * 300
    rows = []
    for label in range(1, CLASSES):
        wanted = scores[:, label] > theirs.score_thresh
        best, order = scores[wanted, label].topk(min(400, int(wanted.sum())))
        candidates = boxes[wanted][order]
        keep = nms(candidates, best, theirs.nms_thresh)
        rows += zip(best[keep].tolist(), [label] * len(keep), candidates[keep], strict=True)
    rows = sorted(rows, key=lambda row: -row[0])[: theirs.detections_per_img]
    assert len(rows) == len(found["boxes"]) > 50
    assert torch.tensor([row[1] for row in rows]).equal(found["labels"])
    assert torch.allclose(torch.stack([row[2] for row in rows]), found["boxes"], atol=1e-3)
    assert torch.allclose(torch.tensor([row[0] for row in rows]).double(), found["scores"])
