"""Mean average precision by the rules of the PASCAL VOC development kit (Everingham et al., IJCV 2010, section 4.2).

The rules, in the order they act: corners are pixels and inclusive, so a box is x2 - x1 + 1 wide; a detection looks only
at the object of its class and image that it overlaps most, and claims it if their IoU is above the threshold; of
several claims on an object the one with the highest score is right and the others are false; a claim on a difficult
object counts neither way.  Because a detection never falls back on its second best object, its claim depends on no
other detection: claims are settled image by image in `update`, and only scores and claims are kept.
"""

from typing import NamedTuple

import numpy as np
import torch

from ..structures import Detections, Target
from ..utils.errors import UserError

NO_OBJECT = -1
DIFFICULT_OBJECT = -2
BOX_LIMIT = 1e6
"""Pixels; box corners beyond are moved to it, so that an overflowed box is a false positive and not a NaN."""


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


class VOCMeanAP:
    """VOC mean average precision, gathered image by image.

    class_names: the classes without the background; label i is class_names[i - 1].
    iou_threshold: a detection is right when its IoU is above (not at) this.
    """

    def __init__(self, class_names, iou_threshold: float = 0.5):
        self.class_names = tuple(class_names)
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class names repeat: {', '.join(map(str, self.class_names))}")
        self.iou_threshold = iou_threshold
        self.num_images = 0
        self._scores, self._labels, self._claims = [], [], []
        self._object_labels, self._object_difficult = [], []
        self._num_objects = 0
        self._rankings = None

    def update(self, detections: list[Detections], targets: list[Target]) -> None:
        """Add images: detections in pixels and the target of the same image (unit square, with its size).

        Detections with equal scores rank in the order in which they are given here.  Raises ValueError for a target
        without size, because the rule of inclusive pixel corners means nothing in the unit square, for a label
        outside the classes and for a score that is NaN; UserError for detections made with other class names.
        """
        if len(detections) != len(targets):
            raise ValueError(f"{len(detections)} detections for {len(targets)} targets")
        for found, target in zip(detections, targets, strict=True):
            self._add(found, target)
        self._rankings = None

    def _add(self, found: Detections, target: Target) -> None:
        if found.class_names:
            check_class_names(found.class_names, self.class_names, target.image_id)
        scores = scores_array(found, target.image_id)
        labels = self._check_labels(found.labels, "a detection", target)
        object_labels = self._check_labels(target.labels, "an object", target)
        difficult = target.difficult.cpu().numpy().astype(bool)
        claims = claim_objects(pixel_boxes(found), labels, truth_pixel_boxes(target), object_labels, self.iou_threshold)
        hit = claims >= 0
        claims[hit] = np.where(difficult[claims[hit]], DIFFICULT_OBJECT, claims[hit] + self._num_objects)
        self._scores.append(scores)
        self._labels.append(labels)
        self._claims.append(claims)
        self._object_labels.append(object_labels)
        self._object_difficult.append(difficult)
        self._num_objects += len(object_labels)
        self.num_images += 1

    def _check_labels(self, labels, what: str, target: Target) -> np.ndarray:
        labels = labels.cpu().numpy()
        last = len(self.class_names)
        wrong = labels[(labels < 1) | (labels > last)]
        if len(wrong):
            raise ValueError(f"image {target.image_id!r}: {what} has label {wrong[0]}; labels go from 1 to {last}")
        return labels.astype(np.int32)

    def compute(self) -> dict[str, float]:
        """{"voc07", "voc_area", "voc07/<class>", "voc_area/<class>"}: 11-point and area average precision.

        A class with objects but no detection has 0; one without objects that count has NaN and is left out of the
        mean, which itself is NaN when no class has any.
        """
        per_class = {"voc07": {}, "voc_area": {}}
        for name, ranking in self.rankings().items():
            if ranking.num_objects:
                precision, recall = ranking.curve()
                per_class["voc07"][name] = eleven_point_ap(precision, recall)
                per_class["voc_area"][name] = area_ap(precision, recall)
            else:
                per_class["voc07"][name] = per_class["voc_area"][name] = float("nan")
        results = {key: _mean_of_known(values.values()) for key, values in per_class.items()}
        for key, values in per_class.items():
            results.update({f"{key}/{name}": value for name, value in values.items()})
        return results

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

    def rankings(self) -> dict[str, ClassRanking]:
        """class -> its detections in the order of their scores, each right or wrong; kept until the next update."""
        if self._rankings is None:
            self._rankings = self._rank()
        return self._rankings

    def _rank(self) -> dict[str, ClassRanking]:
        scores, claims = _joined(self._scores, np.float32), _joined(self._claims, np.int32)
        labels, object_labels = _joined(self._labels, np.int32), _joined(self._object_labels, np.int32)
        num_labels = len(self.class_names) + 1
        difficult_counts = np.bincount(object_labels[_joined(self._object_difficult, bool)], minlength=num_labels)
        object_counts = np.bincount(object_labels, minlength=num_labels) - difficult_counts
        by_label = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels, np.arange(1, num_labels + 1), sorter=by_label)
        rankings = {}
        for label, name in enumerate(self.class_names, start=1):
            rows = by_label[bounds[label - 1] : bounds[label]]
            num_detections = len(rows)
            rows = rows[claims[rows] != DIFFICULT_OBJECT]
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            rankings[name] = ClassRanking(
                scores[rows],
                first_claims(claims[rows]),
                int(object_counts[label]),
                int(difficult_counts[label]),
                num_detections,
            )
        return rankings


