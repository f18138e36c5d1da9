"""The same images after every evaluation, with truth and detections drawn on them."""

import logging
from pathlib import Path

import cv2
import numpy as np

from ..dataset.image_header import UnreadableImage
from ..evaluation import written_id
from ..utils.draw import draw_truth_and_detections

logger = logging.getLogger(__name__)


class Gallery:
    """Keeps the detections of NUM_PICTURES images spread evenly over a data set (of all with PRINT_IMAGES)."""

    def __init__(self, records, settings, class_names):
        wanted = len(records) if settings.PRINT_IMAGES else min(settings.NUM_PICTURES, len(records))
        chosen = np.linspace(0, len(records) - 1, wanted).round().astype(int).tolist() if wanted else []
        self.records = records
        self.threshold = settings.PICTURE_THRESHOLD
        self.class_names = list(class_names)
        self.on_board = set(chosen[: settings.NUM_PICTURES])
        self._index = {records.image_id(i): i for i in chosen}
        self._found = {}

    def take(self, detections, targets) -> None:
        """Keep those of a batch that belong to the gallery."""
        for found, target in zip(detections, targets, strict=True):
            if target.image_id in self._index:
                self._found[target.image_id] = (found, target)

    def write(self, writer, tag: str, step: int, folder: Path | None = None) -> None:
        """Draw the pictures to TensorBoard under `tag`, and to JPEG files in `folder` where it is given."""
        for key, (found, target) in self._found.items():
            index, image_id = self._index[key], written_id(key)
            try:
                image = self.records.read(index)
            except UnreadableImage as error:  # gone since it was scored
                logger.warning("no picture of an image: %s", error)
                continue
            picture = draw_truth_and_detections(image, target, found, self.class_names, self.threshold)
            if index in self.on_board:
                writer.image(f"{tag}/{image_id}", picture, step)
            if folder is not None:
                path = folder / f"{str(image_id).replace('/', '_')}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imencode(".jpg", picture)[1].tofile(path)
