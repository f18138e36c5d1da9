"""Reading clips in worker processes.

Workers read, decode and transform; a clip crosses to the training process as one uint8 tensor and a few arrays, and
becomes `Batch`es there.
"""

import logging
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..structures import Batch, Clip
from ..utils.errors import UserError
from ..utils.shortage import lacks_memory
from .detection import DetectionDataset, to_target
from .image_header import UnreadableImage
from .inspection import Finding, add_to_report
from .sampler import Item, PositionedSampler
from .workers import DEATHS, Shortage, reason_of_death, start_worker

logger = logging.getLogger(__name__)

PREFETCHED_BATCHES = 2
MAX_DEATHS = 3
"""Times that workers may be lost without a batch in between."""

MAX_UNREADABLE = 0.5
"""Share of the training images that others may stand in for: more are no accident, but a folder that is gone."""


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

    @property
    def num_rounds(self) -> int:
        """Batches of an epoch in the process that has most of them."""
        return self.sampler.num_rounds

    def merge(self, parts: list[list]) -> list:
        """What the processes made of the rows of their batches, in the order that one process alone has."""
        return self.sampler.merge(parts)

    def set_position(self, epoch: int, first_batch: int = 0):
        """The next iteration starts at batch `first_batch` of `epoch` (counted from 1)."""
        if not 0 <= first_batch <= self.num_batches:
            raise ValueError(f"batch {first_batch} of an epoch of {self.num_batches}")
        self._position = (epoch, first_batch)

    def __iter__(self):
        epoch, first = self._position
        if not self.sampler.endless or self._stream_position != (epoch, first):
            self._stream, self._stream_position = None, (epoch, first)
        self.num_left_out = 0
        for batch in range(first, self.num_batches):
            if self._stream_position != (epoch, batch):
                raise RuntimeError("the loader was closed, or iterated anew, before this iteration ended")
            self._stream_position = None
            packed = self._next(epoch, batch)
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

    def _next(self, epoch: int, batch: int) -> "_Packed | UserError":
        """What the stream gives at a position.  When a worker has died or lacks memory all are started again there, as
        long as batches come in between; UserError if they do not."""
        reason = ""
        for _ in range(MAX_DEATHS):
            if reason:  # not where it is caught: the error would keep the old workers alive
                self.close()
                logger.warning(
                    "a process that loads images is lost (%s); all are started anew at batch %d, no image is left out",
                    reason, batch + 1,
                )  # fmt: skip
            try:
                with DEATHS.raised():
                    if self._stream is None:
                        self._open(epoch, batch)
                    packed = next(self._stream)
                if not isinstance(packed, Shortage):
                    return packed
                reason = packed.reason
            except (RuntimeError, OSError, EOFError) as error:
                reason = reason_of_death(error) if self._workers else ""
                if not reason:
                    raise
        self.close()
        raise UserError(
            f"DATASET.NUM_WORKERS: processes that load images were lost {MAX_DEATHS} times before batch {batch + 1} "
            f"was there ({reason}); give fewer than {self._workers} (0 loads in the main process), smaller batches or "
            "images, or the machine more memory; a container may lack shared memory, too (docker run --shm-size=8g)"
        )

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
        if found and self.dataset.stand_in and len(self._unreadable) > MAX_UNREADABLE * len(self.records):
            self.close()
            raise UserError(
                f"{self.records.name}: {len(self._unreadable)} of its {len(self.records)} images cannot be read any "
                f"more, one of them is {found[max(found)]}"
            )

    def _open(self, epoch: int, first: int):
        """Have a stream of batches stand at a position, with the workers that there are or new ones."""
        if self._loader is None:
            self._loader = self._create()
        self.sampler.set_position(epoch, first)
        self._stream = iter(self._loader)
        DEATHS.hold_back()

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
            worker_init_fn=start_worker,
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
        key = None
        try:
            samples = []
            for key in keys:
                sample = self._sample(key)
                samples += [] if sample is None else [(*sample, key.first)]
            return self._pack(samples)
        except UserError as error:
            return error
        except Exception as error:
            in_worker = get_worker_info() is not None
            if lacks_memory(error):
                if in_worker:
                    return Shortage(_in_a_line(error))
                raise
            path = self._dataset.records.image_path(key.index)
            logger.debug("%s", path, exc_info=True)
            return UserError(
                f"{path}: cannot be made a part of a batch ({_in_a_line(error)}); log.txt has the traceback"
            )

    def _pack(self, samples) -> _Packed:
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


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
