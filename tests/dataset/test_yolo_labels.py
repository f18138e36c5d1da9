"""YOLO labels: all the layouts that tools write, boxes in pixels, and what is wrong told with file and line."""

import json
import logging
import math

import pytest
from PIL import Image

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records
from lib.dataset.inspection import CASES, Checks
from lib.dataset.split import NO_PLAN
from lib.dataset.yolo import read_yolo
from lib.utils.errors import UserError
from tests.dataset.folders import write_image

WHERE = "DATASET.TRAIN_SETS"
NAMES = "names: [cat, dog]\n"
CAT = "0 0.5 0.5 0.25 0.5"
"""In an image of 80 x 60: 30, 15, 50, 45."""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def add(root, image, labels=None, text=CAT):
    """An image of 80 x 60 and its label file, where it has one."""
    write_image(root / image)
    if labels:
        write(root / labels, text)
    return root


def two_sets(root, images="images/{}", labels="labels/{}", val="val"):
    """An image a of train with a cat, and b of val without labels, and c with them."""
    add(root, f"{images.format('train')}/a.jpg", f"{labels.format('train')}/a.txt")
    add(root, f"{images.format(val)}/b.jpg")
    return add(root, f"{images.format(val)}/c.png", f"{labels.format(val)}/c.txt")


def read(*roots, sets=None, role="train", classes=(), on_bad="drop", folder="", exif="ignore"):
    checks = Checks(on_bad, exif, folder=folder)
    return read_yolo([str(root) for root in roots], sets, role, classes, NO_PLAN, WHERE, checks)


def ids(records):
    return [records.image_id(i) for i in range(len(records))]


def boxes(records):
    return [records.objects(i)[0].tolist() for i in range(len(records))]


