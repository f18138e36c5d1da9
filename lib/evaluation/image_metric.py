"""What every metric begins with: detections and ground truth of an image as checked arrays in pixels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..structures import Detections, Target
from ..utils.errors import UserError
from .matching import claim_best_free, overlaps_of_crowds

MATCH_IOU = 0.5
"""Overlap from which a detection and an object belong together, wherever one threshold is meant."""

BOX_LIMIT = 1e6
"""Pixels; box corners beyond are moved to it, so that an overflowed box is a false positive and not a NaN."""


@dataclass(frozen=True)
class ImageArrays:
    """K detections and N objects of an image: boxes float64 [K, 4], scores [K] and labels int32 [K]; objects float64
    [N, 4], object_labels int32 [N], difficult bool [N] and areas [N].  Boxes are xyxy in pixels, labels count from 1;
    areas are those of the objects' outlines where they are known, else of their boxes."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    object_labels: np.ndarray
    difficult: np.ndarray
    areas: np.ndarray

    @cached_property
    def overlaps(self) -> np.ndarray:
        """IoU [K, N] by the rules of COCO, made once for all metrics: a box is x2 - x1 wide; of a difficult object it
        is the share of the detection that lies on it."""
        return overlaps_of_crowds(self.boxes, self.objects, self.difficult)

    @cached_property
    def same_class(self) -> np.ndarray:
        """bool [K, N]: detection and object are of one class."""
        return self.labels[:, None] == self.object_labels[None]

    @cached_property
    def claims(self) -> np.ndarray:
        """The object int32 [K] of its class that each detection takes at IoU 0.5 by the rules of COCO, else
        NO_OBJECT.  What the detections above any score take does not depend on those below."""
        eligible = np.where(self.same_class, self.overlaps, 0)
        return claim_best_free(eligible, self.scores, self.difficult, MATCH_IOU)


class ImageMetric:
    """A metric that is fed image by image; a subclass says in `_take` what it keeps of one.

    class_names: the classes without the background; label i is class_names[i - 1].
    """

    def __init__(self, class_names):
        self.class_names = tuple(class_names)
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class names repeat: {', '.join(map(str, self.class_names))}")
        self.num_images = 0

    def update(self, detections: list[Detections], targets: list[Target]) -> None:
        """Add images: detections in pixels and the target of the same image (unit square, with its size).

        Detections with equal scores rank in the order in which they are given here.  Raises ValueError for a target
        without size, because the rule of inclusive pixel corners means nothing in the unit square, for a label
        outside the classes and for a score that is NaN; UserError for detections made with other class names.
        """
        if len(detections) != len(targets):
            raise ValueError(f"{len(detections)} detections for {len(targets)} targets")
        for found, target in zip(detections, targets, strict=True):
            self.add(image_arrays(found, target, self.class_names), target)

    def add(self, image: ImageArrays, target: Target) -> None:
        """Add an image whose arrays (`image_arrays`, made with the same class names) other metrics are fed with too."""
        self._take(image, target)
        self.num_images += 1

    def _take(self, image: ImageArrays, target: Target) -> None:
        raise NotImplementedError


def image_arrays(found: Detections, target: Target, class_names: tuple[str, ...]) -> ImageArrays:
    """Detections and target of one image as arrays, checked as `ImageMetric.update` says."""
    if found.class_names:
        check_class_names(found.class_names, class_names, target.image_id)
    objects = truth_pixel_boxes(target)
    return ImageArrays(
        pixel_boxes(found),
        scores_array(found, target.image_id),
        _checked_labels(found.labels, len(class_names), "a detection", target),
        objects,
        _checked_labels(target.labels, len(class_names), "an object", target),
        target.difficult.cpu().numpy().astype(bool),
        _areas(objects, target.areas),
    )


def pixel_boxes(found: Detections) -> np.ndarray:
    """Boxes float64 [K, 4] of detections in pixels; those that overflowed lie at BOX_LIMIT, NaN is 0."""
    boxes = found.boxes.detach().to("cpu", torch.float64).numpy().reshape(-1, 4)
    return np.clip(np.nan_to_num(boxes, posinf=BOX_LIMIT, neginf=-BOX_LIMIT), -BOX_LIMIT, BOX_LIMIT)


def truth_pixel_boxes(target: Target) -> np.ndarray:
    """Boxes float64 [N, 4] of a target in 0-based pixels of its image; ValueError when its size is unknown."""
    if target.size is None:
        raise ValueError(f"image {target.image_id!r} has no size: the metrics count in pixels")
    height, width = target.size
    boxes = target.boxes.detach().to("cpu", torch.float64).numpy().reshape(-1, 4)
    # A whole pixel divided by the size in float32 comes back a few 1e-5 beside itself, enough to tip an IoU of 0.5.
    return np.round(boxes * (width, height, width, height), 3)


def _areas(objects: np.ndarray, given) -> np.ndarray:
    areas = box_areas(objects)
    if given is None:
        return areas
    given = given.cpu().numpy()
    return np.where(np.isnan(given), areas, given)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas [N] of boxes [N, 4], x2 - x1 wide."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


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


def joined(arrays: list[np.ndarray], dtype) -> np.ndarray:
    """The arrays one after the other; an empty one of the type where there are none."""
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _checked_labels(labels, last: int, what: str, target: Target) -> np.ndarray:
    labels = labels.cpu().numpy()
    wrong = labels[(labels < 1) | (labels > last)]
    if len(wrong):
        raise ValueError(f"image {target.image_id!r}: {what} has label {wrong[0]}; labels go from 1 to {last}")
    return labels.astype(np.int32)
