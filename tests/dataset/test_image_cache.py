"""Training images that are decoded once and kept, in memory or in a file."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.dataset import image_cache
from lib.dataset.dataset_factory import create_loader, create_records, keep_images
from lib.dataset.shapes import Parameters, write_dataset
from lib.utils.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "shapes"
    write_dataset(out, Parameters(num_train=6, num_val=1, num_test=1, size=160, seed=3), num_workers=0)
    return out


def settings(data, *more):
    return load_config(None, ["DATASET.DATASET=custom", f"DATASET.DATASET_DIR={data}", "DATASET.TRAIN_SETS=train",
                              "DATASET.NUM_WORKERS=0", "MODEL.IMAGE_SIZE=48", "TRAIN.BATCH_SIZE=3", *more])  # fmt: skip


@pytest.mark.parametrize("place", ["ram", "file"])
def test_images_are_read_once_and_stay_as_they_are(data, tmp_path, place, monkeypatch):
    place = "ram" if place == "ram" else str(tmp_path / "kept")
    cfg = settings(data, f"DATASET.CACHE={place}", "DATASET.CACHE_SCALE=0")
    records = create_records(cfg, "train")
    kept = keep_images(cfg, records)
    for index in range(len(records)):
        assert (kept.read(index) == records.read(index)).all()
    opened = []
    monkeypatch.setattr("lib.dataset.detection.read_image", lambda path, exif: opened.append(path))
    assert all((kept.read(index) == cv2.imread(records.image_path(index))).all() for index in range(len(records)))
    kept.read(0)[:] = 0  # a copy: augmentation may write into it
    assert kept.read(0).any() and not opened
    if place != "ram":
        again = keep_images(cfg, records)
        assert again.read(3).any() and not opened


def test_forked_workers_fill_the_same_memory(data):
    cfg = settings(data, "DATASET.CACHE=ram", "DATASET.NUM_WORKERS=2")
    records = keep_images(cfg, create_records(cfg, "train"))
    loader = create_loader(cfg, "train", records)
    for _ in loader:
        pass
    loader.close()
    assert records.cache._bytes[: len(records)].all()


def test_shrunk_images_keep_their_boxes_on_their_objects(data, tmp_path):
    cfg = settings(data, f"DATASET.CACHE={tmp_path}")
    records = create_records(cfg, "train")
    kept = keep_images(cfg, records)
    for index in range(len(records)):
        height, width = kept.size(index)
        assert min(height, width) == 96 or (height, width) == records.size(index)
        assert kept.read(index).shape == (height, width, 3)
        whole, small = records.target(index).boxes, kept.target(index).boxes
        np.testing.assert_allclose(small, whole, atol=0.5 / 96)
        shrunk = cv2.resize(records.read(index), (width, height), interpolation=cv2.INTER_AREA)
        assert (kept.read(index) == shrunk).all()


def test_an_image_of_another_size_than_its_annotation_is_shrunk_as_much(data, tmp_path):
    cfg = settings(data, f"DATASET.CACHE={tmp_path}")
    records = create_records(cfg, "train")
    records.sizes[1] = [400, 300]
    kept, real = keep_images(cfg, records), records.read(1).shape[:2]
    factor = 96 / 300
    assert kept.read(1).shape[:2] == pytest.approx([side * factor for side in real], abs=1)


def test_a_changed_image_is_read_anew(data, tmp_path):
    copied = tmp_path / "data"
    shutil.copytree(data, copied)
    cfg = settings(copied, f"DATASET.CACHE={tmp_path / 'kept'}")
    records = create_records(cfg, "train")
    before = keep_images(cfg, records).read(0)
    path = Path(records.image_path(0))
    cv2.imwrite(str(path), 255 - records.read(0))
    os.utime(path, ns=(1, 1))
    assert (keep_images(cfg, records).read(0) != before).any()
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_training_is_the_same_with_and_without(data):
    """Where nothing is shrunk: the random numbers of a sample do not depend on where its pixels come from."""
    batches = []
    for more in ((), ("DATASET.CACHE=ram", "DATASET.CACHE_SCALE=0")):
        cfg = settings(data, *more)
        loader = create_loader(cfg, "train", keep_images(cfg, create_records(cfg, "train")))
        batches.append([batch.images for _ in range(2) for (batch,) in loader])
    assert len(batches[0]) == 4
    assert all((one == two).all() for one, two in zip(*batches, strict=True))


def test_too_little_room_is_told(data, tmp_path, monkeypatch):
    cfg = settings(data, "DATASET.CACHE=ram")
    records = create_records(cfg, "train")
    monkeypatch.setattr(image_cache, "_available_memory", lambda: 1000)
    with pytest.raises(UserError, match="DATASET.CACHE: ram would take"):
        keep_images(cfg, records)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cfg.DATASET.CACHE = str(tmp_path)
    with pytest.raises(UserError, match=r"images_\w+.bin cannot be made .* \(No space left on device\)"):
        keep_images(cfg, records)
