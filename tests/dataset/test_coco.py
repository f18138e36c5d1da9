"""COCO's own layouts and those of others are opened, crowds are kept apart, numbers come back in results."""

import contextlib
import io
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lib.commands import train
from lib.config import load_config
from lib.dataset.coco import read_coco_stills
from lib.dataset.dataset_factory import create_loader, create_records
from lib.dataset.detection import DetectionDataset, DetectionRecords
from lib.dataset.inspection import Checks
from lib.dataset.mixing import MixingTransform
from lib.dataset.split import NO_PLAN
from lib.dataset.transforms import EvalTransform, TrainTransform
from lib.evaluation import COCO_FIGURES, COCOMeanAP, ResultsWriter, to_coco_results
from lib.structures import Detections
from lib.utils.class_names import COCO_CLASSES, COCO_UNUSED_IDS
from lib.utils.errors import UserError
from tests.dataset.folders import write_image
from tests.dataset.test_coco_vid import content, ids, image, thing

WHERE = "DATASET.TRAIN_SETS"
OFFICIAL_IDS = tuple(i for i in range(1, 91) if i not in COCO_UNUSED_IDS)
OFFICIAL = [{"id": i, "name": name, "supercategory": "x"} for i, name in zip(OFFICIAL_IDS, COCO_CLASSES, strict=True)]
CROWD = {"iscrowd": 1, "segmentation": {"counts": [3, 7, 4790], "size": [60, 80]}}


def named(number, split=""):
    return f"{f'COCO_{split}_' if split else ''}{number:012d}.jpg"


def write_set(root, stem, images, things=None, folders=(), categories=OFFICIAL):
    """annotations/<stem>.json of images {number: file name} and, for each of the folders, those images in it."""
    found = content([image(number, name) for number, name in images.items()], things, categories=categories)
    if things is None:
        del found["annotations"]
    file = root / "annotations" / f"{stem}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found))
    for folder, numbers in folders:
        for number in numbers:
            write_image(root / folder / images[number])
    return root


def write_2017(root, place=""):
    numbers = {139: named(139), 285: named(285)}
    things = [thing(285, category=90), thing(139, (0, 0, 40, 60), category=1, **CROWD), thing(139, category=13)]
    for split in ("train2017", "val2017"):
        write_set(root, f"instances_{split}", numbers, things, [(f"{place}{split}", numbers)])
        for other in ("captions", "person_keypoints"):
            (root / f"annotations/{other}_{split}.json").write_text("{}")
    return root


def read(*roots, sets=None, role="train", classes=(), folder=""):
    return read_coco_stills([str(r) for r in roots], sets, role, classes, NO_PLAN, WHERE, Checks(folder=folder))


