"""What the errors of a detector are, and what each kind of them costs in average precision.

In the manner of TIDE (Bolya et al., A General Toolbox for Identifying Object Detection Errors, ECCV 2020).  A detection
is wrong when it takes no object of its class at IoU 0.5 by the rules of COCO.  Each is the first that holds of

- localisation: it overlaps an object of its class by 0.1 or more, but by less than 0.5;
- classification: it overlaps an object of another class by 0.5 or more;
- duplicate: it overlaps an object of its class, taken by a better detection, by 0.5 or more;
- background: it overlaps every object by less than 0.1;
- both: it overlaps an object of another class by 0.1 or more, but by less than 0.5.

Missed are the objects that no detection took, and that no error of localisation or classification is about.  What a
kind costs is how much the mean AP at IoU 0.5 gains when an oracle mends it alone: a wrong place or class is put right,
and of the detections that then are of one object the best stays and the others go; missed objects are not asked for;
errors of other kinds are left out.  Mending one error can uncover another, so the costs do not add up to the rest.
"""

from typing import NamedTuple

import numpy as np

from ..structures import Target
from .image_metric import MATCH_IOU, ImageArrays, ImageMetric, joined
from .matching import NO_OBJECT
from .ranking import interpolated_ap

BACKGROUND_IOU = 0.1
MAX_DETECTIONS = 100
"""Of each class in an image, those with the best scores."""

RIGHT, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(7)
KINDS = {
    "classification": CLASSIFICATION,
    "localisation": LOCALISATION,
    "both": BOTH,
    "duplicate": DUPLICATE,
    "background": BACKGROUND,
}
MISSED = "missed"
ERRORS = (*KINDS, MISSED)
"""All kinds of errors, in the order in which they are shown."""


class ErrorSplit(ImageMetric):
    """The errors of a detector by kind, gathered image by image.

    class_names: the classes without the background; label i is class_names[i - 1].
    """

    def __init__(self, class_names):
        super().__init__(class_names)
        self._scores, self._labels, self._kinds, self._about = [], [], [], []
        self._object_labels = []
        self._num_objects = 0

    def _take(self, image: ImageArrays, target: Target) -> None:
        kinds, about = error_kinds(image)
        counting = ~image.difficult
        numbers = np.append(np.cumsum(counting) - 1 + self._num_objects, NO_OBJECT)
        rows = _best_of_class(image.scores, image.labels)
        self._scores.append(image.scores[rows])
        self._labels.append(image.labels[rows])
        self._kinds.append(kinds[rows])
        self._about.append(numbers[about[rows]].astype(np.int32))
        self._object_labels.append(image.object_labels[counting])
        self._num_objects += int(counting.sum())

    def average_precision(self) -> float:
        """The mean AP at IoU 0.5 that the costs are about, AP50 of COCO; NaN without objects."""
        return self._ranked().mean_ap()

    def compute(self) -> dict[str, int | float]:
        """{"errors/<kind>", "cost/<kind>"}: the number of errors of each of ERRORS, and what AP at IoU 0.5 gains when
        an oracle mends them, NaN without objects."""
        ranked = self._ranked()
        missed = ranked.missed()
        mended = {name: ranked.mended(kind) for name, kind in KINDS.items()}
        mended[MISSED] = ranked._replace(object_labels=ranked.object_labels[~missed])
        counts = {name: int((ranked.kinds == kind).sum()) for name, kind in KINDS.items()} | {MISSED: int(missed.sum())}
        base = ranked.mean_ap()
        costs = {f"cost/{name}": mended[name].mean_ap() - base for name in ERRORS}
        return {f"errors/{name}": counts[name] for name in ERRORS} | costs

    def _ranked(self) -> "_Ranked":
        order = np.argsort(-joined(self._scores, np.float32), kind="stable")
        columns = ((self._labels, np.int32), (self._kinds, np.int8), (self._about, np.int32))
        labels, kinds, about = (joined(parts, dtype)[order] for parts, dtype in columns)
        return _Ranked(labels, kinds, about, joined(self._object_labels, np.int32), len(self.class_names))


