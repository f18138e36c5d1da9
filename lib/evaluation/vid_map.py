"""Mean average precision of ImageNet VID, and its split by the motion of the objects.

The rules are those of the evaluator of Zhu et al. (Flow-Guided Feature Aggregation, ICCV 2017), in the order they act:

- Corners are pixels and inclusive, so a box is x2 - x1 + 1 wide.  Every frame of every video counts, and all detections
  of a class are ranked together.
- In a frame the detections, best score first, each take the free object of their class that they overlap most, of those
  whose IoU with them is at least the threshold.  The threshold is 0.5 for `map50`; for `vid` and the split it is
  min(0.5, w h / ((w + 10) (h + 10))) with the sides of the object, which forgives small boxes a few pixels.
- Average precision is the area under the precision made monotone.
- An object is fast, medium or slow by its motion IoU (tracks.motion_iou): up to 0.7, from 0.7 to 0.9, from 0.9.
- For one speed the objects of others are ignored, not removed.  They keep the detections that took them, which count
  neither way.  A detection that took nothing is a false positive if, of all objects of its frame of whatever class, it
  overlaps one of the speed most, and none if it overlaps an ignored one most.  Where it overlaps both alike (mostly not
  at all) it is a fraction of one: the share of the frame's objects that are ignored.  In a frame without objects the
  fraction is the share of the speed among all objects, where each such frame counts as one more object, a fast one.

Two things that ImageNet VID does not hold: a difficult object counts as in VOC, so that the detections which take it,
any number of them, count neither way, and it is ignored for every speed.  An object of an unknown track, or alone in
its track for ten frames to either side, has no motion IoU: it counts for map50 and vid, and is ignored for every speed.
"""

import numpy as np

from ..structures import Target
from .image_metric import ImageArrays, joined
from .matching import NO_OBJECT, claim_free_objects, inclusive_iou, inclusive_sides
from .ranking import RankedMetric, area_ap, with_means
from .tracks import ObjectArrays, VideoObjects, motion_iou

SPEEDS = {"slow": (0.9, 1.0), "medium": (0.7, 0.9), "fast": (0.0, 0.7)}
"""Motion IoU from and to, both included."""

FORGIVEN_PIXELS = 10


