"""From the configuration to batches: create_records opens a data set, create_loader reads its images.

Worker processes read, decode and transform; a batch crosses to the training process as one uint8 tensor and a few
arrays, and becomes a `Batch` there.
"""

import logging
import os
import signal
import threading
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..config import update_derived
from ..structures import Batch, Clip
from ..utils.errors import UserError
from . import voc  # noqa: F401  registers its kinds
from .detection import DATASETS, DetectionDataset, DetectionRecords, to_target
from .image_header import UnreadableImage
from .inspection import Checks, Finding, add_to_report
from .mixing import MixingTransform
from .sampler import EpochBatchSampler, class_shares, repeat_factors
from .split import SplitPlan
from .transforms import create_transforms

logger = logging.getLogger(__name__)

PREFETCHED_BATCHES = 2
MAX_AUTO_WORKERS = 8


def create_records(cfg, phase: str, class_names=()) -> DetectionRecords:
    """The annotations that `phase` (train, eval, test, visualize) works on.

    class_names overrules DATASET.CLASSES, for a model whose classes are already known.  Raises UserError for anything
    that is missing or wrong in the data set.
    """
    data = cfg.DATASET
    key, sets, role = _choose_sets(data, phase)
    roots = [data.DATASET_DIR] if isinstance(data.DATASET_DIR, str) else list(data.DATASET_DIR)
    if not roots:
        raise UserError("DATASET.DATASET_DIR: no folder is given")
    parse = DATASETS.get(data.DATASET, "DATASET.DATASET")
    plan = SplitPlan(tuple(data.SPLIT), cfg.SEED, cfg.EXP_DIR)
    checks = Checks(data.ON_BAD, data.EXIF, cfg.EXP_DIR)
    records = parse(roots, sets, role, tuple(class_names) or tuple(data.CLASSES), plan, f"DATASET.{key}", checks)
    objects = len(records.labels)
    logger.info("%s: %d images, %d objects of %d classes from %s", phase, len(records), objects,
                len(records.class_names), records.name)  # fmt: skip
    counts = records.num_objects_per_class()
    missing = [name for name, count in zip(records.class_names, counts, strict=True) if count == 0]
    if phase == "train" and missing:
        logger.warning("%s holds no object of %s", records.name, ", ".join(missing))
    return records


def _choose_sets(data, phase: str):
    """(key, image sets or None, role) of a phase."""
    if phase == "train":
        return "TRAIN_SETS", data.TRAIN_SETS, "train"
    if phase != "eval":
        return "TEST_SETS", data.TEST_SETS, "test"
    if data.EVAL_SETS:
        return "EVAL_SETS", data.EVAL_SETS, "eval"
    if not data.TRAIN_SETS and not data.TEST_SETS:
        return "EVAL_SETS", None, "eval"
    logger.warning("DATASET.EVAL_SETS is not set: the images of TEST_SETS choose the best checkpoint")
    return "TEST_SETS", data.TEST_SETS, "test"


def check_num_classes(cfg, class_names):
    """Set MODEL.NUM_CLASSES and what is derived from it by the class names; UserError if another number is given."""
    counted, given = len(class_names) + 1, cfg.MODEL.NUM_CLASSES
    if given is not None and given != counted:
        raise UserError(
            f"MODEL.NUM_CLASSES: {given} given, but the data set has {counted - 1} classes and the background, "
            f"{counted}: {', '.join(class_names)}; leave the key out to have it counted"
        )
    cfg.MODEL.NUM_CLASSES = counted
    update_derived(cfg)


def create_loader(cfg, phase: str, records: DetectionRecords | None = None) -> "ClipLoader":
    """The batches of `phase`: augmented and shuffled for train, plain and in order for eval, test and visualize."""
    train = phase == "train"
    records = create_records(cfg, phase) if records is None else records
    go_on = cfg.DATASET.ON_BAD != "fail"
    dataset = DetectionDataset(records, create_transforms(cfg, train), cfg.SEED, stand_in=train and go_on)
    if train:
        _mix(dataset, cfg)
        sampler = EpochBatchSampler(
            len(records), cfg.TRAIN.BATCH_SIZE, cfg.DATASET.SHUFFLE, cfg.SEED, drop_last=True, endless=True,
            repeats=_image_repeats(cfg.DATASET, records), image_sizes=cfg.TRAIN.IMAGE_SIZES,
        )  # fmt: skip
    else:
        sampler = EpochBatchSampler(len(records), cfg.TEST.BATCH_SIZE)
    on_gpu = torch.cuda.is_available() and not cfg.DEVICE.startswith("cpu")
    workers = num_workers(cfg.DATASET.NUM_WORKERS)
    return ClipLoader(dataset, sampler, workers, pin_memory=on_gpu, leave_out=go_on and not train)


