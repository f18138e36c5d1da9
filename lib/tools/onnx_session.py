"""Running an exported ONNX file on the images of a data set, with the very runner that is delivered beside it."""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ..dataset.detection import DetectionRecords
from ..dataset.image_header import UnreadableImage
from ..dataset.transforms import EvalTransform
from ..layers.postprocess import PostProcess
from ..solver.protocols import create_protocols
from ..structures import Detections, Predictions
from ..utils.errors import UserError
from . import runner
from .onnx_metadata import require

log = logging.getLogger(f"{__package__}.onnx_session")

BATCH = 8


class OnnxDetector:
    """An exported file, raw or with detections, as the gate and the scores see it.

    path: one that export has written, of an interleaved detector either of the two; threads: of the processor, None
    for as many as torch has.  UserError for other files.
    """

    def __init__(self, path, threads: int | None = None):
        require("onnxruntime")
        try:
            self.session = runner.Detector(path, threads or torch.get_num_threads())
        except runner.Mistake as mistake:
            raise UserError(str(mistake)) from None
        self.path = path
        self.facts, self.kind = self.session.facts, self.session.kind
        self.class_names = tuple(self.session.class_names)
        self._rules = PostProcess(**self.facts["post_process"])
        self._resize = EvalTransform(self.session.size).resize  # in BGR: colours are the graph's business

    @property
    def is_recurrent(self) -> bool:
        """Whether it remembers the frames of a video."""
        return self.session.is_recurrent

    def run(self, pixels: np.ndarray, state: runner.State | None = None) -> tuple[dict, runner.State | None]:
        """(outputs by name, state after them) of images uint8 BGR [B, H, W, 3] of the network's size."""
        try:
            return self.session.run(pixels, state)
        except runner.Mistake as mistake:
            raise UserError(f"{self.path}: {mistake}") from None

    def raw(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """loc, conf and priors of a raw file for images that begin videos."""
        outputs, _ = self.run(pixels)
        return outputs["loc"], outputs["conf"], outputs["priors"]

    def detect(self, images: list[np.ndarray], state=None, size=None) -> tuple[list[Detections], runner.State | None]:
        """Detections, boxes in pixels and cut only where the rules say so, as in the test phase; and the state.  `size`
        is another (height, width) than the network's own, for files that allow it."""
        outputs, state = self.run(np.stack([self._resize(image, size) for image in images]), state)
        sizes = [image.shape[:2] for image in images]
        if self.kind == "raw":
            predictions = Predictions(*(torch.from_numpy(outputs[name]) for name in ("loc", "conf", "priors")))
            found = self._rules(predictions, torch.tensor(sizes))
            return [Detections(d.boxes, d.scores, d.labels, self.class_names) for d in found], state
        return [self._found(outputs, i, size) for i, size in enumerate(sizes)], state

    def _found(self, outputs: dict, index: int, size) -> Detections:
        count, (height, width) = int(outputs["counts"][index]), size
        boxes, scores, labels = (
            torch.from_numpy(outputs[name][index, :count]) for name in ("boxes", "scores", "labels")
        )
        return Detections(boxes * torch.tensor([width, height, width, height]), scores, labels, self.class_names)


class ReadBatch(NamedTuple):
    """Images of a data set by their indices; `begins`: they have nothing to do with those before."""

    indices: list[int]
    images: list[np.ndarray]
    begins: bool


def read_batches(records: DetectionRecords, limit: int | None = None, batch: int = BATCH) -> Iterator[ReadBatch]:
    """The images of a data set in batches, of videos frame by frame; at most `limit` of them.  Stills that cannot be
    read are left out, as in the test phase, and their number is logged."""
    count = len(records) if limit is None else min(limit, len(records))
    if records.is_video:
        videos = records.video_of(range(count))
        for index in range(count):
            yield ReadBatch([index], [records.read(index)], index == 0 or videos[index] != videos[index - 1])
        return
    indices, images, left_out = [], [], 0
    for index in range(count):
        try:
            images.append(records.read(index))
            indices.append(index)
        except UnreadableImage:
            left_out += 1
        if images and (len(images) == batch or index == count - 1):
            yield ReadBatch(indices, images, True)
            indices, images = [], []
    if images:
        yield ReadBatch(indices, images, True)
    if left_out:
        log.warning("%s: %d of %d images cannot be read and are left out", records.name, left_out, count)


def score_onnx(path, cfg, records: DetectionRecords, limit: int | None = None) -> dict:
    """The figures of the test phase for an exported file, run by onnxruntime on the processor: "mAP" and the others of
    `Protocols`, and "images", how many there were."""
    detector, protocols = OnnxDetector(path), create_protocols(cfg, records)
    state, count = None, 0
    for indices, images, begins in read_batches(records, limit):
        found, state = detector.detect(images, None if begins else state)
        protocols.update(found, [records.target(index) for index in indices])
        count += len(indices)
    return protocols.compute() | {"images": count}
