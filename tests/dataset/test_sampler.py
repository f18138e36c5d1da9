"""The order of images depends on seed and epoch only, and can be entered anywhere."""

from itertools import islice

import pytest

from lib.dataset.sampler import EpochBatchSampler


def indices(batches):
    return [index for batch in batches for _, index in batch]


def test_every_image_comes_once_an_epoch_in_batches_of_that_size():
    sampler = EpochBatchSampler(10, 4, shuffle=True, seed=3)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [4, 4, 2] and len(sampler) == 3
    assert sorted(indices(batches)) == list(range(10))
    assert {epoch for batch in batches for epoch, _ in batch} == {1}


def test_without_shuffle_the_order_is_that_of_the_records():
    assert indices(EpochBatchSampler(7, 3)) == list(range(7))


def test_the_order_changes_with_epoch_and_seed_and_with_nothing_else():
    def order(epoch, seed, batch_size=5):
        sampler = EpochBatchSampler(40, batch_size, shuffle=True, seed=seed)
        sampler.set_position(epoch)
        return indices(sampler)

    assert order(2, 7) == order(2, 7) == order(2, 7, batch_size=3)
    assert order(2, 7) != order(3, 7) and order(2, 7) != order(2, 8)


def test_a_run_resumed_inside_an_epoch_sees_the_batches_it_had_not_seen():
    sampler = EpochBatchSampler(23, 4, shuffle=True, seed=1, drop_last=True)
    sampler.set_position(6)
    whole = list(sampler)
    for first in range(len(sampler) + 1):
        fresh = EpochBatchSampler(23, 4, shuffle=True, seed=1, drop_last=True)
        fresh.set_position(6, first)
        assert list(fresh) == whole[first:]


@pytest.mark.parametrize("num_images, expected", [(9, [4, 4]), (8, [4, 4]), (4, [4]), (3, [3]), (0, [])])
def test_drop_last_drops_an_incomplete_batch_unless_it_is_the_only_one(num_images, expected):
    sampler = EpochBatchSampler(num_images, 4, drop_last=True)
    assert [len(batch) for batch in sampler] == expected and len(sampler) == len(expected)


def test_an_endless_sampler_goes_on_with_the_next_epochs():
    endless = EpochBatchSampler(10, 4, shuffle=True, seed=2, endless=True)
    endless.set_position(5, 2)
    seen = list(islice(endless, 7))
    expected = []
    for epoch, first in ((5, 2), (6, 0), (7, 0)):
        sampler = EpochBatchSampler(10, 4, shuffle=True, seed=2)
        sampler.set_position(epoch, first)
        expected += list(sampler)
    assert seen == expected


def test_a_position_outside_the_epoch_is_refused():
    with pytest.raises(ValueError, match="batch 4 of an epoch of 3"):
        EpochBatchSampler(10, 4).set_position(1, 4)
