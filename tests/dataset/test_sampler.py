"""The order of images depends on seed and epoch only, and can be entered anywhere."""

from itertools import islice

import numpy as np
import pytest

from lib.dataset.detection import DetectionRecords
from lib.dataset.sampler import EpochBatchSampler, class_shares, count_earlier, repeat_factors


def indices(batches):
    return [item.index for batch in batches for item in batch]


def test_every_image_comes_once_an_epoch_in_batches_of_that_size():
    sampler = EpochBatchSampler(10, 4, shuffle=True, seed=3)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [4, 4, 2] and len(sampler) == 3
    assert sorted(indices(batches)) == list(range(10))
    assert {item.epoch for batch in batches for item in batch} == {1}


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


def records_with(*labels):
    """Records of images that hold objects of these labels; three classes."""
    flat = [label for image in labels for label in image]
    return DetectionRecords.build(
        ("a", "b", "c"), [f"{i}.png" for i in range(len(labels))], [str(i) for i in range(len(labels))],
        [(10, 10)] * len(labels), [(0, 0, 5, 5)] * len(flat), flat, [False] * len(flat), [len(i) for i in labels],
    )  # fmt: skip


def counts_over(sampler, epochs):
    """[epochs, I]: how often each image came."""
    counts = []
    for epoch in range(1, epochs + 1):
        sampler.set_position(epoch)
        counts.append(np.bincount(indices(sampler), minlength=sampler.num_images))
    return np.array(counts)


def test_repeat_factors_are_those_of_lvis():
    records = records_with([1], [1, 2], [1], [1, 1], [3, 1], [1], [1], [1, 2], [], [1])
    factors = repeat_factors(records, 0.4)  # a in 0.9 of the images, b in 0.2, c in 0.1
    np.testing.assert_allclose(factors, [1, 2**0.5, 1, 1, 2, 1, 1, 2**0.5, 1, 1])
    np.testing.assert_allclose(repeat_factors(records), repeat_factors(records, 0.4))  # the mean part is 0.4
    assert repeat_factors(records_with([], [])).tolist() == [1, 1]


def test_class_shares_give_every_class_its_weight():
    records = records_with([1], [1], [1], [1, 2], [3], [1], [])
    holds = np.array([[1, 0, 0]] * 3 + [[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]], bool)
    for weights in ([1, 1, 1], [1, 3, 2]):
        shares = class_shares(records, weights)
        assert shares.sum() == pytest.approx(7)
        assert shares[4] / shares[0] == pytest.approx(weights[2] / (weights[0] / 5))  # of one image, of five
        assert shares[3] == pytest.approx(shares[0] + shares[4] * weights[1] / weights[2])
    assert not holds[6].any() and class_shares(records)[6] > 0


@pytest.mark.parametrize("shuffle", [False, True])
def test_images_come_as_often_as_asked_and_epochs_are_of_one_length(shuffle):
    repeats = np.array([1, 2.5, 0.25, 1, 3.25, 1])
    sampler = EpochBatchSampler(6, 4, shuffle=shuffle, seed=5, repeats=repeats)
    counts = counts_over(sampler, 400)
    assert (counts.sum(axis=1) == 9).all() and len(sampler) == 3
    assert (counts >= np.floor(repeats)).all() and (counts <= np.ceil(repeats)).all()
    np.testing.assert_allclose(counts.mean(axis=0), repeats, atol=0.08)


def test_images_that_come_again_in_an_epoch_are_numbered():
    sampler = EpochBatchSampler(3, 2, shuffle=True, seed=1, repeats=[3, 1, 1])
    items = [item for batch in sampler for item in batch]
    assert sorted((item.index, item.repeat) for item in items) == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]
    assert count_earlier([5, 1, 5, 5, 1]).tolist() == [0, 0, 1, 2, 1]


def test_every_batch_has_one_of_the_sizes_wherever_it_is_entered():
    def sampler(first):
        made = EpochBatchSampler(40, 4, shuffle=True, seed=3, image_sizes=[[64, 96], [128, 160]])
        made.set_position(2, first)
        return made

    sizes = [{item.size for item in batch} for batch in sampler(0)]
    assert all(len(size) == 1 for size in sizes)
    assert set.union(*sizes) == {(64, 96), (128, 160)}
    assert [{item.size for item in batch} for batch in sampler(4)] == sizes[4:]
