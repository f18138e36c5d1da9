"""Reading clips in worker processes.

Workers read, decode and transform; a clip crosses to the training process as one uint8 tensor and a few arrays, and
becomes `Batch`es there.
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

from ..structures import Batch, Clip
from ..utils.errors import UserError
from .detection import DetectionDataset, to_target
from .image_header import UnreadableImage
from .inspection import Finding, add_to_report
from .sampler import Item, PositionedSampler

logger = logging.getLogger(__name__)

PREFETCHED_BATCHES = 2


class ClipLoader:
    """Iterating yields the rest of one epoch as clips, of one Batch for stills, from the position set before.

    `num_images` is how many images an epoch shows.  With an endless sampler (training) a finished epoch is followed by
    the next one, whose first batches are loaded ahead; otherwise the same images come again.  A UserError in a worker
    is raised here unchanged.  leave_out: images that cannot be read are left out of their batches; `num_left_out`
    counts those of the last iteration.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        sampler: PositionedSampler,
        workers: int = 0,
        pin_memory=False,
        leave_out: bool = False,
    ):
        self.leave_out, self.num_left_out, self._unreadable = leave_out, 0, set()
        self.dataset, self.records, self.sampler = dataset, dataset.records, sampler
        self.class_names, self.num_images = self.records.class_names, sampler.num_images
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
            _BatchReader(self.dataset, self.sampler.num_frames, self.leave_out),
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
    """A clip on its way between processes: few objects, since each tensor costs a file descriptor.

    The images of all num_frames frames lie one after another, those of one time together.  unreadable {index: reason}
    tells of files met on the way; images is None where no image is left.
    """

    unreadable: dict[int, str]
    images: torch.Tensor | None
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    tracks: np.ndarray
    counts: list[int]
    ids: list
    sizes: list[tuple[int, int]]
    first: np.ndarray
    num_frames: int

    def pin_memory(self) -> "_Packed":
        """Called by the data loader where there is a GPU."""
        self.images = None if self.images is None else self.images.pin_memory()
        return self

    def unpack(self) -> Clip:
        """The clip, a Batch for each frame; images [B, 3, H, W] as a view on the rows of pixels (channels last)."""
        stops = np.cumsum(self.counts)
        targets = []
        for count, stop, image_id, size in zip(self.counts, stops, self.ids, self.sizes, strict=True):
            span = slice(stop - count, stop)
            objects = self.boxes[span], self.labels[span], self.difficult[span]
            targets.append(to_target(*objects, image_id, size, self.tracks[span], self.crowd[span]))
        images, first = self.images.permute(0, 3, 1, 2), torch.from_numpy(self.first)
        rows = len(images) // self.num_frames
        spans = [slice(frame * rows, (frame + 1) * rows) for frame in range(self.num_frames)]
        return [Batch(images[span], targets[span], first[span]) for span in spans]


class _BatchReader(Dataset):
    """Reads whole batches.  A UserError travels as a value, because the data loader would wrap a raised one."""

    def __init__(self, dataset: DetectionDataset, num_frames: int = 1, leave_out: bool = False):
        self._dataset, self._num_frames, self._leave_out = dataset, num_frames, leave_out

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, keys):
        try:
            samples = [(*sample, key.first) for key in keys if (sample := self._sample(key)) is not None]
        except UserError as error:
            return error
        unreadable, self._dataset.unreadable = self._dataset.unreadable, {}
        if not samples:
            return _Packed(unreadable, None, *[()] * 9, self._num_frames)
        images, boxes, labels, difficult, crowd, tracks, sizes, shown, first = zip(*samples, strict=True)
        return _Packed(
            unreadable,
            torch.from_numpy(np.stack(images)),
            np.concatenate(boxes),
            np.concatenate(labels),
            np.concatenate(difficult),
            np.concatenate(crowd),
            np.concatenate(tracks),
            [len(found) for found in labels],
            [self._dataset.records.image_id(index) for index in shown],
            list(sizes),
            np.array(first),
            self._num_frames,
        )

    def _sample(self, key: Item):
        """The sample of a key, or None for an image that is left out."""
        try:
            return self._dataset.sample(*key[:5])
        except UnreadableImage as error:
            if self._leave_out:
                return None
            if self._dataset.records.is_video and not self._dataset.stand_in:
                raise UserError(f"{error}; no frame can be left out of a video that is scored") from None
            raise


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
