"""Mean average precision and recall of COCO, counted by faster-coco-eval.

A box is x2 - x1 wide, and a difficult object is a crowd: detections that lie on it by half or more count neither way.
Of each class, the 100 detections of an image with the best scores count.  Objects are small below 32^2 pixels of the
image, medium up to 96^2 and large beyond, by the area of their outline where the annotation gives it, as COCO's do, and
else of their box; detections by that of their box.
"""

import gc
import logging
from contextlib import contextmanager

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from ..structures import Target
from .image_metric import ImageArrays, ImageMetric, box_areas, joined

log = logging.getLogger(__name__)

COCO_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""What COCO publishes of a detector."""

IOU_50, IOU_75 = 0, 5
"""Places of the thresholds among 0.5, 0.55 .. 0.95."""
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}
MAX_DETECTIONS = {"1": 0, "10": 1, "100": 2}


class COCOMeanAP(ImageMetric):
    """COCO's twelve figures, gathered image by image.

    class_names: the classes without the background; label i is class_names[i - 1].
    """

    def __init__(self, class_names):
        super().__init__(class_names)
        self._boxes, self._scores, self._labels = [], [], []
        self._objects, self._object_labels, self._difficult, self._areas = [], [], [], []

    def _take(self, image: ImageArrays, target: Target) -> None:
        self._boxes.append(image.boxes)
        self._scores.append(image.scores)
        self._labels.append(image.labels)
        self._objects.append(image.objects)
        self._object_labels.append(image.object_labels)
        self._difficult.append(image.difficult)
        self._areas.append(image.areas)

    def compute(self) -> dict[str, float]:
        """{key: figure} for those of COCO_FIGURES and "AP50s", "AP50m", "AP50l"; of the APs also "<key>/<class>".

        A class without objects that count (of the size) has NaN and is left out of the mean, which itself is NaN when
        no class has any.
        """
        with _no_garbage_collection():
            precision, recall = self._evaluate()
        per_class = {}
        for name, iou in (("AP", slice(None)), ("AP50", IOU_50), ("AP75", IOU_75)):
            for size, area in AREAS.items() if name != "AP75" else (("", 0),):
                per_class[name + size] = precision[:, iou, ..., area, MAX_DETECTIONS["100"]]
        figures = {key: _mean(per_class[key]) for key in COCO_FIGURES if key in per_class}
        figures |= {f"AR{most}": _mean(recall[..., AREAS[""], place]) for most, place in MAX_DETECTIONS.items()}
        figures |= {f"AR{size}": _mean(recall[..., AREAS[size], MAX_DETECTIONS["100"]]) for size in "sml"}
        figures |= {key: _mean(values) for key, values in per_class.items()}
        for key, values in per_class.items():
            figures |= {f"{key}/{name}": _mean(row) for name, row in zip(self.class_names, values, strict=True)}
        return figures

    def _evaluate(self) -> tuple[np.ndarray, np.ndarray]:
        """precision [C, 10 thresholds, 101 recalls, 4 sizes, 3 numbers] and recall [C, 10, 4, 3] of the C classes, -1
        where there are no objects."""
        detections = _Boxes(self._boxes, self._labels, len(self.class_names))
        objects = _Boxes(self._objects, self._object_labels, len(self.class_names))
        scores = joined(self._scores, np.float32).astype(np.float64)
        difficult, areas = joined(self._difficult, bool).astype(np.int64), joined(self._areas, np.float64)
        found_areas = box_areas(detections.boxes)
        precision = np.full((len(self.class_names), 10, 101, 4, 3), -1.0)
        recall = np.full((len(self.class_names), 10, 4, 3), -1.0)
        # Classes do not see each other, and the dictionaries that the evaluator wants of a million boxes take a
        # gigabyte: one class after the other takes little and no longer.
        for index in range(len(self.class_names)):
            own = objects.rows(index)
            if difficult[own].all():
                continue
            rows = detections.rows(index)
            images = np.union1d(detections.images[rows], objects.images[own])
            truth = _coco(images, objects.entries(own, areas, "iscrowd", difficult))
            found = _coco(images, detections.entries(rows, found_areas, "score", scores))
            run = COCOeval_faster(truth, found, "bbox", print_function=log.debug)
            run.evaluate()
            run.accumulate()
            precision[index] = run.eval["precision"][:, :, 0]
            recall[index] = run.eval["recall"][:, 0]
        return precision, recall


class _Boxes:
    """Boxes [M, 4] of all images one after the other, that can be had by class."""

    def __init__(self, boxes: list[np.ndarray], labels: list[np.ndarray], num_classes: int):
        self.boxes = np.concatenate([np.empty((0, 4)), *boxes])
        self.images = np.repeat(np.arange(len(boxes)), [len(part) for part in boxes])
        labels = joined(labels, np.int32)
        self._by_label = np.argsort(labels, kind="stable")
        self._bounds = np.searchsorted(labels, np.arange(1, num_classes + 2), sorter=self._by_label)

    def rows(self, index: int) -> np.ndarray:
        """The rows of the class of this index, in the order of the images."""
        return self._by_label[self._bounds[index] : self._bounds[index + 1]]

    def entries(self, rows: np.ndarray, areas: np.ndarray, key: str, values: np.ndarray) -> list[dict]:
        """The annotations of some rows as COCO's files hold them, with those of areas [M] and, under the key, of values
        [M]."""
        boxes = self.boxes[rows]
        boxes[:, 2:] -= boxes[:, :2]
        columns = (self.images[rows], boxes, areas[rows], values[rows])
        return [
            {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": area, "iscrowd": 0, key: value}
            for number, (image, box, area, value) in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1)
        ]


@contextmanager
def _no_garbage_collection():
    """No cycles are made inside, but the collector would look through the dictionaries of all boxes time and again, and
    takes a third of the time for it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _coco(images: np.ndarray, entries: list[dict]) -> COCO:
    """Annotations of one class in COCO's index."""
    index = COCO()
    index.dataset = {
        "images": [{"id": image} for image in images.tolist()],
        "annotations": entries,
        "categories": [{"id": 1}],
    }
    index.createIndex()
    return index


def _mean(values: np.ndarray) -> float:
    """The mean of those that are known, which are not -1."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else float("nan")