class TestLayouts:
    @pytest.mark.parametrize(
        "images, labels",
        [
            ("images/{}", "labels/{}"),
            ("{}/images", "{}/labels"),
            ("{}", "{}"),
            ("images/{}", "images/{}"),
            ("JPEGImages/{}", "labels/{}"),
        ],
    )
    @pytest.mark.parametrize("val", ["val", "valid"])
    def test_folders_of_sets(self, tmp_path, images, labels, val):
        root = two_sets(tmp_path, images, labels, val)
        write(root / "classes.txt", "cat\ndog\n\n")
        train, test = read(root), read(root, role="test")
        assert boxes(train) == [[[30, 15, 50, 45]]] and train.class_names == ("cat", "dog")
        assert boxes(test) == [[], [[30, 15, 50, 45]]]
        assert ids(test) == [f"{images.format(val)}/b.jpg", f"{images.format(val)}/c.png"]
        assert train.sizes.tolist() == [[60, 80]] and read(root, role="eval").name == f"{root.name}/val"
        assert len(read(root, sets=["train", "valid"])) == len(read(root, sets=["all"])) == 3

    @pytest.mark.parametrize(
        "text",
        [
            NAMES + "train: images/train\nval: images/val\n",
            NAMES + "nc: 2\ntrain: ../images/train\nval: ../images/val\n",
            NAMES + "path: .\ntrain: [images/train]\nval: ./images/val/\n",
            NAMES + "path: ../datasets/of/another/machine\ntrain: images/train\nval: images/val\ntest:\n",
            "names:\n  0: cat\n  1: dog\npath: images\ntrain: train\nval: val\n",
            NAMES + "train: lists/t.txt\nval: images/val\n",
        ],
    )
    @pytest.mark.parametrize("given", ["folder", "file"])
    def test_a_data_yaml_names_sets_and_classes(self, tmp_path, text, given):
        root = two_sets(tmp_path)
        write(root / "lists/t.txt", "./images/train/a.jpg\n")
        write(root / "data.yaml", text)
        place = root if given == "folder" else root / "data.yaml"
        assert ids(read(place)) == ["images/train/a.jpg"] and len(read(place, role="test")) == 2
        assert read(place).class_names == ("cat", "dog")

    @pytest.mark.parametrize(
        "line",
        [
            "images/train/{}.jpg",
            "./images/train/{}.jpg",
            "{root}/images/train/{}.jpg",
            "/content/set/images/train/{}.jpg",
            "data/obj/images/train/{}.jpg",
            "C:\\me\\images\\train\\{}.jpg",
        ],
    )
    def test_lists_wherever_they_were_written(self, tmp_path, line):
        root = add(tmp_path, "images/train/a.jpg", "labels/train/a.txt")
        add(root, "images/train/b.jpg")
        write(root / "obj.names", "cat\n")
        write(root / "train.txt", "".join(line.format(name, root=root) + "\n" for name in "ba"))
        assert ids(read(root)) == ["images/train/b.jpg", "images/train/a.jpg"]

    def test_without_sets_a_split_is_drawn_once_and_kept(self, tmp_path):
        root = tmp_path / "set"
        for number in range(10):
            add(root, f"images/{number}.jpg", f"labels/{number}.txt")
        write(root / "labels/classes.txt", "cat\n")
        words = ["DATASET.DATASET=yolo", f"DATASET.DATASET_DIR={root}", f"EXP_DIR={tmp_path / 'run'}"]
        cfg = load_config(None, words)
        parts = [ids(create_records(cfg, phase)) for phase in ("train", "eval", "test")]
        assert [len(part) for part in parts] == [8, 1, 1] and len({name for part in parts for name in part}) == 10
        assert [ids(create_records(cfg, phase)) for phase in ("train", "eval", "test")] == parts

    def test_images_and_labels_side_by_side(self, tmp_path):
        """As LabelImg saves them."""
        add(tmp_path, "a.jpg", "a.txt")
        write(tmp_path / "classes.txt", "cat\n")
        assert boxes(read(tmp_path, sets=["all"])) == [[[30, 15, 50, 45]]]

    def test_folders_are_joined_by_the_names_of_their_classes(self, tmp_path):
        one, other = two_sets(tmp_path / "one"), two_sets(tmp_path / "other")
        write(one / "data.yaml", NAMES)
        write(other / "data.yaml", "names: [dog, cat]\n")
        assert read(one, other).labels.tolist() == [1, 2]
        write(other / "data.yaml", "names: [dog, cow]\n")
        with pytest.raises(UserError, match="different classes, cat, dog and dog, cow; DATASET.CLASSES must name"):
            read(one, other)

    def test_classes_given_choose_by_name_or_name_the_numbers(self, tmp_path, caplog):
        root = two_sets(tmp_path)
        assert read(root, classes=["horse", "dog"]).labels.tolist() == [1]
        write(root / "data.yaml", NAMES)
        assert read(root, classes=["dog", "cat"]).labels.tolist() == [2]
        write(root / "labels/train/a.txt", f"{CAT}\n1{CAT[1:]}\n")
        assert read(root, classes=["dog"]).labels.tolist() == [1] and "class 'cat' is unknown" in caplog.text


