"""COCO-VID files become videos, plain COCO files stills, and what is wrong with either is told."""

import json
import logging

import pytest

from lib.dataset.coco_vid import read_coco_vid
from lib.dataset.inspection import Checks
from lib.dataset.split import NO_PLAN
from lib.utils.errors import UserError
from tests.dataset.folders import write_image

WHERE = "DATASET.TRAIN_SETS"
CATEGORIES = [{"id": 9, "name": "ball"}, {"id": 2, "name": "cat"}]


def image(number, name, video=None, frame=None, **more):
    found = {"id": number, "file_name": name, "width": 80, "height": 60, "video_id": video, "frame_id": frame}
    return {key: value for key, value in found.items() if value is not None} | more


def thing(number, bbox=(10, 20, 30, 25), category=2, **more):
    return {"image_id": number, "category_id": category, "bbox": list(bbox)} | more


def content(images, annotations, videos=None, categories=CATEGORIES):
    found = {"images": images, "annotations": annotations, "categories": categories}
    return found if videos is None else {**found, "videos": videos}


def write(root, split="train", given=None, place="", images=True):
    """An annotation file and its images below `place`; the two videos of `two_videos` by default."""
    given = two_videos() if given is None else given
    file = root / "annotations" / f"{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(given))
    for item in given["images"] if images else ():
        write_image(root / place / item["file_name"])
    return root


def two_videos():
    """Frames out of order, of two videos of unequal length, one without a name; the second frame of v is empty."""
    images = [
        image(5, "v/2.jpg", 1, 7),
        image(6, "v/1.jpg", 1, 3),
        image(7, "w/1.jpg", 4, 0),
        image(8, "v/0.jpg", 1, 1),
    ]
    things = [
        thing(7, instance_id=3, category=9),
        thing(5, instance_id=12),
        thing(8, (0, 0, 80, 60), iscrowd=1, track_id="a"),
    ]
    return content(images, things, [{"id": 1, "name": "v"}, {"id": 3, "name": "unused"}, {"id": 4}])


def read(*roots, sets=None, role="train", classes=(), on_bad="drop", folder=""):
    return read_coco_vid([str(r) for r in roots], sets, role, classes, NO_PLAN, WHERE, Checks(on_bad, folder=folder))


def ids(records):
    return [records.image_id(i) for i in range(len(records))]


class TestVideos:
    def test_frames_stand_by_video_and_time(self, tmp_path):
        records = read(write(tmp_path))
        assert ids(records) == [("v", 1), ("v", 3), ("v", 7), ("4", 0)]
        assert records.video_offsets.tolist() == [0, 3, 4] and list(records.ids)[:2] == ["v/0.jpg", "v/1.jpg"]
        assert records.class_names == ("cat", "ball") and records.labels.tolist() == [1, 1, 2]
        assert records.boxes.tolist() == [[0, 0, 80, 60], [10, 20, 40, 45], [10, 20, 40, 45]]
        assert records.difficult.tolist() == [True, False, False] and [len(records.tracks(i)) for i in range(4)] == [
            1,
            0,
            1,
            1,
        ]
        assert records.track_ids.tolist() == [13, 12, 3] and records.name == f"{tmp_path.name}/train"

    def test_without_frame_numbers_the_order_of_the_file_counts(self, tmp_path):
        images = [image(1, "b.jpg", 1), image(2, "a.jpg", 1)]
        records = read(write(tmp_path, given=content(images, [thing(2)], [{"id": 1, "name": "v"}])))
        assert ids(records) == [("v", 0), ("v", 1)] and list(records.ids) == ["b.jpg", "a.jpg"]

    def test_a_still_among_videos_is_a_video_of_one_frame(self, tmp_path):
        images = [image(1, "a.jpg"), image(2, "b.jpg", "x", 5)]
        records = read(write(tmp_path, given=content(images, [thing(1)], [{"id": "x"}])))
        assert ids(records) == [("x", 5), ("a.jpg", 0)] and len(records.target(1).labels) == 1

    def test_videos_of_the_same_name_are_told_apart(self, tmp_path):
        images = [image(1, "a.jpg", 1, 0), image(2, "b.jpg", 2, 0)]
        given = content(images, [thing(1)], [{"id": 1, "name": "v"}, {"id": 2, "name": "v"}])
        assert ids(read(write(tmp_path, given=given))) == [("v/1", 0), ("v/2", 0)]

    def test_a_faulty_frame_leaves_a_gap_and_a_video_without_frames_goes(self, tmp_path, caplog):
        root = write(tmp_path)
        (root / "v/1.jpg").write_bytes(b"")
        (root / "w/1.jpg").unlink()
        records = read(root)
        assert ids(records) == [("v", 1), ("v", 7)] and list(records.videos) == ["v"]
        assert "train: 2 faulty images in 4: 1 image missing, 1 image without content (dropped)" in caplog.text

    def test_sets_are_joined(self, tmp_path):
        write(tmp_path)
        write(tmp_path, "more", content([image(1, "x.jpg")], [thing(1)]))
        assert ids(read(tmp_path, sets=["train", "more"])) == [("v", 1), ("v", 3), ("v", 7), ("4", 0), ("x.jpg", 0)]


