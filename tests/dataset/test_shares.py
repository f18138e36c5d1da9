"""What each of several processes sees of the batches."""

import numpy as np
import pytest

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records
from lib.dataset.lanes import LaneSampler, VideoOrderSampler
from lib.dataset.sampler import EpochBatchSampler
from lib.dataset.shapes import Parameters, write_dataset
from lib.dataset.shares import share_of
from lib.utils.errors import UserError

from .test_lanes import videos_of

COUNTS = (2, 3, 5)


def taken(sampler, count, train):
    return [share_of(sampler, train, rank, count) for rank in range(count)]


@pytest.mark.parametrize("count", COUNTS)
def test_training_batches_are_cut_into_rows(count):
    whole = EpochBatchSampler(40, 7, shuffle=True, seed=3, drop_last=True, image_sizes=[[64, 96], [32, 32]])
    shares = taken(whole, count, True)
    assert all(len(share) == len(whole) for share in shares)
    for share in shares:
        share.set_position(4, 2)
    whole.set_position(4, 2)
    for parts, batch in zip(zip(*shares, strict=True), whole, strict=True):
        assert [item for part in parts for item in part] == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("count", COUNTS)
def test_lanes_stay_with_their_process(count):
    whole = LaneSampler(videos_of(9, 4, 17, 2, 30, 8), 4, 5, 20, True, 1)
    shares = taken(whole, count, True)
    for parts, clip in zip(zip(*shares, strict=True), whole, strict=True):
        lanes = np.array([item.index for item in clip]).reshape(4, 5)
        own = [np.array([item.index for item in part]).reshape(4, -1) for part in parts]
        assert (np.concatenate(own, axis=1) == lanes).all()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("num_images", [1, 8, 29])
def test_stills_are_evaluated_once_in_the_batches_of_one_process(count, num_images):
    whole = EpochBatchSampler(num_images, 4)
    shares = taken(whole, count, False)
    assert sum(share.num_images for share in shares) == num_images
    assert sorted((batch for share in shares for batch in share), key=str) == sorted(whole, key=str)
    assert merged(shares) == list(range(num_images))
    for share in shares:
        share.set_position(1, len(share))
        assert list(share) == []


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("lengths", [(3, 9, 1, 1, 4, 12, 2), (5,), (2, 2, 2, 2)])
def test_videos_stay_whole_and_merge_to_the_order_of_one_process(count, lengths):
    whole = VideoOrderSampler(videos_of(*lengths), 3)
    shares = taken(whole, count, False)
    assert sum(share.num_images for share in shares) == sum(lengths)
    assert merged(shares) == [item.index for batch in whole for item in batch]
    videos = np.repeat(np.arange(len(lengths)), lengths)
    seen = [{videos[item.index] for batch in share for item in batch} for share in shares]
    assert sum(map(len, seen)) == len(lengths)


def merged(shares):
    """The indices in the order in which the main process takes them in."""
    streams, order = [iter(share) for share in shares], []
    for _ in range(shares[0].num_rounds):
        order += shares[0].merge([[item.index for item in next(stream, [])] for stream in streams])
    assert all(next(stream, None) is None for stream in streams)
    assert len({share.num_rounds for share in shares}) == 1
    return order


def test_one_process_has_the_sampler_itself():
    whole = EpochBatchSampler(10, 4)
    assert share_of(whole, True, 0, 1) is whole


def test_batches_too_small_to_share_are_told(tmp_path, monkeypatch):
    write_dataset(tmp_path / "data", Parameters(num_train=3, num_val=1, num_test=1, size=96), num_workers=0)
    cfg = load_config(None, ["DATASET.DATASET=custom", f"DATASET.DATASET_DIR={tmp_path / 'data'}",
                             "DATASET.TRAIN_SETS=train", "DATASET.NUM_WORKERS=0", "TRAIN.BATCH_SIZE=2"])  # fmt: skip
    records = create_records(cfg, "train")
    monkeypatch.setattr("lib.dataset.dataset_factory.world_size", lambda: 3)
    with pytest.raises(UserError, match="TRAIN.BATCH_SIZE: 2 given, which is shared by 3 processes"):
        create_loader(cfg, "train", records)
    cfg.TRAIN.BATCH_PER_PROCESS = True
    assert len(next(iter(create_loader(cfg, "train", records)))[0].images) == 1  # a third of the only batch of three
    monkeypatch.setattr("lib.dataset.dataset_factory.world_size", lambda: 4)
    with pytest.raises(UserError, match="3 images cannot be shared by 4 processes"):
        create_loader(cfg, "train", records)
