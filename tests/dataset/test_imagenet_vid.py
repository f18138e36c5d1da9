"""ImageNet VID as it is unpacked becomes videos: its classes, corners, tracks and lists."""

import logging

import numpy as np
import pytest

from lib.dataset.imagenet_vid import read_imagenet_vid
from lib.dataset.inspection import Checks
from lib.dataset.split import NO_PLAN
from lib.utils.class_names import IMAGENET_VID_CLASSES, IMAGENET_VID_NAMES
from lib.utils.errors import UserError
from tests.dataset.folders import write_image

WHERE = "DATASET.TRAIN_SETS"
CAR, DOG, ZEBRA = "n02958343", "n02084071", "n02391049"
TRAIN_A = "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
TRAIN_B = "train/ILSVRC2015_VID_train_0001/ILSVRC2015_train_00001000"
VAL = "val/ILSVRC2015_val_00000000"


def vid_xml(objects=(), size=(60, 80)) -> str:
    """objects: (track, wnid, (x1, y1, x2, y2)); the tags of a box stand in the order of the data set."""
    lines = [f"<annotation><filename>000000</filename><size><width>{size[1]}</width><height>{size[0]}</height></size>"]
    for track, name, (x1, y1, x2, y2) in objects:
        box = f"<xmax>{x2}</xmax><xmin>{x1}</xmin><ymax>{y2}</ymax><ymin>{y1}</ymin>"
        flags = "<occluded>1</occluded><generated>1</generated>"
        lines.append(f"<object><trackid>{track}</trackid><name>{name}</name><bndbox>{box}</bndbox>{flags}</object>")
    return "\n".join([*lines, "</annotation>"])


def write_snippet(root, snippet, num_frames, objects=None, without=()):
    """A snippet with XML files for all frames but some; objects {frame: objects}, by default a car in every frame."""
    for frame in range(num_frames):
        write_image(root / f"Data/VID/{snippet}/{frame:06d}.JPEG", seed=frame)
        if frame not in without:
            file = root / f"Annotations/VID/{snippet}/{frame:06d}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            car = [(0, CAR, (10 + frame, 20, 40, 50))]
            file.write_text(vid_xml(car if objects is None else objects.get(frame, ())))


def write_list(root, name, *lines):
    path = root / "ImageSets" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "ILSVRC2015"
    write_snippet(root, TRAIN_A, 3)
    write_snippet(root, TRAIN_B, 5)
    write_snippet(root, VAL, 4)
    return root


def read(*roots, sets=None, role="train", classes=(), on_bad="drop", folder=""):
    return read_imagenet_vid(
        [str(r) for r in roots], sets, role, classes, NO_PLAN, WHERE, Checks(on_bad, folder=folder)
    )


def videos(records):
    """{video: its frame numbers}"""
    found = {}
    for video, frame in map(records.image_id, range(len(records))):
        found.setdefault(video, []).append(frame)
    assert list(found) == list(records.videos) and records.video_offsets[-1] == len(records)
    return found


def test_the_names_stand_in_the_order_of_the_synsets():
    assert len(IMAGENET_VID_NAMES) == len(set(IMAGENET_VID_NAMES)) == len(IMAGENET_VID_CLASSES) == 30
    named = dict(zip(IMAGENET_VID_CLASSES, IMAGENET_VID_NAMES, strict=True))
    assert (named[CAR], named[DOG], named[ZEBRA], named["n02691156"]) == ("car", "dog", "zebra", "airplane")


