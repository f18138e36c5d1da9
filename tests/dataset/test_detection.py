"""Records hold annotations in flat arrays; the data set reads any image and keeps boxes on its pixels."""

import logging
import pickle
import struct

import cv2
import numpy as np
import pytest
import torch

from lib.dataset.detection import DetectionDataset, DetectionRecords, FlatStrings
from lib.dataset.transforms import EvalTransform, TrainTransform, read_image
from lib.utils.errors import UserError
from tests.dataset.folders import write_image


def records_of(name="a", paths=("x/1.jpg", "x/2.jpg", "x/3.jpg"), classes=("cat", "dog"), size=(60, 80)):
    """Three images: two objects, none, one."""
    boxes = [[8, 6, 40, 30], [0, 0, 80, 60], [20, 15, 60, 45]]
    ids = [path.rpartition("/")[2].partition(".")[0] for path in paths]
    return DetectionRecords.build(
        classes, paths, ids, [size] * 3, boxes, [1, 2, 2], [False, True, False], [2, 0, 1], name
    )


def test_strings_of_any_script_and_length_come_back():
    strings = ["", "a", "Блок 7", "日本/写真.jpg", "undecodable-\udcff", "a" * 1000]
    packed = FlatStrings(strings)
    assert len(packed) == 6 and list(packed) == strings and packed[-1] == strings[-1]
    with pytest.raises(IndexError):
        packed[6]


def test_a_target_holds_the_objects_of_its_image_in_the_unit_square():
    records = records_of()
    first, empty, last = (records.target(i) for i in range(3))
    torch.testing.assert_close(first.boxes, torch.tensor([[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1]]))
    assert first.labels.tolist() == [1, 2] and first.difficult.tolist() == [False, True]
    assert (first.image_id, first.size) == ("1", (60, 80))
    assert empty.boxes.shape == (0, 4) and empty.labels.dtype == torch.int64 and empty.difficult.shape == (0,)
    torch.testing.assert_close(last.boxes, torch.tensor([[0.25, 0.25, 0.75, 0.75]]))
    assert records.num_objects_per_class().tolist() == [1, 2]
    assert records.image_path(1) == "x/2.jpg" and records.size(2) == (60, 80) and len(records) == 3


def test_records_cannot_be_changed_through_a_target():
    records = records_of()
    records.target(0).boxes.zero_()
    records.objects(0)[0][:] = 0
    assert records.boxes.sum() > 0


def test_joined_records_keep_every_image_with_its_own_objects():
    joined = DetectionRecords.concat([records_of("a"), records_of("b", ("y/7.jpg", "y/8.jpg", "y/9.jpg"))])
    assert len(joined) == 6 and [joined.image_id(i) for i in range(6)] == ["1", "2", "3", "7", "8", "9"]
    assert [len(joined.target(i).labels) for i in range(6)] == [2, 0, 1, 2, 0, 1]
    torch.testing.assert_close(joined.target(5).boxes, records_of().target(2).boxes)
    assert joined.num_objects_per_class().tolist() == [2, 4]


def test_ids_get_the_name_of_their_part_only_where_they_clash():
    joined = DetectionRecords.concat([records_of("VOC2007"), records_of("VOC2012"), records_of("VOC2007")])
    ids = [joined.image_id(i) for i in range(9)]
    assert ids[::3] == ["VOC2007/1", "VOC2012/1", "VOC2007-2/1"] and len(set(ids)) == 9


def test_different_classes_are_not_joined():
    with pytest.raises(UserError, match="a has cat, dog; b has cat, cow"):
        DetectionRecords.concat([records_of("a"), records_of("b", classes=("cat", "cow"))])


def test_records_hold_no_python_object_per_image():
    many = DetectionRecords.build(["c"], [f"p{i}" for i in range(5000)], [str(i) for i in range(5000)],
                                  np.ones((5000, 2)), np.zeros((0, 4)), [], [], [0] * 5000)  # fmt: skip
    reached = [value for value in vars(many).values() if not isinstance(value, FlatStrings)]
    reached += [value for text in (many.paths, many.ids) for value in vars(text).values()]
    assert all(value is None or isinstance(value, np.ndarray | str) or len(value) <= 1 for value in reached)
    assert len(pickle.dumps(many)) < 5000 * 45