class TestOfficialLayout:
    @pytest.mark.parametrize(
        "sets",
        [
            [["2017", "train"]],
            ["train2017"],
            ["instances_train2017"],
            ["annotations/instances_train2017.json"],
            ["train"],
            None,
        ],
    )
    @pytest.mark.parametrize("place", ["", "images/"])
    def test_all_ways_to_name_a_set(self, tmp_path, sets, place):
        records = read(write_2017(tmp_path, place), sets=sets)
        assert records.image_path(0) == str(tmp_path / place / "train2017" / named(139))
        assert records.class_names == COCO_CLASSES and records.category_ids == OFFICIAL_IDS
        assert records.labels.tolist() == [1, 12, 80] and records.image_numbers.tolist() == [139, 285]
        assert ids(records) == [named(139), named(285)] and records.name == f"{tmp_path.name}/instances_train2017"

    @pytest.mark.parametrize("path", ["ssd_vgg16_coco.yml", "papers/ssd_vgg16_coco_300.yml"])
    def test_published_configurations_open_it(self, tmp_path, path):
        write_2017(tmp_path)
        words = [f"DATASET.DATASET_DIR={tmp_path}", f"EXP_DIR={tmp_path / 'run'}"]
        cfg = load_config(f"experiments/cfgs/{path}", words)
        assert [create_records(cfg, phase).name.rpartition("_")[2] for phase in ("train", "test")] == [
            "train2017", "val2017"
        ]  # fmt: skip

    def test_sets_of_2014_share_the_folders_of_others(self, tmp_path):
        """One file may hold images of both folders."""
        numbers = {9: named(9, "train2014"), 42: named(42, "val2014"), 73: named(73, "val2014")}
        folders = [("images/train2014", [9]), ("images/val2014", [42, 73])]
        write_set(tmp_path, "instances_trainval35k", {n: numbers[n] for n in (42, 9)}, [thing(9), thing(42)])
        write_set(tmp_path, "instances_minival2014", {73: numbers[73]}, [thing(73)])
        write_set(tmp_path, "instances_valminusminival2014", {42: numbers[42]}, [thing(42)])
        write_set(tmp_path, "instances_val2014", numbers, [thing(42)], folders)
        records = read(tmp_path, sets=[["2014", "trainval35k"]])
        assert list(records.paths) == [
            str(tmp_path / "images" / place) for place in (f"val2014/{numbers[42]}", f"train2014/{numbers[9]}")
        ]
        assert len(read(tmp_path, sets=["trainval35k"])) == 2
        assert read(tmp_path, sets=[["2014", "minival"]]).image_numbers.tolist() == [73]
        assert read(tmp_path, sets=[["2014", "valminusminival"]]).image_numbers.tolist() == [42]

    def test_a_folder_of_its_own_comes_first(self, tmp_path):
        """As some make trainval35k: with copies, or links, of the images."""
        numbers = {9: named(9, "train2014")}
        write_set(tmp_path, "instances_trainval35k", numbers, [thing(9)], [("trainval35k", [9]), ("train2014", [9])])
        assert read(tmp_path, sets=["trainval35k"]).image_path(0) == str(tmp_path / "trainval35k" / numbers[9])

    def test_test_dev_has_no_annotations(self, tmp_path, caplog):
        write_2017(tmp_path)
        numbers = {1: named(1), 16: named(16)}
        write_set(tmp_path, "image_info_test-dev2017", numbers, None, [("test2017", numbers)])
        write_set(tmp_path, "image_info_test2017", numbers, None)
        for sets in (["test-dev2017"], [["2017", "test-dev"]], ["test-dev"], ["image_info_test-dev2017"]):
            records = read(tmp_path, sets=sets, role="test")
            assert list(records.paths) == [str(tmp_path / "test2017" / name) for name in numbers.values()]
            assert records.image_numbers.tolist() == [1, 16] and not len(records.labels)
        assert "has no 'annotations'; its images count as images without objects" in caplog.text
        assert read(tmp_path, role="test").name.endswith("val2017")  # not one of those that nobody can score
        with pytest.raises(UserError, match="DATASET.TRAIN_SETS: .*test2017.json: has no 'annotations'"):
            read(tmp_path, sets=["test2017"])

    def test_an_image_that_is_gone_is_told(self, tmp_path, caplog):
        root = write_2017(tmp_path)
        (root / "train2017" / named(139)).unlink()
        assert read(root).image_numbers.tolist() == [285]
        assert "1 image missing (dropped)" in caplog.text and str(root / "train2017" / named(139)) in caplog.text


