"""ObjectDetector: from a checkpoint and images or videos to named detections.  The Python API beneath demo.py."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .config.effective import diff_meanings
from .config.loader import update_derived
from .config.schema import INPUT_KEYS, WIRING_KEYS
from .dataset.transforms import create_transforms, read_image
from .layers.box import clip_boxes
from .layers.normalize import Normalize
from .modeling.asynchronous import AsyncDetector
from .modeling.folding import fold_norms
from .modeling.model_builder import INTERLEAVED, create_model, create_postprocess
from .solver import checkpoint as ckpt
from .structures import Detections
from .utils.class_names import known_class_names
from .utils.device import autocast, resolve_precision, select_device
from .utils.errors import UserError
from .utils.meters import PartTimer
from .utils.video import Frames

logger = logging.getLogger(__name__)


class ObjectDetector:
    """A trained detector, ready for images and videos.

    `cfg` comes from load_config, `checkpoint` is a file of this trainer, of the reference family or of another known
    system.  Colours follow the checkpoint unless `cfg` has values of its own.  Class names are those stored in the
    checkpoint, else DATASET.CLASSES, else the names of a known data set.

    >>> detector = ObjectDetector(load_config("x.yml"), "experiments/models/x/best.pth")
    >>> for found in detector.predict(["a.jpg", "b.jpg"], threshold=0.5):
    ...     print(found.names, found.scores.tolist(), found.boxes.tolist())
    """

    def __init__(self, cfg, checkpoint):
        cfg, content = copy.deepcopy(cfg), ckpt.read_checkpoint(checkpoint)
        ckpt.adopt_inputs(cfg, content, checkpoint)
        ckpt.warn_of_inputs(cfg, content, checkpoint)
        names = content.get("class_names") if ckpt.is_run_checkpoint(content) else None
        implied = known_class_names(cfg.DATASET.DATASET, cfg.DATASET.CLASSES)
        if not cfg.DATASET.CLASSES and cfg.MODEL.NUM_CLASSES not in (None, len(implied) + 1):
            implied = ()  # a data set of that kind, with classes of its own
        self.class_names = tuple(names or implied)
        if cfg.MODEL.NUM_CLASSES is None:
            cfg.MODEL.NUM_CLASSES = len(self.class_names) + 1
            update_derived(cfg)
        if self.class_names and len(self.class_names) + 1 != cfg.MODEL.NUM_CLASSES:
            raise UserError(
                f"MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}, but {checkpoint} knows {len(self.class_names)} classes "
                f"and the background: {', '.join(self.class_names[:10])}"
            )
        _check_inputs(content, checkpoint, cfg)
        self.device = select_device(cfg.DEVICE)
        self.batch_size, self.exif = cfg.TEST.BATCH_SIZE, cfg.DATASET.EXIF
        self.dtype = resolve_precision(cfg.MODEL.PRECISION, self.device, training=False)
        self.model = create_model(cfg)
        ckpt.copy_weights(self.model, content, checkpoint, "", self.class_names).require_complete()
        ckpt.check_wiring(content, checkpoint, cfg)
        ckpt.switch_memory(self.model, content, checkpoint, cfg)
        self.model = fold_norms(self.model).to(self.device, memory_format=torch.channels_last)
        self.transform = create_transforms(cfg, train=False)
        self.normalize = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS).to(self.device)
        self.postprocess = create_postprocess(cfg)
        self.timer = PartTimer(self.device)
        self._never_waits = cfg.MODEL.SSDS == INTERLEAVED and cfg.MODEL.RNN.POLICY == "async"

    def predict(self, images, threshold: float = 0.0) -> list[Detections]:
        """Detections of each image, boxes in its pixels and within it, best first, scores of at least `threshold`
        (and above POST_PROCESS.SCORE_THRESHOLD).

        `images`: BGR uint8 arrays [H, W, 3] or paths, in a list; one alone is a list of one.
        """
        if isinstance(images, (str, Path, np.ndarray)):
            images = [images]
        return list(self.predict_stream(images, threshold))

    def predict_stream(self, images: Iterable, threshold: float = 0.0) -> Iterator[Detections]:
        """The same as a generator over any number of images, of which it holds one batch at a time."""
        batch = []
        for image in images:
            batch.append(_as_array(image, self.exif))
            if len(batch) == self.batch_size:
                yield from self._predict_batch(batch, threshold, self.model)[0]
                batch = []
        if batch:
            yield from self._predict_batch(batch, threshold, self.model)[0]

    def predict_video(
        self, source, threshold: float = 0.0, live: bool | None = None
    ) -> Iterator[tuple[np.ndarray, Detections]]:
        """(frame BGR uint8 [H, W, 3], its detections) for each frame of a video, one at a time, however long it is.

        `source`: a video file, the address of a stream, the number of a camera, a folder of numbered frames, any
        iterable of frames or of paths, or what open_video returns.  Recurrent state is carried from frame to frame and
        starts anew where the size of the frames changes.  A thread reads a few frames ahead until the generator ends
        or is closed.  Frames of a `live` source (by default cameras and streams without an end) are dropped where the
        detector is slower; files never lose one.  Frames that cannot be read are left out with a warning; UserError
        where there is none at all.

        >>> for frame, found in detector.predict_video("street.mp4", threshold=0.5):
        ...     print(found.names)
        """
        with source if isinstance(source, Frames) else self.open_video(source, live) as frames, self._network() as run:
            state = size = None
            for frame in frames:
                if state is not None and frame.shape != size:
                    was, now = (f"{shape[1]}x{shape[0]}" for shape in (size, frame.shape))
                    logger.warning(
                        "%s: frame %d is %s after %s; the state starts anew", frames.name, frames.number, now, was
                    )
                    state = None
                size = frame.shape
                found, state = self._step(run, frame, state, threshold)
                yield frame, found

    def open_video(self, source, live: bool | None = None) -> Frames:
        """The frames of a source of predict_video, with what is known of it: name, fps, number of frames."""
        return Frames(source, lambda picture: _as_array(picture, self.exif), live)

    @contextmanager
    def _network(self) -> Iterator[Callable]:
        """What runs a video's frames: the model, or with the policy async what keeps its large extractor beside
        them."""
        if not self._never_waits:
            yield self.model
            return
        runner = AsyncDetector(self.model, partial(autocast, self.device, self.dtype))
        try:
            yield runner
        finally:
            runner.close()

    def _step(self, run: Callable, frame: np.ndarray, state, threshold: float):
        """Detections of the next frame of a video, and the state after it; a state of None begins the video."""
        (found,), state = self._predict_batch([frame], threshold, run, state)
        return found, state

    @torch.inference_mode()
    def _predict_batch(self, images: list[np.ndarray], threshold: float, run: Callable, state=None):
        """Detections of a batch, and the recurrent state after it; run(inputs, state) is the model or stands for it."""
        part, count = self.timer.part, len(images)
        with part("preprocess", count):
            stacked = torch.from_numpy(np.stack([self.transform.resize(image) for image in images]))
            inputs = self.normalize(stacked.to(self.device).permute(0, 3, 1, 2))
        with part("network", count), autocast(self.device, self.dtype):
            predictions = run(inputs, state)
        with part("postprocess", count):
            sizes = torch.tensor([image.shape[:2] for image in images], device=self.device)
            found = self.postprocess(predictions, sizes)
            found = [self._finish(d, image, threshold) for d, image in zip(found, images, strict=True)]
        return found, predictions.state

    def _finish(self, found: Detections, image: np.ndarray, threshold: float) -> Detections:
        found = found.select(found.scores >= threshold)
        boxes = clip_boxes(found.boxes, *image.shape[:2]).cpu()
        return Detections(boxes, found.scores.cpu(), found.labels.cpu(), self.class_names)


def _check_inputs(content: dict, checkpoint, cfg) -> None:
    """Refuse to show a trained network other images than it was trained on, or to wire it otherwise: that fits every
    shape and finds nothing."""
    if not ckpt.is_run_checkpoint(content):
        return
    for key, old, new in diff_meanings(content.get("config", {}), cfg, INPUT_KEYS + WIRING_KEYS):
        raise UserError(f"{checkpoint}: was trained with {key} {old}, now it is {new}; give {key} its old value")


def _as_array(image, exif: str) -> np.ndarray:
    if isinstance(image, (str, Path)):
        return read_image(str(image), exif)
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        given = f"{image.dtype} array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image must be a path or a BGR uint8 array [H, W, 3], got {given}")
    return image