class TestStills:
    def test_a_file_without_videos_gives_stills(self, tmp_path):
        for videos in (None, []):
            given = content([image(1, "b.jpg"), image(2, "a.jpg")], [thing(2), thing(2, category=9)], videos)
            records = read(write(tmp_path, given=given))
            assert not records.is_video and ids(records) == ["b.jpg", "a.jpg"] and records.labels.tolist() == [1, 2]

    def test_videos_that_are_not_listed_are_told(self, tmp_path, caplog):
        assert not read(write(tmp_path, given=content([image(1, "a.jpg", 1, 0)], [thing(1)]))).is_video
        assert "its images have a video_id, but there are no 'videos'" in caplog.text


class TestPlaces:
    @pytest.mark.parametrize(
        "place", ["", "train", "images", "images/train", "train/images", "Data/VID", "Data/VID/train", "JPEGImages"]
    )
    def test_images_are_looked_for_in_the_usual_places(self, tmp_path, place):
        assert read(write(tmp_path, place=place)).image_path(0) == str(tmp_path / place / "v/0.jpg")

    def test_images_of_the_same_names_are_those_of_the_set(self, tmp_path):
        for place in ("val", "", "train"):
            write(tmp_path, place=place)
        write(tmp_path, "val")
        assert [read(tmp_path, role=role).image_path(0) for role in ("train", "test")] == [
            str(tmp_path / split / "v/0.jpg") for split in ("train", "val")
        ]

    def test_usual_sets_by_name_or_by_a_word_of_it(self, tmp_path):
        for split in ("instances_train2017", "instances_val2017", "pretraining", "minival"):
            write(tmp_path, split, place=split.rpartition("_")[2])
        assert [read(tmp_path, role=r).name.rpartition("/")[2] for r in ("train", "eval", "test")] == [
            "instances_train2017", "instances_val2017", "instances_val2017"
        ]  # fmt: skip
        write(tmp_path, "test")
        assert read(tmp_path, role="test").name.endswith("/test")
        assert len(read(tmp_path, sets=[["2017", "minival"]])) == 4

    def test_annotation_files_may_lie_at_the_root(self, tmp_path):
        write(tmp_path)
        (tmp_path / "annotations/train.json").rename(tmp_path / "train.json")
        assert len(read(tmp_path)) == 4


