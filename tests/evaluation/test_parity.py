"""The metrics against figures of independent evaluators on real photographs; needs the shared data."""

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from lib.evaluation import COCO_FIGURES, COCOMeanAP, VOCMeanAP, load_results, save_results
from lib.structures import Detections, Target

SHARED = Path(os.environ.get("SSDS_SHARED", "nowhere"))
pytestmark = pytest.mark.skipif(
    not (SHARED / "parity" / "evaluation.json").is_file(), reason="SSDS_SHARED names no folder with parity and data"
)
WIDTH, HEIGHT = 640, 480


def read_truth(image, classes, difficult):
    boxes, labels = [], []
    for node in ET.parse(SHARED / "data" / "BCCD" / "Annotations" / f"{image}.xml").getroot().iter("object"):
        box = [float(node.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
        if box[2] > box[0] and box[3] > box[1]:
            boxes.append(box)
            labels.append(classes.index(node.findtext("name")) + 1)
    scale = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return Target(
        (torch.tensor(boxes).reshape(-1, 4) / scale),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult[: len(labels)], dtype=torch.bool),
        image,
        (HEIGHT, WIDTH),
    )


@pytest.fixture(scope="module")
def case():
    """(expected figures of VOC and COCO, class names, detections, targets); boxes and scores in float32, as a detector
    gives them."""
    reference = json.loads((SHARED / "parity" / "evaluation.json").read_text())
    classes = reference["classes"]
    detections, targets = [], []
    for image in reference["images"]:
        rows = [d for d in reference["detections"] if d["image"] == image]
        detections.append(
            Detections(
                torch.tensor([d["box"] for d in rows]).reshape(-1, 4),
                torch.tensor([d["score"] for d in rows]),
                torch.tensor([classes.index(d["cls"]) + 1 for d in rows], dtype=torch.int64),
                tuple(classes),
            )
        )
        targets.append(read_truth(image, classes, reference["difficult"][image]))
    expected = {"voc07": reference["voc07_map"], "voc_area": reference["voc_area_map"]}
    expected |= {f"{rule}/{name}": reference[rule][name] for rule in ("voc07", "voc_area") for name in classes}
    of_coco = dict(zip(COCO_FIGURES, reference["coco_stats"], strict=True))
    return (expected, of_coco), classes, detections, targets


def test_figures_of_the_reference(case):
    (expected, of_coco), classes, detections, targets = case
    metric = VOCMeanAP(classes)
    metric.update(detections, targets)
    assert metric.compute() == pytest.approx(expected, abs=1e-6)
    metric = COCOMeanAP(classes)
    metric.update(detections, targets)
    figures = metric.compute()
    assert {key: figures[key] for key in of_coco} == pytest.approx(of_coco, abs=1e-6)


def test_figures_of_the_reference_through_a_results_file(case, tmp_path):
    (expected, _), classes, detections, targets = case
    save_results(tmp_path / "results.json", detections, targets)
    found = load_results(tmp_path / "results.json", classes)
    metric = VOCMeanAP(classes)
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    metric.update([found.get(target.image_id, empty) for target in targets], targets)
    assert metric.compute() == pytest.approx(expected, abs=1e-6)
