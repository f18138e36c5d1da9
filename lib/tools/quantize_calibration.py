"""The inputs on which the ranges of a network's maps are found: images of the training set, states with them."""

import logging

import numpy as np

from ..dataset.image_header import UnreadableImage
from ..dataset.transforms import EvalTransform
from ..utils.errors import UserError
from .export_trace import INPUT, state_names
from .onnx_metadata import require
from .quantize_graph import Feed

log = logging.getLogger(f"{__package__}.quantize_calibration")

RUN = 10
"""Frames that follow each other, of videos."""


def image_feeds(records, image_size, count: int, seed: int) -> list[Feed]:
    """Up to `count` random images of DetectionRecords as the graph takes them, prepared as in a test.  Those that
    cannot be read are passed over; UserError where there is none."""
    order = np.random.default_rng(seed).permutation(len(records))
    feeds = _not_empty(_read(records, order, image_size, count), records)
    if len(feeds) < count:
        log.warning("%s: has %d images to calibrate with, %d were asked for", records.name, len(feeds), count)
    return feeds


def frame_feeds(model, records, image_size, count: int, seed: int) -> list[Feed]:
    """The same for a graph with states: runs of RUN frames that follow each other in a video, with the states that the
    float graph `model` has after those before.  An image that is no frame is a video of its own."""
    session = require("onnxruntime").InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shapes = {entry.name: entry.shape[1:] for entry in session.get_inputs() if entry.name != INPUT}
    before, after = state_names(len(shapes))
    rng, feeds, stop = np.random.default_rng(seed), [], len(records)
    for start in rng.permutation(len(records)).tolist():
        if records.is_video:
            stop = int(records.video_offsets[records.video_of([start])[0] + 1])
        states = {name: np.zeros((1, *shape), np.float32) for name, shape in shapes.items()}
        frames = range(start, min(start + RUN, stop) if records.is_video else start + 1)
        for feed in _read(records, frames, image_size):
            feeds.append(feed | states)
            states = dict(zip(before, session.run(after, feeds[-1]), strict=True))
        if len(feeds) >= count:
            break
    return _not_empty(feeds[:count], records)


def _read(records, indices, image_size, count: int | None = None) -> list[Feed]:
    resize, feeds = EvalTransform(image_size).resize, []
    for index in indices:
        try:
            feeds.append({INPUT: resize(records.read(int(index)))[None]})
        except UnreadableImage as error:
            log.warning("%s; calibrating without it", error)
        if count is not None and len(feeds) == count:
            break
    return feeds


def _not_empty(feeds: list[Feed], records) -> list[Feed]:
    if not feeds:
        raise UserError(f"{records.name}: none of its images can be read, so there is nothing to calibrate with")
    return feeds