class TestFrames:
    def test_snippets_of_unequal_length_are_videos_in_order(self, root):
        records = read(root)
        assert videos(records) == {TRAIN_A: [0, 1, 2], TRAIN_B: [0, 1, 2, 3, 4]}
        assert records.class_names == IMAGENET_VID_NAMES and set(records.labels.tolist()) == {7}
        assert records.name == "ILSVRC2015/train" and records.ids[3] == f"{TRAIN_B}/000000"
        assert records.image_path(2).endswith(f"Data/VID/{TRAIN_A}/000002.JPEG")

    def test_corners_are_read_by_tag_and_stay_as_they_are(self, root):
        records = read(root)
        np.testing.assert_array_equal(records.boxes[:2], [[10, 20, 40, 50], [11, 20, 40, 50]])
        assert not records.difficult.any()

    def test_a_box_of_the_whole_image_is_not_cut(self, root, caplog):
        write_snippet(root, "val/x", 1, {0: [(0, CAR, (0, 0, 80, 60))]})
        assert read(root, role="eval").boxes[-1].tolist() == [0, 0, 80, 60] and not caplog.records

    def test_frames_without_objects_and_without_a_file_hold_nothing(self, root, caplog):
        write_snippet(root, "val/empty", 3, {0: [(4, DOG, (1, 2, 30, 40))]}, without=[2])
        records = read(root, sets=["val"], role="test")
        assert [len(records.target(i).labels) for i in range(4, 7)] == [1, 0, 0]
        assert "1 of 7 frames have no XML file and count as frames without objects" in caplog.text

    def test_frames_are_sorted_by_number(self, tmp_path):
        for name in ("9", "10", "2", "000100"):
            write_image(tmp_path / f"Data/VID/test/a/{name}.png")
            write_image(tmp_path / f"Data/VID/test/b/frame{name}.png")
        found = videos(records := read(tmp_path, sets=["test"], role="test"))
        assert found == {"test/a": [2, 9, 10, 100], "test/b": [0, 1, 2, 3]}
        assert [records.ids[i] for i in range(4, 7)] == ["test/b/frame2", "test/b/frame9", "test/b/frame10"]

    def test_tracks_are_told_apart_whatever_they_are_called(self, root):
        names = [7, "left", "007", "", 0, "left", "right"]
        objects = [(name, CAR, (i, i, 50, 50)) for i, name in enumerate(names)]
        write_snippet(root, "val/t", 2, {0: objects, 1: objects[1:3]})
        records = read(root, role="eval")
        seven, left, zeros, unknown, zero, again, right = records.tracks(4).tolist()
        assert (seven, zero, unknown, again) == (7, 0, -1, left) and len({seven, left, zeros, zero, right}) == 5
        assert records.tracks(5).tolist() == [left, zeros]
        assert records.target(5).track_ids.tolist() == [left, zeros] and records.tracks(0).tolist() == [0]

    def test_a_faulty_frame_leaves_a_gap(self, root, tmp_path):
        (root / f"Data/VID/{TRAIN_A}/000001.JPEG").write_bytes(b"")
        (root / f"Annotations/VID/{TRAIN_B}/000000.xml").write_text("<annotation>")
        assert videos(read(root)) == {TRAIN_A: [0, 2], TRAIN_B: [1, 2, 3, 4]}
        for path in (root / f"Data/VID/{TRAIN_A}").iterdir():
            path.write_bytes(b"")
        records = read(root, folder=str(tmp_path / "run"))
        assert videos(records) == {TRAIN_B: [1, 2, 3, 4]} and records.report.endswith("data_report_train.json")
        with pytest.raises(UserError, match=r"ON_BAD is fail: train: 4 faulty images in 8: 3 images without content"):
            read(root, on_bad="fail")

    def test_files_are_looked_at_once(self, root, tmp_path, monkeypatch):
        first = read(root, folder=str(tmp_path / "run"))
        monkeypatch.setattr("lib.dataset.facts.parse_annotation", None)
        monkeypatch.setattr("lib.dataset.facts.read_facts", None)
        again = read(root, folder=str(tmp_path / "run"))
        assert again.boxes.tolist() == first.boxes.tolist() and again.tracks(4).tolist() == first.tracks(4).tolist()

    def test_records_hold_arrays_only(self, root):
        records = read(root)
        flat = [records.video_offsets, records.frames, records.track_ids, records.offsets]
        assert all(array.dtype == np.int64 for array in flat)