class TestOtherLayouts:
    CATEGORIES = ({"id": 7, "name": "cat"}, {"id": 3, "name": "dog"})

    def test_a_set_for_each_folder(self, tmp_path):
        """As Roboflow exports it."""
        for number, split in enumerate(("train", "valid", "test"), 1):
            given = content([image(number, "a.jpg")], [thing(number, category=7)], categories=self.CATEGORIES)
            write_image(tmp_path / split / "a.jpg")
            (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(given))
        for role, split in (("train", "train"), ("eval", "valid"), ("test", "test")):
            records = read(tmp_path, role=role)
            assert records.image_path(0) == str(tmp_path / split / "a.jpg") and records.name.endswith(split)
        assert records.class_names == ("dog", "cat") and records.category_ids == (3, 7)
        assert len(read(tmp_path, sets=["train", "valid"])) == 2

    @pytest.mark.parametrize("place", ["", "images", "train", "images/train", "data"])
    def test_one_folder_of_images(self, tmp_path, place):
        write_set(tmp_path, "train", {1: "a.jpg"}, [thing(1, category=3)], [(place, [1])], self.CATEGORIES)
        assert read(tmp_path).image_path(0) == str(tmp_path / place / "a.jpg")

    def test_ids_of_classes_that_are_chosen(self, tmp_path):
        write_set(tmp_path, "train", {1: "a.jpg"}, [thing(1, category=3)], [("", [1])], self.CATEGORIES)
        records = read(tmp_path, classes=["cat", "dog"])
        assert records.category_ids == (7, 3) and records.labels.tolist() == [2]
        assert read(tmp_path, classes=["dog", "cow"]).category_ids == ()

    def test_joined_sets_keep_numbers_only_as_far_as_they_mean_one_thing(self, tmp_path):
        other = ({"id": 3, "name": "cat"}, {"id": 7, "name": "dog"})
        write_set(tmp_path, "a", {1: "a.jpg"}, [thing(1, category=3)], [("", [1])], self.CATEGORIES)
        write_set(tmp_path, "b", {2: "b.jpg"}, [thing(2, category=3)], [("", [2])], self.CATEGORIES)
        write_set(tmp_path, "c", {2: "c.jpg"}, [thing(2, category=3)], [("", [2])], other)
        joined = read(tmp_path, sets=["a", "b"])
        assert joined.image_numbers.tolist() == [1, 2] and joined.category_ids == (3, 7)
        swapped = read(tmp_path, sets=["b", "c"])
        assert swapped.image_numbers is None and swapped.category_ids == () and swapped.labels.tolist() == [1, 2]

    def test_numbers_that_are_texts_are_no_numbers(self, tmp_path):
        write_set(tmp_path, "train", {"x": "a.jpg"}, [thing("x", category=3)], [("", ["x"])], self.CATEGORIES)
        assert read(tmp_path).image_numbers is None

    def test_videos_are_read_as_stills_and_told(self, tmp_path, caplog):
        given = content([image(1, "a.jpg", 1, 0)], [thing(1, category=3)], [{"id": 1}], self.CATEGORIES)
        (tmp_path / "train.json").write_text(json.dumps(given))
        write_image(tmp_path / "a.jpg")
        assert not read(tmp_path).is_video
        assert "its videos are read as stills; DATASET.DATASET: coco_vid reads videos" in caplog.text


def spoil_middle(root):
    file = root / "annotations/instances_train2017.json"
    file.write_text(file.read_text().replace('"bbox"', '\n"bbox" oops'))


MISTAKES = {
    "the folder above": (lambda root: None, {"above": True}, "has no annotations/<set>.json; did you mean .*/coco"),
    "annotations not unpacked": (
        lambda root: shutil.rmtree(root / "annotations"), {},
        "has no annotations/<set>.json; the folder holds train2017, val2017",
    ),
    "images not unpacked": (
        lambda root: shutil.rmtree(root / "train2017"), {},
        "not one of its 2 images is there, the first is '000000000139.jpg'; looked in .*; a usual place is "
        ".*coco/train2017",
    ),
    "another year": (
        lambda root: None, {"sets": [["2014", "train"]]},
        r"no image set 'train' \(annotations/instances_train2014.json\); did you mean 'train2017'",
    ),
    "misspelt": (lambda root: None, {"sets": ["trian2017"]}, "no image set 'trian2017' .*; did you mean 'train2017'"),
    "two years": (
        lambda root: write_set(root, "instances_train2014", {1: "a.jpg"}, []), {},
        "several files that could be train: instances_train2014, instances_train2017; name one",
    ),
    "broken in a line": (spoil_middle, {}, "instances_train2017.json, line 2: malformed JSON"),
    "captions": (
        lambda root: None, {"sets": ["captions_train2017"]},
        "captions_train2017.json: has no 'categories'; it holds nothing",
    ),
    "classes of another data set": (
        lambda root: None, {"classes": ["aeroplane"]}, "class 'airplane' is unknown; did you mean|class '.*' is unknown"
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, mistake):
    spoil, options, message = MISTAKES[mistake]
    root = write_2017(tmp_path / "coco")
    spoil(root)
    options = dict(options)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path if options.pop("above", False) else root, **options)
    assert "\n" not in str(error.value)


class TestOutlines:
    """Outlines of objects are cut out of the text before it is parsed: whatever they look like, the rest stays."""

    @pytest.mark.parametrize(
        "outline",
        [[], [[]], [[1, 2.5, -3, 4e2]], [[1, 2], [3, 4]], {"counts": [1, 2], "size": [60, 80]},
         {"counts": "a]\"[1, 2", "size": [60, 80]}, None, "segmentation\": [1"],
    )  # fmt: skip
    @pytest.mark.parametrize("indent", [None, 2])
    def test_the_rest_stays(self, tmp_path, outline, indent):
        things = [thing(1, (1, 2, 30, 40), segmentation=outline, category=2), thing(1, segmentation=outline)]
        things[1] = {"segmentation": outline} | things[1]
        given = content([image(1, 'say "segmentation": [1].jpg')], things)
        (tmp_path / "train.json").write_text(json.dumps(given, indent=indent))
        write_image(tmp_path / 'say "segmentation": [1].jpg')
        assert read(tmp_path).boxes.tolist() == [[1, 2, 31, 42], [10, 20, 40, 45]]


