"""Which images make up which batch: a function of seed and epoch alone, so that a run can continue anywhere."""

from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

SIZE_STREAM = 1
"""Third word of the seeds of image sizes, so that they do not follow the order of the images."""


class Item(NamedTuple):
    """One image of a batch: the epoch, the index of the image, how often it came before in that epoch, and the
    (height, width) it is wanted at, None for the usual one.

    A frame of a clip is augmented as the frame `anchor`, the first one of its pass; None is an image by itself.
    `first` says that it does not continue the image before it in its row.
    """

    epoch: int
    index: int
    repeat: int = 0
    size: tuple[int, int] | None = None
    anchor: int | None = None
    first: bool = True


class PositionedSampler(Sampler):
    """What all samplers share: an epoch can be entered at any batch, and with `endless` one iteration goes on to the
    epochs after it, so that loading need not pause between epochs.

    Each batch has one of `image_sizes`, drawn by (seed, epoch, batch), if there are any.  Subclasses say what
    `batches(epoch, first)` are, how many (`__len__`), and set `num_images`, the images of an epoch.  A batch holds
    `num_frames` frames of each of its rows, those of one time after those of another.
    """

    num_frames = 1
    num_images = 0

    def __init__(self, seed: int = 0, endless: bool = False, image_sizes=()):
        self.seed, self.endless = seed, endless
        self.image_sizes = [tuple(size) for size in image_sizes]
        self.epoch, self.first_batch = 1, 0

    def set_position(self, epoch: int, first_batch: int = 0):
        """The next iteration starts at batch `first_batch` of `epoch`."""
        if not 0 <= first_batch <= len(self):
            raise ValueError(f"batch {first_batch} of an epoch of {len(self)}")
        self.epoch, self.first_batch = epoch, first_batch

    @property
    def num_rounds(self) -> int:
        """Batches of the process that sees most of them."""
        return len(self)

    def merge(self, parts: list[list]) -> list:
        """What the processes made of the rows of their batches, in the order that one process alone has."""
        return [row for part in parts for row in part]

    def image_size(self, epoch: int, batch: int) -> tuple[int, int] | None:
        """The size of the images of a batch; None is the usual one."""
        if not self.image_sizes:
            return None
        rng = np.random.default_rng((self.seed, epoch, SIZE_STREAM, batch))
        return self.image_sizes[rng.integers(len(self.image_sizes))]

    def batches(self, epoch: int, first: int):
        """Yields the batches of an epoch from number `first` on as lists of Items."""
        raise NotImplementedError

    def __iter__(self):
        epoch, first = self.epoch, self.first_batch
        while True:
            yield from self.batches(epoch, first)
            if not self.endless or not len(self):
                return
            epoch, first = epoch + 1, 0


class EpochBatchSampler(PositionedSampler):
    """Yields batches as lists of Items.

    The order of an epoch depends on (seed, epoch) only.  `repeats` float [I] says how often each image comes in an
    epoch on average (once without): its whole part always, the rest by a systematic draw, so that all epochs are of
    one length.  drop_last leaves out an incomplete last batch, unless it is the only one.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        endless: bool = False,
        repeats=None,
        image_sizes=(),
    ):
        super().__init__(seed, endless, image_sizes)
        self.num_images, self.batch_size = num_images, batch_size
        self.shuffle, self.drop_last = shuffle, drop_last
        self.num_items = num_images if repeats is None else int(round(float(np.sum(repeats))))
        # Scaled so that they add up to a whole number, the length of every epoch.
        self._repeats = None if repeats is None else np.asarray(repeats) * (self.num_items / np.sum(repeats))

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the images of that epoch, in its order."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.num_images) if self.shuffle else np.arange(self.num_images)
        if self._repeats is None:
            return order
        # Systematic sampling: a comb of unit pitch over the images, each as wide as it shall come often.
        edges = np.cumsum(self._repeats[order])
        marks = np.arange(self.num_items) + rng.random()
        chosen = order[np.minimum(np.searchsorted(edges, marks, side="right"), self.num_images - 1)]
        return rng.permutation(chosen) if self.shuffle else chosen

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        if self.drop_last:
            return max(self.num_items // self.batch_size, min(self.num_items, 1))
        return -(-self.num_items // self.batch_size)

    def batches(self, epoch: int, first: int):
        order = self.order(epoch)
        repeats = count_earlier(order)
        for batch in range(first, len(self)):
            span = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            size = self.image_size(epoch, batch)
            pairs = zip(order[span].tolist(), repeats[span].tolist(), strict=True)
            yield [Item(epoch, index, repeat, size) for index, repeat in pairs]


def count_earlier(values) -> np.ndarray:
    """For each entry of `values` [N], how many equal ones come before it."""
    order = np.argsort(values, kind="stable")
    ranked = np.asarray(values)[order]
    first = np.searchsorted(ranked, ranked, side="left")
    earlier = np.empty(len(ranked), np.int64)
    earlier[order] = np.arange(len(ranked)) - first
    return earlier


def repeat_factors(records, threshold: float = 0.0) -> np.ndarray:
    """How often each image comes in an epoch by repeat-factor sampling (LVIS, arXiv 1908.03195): float [I].

    A class that a part f of the images holds has the factor max(1, sqrt(threshold / f)), an image the largest factor of
    its classes.  threshold 0 takes the mean of f over the classes.
    """
    holds = _holds(records)
    part = holds.mean(axis=0)
    present = part > 0
    threshold = threshold or (part[present].mean() if present.any() else 0.0)
    factor = np.sqrt(threshold / np.where(present, part, 1)).clip(min=1)
    return np.where(holds, factor, 1).max(axis=1, initial=1)


def class_shares(records, weights=()) -> np.ndarray:
    """How often each image comes in an epoch when a class is drawn by `weights` (equal ones without) and then one of
    its images (class-aware sampling, Shen et al. 2016, arXiv 1512.05830): float [I], mean 1.

    Images without objects come once on average.
    """
    holds = _holds(records)
    images = holds.sum(axis=0)
    weights = np.ones(len(images)) if not len(weights) else np.asarray(weights, float)
    weights = np.where(images > 0, weights, 0)
    shares = (holds * (weights / np.maximum(images, 1))).sum(axis=1) * (len(holds) / max(weights.sum(), 1e-12))
    empty = ~holds.any(axis=1)
    shares[empty] = 1.0
    return shares * len(holds) / shares.sum()


def _holds(records) -> np.ndarray:
    """bool [I, C - 1]: whether an image holds an object of a class, crowds aside."""
    holds = np.zeros((len(records), len(records.class_names)), bool)
    single = slice(None) if records.crowd is None else ~records.crowd
    images = np.repeat(np.arange(len(records)), np.diff(records.offsets))
    holds[images[single], records.labels[single] - 1] = True
    return holds