class TestClasses:
    def test_other_names_are_found_by_synset_name_or_as_written(self, root):
        write_snippet(
            root, "val/x", 1, {0: [(0, DOG, (1, 1, 9, 9)), (1, "dog", (2, 2, 9, 9)), (2, "tram", (3, 3, 9, 9))]}
        )
        for classes, labels in ((("tram", "dog"), [2, 2, 1]), ((DOG, "tram"), [1, 1, 2]), (("dog", DOG), [2, 1])):
            records = read(root, sets=["val"], classes=classes)
            assert records.labels.tolist() == labels and records.class_names == classes

    def test_unknown_classes_are_told_with_the_nearest(self, root, caplog):
        write_snippet(root, "val/x", 2, {0: [(0, "n02509815", (1, 1, 9, 9)), (0, CAR, (1, 1, 9, 9))]})
        assert len(read(root, sets=["val"], classes=["red panda", "car"]).labels) == 5
        assert "class 'n02509815' (red_panda) is unknown; did you mean 'red panda'?" in caplog.text
        with pytest.raises(UserError, match="class 'n02958343' \\(car\\) is unknown; .* not one of 6 objects"):
            read(root, sets=["val"], classes=["cars"])
        with pytest.raises(UserError, match="DATASET.CLASSES: 'car' is named twice"):
            read(root, classes=["car", "car"])


class TestLists:
    def test_lists_of_classes_name_snippets_with_a_flag(self, root):
        write_list(root, "VID/train_1", f"{TRAIN_A[6:]} 1", f"{TRAIN_B[6:]} -1")
        write_list(root, "VID/train_2", f"{TRAIN_A[6:]} 1")
        assert list(videos(read(root))) == [TRAIN_A]  # train is all lists of one class
        write_list(root, "VID/train_12", f"{TRAIN_B[6:]} 1")
        assert set(videos(read(root))) == {TRAIN_A, TRAIN_B}
        assert videos(read(root, sets=["train_12"])) == {TRAIN_B: [0, 1, 2, 3, 4]}
        assert set(videos(read(root, sets=["train_1", "train_12"]))) == {TRAIN_A, TRAIN_B}

    def test_the_validation_list_names_every_frame(self, root):
        frames = [f"{VAL[4:]}/{frame:06d} {line}" for line, frame in enumerate((3, 0, 1), 1)]
        write_list(root, "VID/val", *frames)
        assert videos(read(root, role="eval")) == {VAL: [0, 1, 3]}

    def test_fgfa_list_of_frames(self, root, caplog):
        write_list(root, "VID_train_15frames", f"{TRAIN_A} 1 2 3", f"{TRAIN_B} 1 0 5", f"{TRAIN_B} 1 3 5")
        records = read(root, sets=["VID_train_15frames"])
        assert videos(records) == {TRAIN_A: [2], TRAIN_B: [0, 3]} and records.boxes[2, 0] == 13
        assert not caplog.records

    def test_fgfa_list_of_videos(self, root, caplog):
        write_snippet(root, "val/b", 2)
        write_list(root, "VID_val_videos", "val/b 1 0 2", f"{VAL} 3 0 9")
        records = read(root, sets=["VID_val_videos"], role="test")
        assert videos(records) == {"val/b": [0, 1], VAL: [0, 1, 2, 3]}
        assert "val_00000000 holds 4 of the 9 frames listed" in caplog.text

    def test_paths_alone_and_what_is_odd_about_a_list(self, root, caplog):
        write_list(
            root, "mine", f"{TRAIN_A}/", "", "nowhere/x", "../../etc", f"{TRAIN_B}/000004.JPEG", f"{TRAIN_B}/000004"
        )
        assert videos(read(root, sets=["mine"])) == {TRAIN_A: [0, 1, 2], TRAIN_B: [4]}
        for words in ("1 image missing", "1 image outside the folder", "1 image listed twice", "1 blank line"):
            assert words in caplog.text

    def test_sets_may_overlap(self, root, caplog):
        write_list(root, "some", f"{TRAIN_A}/000001")
        assert len(read(root, sets=["train", "some"])) == 8 and "1 image listed twice (counted once)" in caplog.text

    def test_missing_snippets_are_counted(self, root, caplog):
        write_list(root, "VID/train_1", *[f"ILSVRC2015_VID_train_0002/x{i} 1" for i in range(3)], f"{TRAIN_A[6:]} 1")
        assert list(videos(read(root))) == [TRAIN_A]
        assert "3 faulty images in 6: 3 images missing" in caplog.text