class TestLines:
    def test_polygons_become_their_boxes(self, tmp_path):
        """And blank lines and spaces at the ends are nothing."""
        text = "1 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5  \n\n 0 0.25 0.5 0.5 1\r\n"
        root = add(tmp_path, "train/a.jpg", "train/a.txt", text)
        add(root, "val/b.jpg")
        records = read(root, classes=["cat", "dog"])
        assert boxes(records) == [[[20, 15, 60, 45], [0, 0, 40, 60]]] and records.labels.tolist() == [2, 1]

    @pytest.mark.parametrize("exif, size", [("ignore", [60, 80]), ("apply", [80, 60])])
    def test_parts_are_of_the_image_as_it_is_read(self, tmp_path, exif, size):
        root = add(tmp_path, "train/a.jpg", "train/a.txt")
        add(root, "val/b.jpg")
        tags = Image.Exif()
        tags[0x0112] = 6
        Image.new("RGB", (80, 60)).save(root / "train/a.jpg", exif=tags)
        records = read(root, classes=["cat"], exif=exif)
        height, width = size
        assert records.sizes.tolist() == [size]
        assert boxes(records) == [[[0.375 * width, 0.25 * height, 0.625 * width, 0.75 * height]]]

    BAD = {
        "a word": ("0 0.5 x 0.2 0.2", "no_number"),
        "commas": ("0,0.5,0.5,0.2,0.2", "no_number"),
        "a number missing": ("0 0.5 0.5 0.2", "no_number"),
        "a confidence too many": ("0 0.5 0.5 0.2 0.2 0.9", "no_number"),
        "a name for the class": ("cat 0.5 0.5 0.2 0.2", "no_number"),
        "half a class": ("0.5 0.5 0.5 0.2 0.2", "no_class_name"),
        "class below 0": ("-1 0.5 0.5 0.2 0.2", "no_class_name"),
        "class beyond": ("2 0.5 0.5 0.2 0.2", "unknown_class"),
        "pixels": ("0 40 30 20 20", "not_relative"),
        "NaN": ("0 nan 0.5 0.2 0.2", "nan_box"),
        "a polygon with infinity": ("0 0.1 0.1 0.2 0.1 0.2 inf", "nan_box"),
        "no width": ("0 0.5 0.5 0 0.2", "empty_box"),
        "negative width": ("0 0.5 0.5 -0.2 0.2", "reversed_box"),
        "outside": ("0 1.5 0.5 0.2 0.2", "outside_box"),
    }

    @pytest.mark.parametrize("what", BAD)
    def test_a_bad_line_is_left_out_and_named(self, tmp_path, caplog, what):
        line, case = self.BAD[what]
        root = add(tmp_path / "set", "train/a.jpg", "train/a.txt", f"{CAT}\n{line}\n")
        add(root, "val/b.jpg")
        write(root / "data.yaml", NAMES)
        records = read(root, folder=str(tmp_path / "run"))
        assert boxes(records) == [[[30, 15, 50, 45]]]
        (found,) = json.loads((tmp_path / "run/data_report_train.json").read_text())["cases"].items()
        assert found[0] == case and found[1]["found"][0]["object"] == 2
        assert f"1 {CASES[case].unit} {CASES[case].words}" in caplog.text and "train/a.txt line 2 (" in caplog.text
        with pytest.raises(UserError, match=r"ON_BAD is fail: train: 1 faulty box in 1: .*a.txt line 2"):
            read(root, on_bad="fail")

    @pytest.mark.parametrize("data", [b"\xff\xfe0\0 \0", b"\x80\x81", b"0 0.5 \x00"])
    def test_a_label_file_that_is_no_text(self, tmp_path, caplog, data):
        root = two_sets(tmp_path)
        (root / "labels/val/b.txt").write_bytes(data)
        records = read(root, role="test", classes=["cat"])
        assert boxes(records)[-1] == [[30, 15, 50, 45]]
        assert "b.txt" in caplog.text and "(dropped)" in caplog.text


def test_labels_without_an_image_are_told(tmp_path, caplog):
    root = two_sets(tmp_path)
    write(root / "labels/train/lost.txt", CAT)
    assert len(read(root, classes=["cat"])) == 1
    assert "1 faulty image in 2: 1 image missing (dropped)" in caplog.text and "lost.txt" in caplog.text


def test_lines_of_lists_that_name_no_image_are_told(tmp_path, caplog):
    root = two_sets(tmp_path)
    write(root / "train.txt", "images/train/a.jpg\n\nimages/train/gone.jpg\nimages/train/a.jpg\n")
    with caplog.at_level(logging.INFO):
        assert len(read(root, classes=["cat"])) == 1
    assert "train.txt, line 3: there is no image 'images/train/gone.jpg'" in caplog.text
    assert "1 image listed twice" in caplog.text and "1 blank line" in caplog.text


