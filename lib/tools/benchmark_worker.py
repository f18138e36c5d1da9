"""The process that times one configuration: alone with its memory, its threads and whatever goes wrong in it."""

import platform
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import cv2
import torch

from ..commands import shortage
from ..config import load_config
from ..modeling.complexity import count_macs, count_parameters
from ..predictor import ObjectDetector
from ..timing import Laps, backbone_share, run_for, timed, warm_up
from ..utils.device import device_name
from ..utils.errors import UserError
from .benchmark_jobs import Job, find_weights, open_images, settle_classes
from .benchmark_memory import PeakMemory
from .benchmark_untrained import write_untrained
from .plan_video import collect_interleaving
from .reports import warnings_collected


@dataclass
class Failure:
    """Why something has no figures; whether that is as it should be."""

    reason: str
    expected: bool = False


@dataclass
class Round:
    """The laps of a round of runs, the backbone's part of the network's time, and the peak of the memory in bytes."""

    laps: Laps
    backbone_share: float
    peak: int | None


def serve(connection, job: Job) -> None:
    """Answer "facts" with those about what the job asks for and every "round" with a Round, either with a Failure where
    it fails; ends with the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    subject = None
    with tempfile.TemporaryDirectory() as folder, suppress(EOFError, ConnectionError):
        while True:
            request = connection.recv()
            try:
                subject = subject or Subject(job, Path(folder))
                answer = subject.facts if request == "facts" else subject.round()
            except NotNeeded as error:
                answer = Failure(str(error), expected=True)
            except Exception as error:
                answer = Failure(reason_of(error))
            connection.send(answer)


class NotNeeded(Exception):
    """A job without a row of its own."""


def reason_of(error: Exception) -> str:
    """What to say of an error in a row of the table, in one line."""
    if isinstance(error, UserError):
        return str(error)
    return shortage(error) or f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


class Subject:
    """A detector to be timed, warmed up, and the `facts` about it by the names of the columns."""

    def __init__(self, job: Job, folder: Path):
        if job.threads:
            torch.set_num_threads(job.threads)
            cv2.setNumThreads(job.threads)
        self.job, self.images = job, open_images(job.images)
        self._memory = PeakMemory()
        with warnings_collected() as warnings:
            self.detector, self.facts = build(job, self.images, folder)
        self.facts["warnings"] = warnings
        self._memory.watch(self.detector.device)
        recurrent = self.detector.model.is_recurrent
        if recurrent and not job.is_first_batch:
            raise NotNeeded("runs frame by frame, so that there is one batch size, 1")
        if recurrent:
            self.images = [image for image in self.images if image.shape == self.images[0].shape]
        self.batch = 1 if recurrent else job.batch
        self.facts |= {"batch": self.batch, "recurrent": recurrent, "memory_is": self._memory.meaning}
        self._warm_up()

    def round(self) -> Round:
        """Time a round of runs, of a detector with a memory the frames of a video."""
        self._memory.start()
        with timed(self.detector) as laps:
            run_for(self.detector, self._batches(), self.job.seconds, self.job.least)
        peak = self._memory.read()
        return Round(dict(laps), backbone_share(self.detector, next(self._batches())), peak)

    def _batches(self):
        """Lists of images without an end."""
        images = cycle(self.images)
        while True:
            yield list(islice(images, self.batch))

    def _warm_up(self) -> None:
        """Compile, and add to the facts how long that took and what the network runs as, which only shows then."""
        images = next(self._batches())
        seconds = warm_up(self.detector, images)
        network, found = self.detector.network_for(None), self.detector.predict(images)
        self.facts |= {
            "compile": network.compile_mode,
            "compile_s": seconds,
            "precision": network.precision,
            "device": device_name(self.detector.device),
            "threads": torch.get_num_threads(),
            "detections": sum(map(len, found)) / len(found),
        }


def build(job: Job, images, folder: Path) -> tuple[ObjectDetector, dict]:
    """The detector of a job, and what is known of it before it runs."""
    cfg = load_config(job.config, job.overrides)
    if job.folder is not None:
        cfg.EXP_DIR = str(job.folder)
    checkpoint, score, rule = find_weights(cfg, job.results)
    classes, candidates = "those of the weights", None
    if checkpoint is None:
        classes = settle_classes(cfg)
        candidates = write_untrained(cfg, images[:2], folder / "untrained.pth")
    detector = ObjectDetector(cfg, checkpoint or folder / "untrained.pth")
    (folder / "untrained.pth").unlink(missing_ok=True)
    interleaving, post = collect_interleaving(cfg, detector.model), detector.postprocess
    macs = interleaving.mean_macs if interleaving else sum(count_macs(detector.model, cfg.MODEL.IMAGE_SIZE).values())
    return detector, {
        "weights": "trained" if checkpoint else "untrained", "candidates": candidates,
        "checkpoint": str(checkpoint or ""), "mAP": score, "mAP_rule": rule,
        "ssds": cfg.MODEL.SSDS, "nets": cfg.MODEL.NETS,
        "height": cfg.MODEL.IMAGE_SIZE[0], "width": cfg.MODEL.IMAGE_SIZE[1],
        "num_classes": detector.model.head.num_classes, "classes_are": classes,
        "parameters": sum(count_parameters(detector.model).values()), "macs": macs,
        "macs_are": f"mean of the frames, policy {cfg.MODEL.RNN.POLICY}" if interleaving else "of every image",
        "score_threshold": post.score_threshold, "nms_iou": post.iou_threshold, "max_per_class": post.max_detections,
        "torch": torch.__version__, "cuda": torch.version.cuda if detector.device.type == "cuda" else None,
        "opencv": cv2.__version__, "python": platform.python_version(),
    }  # fmt: skip