class TestCrowds:
    def test_a_crowd_is_difficult_too(self, tmp_path):
        records = read(write_2017(tmp_path))
        assert records.crowd.tolist() == records.difficult.tolist() == [True, False, False]
        target = records.target(0)
        assert target.crowd.tolist() == target.difficult.tolist() == [True, False]
        assert target.boxes[0].tolist() == [0, 0, 0.5, 1] and not records.target(1).crowd.any()

    def test_what_is_tracked_is_no_crowd(self, tmp_path):
        things = [thing(1, iscrowd=1, track_id=4), thing(1, iscrowd=1)]
        write_set(tmp_path, "train", {1: "a.jpg"}, things, [("", [1])], [{"id": 2, "name": "cat"}])
        records = read(tmp_path)
        assert records.difficult.tolist() == [True, True] and records.crowd.tolist() == [False, True]

    def test_joined_records_keep_them_in_their_places(self, tmp_path):
        records = read(write_2017(tmp_path))
        plain = DetectionRecords.build(COCO_CLASSES, ["p"], ["i"], [(6, 8)], [(0, 0, 1, 1)], [1], [True], [1])
        joined = DetectionRecords.concat([plain, records])
        assert joined.crowd.tolist() == [False, True, False, False] and joined.image_numbers is None
        assert DetectionRecords.concat([plain, plain]).crowd is None

    @pytest.mark.parametrize("kind", ["plain", "train", "mosaic", "mixup"])
    def test_augmentation_carries_them(self, tmp_path, kind):
        """Label 1 is the crowd, 12 is none; both must occur after every kind of augmentation."""
        records = read(write_2017(tmp_path))
        transform = EvalTransform((40, 40)) if kind == "plain" else TrainTransform((40, 40))
        data = DetectionDataset(records, transform)
        if kind in ("mosaic", "mixup"):
            data.mix(MixingTransform(transform, kind == "mosaic", kind == "mixup", data.draw_other), 30)
        seen = set()
        for epoch in range(1, 30):
            found = data.sample(epoch, 0)
            assert (found.crowd == (found.labels == 1)).all() and (found.difficult == found.crowd).all()
            seen |= set(found.labels.tolist())
            target = data[epoch, 0][1]
            assert torch.equal(target.crowd, target.labels == 1)
        assert {1, 12} <= seen

    @pytest.mark.parametrize("phase", ["train", "test"])
    def test_batches_carry_them(self, tmp_path, phase):
        words = ["DATASET.DATASET=coco", f"DATASET.DATASET_DIR={write_2017(tmp_path)}", "DATASET.NUM_WORKERS=0"]
        words += ["TRAIN.BATCH_SIZE=2", "MODEL.IMAGE_SIZE=40", "DATASET.MOSAIC=0.5", f"EXP_DIR={tmp_path / 'run'}"]
        loader = create_loader(load_config(None, words), phase)
        targets = [target for _ in range(8) for (batch,) in loader for target in batch.targets]
        assert all(torch.equal(target.crowd, target.labels == 1) for target in targets)
        assert any(target.crowd.any() for target in targets)


def test_results_have_the_numbers_of_coco(tmp_path):
    records = read(write_2017(tmp_path))
    target = records.target(1)
    found = Detections(torch.tensor([[1.5, 2, 11.5, 22.25]]), torch.tensor([0.75]), torch.tensor([80]), COCO_CLASSES)
    numbers = {records.image_id(i): number for i, number in enumerate(records.image_numbers.tolist())}
    to_entries = partial(to_coco_results, image_numbers=numbers, category_ids=records.category_ids)
    with ResultsWriter(tmp_path / "r.json", to_entries) as writer:
        writer.add([found], [target])
    assert json.loads((tmp_path / "r.json").read_text()) == [
        {"image_id": 285, "category_id": 90, "bbox": [1.5, 2.0, 10.0, 20.25], "score": 0.75}
    ]


