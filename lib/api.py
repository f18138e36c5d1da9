"""The Python API: `load` makes a detector of a run or of a checkpoint file, and the detector is called with images."""

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import Image

from .config.effective import config_from_dict
from .config.kinds import Mistake, read_value
from .config.loader import KEYS, load_config
from .config.yaml_text import Node
from .predictor import ObjectDetector, is_one_image
from .solver import checkpoint as ckpt
from .solver.run import checkpoints_to_test
from .structures import Detections
from .utils.errors import UserError
from .utils.thresholds import OTHERS, ScoreThreshold

Picture = str | Path | np.ndarray | Image.Image | torch.Tensor
"""An image: the path of a file, a BGR uint8 array [H, W, 3] as OpenCV reads it, a Pillow image, or an RGB uint8 tensor
[3, H, W] as torchvision reads it."""

OPTIONS = {
    "device": "DEVICE",
    "precision": "MODEL.PRECISION",
    "compile": "MODEL.COMPILE",
    "batch_size": "TEST.BATCH_SIZE",
}
"""The keys of the configuration that the options of `load` set."""


def load(
    path: str | Path,
    cfg: str | Path | Mapping | None = None,
    *,
    device: str = "auto",
    precision: str | None = None,
    compile: str | None = None,
    threshold: float | Mapping[str, float] | None = None,
    batch_size: int | None = None,
) -> "Detector":
    """A detector ready for images, from the folder of a run (EXP_DIR) or a checkpoint file.

    Of a folder it is the checkpoint that the test phase would score.  Checkpoints of this trainer hold their
    configuration; weights of other systems need `cfg`, a YAML file or what load_config returns.

    device: "auto" is the first GPU, or the CPU without one.  precision: MODEL.PRECISION, as "auto", "fp32" or "bf16".
    compile: MODEL.COMPILE, as "none" or "max".  batch_size: images at a time.  threshold: smallest score that counts,
    a number or {class name: number}, in which "" stands for all other classes; those without one, and None, have
    TEST.PICTURE_THRESHOLD.  0 gives all that the network finds above POST_PROCESS.SCORE_THRESHOLD.  UserError, a
    ValueError, for what cannot be loaded.

    >>> import ssds  # in a checkout: import lib as ssds
    >>> detector = ssds.load("experiments/models/shapes", threshold={"circle": 0.7, "": 0.5})
    >>> found = detector("street.jpg")  # one image gives its Detections, a list of images a list of them
    >>> for name, score, box in zip(found.names, found.scores.tolist(), found.boxes.numpy()):
    ...     print(name, round(score, 2), box)  # x1, y1, x2, y2 in pixels
    """
    cfg, checkpoint = find_checkpoint(Path(os.path.expanduser(path)), _read_config(cfg))
    given = {"device": device, "precision": precision, "compile": compile, "batch_size": batch_size}
    for option, value in given.items():
        if value is not None:
            _set_option(cfg, option, value)
    return Detector(ObjectDetector(cfg, checkpoint), checkpoint, threshold, cfg.TEST.PICTURE_THRESHOLD)


