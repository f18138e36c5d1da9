"""Training images made of several photographs: mosaic and mixup."""

from dataclasses import replace

import cv2
import numpy as np

from .transforms import TrainTransform

NEAREST_EDGE = 0.25
"""The point where the four parts of a mosaic meet stays this part of the image away from its border."""

MIXUP_BETA = 8.0
"""Both parameters of the Beta distribution of mixup's weight: near one half, as both images' objects count fully."""


class MixingTransform:
    """TrainTransform for some images, mosaic or mixup for others.

    `mosaic` and `mixup` are the probabilities; draw_other(rng) -> (image, boxes in pixels, labels, difficult) gives a
    random image of the set.  In place of difficult [N] there may be several such marks, [N, K].
    """

    def __init__(self, transform: TrainTransform, mosaic: float, mixup: float, draw_other):
        self.transform, self.mosaic_prob, self.mixup_prob, self.draw_other = transform, mosaic, mixup, draw_other

    def __call__(self, image, boxes, labels, difficult, rng, output_size=None):
        """As TrainTransform.__call__."""
        sample, size = (image, boxes, labels, difficult), output_size or self.transform.image_size
        mixed = self._single(sample, rng, size)
        if rng.random() < self.mixup_prob:
            mixed = mixup(mixed, self._single(self.draw_other(rng), rng, size), rng.beta(MIXUP_BETA, MIXUP_BETA))
        return mixed

    def _single(self, sample, rng, size):
        if rng.random() < self.mosaic_prob:
            return mosaic([sample, *(self.draw_other(rng) for _ in range(3))], self.transform, rng, size)
        return self.transform(*sample, rng, size)


def mixup(first, second, weight: float):
    """Two transformed samples (image, boxes [N, 4], labels, difficult) of one size blended, the first with `weight`,
    and the objects of both (arXiv 1902.04103, but without weights on the losses)."""
    image = cv2.addWeighted(first[0], weight, second[0], 1 - weight, 0)
    return image, *(np.concatenate(pair) for pair in zip(first[1:], second[1:], strict=True))


def mosaic(samples, transform: TrainTransform, rng, size):
    """Four samples (image uint8 BGR, boxes in pixels, labels, difficult) as the quarters of one image of `size`
    (height, width): mosaic of YOLOv4 (arXiv 2004.10934).

    Every quarter shows a window of its image in the proportions that the whole image would have at `size`, at a scale
    between a whole image in the quarter's narrower side and full size; colours, mirror and turn are as in `transform`.
    Returns (image in the transform's colour order, boxes in the unit square, labels, difficult).
    """
    height, width = size
    x = round(width * rng.uniform(NEAREST_EDGE, 1 - NEAREST_EDGE))
    y = round(height * rng.uniform(NEAREST_EDGE, 1 - NEAREST_EDGE))
    canvas, objects = None, []
    corners = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    for (image, boxes, labels, difficult), (x1, y1, x2, y2) in zip(samples, corners, strict=True):
        part = (y2 - y1, x2 - x1)
        choice = replace(transform.draw_looks(rng), crop=draw_window(image.shape[:2], part, size, rng))
        picture, boxes, kept = transform.apply(choice, image, boxes, part)
        canvas = np.empty((height, width, 3), np.uint8) if canvas is None else canvas
        canvas[y1:y2, x1:x2] = picture
        objects.append((boxes + np.float32([x1, y1, x1, y1]), labels[kept], difficult[kept]))
    boxes, labels, difficult = (np.concatenate(parts) for parts in zip(*objects, strict=True))
    large = transform.large_enough(boxes, size)
    unit = np.clip(boxes[large] / np.float32([width, height] * 2), 0, 1)  # a mirror leaves rounding errors
    return canvas, unit, labels[large], difficult[large]


def draw_window(image_size, part_size, output_size, rng) -> tuple[int, int, int, int]:
    """A random window (x, y, width, height) of an image that fills a part of the output.

    Objects come out at most as large as if the whole image were resized to output_size, and no smaller than the image
    allows.  Sizes are (height, width).
    """
    spans = [part / whole for part, whole in zip(part_size, output_size, strict=True)]  # at full size
    shrink = np.exp(rng.uniform(0, np.log(1 / max(spans))))
    height, width = (
        max(1, min(side, round(side * span * shrink))) for side, span in zip(image_size, spans, strict=True)
    )
    x, y = rng.integers(image_size[1] - width + 1), rng.integers(image_size[0] - height + 1)
    return int(x), int(y), width, height