def _mix(dataset: DetectionDataset, cfg):
    """Give the data set mosaic and mixup, as far as the configuration asks for them."""
    data, transform = cfg.DATASET, dataset.transform
    if data.MOSAIC or data.MIXUP:
        mixing = MixingTransform(transform, data.MOSAIC, data.MIXUP, dataset.draw_other)
        dataset.mix(mixing, cfg.TRAIN.MAX_EPOCHS - data.PLAIN_EPOCHS)


def _image_repeats(data, records: DetectionRecords):
    """How often each image comes in an epoch by DATASET.SAMPLING; None is once each."""
    if data.SAMPLING == "uniform":
        return None
    if data.SAMPLING == "repeat_factor":
        return repeat_factors(records, data.REPEAT_THRESHOLD)
    weights, names = data.CLASS_WEIGHTS, records.class_names
    if weights and (len(weights) != len(names) or not sum(weights)):
        raise UserError(
            f"DATASET.CLASS_WEIGHTS: {list(weights)} given; it takes one weight for each of the {len(names)} classes "
            f"{', '.join(names)}, at least one above 0"
        )
    return class_shares(records, weights)


def num_workers(wanted) -> int:
    """The number of worker processes: 'auto' leaves a core to the training process and stops at eight."""
    if wanted != "auto":
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_AUTO_WORKERS, cores - 1))


