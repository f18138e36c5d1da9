"""How well each single image went, to find the worst and the best of a set and what changed between two runs."""

from typing import NamedTuple

from ..structures import Target
from .image_metric import ImageArrays, ImageMetric
from .matching import NO_OBJECT


class ImageOutcome(NamedTuple):
    """What became of the objects and of the detections of an image, counted."""

    image_id: object
    true_positives: int
    false_positives: int
    missed: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall in this image; 1 where nothing is and nothing was found."""
        whole = 2 * self.true_positives + self.false_positives + self.missed
        return 2 * self.true_positives / whole if whole else 1.0


class ImageOutcomes(ImageMetric):
    """Right detections, wrong ones and missed objects of every image, gathered image by image.

    class_names: the classes without the background; label i is class_names[i - 1].
    score_threshold: detections below do not count.

    A detection is right when it takes an object of its class at IoU 0.5 by the rules of COCO, best score first.
    Difficult objects are not missed, and detections on them count neither way.
    """

    def __init__(self, class_names, score_threshold: float):
        super().__init__(class_names)
        self.score_threshold = score_threshold
        self._rows = []

    def _take(self, image: ImageArrays, target: Target) -> None:
        claims = image.claims[image.scores >= self.score_threshold]
        taken = claims != NO_OBJECT
        right = int((~image.difficult[claims[taken]]).sum())
        counting = len(image.objects) - int(image.difficult.sum())
        self._rows.append(ImageOutcome(target.image_id, right, int((~taken).sum()), counting - right))

    def rows(self) -> list[ImageOutcome]:
        """One for every image, in the order in which they came."""
        return list(self._rows)