def test_a_training_and_its_test_end_in_a_file_for_the_server(tmp_path, capsys):
    """Bright squares of two classes in two of four images of each set, crowds among them."""
    rng = np.random.default_rng(0)
    for split in ("train2017", "val2017"):
        numbers = {number: named(number) for number in rng.choice(500_000, 4, replace=False).tolist()}
        things = [thing(number, rng.uniform(0, 30, 4) + 4, category=int(rng.choice([1, 90]))) for number in numbers]
        things[0] |= CROWD
        write_set(tmp_path / "coco", f"instances_{split}", numbers, things, [(f"images/{split}", numbers)])
    (tmp_path / "x.yml").write_text(f"""\
MODEL: {{SSDS: ssd_lite, NETS: mobilenet_v1_025, IMAGE_SIZE: 64, PRECISION: fp32, NUM_CLASSES: 81}}
TRAIN: {{MAX_EPOCHS: 1, BATCH_SIZE: 2, AMP: none, TRACK_MAP: False, EMA_DECAY: 0}}
DATASET: {{DATASET: coco, DATASET_DIR: {tmp_path / "coco"}, NUM_WORKERS: 0,
           TRAIN_SETS: [['2017', 'train']], TEST_SETS: [['2017', 'val']]}}
POST_PROCESS: {{SCORE_THRESHOLD: 0.0}}
EXP_DIR: {tmp_path / "run"}
DEVICE: cpu
PHASE: [train, test]
""")
    assert train(["--cfg", str(tmp_path / "x.yml")]) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "run/coco_results.json").read_text())
    plain = json.loads((tmp_path / "run/detections.json").read_text())
    assert len(results) == len(plain) > 0
    assert {each["image_id"] for each in results} == set(numbers)
    for ours, theirs in zip(plain, results, strict=True):
        assert theirs["category_id"] == OFFICIAL_IDS[COCO_CLASSES.index(ours["category_name"])]
        assert (theirs["bbox"], theirs["score"]) == (ours["bbox"], ours["score"])
        assert ours["image_id"] == named(theirs["image_id"])
    truth = COCO()
    truth.dataset = {"info": {}, "images": [{"id": number} for number in numbers], "categories": OFFICIAL}
    truth.createIndex()
    assert len(truth.loadRes(str(tmp_path / "run/coco_results.json")).anns) == len(results)


def test_figures_are_those_of_pycocotools_on_the_files(tmp_path):
    """Outlines smaller than their boxes, so that the sizes of objects are not those of boxes, and crowds."""
    rng = np.random.default_rng(0)
    numbers = {number: named(number) for number in range(1, 9)}
    things = []
    for number in numbers:
        for _ in range(6):
            width, height = rng.uniform(10, 50, 2)
            box = (*rng.uniform(0, 10, 2), width, height)
            extra = CROWD if rng.random() < 0.15 else {"iscrowd": 0}
            things.append(
                thing(number, box, category=int(rng.choice([1, 90])), area=width * height * rng.random(), **extra)
            )
    things = [{**each, "id": identity} for identity, each in enumerate(things, 1)]
    write_set(tmp_path, "instances_val2017", numbers, things, [("val2017", numbers)])
    records = read(tmp_path, sets=["val2017"], role="test")
    dataset = DetectionDataset(records, EvalTransform((32, 32)))
    metric, results = COCOMeanAP(records.class_names), []
    image_numbers = {records.image_id(i): number for i, number in enumerate(records.image_numbers.tolist())}
    for index in range(len(records)):
        target = dataset[1, index][1]
        height, width = target.size
        boxes = (target.boxes.double() * torch.tensor([width, height] * 2)).numpy()
        boxes = torch.from_numpy(np.round(boxes + rng.normal(0, 3, boxes.shape), 2))
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = torch.from_numpy(rng.random(len(boxes)).astype(np.float32))
        found = Detections(boxes, scores, target.labels, records.class_names)
        metric.update([found], [target])
        results += to_coco_results([found], [target], image_numbers, records.category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "annotations/instances_val2017.json"))
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    figures = metric.compute()
    assert figures["APs"] > 0 and figures["APm"] > 0
    for name, expected in zip(COCO_FIGURES, judge.stats, strict=True):
        assert (figures[name] if figures[name] == figures[name] else -1) == pytest.approx(expected, abs=1e-6), name
