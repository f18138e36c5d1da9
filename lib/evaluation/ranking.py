"""Detections of each class ranked by score, right or wrong: curves, average precision, and the best threshold."""

from typing import NamedTuple

import numpy as np

from .image_metric import ImageArrays, ImageMetric, joined
from .matching import first_claims

DIFFICULT_OBJECT = -2
"""In the place of a claimed object that is difficult: the claim counts neither way."""


class OperatingPoint(NamedTuple):
    """What keeping the detections with a score of at least `score` gives for one class."""

    f1: float
    score: float
    precision: float
    recall: float


class ClassRanking(NamedTuple):
    """The detections of a class that count, best first: scores [K], correct bool [K]; and what there was to count."""

    scores: np.ndarray
    correct: np.ndarray
    num_objects: int
    num_difficult: int
    num_detections: int

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """(precision [K], recall [K]) after each detection; needs at least one object."""
        true_positives = np.cumsum(self.correct)
        return true_positives / np.arange(1, len(self.correct) + 1), true_positives / self.num_objects


class RankedMetric(ImageMetric):
    """A metric that ranks all detections of a class; a subclass settles in `_take` which object each of them claims.

    class_names: the classes without the background; label i is class_names[i - 1].
    iou_threshold: the overlap that counts() and the curves are about.
    """

    def __init__(self, class_names, iou_threshold: float = 0.5):
        super().__init__(class_names)
        self.iou_threshold = iou_threshold
        self._scores, self._labels, self._claims = [], [], []
        self._object_labels, self._object_difficult = [], []
        self._num_objects = 0
        self._rows = self._rankings = None

    def _keep(self, image: ImageArrays, claims: np.ndarray) -> None:
        """Take an image in, with the object of it that each detection claims: claims [K], negative for none."""
        self._scores.append(image.scores)
        self._labels.append(image.labels)
        self._claims.append(self._numbered(claims, image.difficult))
        self._object_labels.append(image.object_labels)
        self._object_difficult.append(image.difficult)
        self._num_objects += len(image.object_labels)
        self._rows = self._rankings = None

    def _numbered(self, claims: np.ndarray, difficult: np.ndarray) -> np.ndarray:
        """Claims on objects of the image to be kept next, as claims on objects of the whole set."""
        claims, hit = claims.copy(), claims >= 0
        claims[hit] = np.where(difficult[claims[hit]], DIFFICULT_OBJECT, claims[hit] + self._num_objects)
        return claims

    def pr_curves(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """class -> (precision [K], recall [K], scores [K]), best score first, one point for each detection that counts.

        Classes without objects that count have no curve and are left out; without detections the arrays are empty.
        """
        return {name: (*r.curve(), r.scores) for name, r in self.rankings().items() if r.num_objects}

    def counts(self) -> dict[str, dict[str, int]]:
        """class -> {"objects" that count, "difficult" ones that do not, "detections" of any kind}."""
        return {
            name: {"objects": r.num_objects, "difficult": r.num_difficult, "detections": r.num_detections}
            for name, r in self.rankings().items()
        }

    def best_f1(self) -> dict[str, OperatingPoint]:
        """class -> the score threshold with the greatest F1, and precision and recall there.

        NaN for classes without objects; without detections F1 and recall are 0, score and precision NaN.
        """
        return {name: best_operating_point(ranking) for name, ranking in self.rankings().items()}

    def ranked_images(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """class -> (image int64 [K] that each detection of its ranking is from, objects that count int64 [I] in each
        image); images have the numbers 0 to I - 1, in the order in which they came."""
        claims, object_labels = joined(self._claims, np.int32), joined(self._object_labels, np.int32)
        counting_objects = ~joined(self._object_difficult, bool)
        of_detection, of_object = (
            np.repeat(np.arange(self.num_images), [len(part) for part in parts])
            for parts in (self._scores, self._object_labels)
        )
        found = {}
        for label, (name, rows) in enumerate(self._ranked_rows().items(), start=1):
            images = of_detection[rows[claims[rows] != DIFFICULT_OBJECT]]
            own = of_object[counting_objects & (object_labels == label)]
            found[name] = images, np.bincount(own, minlength=self.num_images)
        return found

    def rankings(self) -> dict[str, ClassRanking]:
        """class -> its detections in the order of their scores, each right or wrong; kept until the next update."""
        if self._rankings is None:
            self._rankings = self._rank()
        return self._rankings

    def _rank(self) -> dict[str, ClassRanking]:
        scores, claims = joined(self._scores, np.float32), joined(self._claims, np.int32)
        object_labels = joined(self._object_labels, np.int32)
        num_labels = len(self.class_names) + 1
        difficult_counts = np.bincount(object_labels[joined(self._object_difficult, bool)], minlength=num_labels)
        object_counts = np.bincount(object_labels, minlength=num_labels) - difficult_counts
        rankings = {}
        for label, (name, rows) in enumerate(self._ranked_rows().items(), start=1):
            counting = rows[claims[rows] != DIFFICULT_OBJECT]
            rankings[name] = ClassRanking(
                scores[counting],
                first_claims(claims[counting]),
                int(object_counts[label]),
                int(difficult_counts[label]),
                len(rows),
            )
        return rankings

    def _ranked_rows(self) -> dict[str, np.ndarray]:
        """class -> the rows of its detections among all, best score first; kept until the next update."""
        if self._rows is None:
            scores, labels = joined(self._scores, np.float32), joined(self._labels, np.int32)
            by_label = np.argsort(labels, kind="stable")
            bounds = np.searchsorted(labels, np.arange(1, len(self.class_names) + 2), sorter=by_label)
            self._rows = {}
            for name, first, last in zip(self.class_names, bounds[:-1], bounds[1:], strict=True):
                rows = by_label[first:last]
                self._rows[name] = rows[np.argsort(-scores[rows], kind="stable")]
        return self._rows


def area_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the precision made monotone over recall (VOC from 2010)."""
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope(precision)))


def interpolated_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """Mean over the recalls 0, 0.01 .. 1 of the best precision at that recall or beyond (COCO)."""
    best_beyond = np.append(envelope(precision), 0.0)
    return float(best_beyond[np.searchsorted(recall, np.linspace(0, 1, 101))].mean())


def envelope(precision: np.ndarray) -> np.ndarray:
    """At each point of a curve the best precision there or beyond."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def best_operating_point(ranking: ClassRanking) -> OperatingPoint:
    """The threshold of greatest F1; of equals the highest.  Detections with one score are kept or dropped together."""
    nan = float("nan")
    if not ranking.num_objects:
        return OperatingPoint(nan, nan, nan, nan)
    if not len(ranking.scores):
        return OperatingPoint(0.0, nan, nan, 0.0)
    last_of_score = np.append(ranking.scores[1:] != ranking.scores[:-1], True)
    precision, recall = (values[last_of_score] for values in ranking.curve())
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    best = int(f1.argmax())
    score = ranking.scores[last_of_score][best]
    return OperatingPoint(float(f1[best]), float(score), float(precision[best]), float(recall[best]))


def with_means(per_class: dict[str, dict[str, float]]) -> dict[str, float]:
    """{key: {class: figure}} as a flat dictionary: the mean of every key, over the classes whose figure is not NaN (NaN
    when there are none), then "<key>/<class>"."""
    results = {key: _mean_of_known(values.values()) for key, values in per_class.items()}
    for key, values in per_class.items():
        results.update({f"{key}/{name}": value for name, value in values.items()})
    return results


def _mean_of_known(values) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
