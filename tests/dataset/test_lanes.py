"""Lanes show videos to their ends, frame by frame, in an order that depends on seed and epoch alone."""

from itertools import islice

import numpy as np
import pytest

from lib.dataset.detection import DetectionRecords, with_videos
from lib.dataset.lanes import LaneSampler, VideoOrderSampler


def videos_of(*lengths, sizes=None):
    """Records of videos with so many frames; sizes of the images, all alike by default."""
    number = sum(lengths)
    names = [str(i) for i in range(number)]
    sizes = [(10, 10)] * number if sizes is None else sizes
    records = DetectionRecords.build(("a",), names, names, sizes, [], [], [], [0] * number)
    return with_videos(records, np.cumsum([0, *lengths]))


def lanes_of(sampler, epoch=1):
    """The Items of an epoch by lane, in order of time."""
    sampler.set_position(epoch)
    clips = list(islice(sampler, len(sampler)))
    assert {len(clip) for clip in clips} <= {sampler.num_frames * sampler.num_lanes}
    return [[item for clip in clips for item in clip[lane :: sampler.num_lanes]] for lane in range(sampler.num_lanes)]


def passes_of(lane):
    """The Items of a lane, cut where one is first."""
    starts = [i for i, item in enumerate(lane) if item.first] + [len(lane)]
    assert starts[0] == 0
    return [lane[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]


def shown(items):
    return [item.index for item in items]


@pytest.mark.parametrize("shuffle", [False, True])
def test_videos_that_fit_are_shown_once_an_epoch_frame_by_frame(shuffle):
    sampler = LaneSampler(videos_of(*[6] * 8), 4, 4, 100, shuffle, seed=3)
    assert len(sampler) == 3 and sampler.num_images == 48
    lanes = lanes_of(sampler)
    assert sorted(index for lane in lanes for index in shown(lane)) == list(range(48))
    for lane in lanes:
        for part in passes_of(lane):
            assert shown(part) == list(range(part[0].index, part[0].index + 6)) and part[0].index % 6 == 0
            assert {item.anchor for item in part} == {part[0].index}
    starts = [passes_of(lane)[turn][0].index // 6 for turn in range(2) for lane in lanes]
    assert (starts == list(range(8))) is not shuffle


@pytest.mark.parametrize("epoch", [1, 2, 7])
def test_ragged_videos_run_on_over_clips_until_they_end(epoch):
    lengths = [1, 9, 4, 17, 2, 30, 11, 5, 3, 8]
    records = videos_of(*lengths)
    offsets = records.video_offsets
    sampler = LaneSampler(records, 4, 3, 100, shuffle=True, seed=5)
    assert len(sampler) == -(-sum(lengths) // 12)
    lanes = lanes_of(sampler, epoch)
    for lane in lanes:
        assert {item.epoch for item in lane} == {epoch}
        for number, part in enumerate(passes_of(lane)):
            begin, end = part[0].index, part[-1].index + 1
            assert shown(part) == list(range(begin, end)) and begin in offsets
            assert end in offsets or number == len(passes_of(lane)) - 1
            assert {(item.anchor, item.repeat) for item in part} == {(begin, part[0].repeat)}
    order = sorted((time, b, item) for b, lane in enumerate(lanes) for time, item in enumerate(lane) if item.first)
    taken = records.video_of([item.index for *_, item in order]).tolist()
    assert sorted(taken[: len(lengths)]) == list(range(len(lengths)))  # all, before one comes again
    for video in range(len(lengths)):
        assert [item.repeat for *_, item in order if item.index == offsets[video]] == list(range(taken.count(video)))


def test_a_video_is_in_two_lanes_only_if_no_other_is_left():
    for lengths in ([40, 2, 3, 2, 3], [5, 40, 40, 3], [7, 7, 7, 7]):
        records = videos_of(*lengths)
        for epoch in range(1, 6):
            lanes = lanes_of(LaneSampler(records, 3, 3, 100, shuffle=True, seed=1), epoch)
            for row in zip(*lanes, strict=True):
                assert len(set(records.video_of(shown(row)).tolist())) == 3
    records = videos_of(5, 8)
    lanes = lanes_of(LaneSampler(records, 4, 3, 100, shuffle=True))
    for row in zip(*lanes, strict=True):
        assert set(records.video_of(shown(row)).tolist()) == {0, 1}
        assert len({(item.anchor, item.repeat) for item in row}) == 3  # the same video, but augmented otherwise
    (lane,) = lanes_of(LaneSampler(videos_of(3), 8, 1, 100))
    assert shown(lane) == [0, 1, 2, 0, 1, 2, 0, 1] and [item.repeat for item in lane] == [0] * 3 + [1] * 3 + [2] * 2


def test_of_a_long_video_an_epoch_shows_a_random_stretch():
    sampler = LaneSampler(videos_of(50, 4, 60), 3, 2, 10, shuffle=True, seed=2)
    assert len(sampler) == 4
    starts = set()
    for epoch in range(1, 60):
        for lane in lanes_of(sampler, epoch):
            for part in passes_of(lane)[:-1]:
                begin, length = part[0].index, 4 if 50 <= part[0].index < 54 else 10
                assert shown(part) == list(range(begin, begin + length))
                starts.add(begin)
    assert 50 in starts and min(starts) < 5 and max(starts) > 95 and max(s for s in starts if s < 50) <= 40
    alone = LaneSampler(videos_of(500), 10, 4, 20, seed=2)
    assert len({lane[0].index for lane in lanes_of(alone)}) == 4  # lanes that share a video show other parts of it


def test_another_size_of_frame_begins_anew():
    (lane,) = lanes_of(LaneSampler(videos_of(7, sizes=[(10, 10)] * 3 + [(10, 12)] * 2 + [(10, 10)] * 2), 7, 1, 100))
    assert [item.first for item in lane] == [True, False, False, True, False, True, False]
    assert [item.anchor for item in lane] == [0, 0, 0, 3, 3, 5, 5] and {item.repeat for item in lane} == {0}


def test_all_lanes_begin_anew_where_clips_change_their_size():
    sampler = LaneSampler(videos_of(40, 40, 40), 4, 3, 100, shuffle=True, image_sizes=[[64, 96], [32, 32]])
    clips, changes = list(sampler), 0
    for before, clip in zip(clips[:-1], clips[1:], strict=True):
        assert len({item.size for item in clip}) == 1
        rows = clip[:3]
        if before[0].size != clip[0].size:
            changes += 1
            assert all(item.first and item.anchor == item.index for item in rows)
        else:
            assert not any(item.first for item in rows)
    assert changes > 2


def test_the_order_changes_with_epoch_and_seed_and_with_nothing_else():
    def order(epoch, seed, **options):
        return lanes_of(LaneSampler(videos_of(*range(1, 12)), 4, 3, 100, True, seed, **options), epoch)

    assert order(2, 7) == order(2, 7, endless=True)
    indices = [[shown(lane) for lane in order(*which)] for which in ((2, 7), (3, 7), (2, 8))]
    assert indices[0] != indices[1] and indices[0] != indices[2]


def test_an_epoch_can_be_entered_at_any_clip_and_the_next_ones_follow():
    def sampler(epoch, first, endless=False):
        made = LaneSampler(videos_of(9, 4, 17, 2, 30), 4, 3, 20, True, 1, endless, image_sizes=[[64, 96], [32, 32]])
        made.set_position(epoch, first)
        return made

    whole = list(sampler(6, 0))
    for first in range(len(whole) + 1):
        assert list(sampler(6, first)) == whole[first:]
    assert list(islice(sampler(5, 2, endless=True), 8)) == (list(sampler(5, 2)) + whole + list(sampler(7, 0)))[:8]
    assert all(item.first for item in whole[0][:3])
    with pytest.raises(ValueError, match="of an epoch of"):
        sampler(1, len(whole) + 1)


@pytest.mark.parametrize("lengths", [[5], [3, 9, 1, 1, 4, 12, 2], [6] * 5, [1] * 9, [2, 0, 3]])
@pytest.mark.parametrize("rows", [1, 3, 4, 50])
def test_evaluation_shows_every_frame_once_and_loses_only_last_rows(lengths, rows):
    records = videos_of(*lengths)
    batches = list(VideoOrderSampler(records, rows))
    sampler = VideoOrderSampler(records, rows)
    assert len(sampler) == len(batches) and sampler.num_images == sum(lengths)
    assert sorted(index for batch in batches for index in shown(batch)) == list(range(sum(lengths)))
    assert len(batches[0]) == min(rows, np.count_nonzero(lengths))
    begins = {start for start, length in zip(records.video_offsets[:-1].tolist(), lengths, strict=True) if length}
    assert all(item.first == (item.index in begins) and item.anchor is None for batch in batches for item in batch)
    for before, batch in zip(batches[:-1], batches[1:], strict=True):
        assert len(batch) <= len(before)
        for old, new in zip(before[: len(batch)], batch, strict=True):
            assert new.first or new.index == old.index + 1
            assert not new.first or old.index + 1 in records.video_offsets
    assert [item.first for item in batches[0]] == [True] * len(batches[0])
    sampler.set_position(1, len(batches) // 2)
    assert list(sampler) == batches[len(batches) // 2 :]


def test_rows_of_evaluation_take_up_videos_in_the_order_of_the_records():
    batches = list(VideoOrderSampler(videos_of(3, 9, 1, 1, 4, 12, 2), 3))
    begins = [(step, item.index) for step, batch in enumerate(batches) for item in batch if item.first]
    assert [index for _, index in sorted(begins)] == [0, 3, 12, 13, 14, 18, 30]