class TestClasses:
    def test_given_names_decide_order_and_selection(self, tmp_path, caplog):
        write(tmp_path)
        assert read(tmp_path, classes=["ball", "cat"]).labels.tolist() == [2, 2, 1]
        assert read(tmp_path, classes=["Ball"[::-1], "cat"]).labels.tolist() == [2, 2]
        assert (
            "class 'ball' is unknown; did you mean 'llaB'?" not in caplog.text
            and "1 object of an unknown" in caplog.text
        )

    def test_categories_are_known_by_name_whatever_their_ids(self, tmp_path):
        write(tmp_path)
        swapped = [{"id": 9, "name": "cat"}, {"id": 2, "name": "ball"}]
        write(tmp_path, "more", content([image(1, "x.jpg")], [thing(1, category=9)], categories=swapped))
        records = read(tmp_path, sets=["train", "more"])
        assert records.class_names == ("cat", "ball") and records.labels.tolist() == [1, 1, 2, 1]


OBJECTS = {
    "no bbox": ({"bbox": None}, "no_box"),
    "three numbers": ({"bbox": [1, 2, 3]}, "no_number"),
    "a word": ({"bbox": [1, 2, 3, "x"]}, "no_number"),
    "a box for a number": ({"bbox": 7}, "no_number"),
    "NaN": ({"bbox": [1, 2, float("nan"), 4]}, "nan_box"),
    "no width": ({"bbox": [1, 2, 0, 4]}, "empty_box"),
    "negative width": ({"bbox": [30, 2, -10, 4]}, "reversed_box"),
    "outside": ({"bbox": [100, 2, 10, 4]}, "outside_box"),
    "no category": ({"category_id": None}, "no_class_name"),
    "unknown category": ({"category_id": 77}, "unknown_class"),
    "category as a list": ({"category_id": [2]}, "unknown_class"),
    "unlisted image": ({"image_id": 99}, "unlisted_image"),
    "no image": ({"image_id": None}, "unlisted_image"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_a_faulty_object_is_left_out_and_reported_by_its_number(tmp_path, case):
    changed, name = OBJECTS[case]
    root = write(tmp_path, given=content([image(1, "a.jpg")], [thing(1), thing(1, (40, 5, 9, 9)) | changed]))
    records = read(root, folder=str(tmp_path / "run"))
    assert records.boxes.tolist() == [[10, 20, 40, 45]]
    (found,) = json.loads((tmp_path / "run/data_report_train.json").read_text())["cases"].items()
    assert found[0] == name and found[1]["found"][0]["object"] == 2
    assert found[1]["found"][0]["annotation"].endswith("annotations/train.json")
    with pytest.raises(UserError, match="ON_BAD is fail: train: 1 faulty box in 1"):
        read(root, on_bad="fail")


def test_faulty_images_are_left_out_and_told(tmp_path, caplog):
    images = [
        image(1, "a.jpg", width=81),
        image(2, "../b.jpg"),
        image(3, "a.jpg"),
        image(4, "c\\d.jpg"),
        image(5, "/e.jpg"),
    ]
    root = write(tmp_path, given=content(images, [thing(1), thing(4)]), images=False)
    write_image(root / "images/a.jpg")
    write_image(root / "images/c/d.jpg")
    assert ids(read(root)) == ["a.jpg", "c/d.jpg"]
    for words in ("2 images outside the folder", "1 image listed twice", "1 image of another size than annotated"):
        assert words in caplog.text


def test_a_test_without_annotations_is_told(tmp_path, caplog):
    given = {key: value for key, value in two_videos().items() if key != "annotations"}
    assert len(read(write(tmp_path, "test", given), role="test")) == 4
    assert "has no 'annotations'; its images count as images without objects" in caplog.text


def text(words, split="train"):
    return lambda root: (root / f"annotations/{split}.json").write_bytes(words)


def changed(**keys):
    return lambda root: write(root, given={**two_videos(), **keys}, images=False)


V = [{"id": 1, "name": "v"}]
MISTAKES = {
    "cut off": (text(b'{"images": [\n{"id": 1'), {}, r"train.json, line 2: malformed JSON \(.*column"),
    "empty": (text(b""), {}, "train.json, line 1: malformed JSON"),
    "no text": (text(b"\x80"), {}, "train.json: no JSON that can be read"),
    "results": (text(b"[]"), {}, "train.json: holds a list; COCO annotations are an object with 'images'"),
    "another JSON": (text(b'{"shapes": []}'), {}, "train.json: has no 'categories'; it holds 'shapes'"),
    "YouTube-VIS": (
        text(b'{"categories": [], "videos": [{"id": 1, "file_names": []}]}'), {},
        r"has no 'images'; it holds .*; files that list the images of each video \(YouTube-VIS\) are not read",
    ),
    "images are no list": (changed(images={}), {}, "train.json: 'images' is no list"),
    "no image": (changed(images=[]), {}, "train.json: 'images' is empty"),
    "an image that is a name": (changed(images=["a.jpg"]), {}, r"images\[0\] is no object: 'a.jpg'"),
    "image without id": (changed(images=[{"file_name": "a.jpg"}]), {}, r"images\[0\]: 'id' is None; it must be"),
    "ids twice": (
        changed(images=[image(1, "a.jpg"), image(1, "b.jpg")]), {},
        r"images\[1\]: the id 1 is also that of images\[0\]",
    ),
    "no file name": (changed(images=[image(1, "")]), {}, r"images\[0\]: 'file_name' is ''; it must be a text"),
    "unknown video": (changed(images=[image(1, "a.jpg", 6)], videos=V), {}, "video_id 6 is the id of no video"),
    "frame by word": (changed(images=[image(1, "a.jpg", 1, "two")], videos=V), {}, "frame_id is 'two'; it must be"),
    "a frame twice": (
        changed(images=[image(1, "a.jpg", 1, 4), image(2, "b.jpg", 1, 4)], videos=V), {},
        "video 'v': a.jpg and b.jpg are both frame 4",
    ),
    "a frame without number": (
        changed(images=[image(1, "a.jpg", 1, 4), image(2, "b.jpg", 1)], videos=V), {},
        "video 'v': b.jpg has no frame_id, other frames have one",
    ),
    "category without name": (changed(categories=[{"id": 1}]), {}, r"categories\[0\]: 'name' is None; it must be"),
    "names twice": (
        changed(categories=[{"id": 2, "name": "cat"}, {"id": 9, "name": "cat"}]), {}, "categories: 'cat' is named twice"
    ),
    "no categories": (changed(categories=[]), {}, "train.json: 'categories' is empty"),
    "other classes": (changed(), {"classes": ["dog"]}, "class 'cat' is unknown; allowed: dog.*; not one of 3"),
    "no annotations": (changed(annotations=None), {}, "DATASET.TRAIN_SETS: .*train.json: has no 'annotations'"),
    "no images on disk": (
        lambda root: [path.unlink() for path in root.rglob("*.jpg")], {},
        "not one of its 4 images is there, the first is 'v/0.jpg'; looked in ",
    ),
    "misspelt set": (
        changed(), {"sets": ["trian"]}, r"no image set 'trian' \(annotations/trian.json\); did you mean 'train'"
    ),
    "no usual set": (changed(), {"role": "test"}, "DATASET.TRAIN_SETS: no usual set for test: .* has train; name one"),
    "two usual sets": (
        lambda root: [write(root, name) for name in ("val2014", "val2017")], {"role": "eval"},
        "has several files that could be val: val2014, val2017; name one",
    ),
    "different categories": (
        lambda root: write(root, "b", {**two_videos(), "categories": CATEGORIES[1:]}), {"sets": ["train", "b"]},
        "have different categories, cat, ball and cat; DATASET.CLASSES must name the classes",
    ),
    "no annotation files": (
        lambda root: (root / "annotations/train.json").unlink(), {},
        "has no annotations/<set>.json; the folder holds annotations",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, mistake):
    spoil, options, message = MISTAKES[mistake]
    spoil(write(tmp_path))
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="DATASET.DATASET_DIR: there is no folder .*nowhere"):
        read(tmp_path / "nowhere")


def test_a_sound_set_is_nothing_to_tell(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read(write(tmp_path))
    assert not caplog.records
