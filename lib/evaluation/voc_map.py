"""Mean average precision by the rules of the PASCAL VOC development kit (Everingham et al., IJCV 2010, section 4.2).

The rules, in the order they act: corners are pixels and inclusive, so a box is x2 - x1 + 1 wide; a detection looks only
at the object of its class and image that it overlaps most, and claims it if their IoU is above the threshold; of
several claims on an object the one with the highest score is right and the others are false; a claim on a difficult
object counts neither way.  Because a detection never falls back on its second best object, its claim depends on no
other detection: claims are settled image by image in `update`, and only scores and claims are kept.
"""

import numpy as np

from ..structures import Target
from .image_metric import ImageArrays
from .matching import claim_objects
from .ranking import RankedMetric, area_ap, envelope, with_means


class VOCMeanAP(RankedMetric):
    """VOC mean average precision, gathered image by image.

    class_names: the classes without the background; label i is class_names[i - 1].
    iou_threshold: a detection is right when its IoU is above (not at) this.
    """

    def _take(self, image: ImageArrays, target: Target) -> None:
        claims = claim_objects(image.boxes, image.labels, image.objects, image.object_labels, self.iou_threshold)
        self._keep(image, claims)

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
        return with_means(per_class)


def eleven_point_ap(precision: np.ndarray, recall: np.ndarray) -> float:
    """Mean over the recalls 0, 0.1 .. 1 of the best precision at that recall or beyond (VOC until 2009)."""
    best_beyond = np.append(envelope(precision), 0.0)
    # As multiples of the float 0.1 the points 0.3, 0.6 and 0.7 lie a hair above, so that a recall of exactly 0.6 misses
    # its point.  The evaluators behind published figures do the same, and to compare with them is what this is for.
    return float(best_beyond[np.searchsorted(recall, np.arange(11) * 0.1)].mean())
