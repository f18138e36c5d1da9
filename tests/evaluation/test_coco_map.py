"""COCO's figures: by hand, and against pycocotools on random sets."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch

from lib.evaluation import COCO_FIGURES, COCOMeanAP, ErrorSplit

from .builders import found, truth

A, B = (0, 0, 40, 40), (100, 0, 140, 40)
SIZE = (400, 400)


def score(*images, class_names=("cat",), metric=COCOMeanAP):
    """The figures over (detections, target) pairs."""
    metric = metric(class_names)
    for detections, target in images:
        metric.update([detections], [target])
    return metric


def test_by_hand():
    # IoU of A with itself moved by 10 is 30 / 50: right at the thresholds 0.5, 0.55 and 0.6 of ten.
    shifted = (10, 0, 50, 40)
    figures = score((found((1, 0.9, *shifted), (1, 0.8, *B)), truth((1, *A), (1, *B), size=SIZE))).compute()
    assert figures["AP50"] == figures["AP50m"] == figures["AP50/cat"] == 1
    # At 0.75 the first is wrong and the second right: precision 1/2 up to the recall 1/2, of 101 points 51.
    assert figures["AP75"] == pytest.approx(51 / 101 / 2)
    assert figures["AP"] == figures["AP/cat"] == pytest.approx((3 + 7 * 51 / 101 / 2) / 10)
    assert figures["AR1"] == pytest.approx(3 / 10 / 2)
    assert figures["AR10"] == figures["AR100"] == figures["ARm"] == pytest.approx((3 + 7 / 2) / 10)
    assert all(math.isnan(figures[key]) for key in ("APs", "APl", "ARs", "ARl", "AP50s/cat"))


def test_width_is_the_difference_of_the_corners():
    # The IoU is 29.9 / 60.1; with inclusive corners it would be 30.9 / 61.1, more than a half.
    figures = score((found((1, 0.9, 15.1, 0, 60.1, 1)), truth((1, 0, 0, 45, 1), size=SIZE))).compute()
    assert figures["AP50"] == 0


def test_detections_on_a_difficult_object_count_neither_way():
    rows = [(1, 0.9, 20, 20, 30, 30), (1, 0.8, 40, 40, 50, 50), (1, 0.7, *B)]
    crowd = truth((1, 0, 0, 90, 90, "difficult"), (1, *B), size=SIZE)
    assert score((found(*rows), crowd)).compute()["AP50"] == 1
    assert score((found(*rows), truth((1, *B), size=SIZE))).compute()["AP50"] == pytest.approx(1 / 3)


def test_only_a_hundred_of_an_image_count():
    wrong = [(1, 0.9, 200, 200, 210, 210)] * 100
    assert score((found(*wrong, (1, 0.5, *A)), truth((1, *A), size=SIZE))).compute()["AR100"] == 0
    assert score((found(*wrong[1:], (1, 0.5, *A)), truth((1, *A), size=SIZE))).compute()["AR100"] == 1


def test_size_is_that_of_the_outline_where_it_is_known():
    target = truth((1, *A), (1, *B), size=SIZE)  # boxes of 1600 square pixels: medium
    target.areas = torch.tensor([900.0, math.nan], dtype=torch.float64)
    figures = score((found((1, 0.9, *A)), target)).compute()
    assert figures["APs"] == 1 and figures["APm"] == 0


def test_classes_without_objects_are_left_out_of_the_mean():
    figures = score((found((1, 0.9, *A), (2, 0.9, *A)), truth((1, *A), (2, *B, "difficult"), size=SIZE)),
                    class_names=("cat", "dog")).compute()  # fmt: skip
    assert figures["AP"] == 1 and math.isnan(figures["AP/dog"])


def test_nothing_at_all():
    assert all(math.isnan(value) for value in COCOMeanAP(("cat",)).compute().values())


def test_more_updates_after_a_result():
    metric = score((found((1, 0.9, *A)), truth((1, *A), size=SIZE)))
    assert metric.compute()["AP"] == 1
    metric.update([found()], [truth((1, *A), size=SIZE)])
    assert metric.compute()["AR100"] == 1 / 2


def random_images(rng, num_classes):
    """Boxes of all sizes, detections close to them, few scores: ties of every kind, and images with nothing."""
    images = []
    for _ in range(rng.integers(1, 9)):
        objects = []
        for _ in range(rng.integers(0, 7)):
            x, y = rng.integers(0, 250, 2).tolist()
            width, height = (2 * rng.integers(4, 70, 2)).tolist()
            difficult = ("difficult",) if rng.random() < 0.2 else ()
            objects.append((int(rng.integers(1, num_classes + 1)), x, y, x + width, y + height, *difficult))
        rows = []
        many = 260 if rng.random() < 0.2 else 20
        for _ in range(rng.integers(0, many) if rng.random() < 0.9 else 0):
            if objects and rng.random() < 0.8:
                label, *box = objects[rng.integers(len(objects))][:5]
                box = [c + int(s) for c, s in zip(box, rng.integers(-3, 4, 4), strict=True)]
                label = label if rng.random() < 0.8 else int(rng.integers(1, num_classes + 1))
            else:
                label, box = int(rng.integers(1, num_classes + 1)), [100, 100, 132, 132]
            rows.append((label, int(rng.integers(1, 9)) / 8, *box))
        images.append((rows, objects))
    return images


def witness(images, num_classes):
    """COCO's twelve figures by pycocotools; NaN where it says -1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def index(entries):
        made = COCO()
        made.dataset = {
            "images": [{"id": number} for number in range(len(images))],
            "categories": [{"id": label} for label in range(1, num_classes + 1)],
            "annotations": [entry | {"id": number} for number, entry in enumerate(entries, 1)],
        }
        made.createIndex()
        return made

    def entry(image, label, box):
        width, height = box[2] - box[0], box[3] - box[1]
        return {"image_id": image, "category_id": label, "bbox": [*box[:2], width, height], "area": width * height}

    truths = [entry(i, o[0], o[1:5]) | {"iscrowd": int(len(o) > 5)} for i, (_, all_) in enumerate(images) for o in all_]
    scored = [entry(i, r[0], r[2:]) | {"score": r[1], "iscrowd": 0} for i, (rows, _) in enumerate(images) for r in rows]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(index(truths), index(scored), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [math.nan if value == -1 else value for value in evaluation.stats.tolist()]


@pytest.mark.parametrize("seed", range(30))
def test_agrees_with_pycocotools_on_random_sets(seed):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 3)
    pairs = [(found(*rows), truth(*objects, size=SIZE)) for rows, objects in images]
    names = ("cat", "dog", "cow")
    figures = score(*pairs, class_names=names).compute()
    expected = dict(zip(COCO_FIGURES, witness(images, len(names)), strict=True))
    assert {key: figures[key] for key in COCO_FIGURES} == pytest.approx(expected, abs=1e-9, nan_ok=True)
    split = score(*pairs, class_names=names, metric=ErrorSplit)
    assert split.average_precision() == pytest.approx(expected["AP50"], abs=1e-9, nan_ok=True)
