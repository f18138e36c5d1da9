"""Which frames of which videos make up which clip: each row of a batch shows one video to its end, then another."""

from collections import Counter

import numpy as np

from .sampler import Item, PositionedSampler

STRETCH_STREAM = 2
"""Third word of the seeds of the stretches that long videos are cut to."""


class LaneSampler(PositionedSampler):
    """Yields clips as lists of num_frames * num_lanes Items in order of time: that of time t and lane b has the place
    t * num_lanes + b, so that a lane of one clip goes on in the next.

    A lane shows one video to its end, at once followed by the next of a queue in which every video comes once before
    any comes again; `first` marks where one begins, also in the middle of a clip.  What is shown of a video is at most
    `max_frames` frames, a random stretch.  Epochs are as long as all that once, rounded up to whole clips; what then is
    under way is left, and all lanes start anew.  A lane also starts anew where the size of the frames changes, and all
    of them where a clip has another of `image_sizes` than the clip before.  The order depends on (seed, epoch) only.
    A video is in several lanes at a time only if all are.
    """

    def __init__(
        self,
        records,
        num_frames: int,
        num_lanes: int,
        max_frames: int,
        shuffle: bool = False,
        seed: int = 0,
        endless: bool = False,
        image_sizes=(),
    ):
        super().__init__(seed, endless, image_sizes)
        self.num_frames, self.num_lanes, self.shuffle = num_frames, num_lanes, shuffle
        lengths = np.diff(records.video_offsets)
        self._videos = np.flatnonzero(lengths)
        self._starts, self._lengths, self._shown = records.video_offsets[:-1], lengths, np.minimum(lengths, max_frames)
        self._other_size = np.ones(len(records), bool)
        self._other_size[1:] = (records.sizes[1:] != records.sizes[:-1]).any(axis=1)
        self._num_clips = -(-int(self._shown.sum()) // (num_frames * num_lanes))
        self.num_images = self._num_clips * num_frames * num_lanes

    def __len__(self) -> int:
        """Clips of a whole epoch."""
        return self._num_clips

    def batches(self, epoch: int, first: int):
        sizes = [self.image_size(epoch, clip) for clip in range(len(self))]
        columns = self._lay_out(epoch, sizes)
        for clip in range(first, len(self)):
            span = slice(clip * self.num_frames, (clip + 1) * self.num_frames)
            rows = zip(*(column[span].ravel().tolist() for column in columns), strict=True)
            yield [Item(epoch, index, repeat, sizes[clip], anchor, begins) for index, repeat, anchor, begins in rows]

    def _lay_out(self, epoch: int, sizes):
        """index, repeat, anchor and first [S, num_lanes] of the S frames that every lane shows in an epoch."""
        steps = len(self) * self.num_frames
        index, repeat = np.zeros((2, steps, self.num_lanes), np.int64)
        first = np.zeros((steps, self.num_lanes), bool)
        rng, queue, times_shown = np.random.default_rng((self.seed, epoch)), [], Counter()
        ends, showing = np.zeros(self.num_lanes, np.int64), np.full(self.num_lanes, -1)
        while (step := ends.min()) < steps:
            free = np.flatnonzero(ends == step)
            showing[free] = -1
            for lane in free:
                video = self._take(queue, showing, rng)
                frames = self._stretch(epoch, video, times_shown[video])[: steps - step]
                span = slice(step, step + len(frames))
                index[span, lane], repeat[span, lane] = frames, times_shown[video]
                first[span, lane] = self._other_size[frames]
                first[step, lane] = True
                times_shown[video] += 1
                ends[lane], showing[lane] = step + self._shown[video], video
        for clip in range(1, len(self)):
            first[clip * self.num_frames] |= sizes[clip] != sizes[clip - 1]
        begins = np.maximum.accumulate(np.where(first, np.arange(steps)[:, None], 0), axis=0)
        return index, repeat, np.take_along_axis(index, begins, axis=0), first

    def _take(self, queue: list, showing, rng) -> int:
        """Take the next video out of the queue that no lane shows; if all are shown, the next one."""
        all_shown = len(set(showing.tolist()) - {-1}) == len(self._videos)
        while True:
            for place, video in enumerate(queue):
                if all_shown or video not in showing:
                    return queue.pop(place)
            queue += (rng.permutation(self._videos) if self.shuffle else self._videos).tolist()

    def _stretch(self, epoch: int, video: int, repeat: int) -> np.ndarray:
        """The indices of the frames that are shown when a video comes for the `repeat`-th time, counted from 0."""
        spare, start = int(self._lengths[video] - self._shown[video]), int(self._starts[video])
        if spare:
            start += int(np.random.default_rng((self.seed, epoch, STRETCH_STREAM, video, repeat)).integers(spare + 1))
        return np.arange(start, start + self._shown[video])


class VideoOrderSampler(PositionedSampler):
    """Yields the frames of up to num_rows videos side by side, one of each at a time, every frame once.

    A row shows a video to its end and then the next one in the order of the records.  The rows are ordered by their
    length, so that when videos run out a batch loses its last rows and the others go on where they were.
    """

    def __init__(self, records, num_rows: int):
        super().__init__()
        self.num_images = len(records)
        rows = [[] for _ in range(num_rows)]
        lengths = np.zeros(num_rows, np.int64)
        for start, stop in zip(records.video_offsets[:-1], records.video_offsets[1:], strict=True):
            row = int(lengths.argmin())
            rows[row].append(np.arange(start, stop))
            lengths[row] += stop - start
        order = np.argsort(-lengths, kind="stable")
        self._rows = [np.concatenate(rows[row]) for row in order if lengths[row]]
        self._begins = np.zeros(len(records) + 1, bool)
        self._begins[records.video_offsets] = True

    @property
    def row_lengths(self) -> list[int]:
        """Frames of each row, the longest one first."""
        return [len(row) for row in self._rows]

    def __len__(self) -> int:
        """Batches, as many as the longest row has frames."""
        return len(self._rows[0]) if self._rows else 0

    def batches(self, epoch: int, first: int):
        for step in range(first, len(self)):
            indices = [int(row[step]) for row in self._rows if step < len(row)]
            yield [Item(epoch, index, first=bool(self._begins[index])) for index in indices]
