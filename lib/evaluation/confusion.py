"""Which classes are taken for which: the confusion matrix of detections above a score."""

import numpy as np

from ..structures import Target
from .image_metric import MATCH_IOU, ImageArrays, ImageMetric
from .matching import NO_OBJECT, claim_free_objects

BACKGROUND = "background"
SAME_CLASS_BONUS = 1e-9
"""Added to overlaps: of two objects in one place a detection takes the one of its class."""


class ConfusionMatrix(ImageMetric):
    """Objects by class against the class that they were detected as, gathered image by image.

    class_names: the classes without the background; label i is class_names[i - 1].
    score_threshold: detections below do not count.

    In the order of their scores detections take the free object that they overlap most, of whatever class, with an IoU
    of at least 0.5.  A detection that takes none was made of background, and an object that none takes was left to the
    background.  Difficult objects do not count, nor do detections that take none but lie by half on a difficult object
    of their class.
    """

    def __init__(self, class_names, score_threshold: float):
        super().__init__(class_names)
        self.score_threshold = score_threshold
        side = len(self.class_names) + 1
        self._counts = np.zeros((side, side), np.int64)

    def _take(self, image: ImageArrays, target: Target) -> None:
        shown = np.flatnonzero(image.scores >= self.score_threshold)
        counting = ~image.difficult
        object_labels = image.object_labels[counting]
        overlaps, same_class = image.overlaps[shown], image.same_class[shown]
        eligible = np.where(overlaps >= MATCH_IOU, overlaps + SAME_CLASS_BONUS * same_class, 0)
        claims = claim_free_objects(eligible[:, counting], image.scores[shown], np.zeros(len(object_labels), bool))
        on_difficult = (eligible[:, image.difficult] * same_class[:, image.difficult]).any(axis=1)
        rows = np.flatnonzero((claims != NO_OBJECT) | ~on_difficult)
        # The background is label 0 until the matrix is given out.
        truth = np.append(object_labels, 0)[claims[rows]]
        np.add.at(self._counts, (truth, image.labels[shown[rows]]), 1)
        missed = np.ones(len(object_labels), bool)
        missed[claims[claims != NO_OBJECT]] = False
        np.add.at(self._counts, (object_labels[missed], 0), 1)

    def counts(self) -> np.ndarray:
        """int64 [C + 1, C + 1]: rows are what is there, columns what was seen; the background is the last of both."""
        return np.roll(self._counts, (-1, -1), axis=(0, 1))

    def most_confused(self, number: int) -> list[tuple[str, str, int]]:
        """(class, class it was taken for, how often) of the pairs of classes that occur most, at most so many."""
        mixed = self.counts()[:-1, :-1]
        np.fill_diagonal(mixed, 0)
        order = np.argsort(-mixed, axis=None, kind="stable")[:number]
        names = self.class_names
        pairs = ((*np.unravel_index(place, mixed.shape), int(mixed.flat[place])) for place in order)
        return [(names[row], names[column], count) for row, column, count in pairs if count]
