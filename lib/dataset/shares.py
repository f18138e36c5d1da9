"""What each of several processes sees of the batches of a sampler.

In training every process has some rows of every batch, so that all of them together make the step that one alone would
make.  In evaluation no image may come twice or be lost, and what is found goes back to the order of one process.
"""

from .lanes import VideoOrderSampler
from .sampler import PositionedSampler


class _Share(PositionedSampler):
    """The part of `whole` of process `rank` out of `count`."""

    def __init__(self, whole: PositionedSampler, rank: int, count: int):
        super().__init__(whole.seed, whole.endless, whole.image_sizes)
        self.whole, self.rank, self.count = whole, rank, count
        self.num_frames, self.num_images = whole.num_frames, whole.num_images

    def __len__(self) -> int:
        return len(self.whole)


class RowShare(_Share):
    """Some rows of every training batch, next to each other; `num_images` stays that of all processes."""

    def batches(self, epoch: int, first: int):
        for batch in self.whole.batches(epoch, first):
            rows = len(batch) // self.num_frames
            own = slice(self.rank * rows // self.count, (self.rank + 1) * rows // self.count)
            yield [item for time in range(self.num_frames) for item in batch[time * rows : (time + 1) * rows][own]]


class BatchShare(_Share):
    """Every `count`-th batch of stills, as it is: batches of other images would be rounded otherwise."""

    def __init__(self, whole: PositionedSampler, rank: int, count: int):
        super().__init__(whole, rank, count)
        self.num_images = sum(map(len, self.batches(1, 0)))

    def __len__(self) -> int:
        return len(range(self.rank, len(self.whole), self.count))

    @property
    def num_rounds(self) -> int:
        return -(-len(self.whole) // self.count)

    def batches(self, epoch: int, first: int):
        for number, batch in enumerate(self.whole.batches(epoch, 0)):
            if number % self.count == self.rank and number // self.count >= first:
                yield batch


class VideoShare(_Share):
    """Every `count`-th row of the batches of videos, each of which shows its videos to their end."""

    def __init__(self, whole: VideoOrderSampler, rank: int, count: int):
        super().__init__(whole, rank, count)
        lengths = whole.row_lengths[rank::count]
        self.num_images, self._num_batches = sum(lengths), max(lengths, default=0)

    def __len__(self) -> int:
        return self._num_batches

    @property
    def num_rounds(self) -> int:
        return len(self.whole)

    def batches(self, epoch: int, first: int):
        for batch in self.whole.batches(epoch, first):
            if batch[self.rank :: self.count]:
                yield batch[self.rank :: self.count]

    def merge(self, parts: list[list]) -> list:
        """The rows of all processes in the order of one."""
        rows = sum(map(len, parts))
        return [parts[row % self.count][row // self.count] for row in range(rows)]


def share_of(sampler: PositionedSampler, train: bool, rank: int, count: int) -> PositionedSampler:
    """What process `rank` of `count` sees of the sampler's batches; the sampler itself for a single one."""
    if count == 1:
        return sampler
    if train:
        return RowShare(sampler, rank, count)
    return (VideoShare if isinstance(sampler, VideoOrderSampler) else BatchShare)(sampler, rank, count)