def error_kinds(image: ImageArrays) -> tuple[np.ndarray, np.ndarray]:
    """(kinds int8 [K], about int32 [K]): what is wrong with each detection of an image, or RIGHT or IGNORED, and the
    object that it takes or would take if it were mended, else NO_OBJECT."""
    about = image.claims.copy()
    if not len(image.objects):
        return np.full(len(about), BACKGROUND, np.int8), about
    overlaps = np.where(image.difficult, 0, image.overlaps)
    of_class = np.where(image.same_class, overlaps, 0)
    of_others = np.where(image.same_class, 0, overlaps)
    best, best_other = of_class.max(axis=1), of_others.max(axis=1)
    rules = (
        (about != NO_OBJECT, RIGHT),
        ((best >= BACKGROUND_IOU) & (best < MATCH_IOU), LOCALISATION),
        (best_other >= MATCH_IOU, CLASSIFICATION),
        (best >= MATCH_IOU, DUPLICATE),
        (best_other < BACKGROUND_IOU, BACKGROUND),
    )
    kinds = np.select([rule for rule, _ in rules], [np.int8(kind) for _, kind in rules], np.int8(BOTH))
    kinds[np.append(image.difficult, False)[about]] = IGNORED
    for kind, candidates in ((LOCALISATION, of_class), (CLASSIFICATION, of_others)):
        rows = np.flatnonzero(kinds == kind)
        about[rows] = candidates[rows].argmax(axis=1)
    return kinds, about


class _Ranked(NamedTuple):
    """All detections, best first: labels, kinds and about [K], as `error_kinds` tells but of the objects of all images;
    and the labels of these objects [N]."""

    labels: np.ndarray
    kinds: np.ndarray
    about: np.ndarray
    object_labels: np.ndarray
    num_classes: int

    def mean_ap(self) -> float:
        """Mean AP over the classes that have objects."""
        num_objects = np.bincount(self.object_labels, minlength=self.num_classes + 1)
        counting = np.flatnonzero(self.kinds != IGNORED)
        order = counting[np.argsort(self.labels[counting], kind="stable")]
        labels, right = self.labels[order], self.kinds[order] == RIGHT
        figures = []
        for label in np.flatnonzero(num_objects):
            first, last = np.searchsorted(labels, (label, label + 1))
            true_positives = np.cumsum(right[first:last])
            precision = true_positives / np.arange(1, last - first + 1)
            figures.append(interpolated_ap(precision, true_positives / num_objects[label]))
        return float(np.mean(figures)) if figures else float("nan")

    def missed(self) -> np.ndarray:
        """bool [N]: objects that no detection took or would take if its place or its class were put right."""
        reached = np.isin(self.kinds, (RIGHT, LOCALISATION, CLASSIFICATION))
        missed = np.ones(len(self.object_labels), bool)
        missed[self.about[reached]] = False
        return missed

    def mended(self, kind: int) -> "_Ranked":
        """The detections after an oracle mended the errors of a kind."""
        kinds, labels = self.kinds.copy(), self.labels.copy()
        kinds[kinds == kind] = IGNORED
        if kind in (LOCALISATION, CLASSIFICATION):
            rows = np.flatnonzero((self.kinds == kind) | (self.kinds == RIGHT))
            best = rows[np.unique(self.about[rows], return_index=True)[1]]
            kinds[rows] = IGNORED
            kinds[best] = RIGHT
            labels[best] = self.object_labels[self.about[best]]
        return self._replace(labels=labels, kinds=kinds)


def _best_of_class(scores: np.ndarray, labels: np.ndarray):
    """The rows of the MAX_DETECTIONS best of every class."""
    if len(scores) <= MAX_DETECTIONS:
        return slice(None)
    order = np.lexsort((-scores, labels))
    ranked = labels[order]
    place = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return np.sort(order[place < MAX_DETECTIONS])
