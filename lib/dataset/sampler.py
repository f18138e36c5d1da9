"""Which images make up which batch: a function of seed and epoch alone, so that a run can continue anywhere."""

import numpy as np
from torch.utils.data import Sampler


class EpochBatchSampler(Sampler):
    """Yields batches as lists of (epoch, index).

    The order of an epoch depends on (seed, epoch) only.  drop_last leaves out an incomplete last batch, unless it is
    the only one.  One iteration yields the rest of one epoch; with `endless` it goes on to the epochs after it, so
    that loading need not pause between epochs.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        endless: bool = False,
    ):
        self.num_images, self.batch_size = num_images, batch_size
        self.shuffle, self.seed, self.drop_last, self.endless = shuffle, seed, drop_last, endless
        self.epoch, self.first_batch = 1, 0

    def set_position(self, epoch: int, first_batch: int = 0):
        """The next iteration starts at batch `first_batch` of `epoch`."""
        if not 0 <= first_batch <= len(self):
            raise ValueError(f"batch {first_batch} of an epoch of {len(self)}")
        self.epoch, self.first_batch = epoch, first_batch

    def order(self, epoch: int) -> np.ndarray:
        """The indices of all images in the order of that epoch."""
        if not self.shuffle:
            return np.arange(self.num_images)
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_images)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        if self.drop_last:
            return max(self.num_images // self.batch_size, min(self.num_images, 1))
        return -(-self.num_images // self.batch_size)

    def __iter__(self):
        epoch, first = self.epoch, self.first_batch
        while True:
            order = self.order(epoch)
            for batch in range(first, len(self)):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [(epoch, index) for index in chosen.tolist()]
            if not self.endless or not len(self):
                return
            epoch, first = epoch + 1, 0