class ClipLoader:
    """Iterating yields the rest of one epoch as clips of one Batch, from the position set before.

    With an endless sampler (training) a finished epoch is followed by the next one, whose first batches are loaded
    ahead; otherwise the same images come again.  A UserError in a worker is raised here unchanged.  leave_out: images
    that cannot be read are left out of their batches; `num_left_out` counts those of the last iteration.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        sampler: EpochBatchSampler,
        workers: int = 0,
        pin_memory=False,
        leave_out: bool = False,
    ):
        self.leave_out, self.num_left_out, self._unreadable = leave_out, 0, set()
        self.dataset, self.records, self.sampler = dataset, dataset.records, sampler
        self.class_names, self.num_images = self.records.class_names, len(self.records)
        self.num_batches = len(sampler)
        self._workers, self._pin_memory = workers, pin_memory
        self._position = (sampler.epoch, sampler.first_batch)
        self._loader, self._stream, self._stream_position = None, None, None

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.num_batches

    def set_position(self, epoch: int, first_batch: int = 0):
        """The next iteration starts at batch `first_batch` of `epoch` (counted from 1)."""
        if not 0 <= first_batch <= self.num_batches:
            raise ValueError(f"batch {first_batch} of an epoch of {self.num_batches}")
        self._position = (epoch, first_batch)

    def __iter__(self):
        epoch, first = self._position
        self._open(epoch, first)
        self.num_left_out = 0
        for batch in range(first, self.num_batches):
            if self._stream_position != (epoch, batch):
                raise RuntimeError("the loader was closed, or iterated anew, before this iteration ended")
            self._stream_position = None
            packed = next(self._stream)
            if isinstance(packed, UserError):
                # Not the object itself: its traceback would keep this frame, and with it the workers, alive.
                self.close()
                raise UserError(str(packed))
            self._stream_position = (epoch, batch + 1)
            self._tell_unreadable(packed.unreadable)
            if packed.images is not None:
                yield packed.unpack()
        if first == 0 and self.num_left_out == self.num_images > 0:
            raise UserError(f"{self.records.name}: none of its {self.num_images} images can be read")
        if self.num_left_out:
            logger.warning(
                "%s: %d of %d images cannot be read and are left out of the scores",
                self.records.name, self.num_left_out, self.num_images,
            )  # fmt: skip
        if self.sampler.endless:
            self._position = self._stream_position = (epoch + 1, 0)

    def close(self):
        """End the worker processes; iterating again starts new ones."""
        self._loader, self._stream, self._stream_position = None, None, None

    def _tell_unreadable(self, found: dict[int, str]):
        """Log each file once, with their number so far, and add it to the report of the data set."""
        self.num_left_out += len(found) if self.leave_out else 0
        for index in sorted(found.keys() - self._unreadable):
            self._unreadable.add(index)
            instead = "left out" if self.leave_out else "another image stands in for it"
            logger.warning("%s; %s (%d so far)", found[index], instead, len(self._unreadable))
            add_to_report(
                self.records.report, "unreadable_image", Finding(self.records.image_path(index), detail=found[index])
            )

    def _open(self, epoch: int, first: int):
        """Have the stream of batches stand at a position: the running one if it is there already."""
        if not self.sampler.endless or self._stream is None or self._stream_position != (epoch, first):
            if self._loader is None:
                self._loader = self._create()
            self.sampler.set_position(epoch, first)
            self._stream, self._stream_position = iter(self._loader), (epoch, first)

    def _create(self) -> DataLoader:
        if self._workers:
            # A thread pool of OpenCV does not survive the fork of the workers.
            cv2.setNumThreads(0)
        return DataLoader(
            _BatchReader(self.dataset, self.leave_out),
            batch_sampler=self.sampler,
            num_workers=self._workers,
            collate_fn=_unchanged,
            pin_memory=self._pin_memory,
            # Its own generator: opening an epoch must not advance the random state of the training process.
            generator=torch.Generator(),
            worker_init_fn=_start_worker,
            persistent_workers=self._workers > 0,
            prefetch_factor=PREFETCHED_BATCHES if self._workers else None,
        )


@dataclass
class _Packed:
    """A batch on its way between processes: few objects, since each tensor costs a file descriptor.

    unreadable {index: reason} tells of files met on the way; images is None where no image is left.
    """

    unreadable: dict[int, str]
    images: torch.Tensor | None
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    counts: list[int]
    ids: list[str]
    sizes: list[tuple[int, int]]

    def pin_memory(self) -> "_Packed":
        """Called by the data loader where there is a GPU."""
        self.images = None if self.images is None else self.images.pin_memory()
        return self

    def unpack(self) -> Clip:
        """The clip of one Batch; images [B, 3, H, W] as a view on the rows of pixels (channels last)."""
        stops = np.cumsum(self.counts)
        targets = []
        for count, stop, image_id, size in zip(self.counts, stops, self.ids, self.sizes, strict=True):
            span = slice(stop - count, stop)
            targets.append(to_target(self.boxes[span], self.labels[span], self.difficult[span], image_id, size))
        return [Batch(self.images.permute(0, 3, 1, 2), targets)]


class _BatchReader(Dataset):
    """Reads whole batches.  A UserError travels as a value, because the data loader would wrap a raised one."""

    def __init__(self, dataset: DetectionDataset, leave_out: bool = False):
        self._dataset, self._leave_out = dataset, leave_out

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, keys):
        try:
            samples = [sample for key in keys if (sample := self._sample(key)) is not None]
        except UserError as error:
            return error
        unreadable, self._dataset.unreadable = self._dataset.unreadable, {}
        if not samples:
            return _Packed(unreadable, None, *[()] * 6)
        images, boxes, labels, difficult, sizes, shown = zip(*samples, strict=True)
        return _Packed(
            unreadable,
            torch.from_numpy(np.stack(images)),
            np.concatenate(boxes),
            np.concatenate(labels),
            np.concatenate(difficult),
            [len(found) for found in labels],
            [self._dataset.records.image_id(index) for index in shown],
            list(sizes),
        )

    def _sample(self, key):
        """The sample of a key, or None for an image that is left out."""
        try:
            return self._dataset.sample(*key)
        except UnreadableImage:
            if not self._leave_out:
                raise
            return None


def _unchanged(packed):
    return packed


def _obey_parent(parent: int):
    """End this process when its parent sends SIGTERM; the same signal from anybody else goes by."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _start_worker(worker: int):
    """Signals that a terminal or job manager sends to all processes are left to the training process, which ends its
    workers itself; every worker computes on one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere a worker dies of any SIGTERM
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)