def test_images_without_labels_are_counted(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read(two_sets(tmp_path), role="test", classes=["cat"])
    assert "1 of 2 images have no label file and count as images without objects" in caplog.text


def yaml(text):
    return lambda root: write(root / "data.yaml", text)


MISTAKES = {
    "no names": (
        lambda root: (root / "classes.txt").unlink(), {}, "no file names the classes .*; DATASET.CLASSES must name"
    ),
    "a gap in the names": (
        lambda root: write(root / "classes.txt", "cat\n\ndog\n"), {}, "classes.txt, line 2: is empty; a line names"
    ),
    "empty names": (lambda root: write(root / "classes.txt", "\n"), {}, "classes.txt: names no class"),
    "a name twice": (yaml("names: [cat, cat]\n"), {}, "'cat' is named twice"),
    "another number of classes": (yaml("names: [cat]\nnc: 3\n"), {}, "data.yaml:2: nc: '3' given, but 'names' are 1"),
    "names by words": (yaml("names: {cat: 0}\n"), {}, "data.yaml:1: names: .* is neither a list nor numbers with"),
    "keypoints": (yaml("names: [cat]\nkpt_shape: [17, 3]\n"), {}, "data.yaml:2: kpt_shape: labels with keypoints are"),
    "no YAML": (yaml("names: [cat\n"), {}, "data.yaml:.*: not readable as YAML"),
    "a folder that is not there": (
        yaml(NAMES + "train: pictures\nval: images/val\n"), {}, "data.yaml: there is no folder or list 'pictures' in "
    ),
    "two descriptions": (
        lambda root: (write(root / "a.yaml", NAMES), write(root / "b.yaml", NAMES)), {},
        "has several descriptions: a.yaml, b.yaml; give the path of one",
    ),
    "an empty list": (lambda root: write(root / "train.txt", "\n"), {}, "train.txt: the list names no image"),
    "an empty folder": (
        lambda root: (root / "images/train/a.jpg").unlink(), {}, "images/train: holds no image; it holds nothing"
    ),
    "no labels": (
        lambda root: (root / "labels/train/a.txt").unlink(), {},
        "train: not one of 1 images of .* has a label file; that of the first would be .*labels/train/a.txt",
    ),
    "misspelt set": (lambda root: None, {"sets": ["trian"]}, "no image set 'trian' .*; did you mean 'train'"),
    "pixels everywhere": (
        lambda root: write(root / "labels/train/a.txt", "9 4 4 2 2\n"), {"on_bad": "fail"},
        "line 1 .not in parts of the image's size: 9 4 4 2 2",
    ),
    "no class in reach": (
        lambda root: write(root / "labels/train/a.txt", f"9{CAT[1:]}\n"), {},
        "a.txt line 1 .class 9 has no name; allowed: 0 to 1.; not one of 1 objects is of a known class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, mistake):
    spoil, options, message = MISTAKES[mistake]
    root = two_sets(tmp_path)
    write(root / "classes.txt", "cat\ndog\n")
    spoil(root)
    with pytest.raises(UserError, match=message) as error:
        read(root, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "root, message",
    [
        ("nowhere", "DATASET.DATASET_DIR: there is no folder"),
        ("nowhere/data.yaml", "DATASET.DATASET_DIR: there is no folder"),
        ("", "holds no image; it holds x.yml"),
        ("x.yml", "x.yml: has no 'names', so it describes no data set"),
    ],
)
def test_a_folder_that_is_none(tmp_path, root, message):
    write(tmp_path / "x.yml", "a: 1\n")
    with pytest.raises(UserError, match=message):
        read(tmp_path / root, sets=["all"], classes=["cat"])


def test_a_loader_reads_it(tmp_path):
    write(two_sets(tmp_path) / "data.yaml", NAMES)
    words = ["DATASET.DATASET=yolo", f"DATASET.DATASET_DIR={tmp_path}", "DATASET.NUM_WORKERS=0", "MODEL.IMAGE_SIZE=40"]
    (batch,) = next(iter(create_loader(load_config(None, [*words, f"EXP_DIR={tmp_path / 'run'}"]), "test")))
    assert [len(target.labels) for target in batch.targets] == [0, 1]
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(batch.targets[1].boxes[0].tolist(),
                                                               (0.375, 0.25, 0.625, 0.75), strict=True))  # fmt: skip
