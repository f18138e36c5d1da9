"""ObjectDetector: from a checkpoint and images or videos to named detections.  The Python API beneath demo.py."""

import copy
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .config.effective import diff_meanings
from .config.loader import update_derived
from .config.schema import INPUT_KEYS, WIRING_KEYS
from .dataset.image_header import ORIENTATION, refuse_oversized, turn_upright
from .dataset.transforms import create_transforms, read_image
from .layers.box import clip_boxes
from .layers.normalize import Normalize
from .modeling.asynchronous import AsyncDetector
from .modeling.inference import InferenceNetwork, resolve_compile
from .modeling.model_builder import INTERLEAVED, create_model, create_postprocess
from .solver import checkpoint as ckpt
from .structures import Detections
from .utils.class_names import check_shown, known_class_names
from .utils.device import autocast, resolve_precision, select_device
from .utils.errors import UserError
from .utils.meters import PartTimer
from .utils.thresholds import ScoreThreshold
from .utils.video import Frames

logger = logging.getLogger(__name__)

Threshold = float | Mapping[str, float] | ScoreThreshold
"""The smallest score: one number, or one by class name."""

MOST_PIXELS = 100_000_000
"""A batch ends early when its images, unless they are in memory anyway, have so many pixels: 0.3 GB."""


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
        check_shown(self.class_names, str(checkpoint) if names else "DATASET.CLASSES")
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
        ckpt.match_shapes(self.model, content, checkpoint, cfg)
        ckpt.copy_weights(self.model, content, checkpoint, "", self.class_names).require_complete()
        ckpt.check_wiring(content, checkpoint, cfg)
        ckpt.switch_memory(self.model, content, checkpoint, cfg)
        self.transform = create_transforms(cfg, train=False)
        self.normalize = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS)
        self.compile_choice = cfg.MODEL.COMPILE
        self._networks, self._lock = {}, threading.Lock()
        self.postprocess = create_postprocess(cfg)
        self.timer = PartTimer(self.device)
        self.never_waits = cfg.MODEL.SSDS == INTERLEAVED and cfg.MODEL.RNN.POLICY == "async"

    def predict(self, images, threshold: Threshold = 0.0) -> list[Detections]:
        """Detections of each image, boxes in its pixels and within it, best first, scores of at least `threshold`
        (and above POST_PROCESS.SCORE_THRESHOLD), which may be {class name: score} as in ScoreThreshold.

        `images`: what `read` takes, in a list; one alone is a list of one.
        """
        return list(self.predict_stream([images] if is_one_image(images) else images, threshold))

    def predict_stream(self, images: Iterable, threshold: Threshold = 0.0) -> Iterator[Detections]:
        """The same as a generator over any number of images, of which it holds one batch at a time."""
        threshold = ScoreThreshold(threshold, self.class_names)
        network = self.network_for(len(images) if hasattr(images, "__len__") else 1)
        batch, num_pixels, held = [], 0, isinstance(images, (list, tuple))
        for image in images:
            batch.append(self.read(image))
            num_pixels += 0 if held and batch[-1] is image else batch[-1].size // 3
            if len(batch) == self.batch_size or num_pixels >= MOST_PIXELS:
                yield from self._predict_batch(batch, threshold, network)[0]
                batch, num_pixels = [], 0
        if batch:
            yield from self._predict_batch(batch, threshold, network)[0]

    def predict_video(
        self, source, threshold: Threshold = 0.0, live: bool | None = None
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
        threshold = ScoreThreshold(threshold, self.class_names)
        with source if isinstance(source, Frames) else self.open_video(source, live) as frames:
            state = size = None
            with self._video_network(None if frames.live else frames.num_frames or 1) as run:
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

    def read(self, image) -> np.ndarray:
        """An image as BGR uint8 array [H, W, 3], which may be given as such, as the path of a file, as a Pillow image,
        or as an RGB uint8 tensor [3, H, W].  UserError for anything else; DATASET.EXIF says how files are turned."""
        return _as_array(image, self.exif)

    def open_video(self, source, live: bool | None = None) -> Frames:
        """The frames of a source of predict_video, with what is known of it: name, fps, number of frames."""
        return Frames(source, self.read, live)

    def network_for(self, num_images: int | None) -> InferenceNetwork:
        """The network as it shall run on so many images (None: nobody knows how many), compiled or not."""
        mode = resolve_compile(self.compile_choice, num_images, self.device)
        with self._lock:
            if mode not in self._networks:
                self._networks[mode] = InferenceNetwork(self.model, self.normalize, self.device, self.dtype, mode)
            return self._networks[mode]

    @contextmanager
    def _video_network(self, num_frames: int | None) -> Iterator[Callable]:
        """What runs a video's frames: the network, or with the policy async what keeps its large extractor beside
        them."""
        network = self.network_for(num_frames)
        if not self.never_waits:
            yield network
            return
        precision = partial(autocast, self.device, self.dtype)
        runner = AsyncDetector(network.model, precision)

        def run(pixels, state):
            with precision():
                return runner(network.normalize(pixels.to(self.device)), state)

        try:
            yield run
        finally:
            runner.close()

    def _step(self, run: Callable, frame: np.ndarray, state, threshold: ScoreThreshold):
        """Detections of the next frame of a video, and the state after it; a state of None begins the video."""
        (found,), state = self._predict_batch([frame], threshold, run, state)
        return found, state

    @torch.no_grad()
    def _predict_batch(self, images: list[np.ndarray], threshold: ScoreThreshold, run: Callable, state=None):
        """Detections of a batch, and the recurrent state after it; run(pixels, state) is the network or stands for
        it."""
        part, count = self.timer.part, len(images)
        with part("preprocess", count):
            stacked = torch.from_numpy(np.stack([self.transform.resize(image) for image in images]))
            pixels = stacked.to(self.device).permute(0, 3, 1, 2)
        with part("network", count):
            predictions = run(pixels, state)
        with part("postprocess", count):
            sizes = torch.tensor([image.shape[:2] for image in images], device=self.device)
            found = self.postprocess(predictions, sizes)
            found = [self._finish(d, image, threshold) for d, image in zip(found, images, strict=True)]
        return found, predictions.state

    def _finish(self, found: Detections, image: np.ndarray, threshold: ScoreThreshold) -> Detections:
        found = found.select(threshold.mask(found.scores, found.labels))
        boxes = clip_boxes(found.boxes, *image.shape[:2]).cpu()
        return Detections(boxes, found.scores.cpu(), found.labels.cpu(), self.class_names)


def _check_inputs(content: dict, checkpoint, cfg) -> None:
    """Refuse to show a trained network other images than it was trained on, or to wire it otherwise: that fits every
    shape and finds nothing."""
    if not ckpt.is_run_checkpoint(content):
        return
    for key, old, new in diff_meanings(content.get("config", {}), cfg, INPUT_KEYS + WIRING_KEYS):
        raise UserError(f"{checkpoint}: was trained with {key} {old}, now it is {new}; give {key} its old value")


def is_one_image(images) -> bool:
    """Whether this is an image by itself, and not several of them."""
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return images.ndim != 4
    return isinstance(images, (str, Path, Image.Image)) or not isinstance(images, Iterable)


def _as_array(image, exif: str) -> np.ndarray:
    if isinstance(image, (str, Path)):
        refuse_oversized(str(image))
        return read_image(str(image), exif)
    if isinstance(image, Image.Image):
        return _from_pillow(image, exif)
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3:
        image = np.ascontiguousarray(image.flip(0).permute(1, 2, 0).cpu().numpy())
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        is_array = isinstance(image, (np.ndarray, torch.Tensor))
        kind = "tensor" if isinstance(image, torch.Tensor) else "array"
        given = f"{image.dtype} {kind} of shape {tuple(image.shape)}" if is_array else type(image).__name__
        raise UserError(
            "an image must be a path or a BGR uint8 array [H, W, 3], or else a PIL image or an RGB uint8 tensor "
            f"[3, H, W], got {given}"
        )
    return image


def _from_pillow(image: Image.Image, exif: str) -> np.ndarray:
    """A Pillow image as `read_image` gives its file."""
    if image.mode[0] in "IF":
        raise UserError(f"a PIL image of mode {image.mode} has no usual range; convert it to 'L' or 'RGB'")
    orientation = image.getexif().get(ORIENTATION, 1) if exif != "ignore" else 1
    if orientation != 1 and exif == "fail":
        raise UserError(f"EXIF says that a PIL image is rotated (orientation {orientation}), and DATASET.EXIF is fail")
    return turn_upright(np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1]), orientation)