class TestPlaces:
    def test_the_folder_above_and_several_roots(self, root, tmp_path):
        assert len(read(tmp_path)) == len(read(root)) == 8
        write_snippet(tmp_path / "other" / "more", "train/x/y", 2)
        both = videos(read(root, tmp_path / "other"))
        assert list(both) == [TRAIN_A, TRAIN_B, "train/x/y"]

    def test_usual_sets(self, root):
        assert [len(read(root, role=role)) for role in ("train", "eval", "test")] == [8, 4, 4]
        assert len(read(root, sets=[["2015", "val"]])) == 4

    def test_a_test_set_needs_no_annotations(self, root, caplog):
        write_snippet(root, "test/x", 3, without=range(3))
        assert len(read(root, sets=["test"], role="test")) == 3 and "3 of 3 frames have no XML file" in caplog.text
        with pytest.raises(UserError, match="holds no XML file for any of 3 frames"):
            read(root, sets=["test"], role="eval")


def wrong_kind(root):
    (root / "JPEGImages").mkdir()
    (root / "Data").rename(root / "Bilder")


def second(root):
    write_snippet(root.parent / "ILSVRC2017", "train/x", 1)


def listed(*lines):
    return lambda root: write_list(root, "x", *lines)


MISTAKES = {
    "no folder": (lambda root: None, "nowhere", None, "DATASET_DIR: there is no folder .*nowhere; .* holds ILSVRC2015"),
    "other layout": (wrong_kind, "ILSVRC2015", None, "is no ImageNet VID, .*JPEGImages; DATASET.DATASET: imagenet"),
    "two data sets": (second, "", None, "holds several data sets: ILSVRC2015, ILSVRC2017; name the one to use"),
    "misspelt set": (
        lambda root: None, "ILSVRC2015", ["vall"],
        r"TRAIN_SETS: .* has no image set 'vall' \(ImageSets/VID/vall.txt\); did you mean 'val'",
    ),
    "no such split": (
        lambda root: (root / "Data/VID/train").rename(root / "train"), "ILSVRC2015", None,
        "DATASET.TRAIN_SETS: no set train for train: .*ILSVRC2015 has val; name one",
    ),
    "empty list": (listed(""), "ILSVRC2015", ["x"], "x.txt: the list names no snippet"),
    "list of something else": (
        listed("train/n02084071_1 1", "train/n02084071_2 1"), "ILSVRC2015", ["x"],
        "x.txt, line 1: there is no snippet or frame 'train/n02084071_1' below .*; nor is anything else",
    ),
    "two numbers": (listed(f"{VAL} 1 2"), "ILSVRC2015", ["x"], "line 1: two numbers .*; allowed: 'snippet'"),
    "no such frame": (listed(f"{VAL} 1 9 9"), "ILSVRC2015", ["x"], "no image .* has no frame 9"),
    "empty split": (
        lambda root: (root / "Data/VID/test").mkdir(), "ILSVRC2015", ["test"],
        "train: no image of ILSVRC2015/test can be used",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(root, tmp_path, mistake):
    spoil, place, sets, message = MISTAKES[mistake]
    spoil(root)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / place, sets=sets)
    assert "\n" not in str(error.value)


def test_many_files_are_announced(root, caplog, monkeypatch):
    monkeypatch.setattr("lib.dataset.imagenet_vid.MANY_FRAMES", 8)
    with caplog.at_level(logging.INFO):
        read(root)
    assert "looking at 8 frames and 8 XML files" in caplog.text