class VIDMeanAP(RankedMetric):
    """ImageNet VID mean average precision, gathered frame by frame; counts, curves and best F1 are those of map50.

    class_names: the classes without the background; label i is class_names[i - 1].  The image_id of a target is
    (video, number of the frame), and its track_ids name objects within the video.  `update` also raises ValueError for
    an image_id of another form and for a frame that came before.
    """

    def __init__(self, class_names):
        super().__init__(class_names, iou_threshold=0.5)
        self._objects = VideoObjects()
        self._object_boxes, self._vid_claims = [], []
        self._nearest = []
        self._num_detections = 0

    def _take(self, image: ImageArrays, target: Target) -> None:
        self._objects.add(target)
        overlaps = inclusive_iou(image.boxes, image.objects)
        own_class = np.where(image.labels[:, None] == image.object_labels[None], overlaps, 0)
        claims = _claims(own_class, self.iou_threshold, image)
        thresholds = vid_thresholds(image.objects)
        vid_claims = claims if (thresholds == self.iou_threshold).all() else _claims(own_class, thresholds, image)

        most = overlaps.max(axis=1, initial=0)
        rows, objects = np.nonzero((overlaps == most[:, None]) & ((most > 0) & (vid_claims == NO_OBJECT))[:, None])
        if len(rows):
            self._nearest.append(np.stack([rows + self._num_detections, objects + self._num_objects]))
        self._object_boxes.append(image.objects)
        self._vid_claims.append(self._numbered(vid_claims, image.difficult))
        self._num_detections += len(image.scores)
        self._keep(image, claims)

    def compute(self) -> dict[str, float]:
        """{"map50", "vid", "slow", "medium", "fast", "<key>/<class>"}: average precision and its mean over classes.

        A class with objects but no detection has 0; one without objects that count, or for a speed without any of it,
        has NaN and is left out of the mean, which itself is NaN when no class has any.
        """
        claims, difficult = joined(self._vid_claims, np.int32), joined(self._object_difficult, bool)
        objects = self._objects.arrays()
        boxes = np.concatenate([np.empty((0, 4)), *self._object_boxes])
        motion = motion_iou(boxes, objects)
        per_class = {
            "map50": {
                name: area_ap(*ranking.curve()) if ranking.num_objects else float("nan")
                for name, ranking in self.rankings().items()
            },
            "vid": self._average_precisions(claims, ~difficult, (claims == NO_OBJECT).astype(np.float64)),
        }
        for speed, (low, high) in SPEEDS.items():
            counting = ~difficult & (motion >= low) & (motion <= high)
            weights = self._false_weights(objects, counting, with_empty=low <= 0)
            weights[claims != NO_OBJECT] = 0
            per_class[speed] = self._average_precisions(claims, counting, weights)
        return with_means(per_class)

    def _average_precisions(self, claims, counting, weights) -> dict[str, float]:
        """class -> AP over the objects in counting [M]; a detection that took none is a false positive by weights."""
        object_labels = joined(self._object_labels, np.int32)[counting]
        num_objects = np.bincount(object_labels, minlength=len(self.class_names) + 1)[1:].tolist()
        # The two at the end are those that the negative numbers of a claim on nothing point at.
        correct = np.append(counting, (False, False))[claims]
        figures = {}
        for (name, rows), count in zip(self._ranked_rows().items(), num_objects, strict=True):
            rows = rows[correct[rows] | (weights[rows] > 0)]
            true_positives, false_positives = np.cumsum(correct[rows]), np.cumsum(weights[rows])
            precision = true_positives / (true_positives + false_positives)
            figures[name] = area_ap(precision, true_positives / count) if count else float("nan")
        return figures

    def _false_weights(self, objects: ObjectArrays, counting, with_empty: bool) -> np.ndarray:
        """[K]: how much of a false positive each detection would be for the objects in counting [M].

        with_empty: whether a frame without objects counts as one more of them.
        """
        num_objects = np.bincount(objects.images, minlength=self.num_images)
        num_counting = np.bincount(objects.images[counting], minlength=self.num_images)
        num_empty = int((num_objects == 0).sum())
        share = (counting.sum() + with_empty * num_empty) / max(len(counting) + num_empty, 1)
        of_frame = np.where(num_objects > 0, 1 - num_counting / np.maximum(num_objects, 1), share)
        # With objects of one kind alone, overlapping none of them is still overlapping those most.
        of_frame[(num_objects > 0) & (num_counting == num_objects)] = 1
        of_frame[(num_objects > 0) & (num_counting == 0)] = 0

        weights = np.repeat(of_frame, [len(scores) for scores in self._scores])
        rows, nearest = np.concatenate([np.empty((2, 0), np.int64), *self._nearest], axis=1)
        near_counting, near_ignored = np.zeros((2, len(weights)), bool)
        near_counting[rows[counting[nearest]]] = True
        near_ignored[rows[~counting[nearest]]] = True
        weights[near_counting & ~near_ignored] = 1
        weights[near_ignored & ~near_counting] = 0
        return weights


def vid_thresholds(objects: np.ndarray) -> np.ndarray:
    """The IoU [N] at which a detection may take each of the objects [N, 4], xyxy in pixels.

    (Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015.)
    """
    sides = inclusive_sides(objects)
    return np.minimum(0.5, sides.prod(axis=1) / (sides + FORGIVEN_PIXELS).prod(axis=1))


def _claims(overlaps, thresholds, image: ImageArrays) -> np.ndarray:
    return claim_free_objects(np.where(overlaps >= thresholds, overlaps, 0), image.scores, image.difficult)
