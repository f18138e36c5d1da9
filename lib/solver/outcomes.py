"""The images of a test that went worst and best, chosen after all are scored, with what was found on them."""

from array import array
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch

from ..evaluation import ImageOutcomes
from ..evaluation.image_metric import image_arrays
from ..evaluation.matching import NO_OBJECT
from ..structures import Detections, Target


class Outcome(NamedTuple):
    """A chosen image: its index in the records, target and drawn detections, its counts at IoU 0.5, and by class name
    how many objects were missed and how many detections were wrong."""

    index: int
    target: Target
    found: Detections
    true_positives: int
    false_positives: int
    missed: int
    f1: float
    missed_of: Counter
    wrong_of: Counter


class OutcomeKeeper:
    """Counts right, wrong and missing detections of every image and keeps, in flat arrays, all detections with a score
    of `threshold` or more: about 30 bytes each, however large the data set."""

    def __init__(self, records, class_names, threshold: float):
        self.records = records
        self.class_names = tuple(class_names)
        self.threshold = threshold
        self.outcomes = ImageOutcomes(class_names, threshold)
        self._values, self._labels, self._ends = array("f"), array("q"), array("q")

    def take(self, detections: list[Detections], targets: list[Target]) -> None:
        """Add a batch: detections in pixels of their images."""
        drawn = [found.select(found.scores >= self.threshold) for found in detections]
        self.outcomes.update(drawn, targets)
        for kept in drawn:
            values = torch.cat([kept.boxes, kept.scores[:, None]], 1)
            self._values.frombytes(values.cpu().numpy().astype(np.float32).tobytes())
            self._labels.frombytes(kept.labels.cpu().numpy().astype(np.int64).tobytes())
            self._ends.append(len(self._labels))

    def totals(self) -> tuple[int, int, int]:
        """Right detections, wrong ones and missed objects of all images."""
        rows = self.outcomes.rows()
        return tuple(
            sum(getattr(row, name) for row in rows) for name in ("true_positives", "false_positives", "missed")
        )

    def worst_and_best(self, number: int) -> tuple[list[Outcome], list[Outcome]]:
        """At most `number` images that went worst, worst first, and as many others that went best, best first.

        By F1, then by the number of errors; of those without errors the ones with most objects are best.  An image
        without errors is not among the worst.  Of videos, frames of as many as possible are taken.
        """
        rows = self.outcomes.rows()
        errors = [row.false_positives + row.missed for row in rows]
        ranked = sorted(range(len(rows)), key=lambda i: (rows[i].f1, -errors[i], -rows[i].true_positives))
        good = sorted(range(len(rows)), key=lambda i: (-rows[i].f1, errors[i], -rows[i].true_positives))
        number = min(number, -(-len(rows) // 2))
        worst = self._varied([i for i in ranked if errors[i]], number)
        best = self._varied([i for i in good if i not in worst], number)
        indices = self._indices({rows[i].image_id for i in (*worst, *best)})
        return tuple([self._outcome(rows[i], i, indices) for i in chosen] for chosen in (worst, best))

    def _varied(self, ranked: list[int], number: int) -> list[int]:
        """The first `number`; of videos no more of each than it takes to fill up."""
        if not self.records.is_video or not ranked:
            return ranked[:number]
        rows, taken, chosen = self.outcomes.rows(), Counter(), []
        videos = {rows[i].image_id[0] for i in ranked}
        limit = -(-number // len(videos))
        for i in ranked:
            video = rows[i].image_id[0]
            if len(chosen) < number and taken[video] < limit:
                taken[video] += 1
                chosen.append(i)
        return chosen

    def _indices(self, wanted: set) -> dict:
        """Image id -> index in the records."""
        ids = ((self.records.image_id(i), i) for i in range(len(self.records)))
        return {image_id: i for image_id, i in ids if image_id in wanted}

    def _outcome(self, row, position: int, indices: dict) -> Outcome:
        index = indices[row.image_id]
        target, found = self.records.target(index), self._detections(position)
        image = image_arrays(found, target, self.class_names)
        taken = set(image.claims[image.claims != NO_OBJECT].tolist())
        missed = [i for i in np.flatnonzero(~image.difficult) if i not in taken]
        return Outcome(
            index, target, found, row.true_positives, row.false_positives, row.missed, row.f1,
            Counter(self.class_names[image.object_labels[i] - 1] for i in missed),
            Counter(self.class_names[label - 1] for label in image.labels[image.claims == NO_OBJECT]),
        )  # fmt: skip

    def _detections(self, position: int) -> Detections:
        start, end = self._ends[position - 1] if position else 0, self._ends[position]
        values = torch.tensor(self._values[5 * start : 5 * end]).view(-1, 5)
        return Detections(values[:, :4], values[:, 4], torch.tensor(self._labels[start:end]), self.class_names)
