"""The same images after every evaluation, with truth and detections drawn on them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..dataset.image_header import UnreadableImage
from ..evaluation import written_id
from ..structures import Detections
from ..utils.draw import draw_truth_and_detections
from ..utils.files import plain_name, write_whole

logger = logging.getLogger(__name__)

LEGEND = (
    "Solid boxes, in the colour of their class, are detections with a score of {threshold:g} or more; dashed boxes are "
    "the objects of the annotation. A dashed box has a caption where its object was missed (no drawn box of its class "
    "overlaps it by an IoU of 0.5) or is marked as difficult (grey dashes)."
)
"""How to read a picture of `draw_truth_and_detections`."""

STRIP_IMAGES, STRIP_SIDE = 4, 320
"""Images of a film strip, and pixels of the longer side of each."""


class Gallery:
    """Keeps the detections of NUM_PICTURES images spread evenly over a data set (of all with PRINT_IMAGES)."""

    def __init__(self, records, settings, class_names):
        wanted = len(records) if settings.PRINT_IMAGES else min(settings.NUM_PICTURES, len(records))
        chosen = _spread(range(len(records)), wanted)
        self.records = records
        self.threshold = settings.PICTURE_THRESHOLD
        self.class_names = list(class_names)
        self.on_board = chosen[: settings.NUM_PICTURES]
        self._index = {records.image_id(i): i for i in chosen}
        self._found = {}

    def take(self, detections, targets) -> None:
        """Keep those of a batch that belong to the gallery."""
        for found, target in zip(detections, targets, strict=True):
            if target.image_id in self._index:
                self._found[self._index[target.image_id]] = (found, target)

    def write(self, writer, tag: str, step: int, folder: Path | None = None) -> None:
        """Draw the pictures to TensorBoard under `tag`, and to JPEG files in `folder` where it is given."""
        legend = LEGEND.format(threshold=self.threshold)
        for index, picture in self._drawn(self._found):
            image_id = written_id(self.records.image_id(index))
            if index in self.on_board:
                writer.image(f"{tag}/{image_id}", picture, step, legend, photograph=True)
            if folder is not None:
                path = folder / f"{plain_name(str(image_id))}.jpg"
                write_whole(path, cv2.imencode(".jpg", picture)[1].tobytes())

    def strip(self) -> list[np.ndarray]:
        """Small pictures of a few of the images, always the same ones."""
        chosen = _spread(self.on_board, min(STRIP_IMAGES, len(self.on_board)))
        return [picture for _, picture in self._drawn([i for i in chosen if i in self._found], STRIP_SIDE)]

    def _drawn(self, indices, side: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(index, picture) of kept images, with `side` pixels on the longer side where it is given."""
        for index in indices:
            found, target = self._found[index]
            try:
                image = self.records.read(index)
            except UnreadableImage as error:  # gone since it was scored
                logger.warning("no picture of an image: %s", error)
                continue
            yield index, draw_outcome(image, target, found, self.class_names, self.threshold, side)


def draw_outcome(image, target, found: Detections, class_names, threshold: float, side: int | None = None):
    """Truth and detections (boxes in pixels) on the image, scaled to `side` pixels on the longer side if it is given;
    captions keep their size."""
    if side is not None:
        scale = side / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = Detections(found.boxes * scale, found.scores, found.labels, found.class_names)
    return draw_truth_and_detections(image, target, found, class_names, threshold)


def _spread(values, number: int) -> list:
    """So many of the values, evenly spread, the first and the last among them."""
    return [values[i] for i in np.linspace(0, len(values) - 1, number).round().astype(int)] if number else []