def claim_objects(boxes, labels, objects, object_labels, iou_threshold: float) -> np.ndarray:
    """For boxes [K, 4] the index int32 [K] of the object, of objects [N, 4], that each claims, else NO_OBJECT.

    Of objects overlapped equally the first is taken, as in the development kit.
    """
    claims = np.full(len(boxes), NO_OBJECT, dtype=np.int32)
    # Most detections are of classes that the image does not hold: they need no overlap.
    rows = np.flatnonzero(np.isin(labels, object_labels))
    if len(rows):
        overlaps = inclusive_iou(boxes[rows], objects)
        overlaps[labels[rows, None] != object_labels[None]] = -1
        best = overlaps.argmax(axis=1)
        above = overlaps[np.arange(len(rows)), best] > iou_threshold
        claims[rows[above]] = best[above]
    return claims


def first_claims(claims: np.ndarray) -> np.ndarray:
    """bool [K]: the claim is the first on its object; claims [K] are ranked, negative ones claim nothing."""
    correct = np.zeros(len(claims), dtype=bool)
    hits = np.flatnonzero(claims >= 0)
    correct[hits[np.unique(claims[hits], return_index=True)[1]]] = True
    return correct


def inclusive_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU [K, N] of boxes [K, 4] and others [N, 4], xyxy in pixels with inclusive corners."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - low + 1, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = _inclusive_area(boxes)[:, None] + _inclusive_area(others)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def eleven_point_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """Mean over the recalls 0, 0.1 .. 1 of the best precision at that recall or beyond (VOC until 2009)."""
    envelope = np.append(_envelope(precision), 0.0)
    # As multiples of the float 0.1 the points 0.3, 0.6 and 0.7 lie a hair above, so that a recall of exactly 0.6 misses
    # its point.  The evaluators behind published figures do the same, and to compare with them is what this is for.
    return float(envelope[np.searchsorted(recall, np.arange(11) * 0.1)].mean())


def area_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the precision made monotone over recall (VOC from 2010)."""
    return float(np.sum(np.diff(recall, prepend=0.0) * _envelope(precision)))


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


def pixel_boxes(found: Detections) -> np.ndarray:
    """Boxes float64 [K, 4] of detections in pixels; those that overflowed lie at BOX_LIMIT, NaN is 0."""
    boxes = found.boxes.detach().to("cpu", torch.float64).numpy().reshape(-1, 4)
    return np.clip(np.nan_to_num(boxes, posinf=BOX_LIMIT, neginf=-BOX_LIMIT), -BOX_LIMIT, BOX_LIMIT)


def truth_pixel_boxes(target: Target) -> np.ndarray:
    """Boxes float64 [N, 4] of a target in 0-based pixels of its image; ValueError when its size is unknown."""
    if target.size is None:
        raise ValueError(f"image {target.image_id!r} has no size: the VOC metric counts in pixels")
    height, width = target.size
    boxes = target.boxes.detach().to("cpu", torch.float64).numpy().reshape(-1, 4)
    # A whole pixel divided by the size in float32 comes back a few 1e-5 beside itself, enough to tip an IoU of 0.5.
    return np.round(boxes * (width, height, width, height), 3)


def scores_array(found: Detections, image_id) -> np.ndarray:
    """Scores [K] as float32, or float64 where they came so; ValueError naming the image when one is NaN."""
    scores = found.scores.detach().cpu()
    scores = (scores if scores.dtype == torch.float64 else scores.float()).numpy()
    if np.isnan(scores).any():
        raise ValueError(f"image {image_id!r}: a detection has the score NaN")
    return scores


def check_class_names(given, expected, where) -> None:
    """UserError unless both name the same classes in the same order: else every label would mean another class."""
    given, expected = tuple(given), tuple(expected)
    if given == expected:
        return
    if len(given) != len(expected):
        raise UserError(f"image {where!r}: detections of {len(given)} classes scored against {len(expected)} classes")
    label = next(i for i, pair in enumerate(zip(given, expected, strict=True)) if pair[0] != pair[1])
    names = f"'{given[label]}' in the detections and '{expected[label]}' in the ground truth"
    raise UserError(f"image {where!r}: class {label + 1} is {names}")


def _inclusive_area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)


def _envelope(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[::-1])[::-1]


def _joined(arrays: list[np.ndarray], dtype) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _mean_of_known(values) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