@pytest.mark.parametrize(
    "name, shape, dtype",
    [
        ("color.png", (6, 8, 3), np.uint8),
        ("grey.jpg", (6, 8), np.uint8),
        ("alpha.png", (6, 8, 4), np.uint8),
        ("deep.png", (6, 8, 3), np.uint16),
        ("deep_grey.tif", (6, 8), np.uint16),
        ("old.bmp", (6, 8, 3), np.uint8),
        ("new.webp", (6, 8, 3), np.uint8),
        ("Ünïcode 写真.png", (6, 8, 3), np.uint8),
    ],
)
def test_any_image_becomes_eight_bit_bgr(tmp_path, name, shape, dtype):
    value = 200 if dtype == np.uint8 else 200 * 257
    pixels = np.full(shape, value, dtype)
    assert cv2.imwrite(str(tmp_path / name), pixels)
    image = read_image(str(tmp_path / name))
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - 200).max() <= 1


@pytest.mark.parametrize(
    "content, told",
    [(b"not an image", "12 bytes that are no image"), (b"", "the file is empty"), (None, "No such file")],
)
def test_an_unreadable_image_is_told_by_name(tmp_path, content, told):
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_image(str(path))
    assert str(path) in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


def test_exif_rotation_does_not_turn_the_pixels_away_from_their_boxes(tmp_path):
    path = write_image(tmp_path / "turned.jpg", (60, 80))
    plain = path.read_bytes()
    orientation = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)  # quarter turn
    segment = b"Exif\0\0" + orientation
    path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:])
    assert cv2.imread(str(path)).shape == (80, 60, 3)
    assert read_image(str(path)).shape == (60, 80, 3)


@pytest.fixture
def on_disk(tmp_path):
    paths = [str(write_image(tmp_path / f"{i}.png", (60, 80), seed=i)) for i in range(3)]
    return records_of(paths=paths)


def test_an_item_depends_on_seed_epoch_and_index_only(on_disk):
    def pixels(seed, epoch, index):
        return DetectionDataset(on_disk, TrainTransform((32, 32)), seed)[epoch, index][0].tobytes()

    data = DetectionDataset(on_disk, TrainTransform((32, 32)), 1)
    again = [data[2, i][0].tobytes() for i in (2, 0, 1, 0)]
    assert again[1] == again[3] == pixels(1, 2, 0)
    assert pixels(1, 2, 0) != pixels(1, 3, 0) and pixels(1, 2, 0) != pixels(2, 2, 0)


def test_an_item_is_an_image_and_its_target(on_disk):
    image, target = DetectionDataset(on_disk, EvalTransform((32, 48)))[1, 0]
    assert image.shape == (32, 48, 3) and image.dtype == np.uint8 and image.flags["C_CONTIGUOUS"]
    torch.testing.assert_close(target.boxes, on_disk.target(0).boxes)
    assert target.size == (60, 80) and target.image_id == "0" and target.difficult.tolist() == [False, True]


def test_boxes_are_pixels_of_the_image_as_it_is_read(tmp_path, caplog):
    paths = [str(write_image(tmp_path / f"{i}.png", (30, 40))) for i in range(3)]
    data = DetectionDataset(records_of(paths=paths, size=(60, 80)), EvalTransform((32, 32)))
    with caplog.at_level(logging.WARNING):
        target, empty, last = (data[1, i][1] for i in range(3))
    torch.testing.assert_close(target.boxes, torch.tensor([[0.2, 0.2, 1, 1], [0, 0, 1, 1]]))
    assert target.size == (30, 40) and empty.labels.tolist() == []
    torch.testing.assert_close(last.boxes, torch.tensor([[0.5, 0.5, 1, 1]]))
    assert len(caplog.records) == 1 and "0.png: the image is 40 x 30, its annotation says 80 x 60" in caplog.text