class Detector:
    """What `load` returns: called with images, gives what is in them.

    Several threads may call one detector at once, or run videos through it, and get what one thread gets.
    """

    def __init__(self, detector: ObjectDetector, checkpoint: Path, threshold, usual_threshold: float):
        self._detector, self._usual_threshold, self.checkpoint = detector, usual_threshold, Path(checkpoint)
        self.threshold = self._threshold(usual_threshold if threshold is None else threshold)

    @overload
    def __call__(self, images: Picture, threshold: float | Mapping[str, float] | None = None) -> Detections: ...

    @overload
    def __call__(
        self, images: Iterable[Picture], threshold: float | Mapping[str, float] | None = None
    ) -> list[Detections]: ...

    def __call__(self, images, threshold=None):
        """The Detections of an image, best first; of several images a list, in their order.

        Images are paths, BGR uint8 arrays [H, W, 3], Pillow images or RGB uint8 tensors [3, H, W]; arrays are BGR as
        OpenCV reads them, Pillow images and tensors RGB as they always are.  Boxes are float32 [K, 4] as x1, y1, x2, y2
        in pixels of the image, 0-based and within it, on the CPU.  threshold: another one than the detector's.
        UserError for what is no image and for files that cannot be read.
        """
        one = is_one_image(images)
        found = self._detector.predict(images, self._threshold(threshold))
        return found[0] if one else found

    def video(
        self, source, threshold: float | Mapping[str, float] | None = None, live: bool | None = None
    ) -> Iterator[tuple[np.ndarray, Detections]]:
        """(frame BGR uint8 [H, W, 3], its Detections) for each frame of a video file, of the address of a stream, of
        the number of a camera, of a folder of frames, or of an iterable of images.

        Recurrent detectors remember from frame to frame.  Frames of a `live` source, by default cameras and streams
        without an end, are dropped where the detector is slower.

        >>> for frame, found in detector.video("street.mp4"):
        ...     print(found.names)
        """
        return self._detector.predict_video(source, self._threshold(threshold), live)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the labels 1, 2, ...; empty where nobody knows their names."""
        return self._detector.class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels to which the network sees every image resized."""
        return tuple(self._detector.model.image_size)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._detector.device

    @property
    def precision(self) -> str:
        """The arithmetic of the network: fp32, bf16 or fp16."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self._detector.dtype, "fp32")

    @property
    def batch_size(self) -> int:
        """Images that the network sees at a time, of a list that is longer."""
        return self._detector.batch_size

    def __repr__(self) -> str:
        names, (height, width) = self.class_names, self.image_size
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "without names"
        return (
            f"Detector({self.checkpoint.name}: classes {shown}; input {height} x {width} pixels (height x width); "
            f"{self.precision} on {self.device}; threshold {self.threshold})"
        )

    def _threshold(self, threshold) -> ScoreThreshold:
        """The threshold given, the detector's where there is none."""
        if threshold is None:
            return self.threshold
        if isinstance(threshold, Mapping):
            threshold = {OTHERS: self._usual_threshold, **threshold}
        return ScoreThreshold(threshold, self.class_names)


def _read_config(cfg):
    """The configuration that `cfg` of load means, a copy; None for None."""
    if isinstance(cfg, (str, Path)):
        return load_config(cfg)
    if cfg is not None and not isinstance(cfg, Mapping):
        raise UserError(f"cfg: expected a YAML file or what load_config returns, got {type(cfg).__name__}")
    return copy.deepcopy(cfg)


def find_checkpoint(path: Path, cfg) -> tuple:
    """(configuration, checkpoint file) of a path; the configuration is `cfg` where there is one."""
    if path.is_dir():
        run = _config_of_run(path) if cfg is None else copy.deepcopy(cfg)
        run.EXP_DIR, run.RESUME_CHECKPOINT = str(path), ""  # what lies in this folder, wherever it was trained
        path = checkpoints_to_test(run)[-1][1]
    elif not path.exists() and path.suffix != ".pth":
        raise UserError(f"{path}: there is no such folder of a run or checkpoint file")
    return (_stored_config(path) if cfg is None else cfg), path


def _config_of_run(folder: Path):
    """The configuration of a run, as its last start had it."""
    if (folder / "config.yml").is_file():
        return load_config(folder / "config.yml")
    last = ckpt.last_checkpoint(folder)
    if last is None:
        raise UserError(f"{folder}: is not the folder of a run; it holds no config.yml and no checkpoint")
    return _stored_config(last)


def _stored_config(path: Path):
    content = ckpt.read_checkpoint(path)
    if not ckpt.is_run_checkpoint(content) or not content.get("config"):
        raise UserError(f"{path}: holds weights without a configuration; give cfg=FILE.yml, as in experiments/cfgs")
    return config_from_dict(content["config"])


def _set_option(cfg, option: str, value) -> None:
    """Set the key of an option of `load`, checked as in a YAML file."""
    section, _, name = OPTIONS[option].rpartition(".")
    try:
        checked = read_value(Node(str(value)), KEYS[OPTIONS[option]])
    except Mistake as mistake:
        raise UserError(f"{option}: {mistake}") from None
    (cfg[section] if section else cfg)[name] = checked
