"""The check tool: planted faults are found and no others, and a cleaned copy is clean and can be turned back."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.dataset.dataset_factory import create_records
from lib.dataset.detection import DetectionRecords
from lib.dataset.shapes import Parameters, write_dataset
from lib.dataset.shapes_drawing import CLASS_NAMES
from lib.dataset.shapes_video import VideoParameters, write_videos
from lib.dataset.voc_xml import parse_annotation
from lib.tools.check import examine, main
from lib.tools.check_boxes import find_box_problems, size_rows
from lib.tools.check_classes import class_rows, find_class_problems, known_names, variants
from lib.tools.check_copies import MAX_BITS, MIRRORED, _alike, agreement_of, signs_of, small_picture
from lib.tools.check_problems import ERROR, WARNING
from lib.tools.check_sets import ImageSet
from tests.dataset.folders import write_image, write_loose, write_voc, write_xml

FAULTS = {ERROR, WARNING}


@pytest.fixture(autouse=True)
def no_page(request, monkeypatch):
    """Drawing the page takes longer than all else; one test looks at it."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("lib.tools.check.write_page", write_nothing)


@pytest.fixture
def drawn():
    """The page is drawn."""


def write_nothing(path, *_):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# --- building data sets -----------------------------------------------------------------------------------------------


def write_config(folder: Path, data: Path, **dataset) -> Path:
    """A configuration whose data lies in `data`."""
    lines = {"DATASET": "custom", "DATASET_DIR": str(data), **dataset}
    text = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in lines.items())
    path = folder / "x.yml"
    path.write_text(f"MODEL:\n  IMAGE_SIZE: [120, 120]\nDATASET:\n{text}EXP_DIR: {folder / 'run'}\n")
    return path


def add_copy(data: Path, source: str, name: str, split: str, edit=None, annotate=lambda text: text) -> None:
    """Put an edited copy of an image, or of its file, into a set."""
    images = data / "JPEGImages"
    if edit is None:
        shutil.copy(images / f"{source}.jpg", images / f"{name}.jpg")
    else:
        assert cv2.imwrite(str(images / f"{name}.jpg"), edit(cv2.imread(str(images / f"{source}.jpg"))))
    text = (data / "Annotations" / f"{source}.xml").read_text()
    (data / "Annotations" / f"{name}.xml").write_text(annotate(text))
    with open(data / "ImageSets" / "Main" / f"{split}.txt", "a") as file:
        file.write(f"{name}\n")


def halve(text: str) -> str:
    """An annotation of an image of half the size."""
    tags = "xmin|ymin|xmax|ymax|width|height"
    return re.sub(rf"<({tags})>(\d+)<", lambda match: f"<{match[1]}>{max(1, int(match[2]) // 2)}<", text)


def edit_annotation(data: Path, stem: str, pattern: str, replacement: str) -> None:
    path = data / "Annotations" / f"{stem}.xml"
    text = re.sub(pattern, replacement, path.read_text(), count=1, flags=re.S)
    assert text != path.read_text()
    path.write_text(text)


def half_size(image):
    return cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)


def contents(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found(problems) -> dict[str, list[str]]:
    """{key of a fault: the stems of its images}."""
    return {p.key: sorted(Path(o.image).stem for o in p.offenders) for p in problems if p.severity in FAULTS}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    write_dataset(folder, Parameters(num_train=30, num_val=6, num_test=8, size=110), num_workers=0)
    (folder / "ImageSets" / "Main" / "trainval.txt").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def planted(sound, tmp_path_factory) -> Path:
    """The sound set with one fault of every kind."""
    data = tmp_path_factory.mktemp("planted") / "data"
    shutil.copytree(sound, data)
    add_copy(data, "test_000001", "leaked_file", "train")
    add_copy(data, "test_000002", "leaked_half", "train", half_size, halve)
    add_copy(data, "val_000003", "leaked_mirrored", "train", lambda image: image[:, ::-1])
    add_copy(data, "train_000004", "twice", "train")
    add_copy(data, "train_000005", "darker", "train", lambda image: cv2.convertScaleAbs(image, alpha=0.7))
    stems = [path.stem for path in sorted((data / "Annotations").glob("train_*.xml"))]
    held = [stem for stem in stems if parse_annotation(str(data / "Annotations" / f"{stem}.xml")).names][6:]
    edit_annotation(data, held[0], r"<xmin>(\d+)</xmin>(.*?)<xmax>\d+", r"<xmin>\1</xmin>\2<xmax>\1")
    edit_annotation(data, held[1], r"(<object>.*?</object>)", r"\1\1")
    (data / "faulty.json").write_text(
        json.dumps(dict(zip(("empty_box", "same_box", "undecodable"), held, strict=False)))
    )
    broken = data / "JPEGImages" / f"{held[2]}.jpg"
    content = bytearray(broken.read_bytes())
    table = content.find(b"\xff\xc4") + 4
    content[table : table + 20] = b"\xff" * 20  # no Huffman table has so many codes
    broken.write_bytes(content)
    return data


# --- copies of images -------------------------------------------------------------------------------------------------


def test_mirroring_an_image_flips_known_signs():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 120, 3), dtype=np.uint8), (0, 0), 5)
    assert np.array_equal(signs_of(small_picture(image)[:, ::-1]), signs_of(small_picture(image)) * MIRRORED)


def test_pairs_of_like_signs_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    signs = np.where(rng.random((300, 64)) > 0.5, 1, -1).astype(np.float32)
    signs[250:] = signs[:50] * np.where(rng.random((50, 64)) < 0.1, -1, 1)
    signs[200:250] = signs[:50] * MIRRORED
    sets, videos = np.arange(300) % 2, np.arange(300) // 3
    pairs = set(_alike(signs, sets, videos))
    differing = {flip: (signs[:, None] != signs * factor).sum(2) for flip, factor in ((False, 1), (True, MIRRORED))}
    expected = {
        (one, other, flip)
        for flip, bits in differing.items()
        for one, other in np.argwhere(bits <= MAX_BITS).tolist()
        if one < other and videos[one] != videos[other]
    }
    assert len(expected) > 80 and pairs == expected


@pytest.mark.parametrize(
    "edit",
    [
        half_size,
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 35])[1], 1),
        lambda image: cv2.convertScaleAbs(image, alpha=0.6, beta=10),
        lambda image: cv2.convertScaleAbs(image, alpha=1.2),
        lambda image: image[4:-4, 4:-4],
        lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
    ],
    ids=["half", "jpeg", "dark", "bright", "cropped", "grey"],
)
def test_a_copy_is_the_same_picture_and_another_image_is_not(sound, edit):
    images = [cv2.imread(str(path)) for path in sorted((sound / "JPEGImages").glob("train_*.jpg"))[:12]]
    originals, copies = ([small_picture(change(image)) for image in images] for change in (lambda i: i, edit))
    alike = 0
    for number, one in enumerate(originals):
        for other_number, other in enumerate(copies):
            if number == other_number:
                differing = int((signs_of(one) != signs_of(other)).sum())
                alike += differing <= MAX_BITS and agreement_of(one, other) is not None
            else:
                assert agreement_of(one, other) is None
    assert alike >= 11


# --- planted faults ---------------------------------------------------------------------------------------------------


def test_a_sound_set_has_no_faults(sound, tmp_path, capsys):
    config = write_config(tmp_path, sound)
    assert main(["--cfg", str(config)]) == 0
    figures = json.loads((tmp_path / "run" / "check" / "check.json").read_text())
    assert not [problem for problem in figures["problems"] if problem["severity"] in FAULTS]
    assert "train 30 images" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("policy", ["drop", "fail"])
def test_all_planted_faults_are_found_and_no_others(planted, tmp_path, policy):
    faulty = json.loads((planted / "faulty.json").read_text())
    _, problems, _ = examine(load_config(write_config(tmp_path, planted, ON_BAD=policy)), "x.yml")
    expected = {
        "leaked_pixels": ["leaked_file"],
        "leaked_picture": ["leaked_half", "leaked_mirrored"],
        "same_pixels": ["twice"],
        "same_picture": ["darker"],
        "empty_box": [faulty["empty_box"]],
        "same_box": [faulty["same_box"]],
        "undecodable": [faulty["undecodable"]],
    }
    assert found(problems) == expected
    assert [p.severity for p in problems] == sorted((p.severity for p in problems), key="error warning note".find)
    (leak,) = [p for p in problems if p.key == "leaked_pixels"]
    assert leak.offenders[0].other == ("test", str(planted / "JPEGImages" / "test_000001.jpg"))
    (empty,) = [p for p in problems if p.key == "empty_box"]
    x1, _, x2, _ = empty.offenders[0].boxes[0]
    assert x1 == x2


def test_the_report_names_every_fault(planted, tmp_path, capsys, drawn):
    assert main(["--cfg", str(write_config(tmp_path, planted)), "--pictures", "2"]) == 1
    out = capsys.readouterr().out
    assert "leaked_half.jpg (train) and test_000002.jpg (test)" in out and "errors" in out
    page = (tmp_path / "run" / "check" / "check.html").read_text()
    assert "mirrored" in page and page.count("data:image/jpeg") >= 6


def test_a_file_in_two_lists_and_sets_that_are_the_same(tmp_path):
    data = write_voc(tmp_path / "data", {"train": ["a", "b"], "test": ["b", "c"]})
    cfg = load_config(write_config(tmp_path, data))
    assert found(examine(cfg, "x.yml")[1]) == {"leaked_file": ["b"]}
    cfg = load_config(tmp_path / "x.yml", ["DATASET.TRAIN_SETS=test", "TRAIN.TRACK_MAP=False"])
    assert set(found(examine(cfg, "x.yml")[1])) == {"test_is_train", "eval_is_train"}


def test_a_set_that_cannot_be_opened_does_not_hide_the_others(tmp_path, capsys):
    data = write_voc(tmp_path / "data", {"train": ["a", "b"]})
    config = write_config(tmp_path, data, TEST_SETS=["tset"])
    assert main(["--cfg", str(config)]) == 1
    assert "tset" in capsys.readouterr().out
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    assert main(["--cfg", str(config), "DATASET.TRAIN_SETS=trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    words = ["PHASE=train", "TRAIN.TRACK_MAP=False", f"EXP_DIR={tmp_path / 'other'}"]
    assert main(["--cfg", str(config), *words]) == 0  # nothing would open it


def test_frames_of_a_video_are_no_copies_but_those_of_two_videos_are(tmp_path):
    data = tmp_path / "data"
    write_videos(data, VideoParameters(num_train=2, num_val=1, num_test=1, size=64, frames=4), num_workers=0)
    cfg = load_config(write_config(tmp_path, data, DATASET="coco_vid"))
    assert not [key for key in found(examine(cfg, "x.yml")[1]) if key.startswith(("leaked", "same_pi"))]
    content = json.loads((data / "annotations" / "test.json").read_text())
    train = json.loads((data / "annotations" / "train.json").read_text())
    first = [image for image in train["images"] if image["video_id"] == train["videos"][0]["id"]]
    shutil.copytree(data / "train" / Path(first[0]["file_name"]).parent, data / "test" / "copied")
    content["videos"].append({"id": 99, "name": "copied"})
    for number, image in enumerate(first):
        name = f"copied/{Path(image['file_name']).name}"
        content["images"].append({**image, "id": 900 + number, "video_id": 99, "file_name": name})
    (data / "annotations" / "test.json").write_text(json.dumps(content))
    assert len(found(examine(cfg, "x.yml")[1])["leaked_pixels"]) == 4


def test_two_blood_cell_boxes_are_empty(shared, tmp_path):
    config = write_config(tmp_path, shared / "data" / "BCCD", TRAIN_SETS=["trainval"], TEST_SETS=["test"])
    _, problems, _ = examine(load_config(config, ["TRAIN.TRACK_MAP=False"]), "x.yml")
    faults = found(problems)
    assert faults["empty_box"] == ["BloodImage_00338", "BloodImage_00343"]
    assert faults["leaked_picture"] == ["BloodImage_00386"]  # the same cells as 00391 of test, a little to the left
    assert set(faults) == {"empty_box", "leaked_picture", "same_picture", "same_box"}


# --- classes and boxes ------------------------------------------------------------------------------------------------


def image_set(boxes, labels, counts, name="train", classes=("cat", "dog"), size=(200, 400)) -> ImageSet:
    paths = [f"{name}{number}" for number in range(len(counts))]
    sizes = [size] * len(counts)
    return ImageSet(
        name, DetectionRecords.build(classes, paths, paths, sizes, boxes, labels, np.zeros(len(labels)), counts)
    )


def test_names_that_differ_in_case_or_separators_are_one_class():
    counts = {"red cell": 400, "Red_Cell": 3, "a": 50, "A": 40, "plate": 9}
    assert variants(counts) == {"Red_Cell": "red cell"}  # A may well be another letter than a
    one = image_set(np.tile([1.0, 1, 50, 50], (50, 1)), [1] * 48 + [2] * 2, [50], classes=("cat", "Cat"))
    assert [known_names([one], named)("Cat") for named in (False, True)] == ["cat", "Cat"]
    assert [known_names([one], named)("cow") for named in (False, True)] == ["cow", None]
    keys = {p.key for p in find_class_problems([one], class_rows([one]), named=False) if p.offenders}
    assert "class_slip" in keys and "imbalance" not in keys


def test_counts_of_classes_and_shares_far_apart():
    box = [10.0, 10, 60, 60]
    train = image_set([box] * 110, [1] * 100 + [2] * 10, [1] * 110)
    test = image_set([box] * 100, [1] * 50 + [2] * 50, [2] * 50, "test")
    rows = class_rows([train, test])
    assert rows[0]["sets"]["test"] == {"objects": 50, "images": 25, "share": 0.5}
    problems = {p.key: p for p in find_class_problems([train, test], rows, named=True)}
    assert [o.what.partition(":")[0] for o in problems["shares_apart"].offenders] == ["dog"]
    none = image_set([box], [2], [1], classes=("cat", "dog", "cow"))
    other = image_set([box], [1], [1], "test", classes=("cat", "dog", "cow"))
    problems = {p.key: p for p in find_class_problems([none, other], class_rows([none, other]), named=True)}
    assert "cat" in problems["class_not_in_train"].offenders[0].what
    assert "cow" in problems["class_without_objects"].offenders[0].what


def test_sizes_are_those_at_the_networks_input():
    each = image_set([[0, 0, 40, 20], [0, 0, 400, 200], [0, 0, 20, 5]], [1, 1, 2], [3])
    (row,) = size_rows([each], (100, 100))
    assert row["sizes"]["<8"] == 1 and row["sizes"]["8-16"] == 1 and row["sizes"]["64-128"] == 1
    assert row["median_size"] == 10 and row["ratios"][1] == 2
    problems = {p.key: p for p in find_box_problems([each], (100, 100))}
    assert problems["tiny"].counts == {"train": 1} and problems["whole_image"].count == 1


def test_boxes_unlike_their_class():
    rng = np.random.default_rng(0)
    corners = rng.uniform(20, 60, (60, 2))
    boxes = np.hstack([corners, corners + [60, 20]])
    boxes[:, 2:] += rng.uniform(-3, 3, (60, 2))
    boxes[7, 2:] = boxes[7, :2] + [20, 60]  # width and height swapped
    boxes[8, 2:] = boxes[8, :2] + [70, 2]
    boxes[9, 2:] = boxes[9, :2] + [6, 2]
    each = image_set(boxes, np.ones(60, int), [1] * 60)
    problems = {p.key: [o.image for o in p.offenders] for p in find_box_problems([each], (100, 200))}
    assert problems["swapped"] == ["train7"]
    assert problems["odd_ratio"] == ["train8"] and set(problems["odd_size"]) == {"train8", "train9"}


def test_boxes_in_the_same_place_unless_they_are_crowds():
    each = image_set([[10, 10, 90, 90], [10, 10, 90, 91], [11, 10, 90, 90]], [1, 1, 2], [3])
    problems = {p.key: p.count for p in find_box_problems([each], (100, 100))}
    assert problems["same_box"] == 1 and problems["same_place"] == 2
    each.records.crowd = np.array([False, True, False])
    each = ImageSet("train", each.records)
    problems = {p.key: p.count for p in find_box_problems([each], (100, 100))}
    assert problems["same_box"] == 0 and problems["same_place"] == 1


# --- the cleaned copy -------------------------------------------------------------------------------------------------


def test_the_cleaned_copy_is_clean_and_can_be_turned_back(planted, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(planted, data)
    before = contents(data)
    config = write_config(tmp_path, data)
    assert main(["--cfg", str(config), "--fix", str(out)]) == 1
    assert contents(data) == before
    assert "train on it" in capsys.readouterr().out
    _, problems, _ = examine(load_config(config, [f"DATASET.DATASET_DIR={out}", f"EXP_DIR={tmp_path / 'b'}"]), "x.yml")
    assert set(found(problems)) == {"same_picture", "same_box"}  # for a person to decide
    for _ in range(2):  # its own report is written over
        assert main(["--cfg", str(config), f"DATASET.DATASET_DIR={out}", f"EXP_DIR={tmp_path / 'c'}"]) == 0
    log = json.loads((out / "fix_log.json").read_text())
    assert {change["what"] for change in log["changes"]} == {"line left out", "object left out", "image left out"}
    assert main(["--restore", str(out)]) == 0
    after = contents(out)
    assert {name: content for name, content in after.items() if not name.startswith("fix_")} == {
        name: content for name, content in before.items() if not name.endswith(".json")
    }
    assert main(["--restore", str(out)]) == 2


def test_boxes_are_repaired_by_the_rules_of_clip(tmp_path):
    objects = [("cat", (-9, 5, 40, 50)), ("cat", (60, 50, 30, 20)), ("Dog", (5, 5, 30, 30)), ("cow", (1, 1, 9, 9))]
    data = write_voc(tmp_path / "data", {"train": ["a"], "test": ["b"]}, {"a": [*objects, ("dog", (70, 40, 95, 59))]})
    edit_annotation(data, "a", "<height>60", "<height>61")
    config = write_config(tmp_path, data, CLASSES=["cat", "dog"])
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "out")]) == 1
    fixed = parse_annotation(str(tmp_path / "out" / "Annotations" / "a.xml"))
    assert fixed.names == ["cat", "cat", "dog", "dog"] and fixed.size == (60, 80)
    assert fixed.boxes == [[1, 5, 40, 50], [30, 20, 60, 50], [5, 5, 30, 30], [70, 40, 80, 59]]
    cfg = load_config(config, [f"DATASET.DATASET_DIR={tmp_path / 'out'}", "DATASET.ON_BAD=fail"])
    assert len(create_records(cfg, "train").labels) == 4


def test_lists_of_one_class_and_of_other_sets_are_kept(tmp_path):
    data = write_voc(tmp_path / "data", {"train": ["a", "b", "c"], "test": ["d"], "other": ["e"]})
    (data / "ImageSets" / "Main" / "cat_train.txt").write_text("a  1\nb -1\nc  0\n")
    shutil.copy(data / "JPEGImages" / "d.jpg", data / "JPEGImages" / "b.jpg")
    config = write_config(tmp_path, data, TRAIN_SETS=["train"], TEST_SETS=["test"])
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "out")]) == 1
    lists = {path.stem: path.read_text() for path in (tmp_path / "out" / "ImageSets" / "Main").iterdir()}
    assert lists == {"train": "a\nc\n", "test": "d\n", "other": "e\n", "cat_train": "a  1\nc  0\n"}


def test_a_folder_without_lists_keeps_its_split(tmp_path):
    data = write_loose(tmp_path / "data", [f"i{number}" for number in range(20)])
    write_xml(data / "i3.xml", [("cat", (11, 21, 41, 51)), ("cat", (5, 5, 5, 9))])
    config = write_config(tmp_path, data)
    sets = {role: sorted(create_records(load_config(config), role).ids) for role in ("train", "eval", "test")}
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "out")]) == 1
    cfg = load_config(config, [f"DATASET.DATASET_DIR={tmp_path / 'out'}", f"EXP_DIR={tmp_path / 'other'}"])
    assert {role: sorted(create_records(cfg, role).ids) for role in sets} == sets


def test_folders_of_years_and_several_roots(tmp_path):
    write_voc(tmp_path / "one" / "VOC2007", {"train": ["a"], "test": ["b"]})
    write_voc(tmp_path / "one" / "VOC2012", {"train": ["a"]})
    for number, name in enumerate("ab"):
        write_image(tmp_path / "one" / "VOC2007" / "JPEGImages" / f"{name}.jpg", seed=50 + number)
    two = write_voc(tmp_path / "two", {"train": ["z"]})
    write_image(two / "JPEGImages" / "z.jpg", seed=60)
    config = write_config(tmp_path, tmp_path / "one", DATASET_DIR=[str(tmp_path / "one"), str(two)])
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "out")]) == 0
    copies = [str(tmp_path / "out" / name) for name in ("one", "two")]
    cfg = load_config(config, [f"DATASET.DATASET_DIR=[{', '.join(copies)}]"])
    assert sorted(create_records(cfg, "train").ids) == ["VOC2007/a", "VOC2012/a", "two/z"]
    for place in ("one/VOC2007", "one/VOC2012", "two"):
        assert (tmp_path / "out" / place / "JPEGImages").is_dir()


def write_coco(data: Path, sound: Path) -> None:
    """Images of the sound set with COCO's annotations and a few faults."""
    (data / "annotations").mkdir(parents=True)
    for split in ("train", "val", "test"):
        content = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": 7 * n, "name": name} for n, name in enumerate(CLASS_NAMES, 1)]
        (data / split).mkdir()
        for number, source in enumerate(sorted((sound / "JPEGImages").glob(f"{split}_*.jpg"))[:6], 1):
            shutil.copy(source, data / split)
            height, width = cv2.imread(str(source)).shape[:2]
            content["images"].append({"id": number, "file_name": source.name, "height": height, "width": width})
            item = {"image_id": number, "category_id": 7, "bbox": [20 + number, 20, 30 + number, 30], "iscrowd": 0}
            content["annotations"].append({"id": number, **item, "segmentation": [[1, 2, 3, 4, 5, 6]]})
        if split == "train":
            leak = cv2.imread(str(sound / "JPEGImages" / "test_000001.jpg"))[:, ::-1]
            cv2.imwrite(str(data / split / "leak.png"), leak)
            height, width = leak.shape[:2]
            content["images"].append({"id": 50, "file_name": "leak.png", "height": height, "width": width})
            content["annotations"].append({"id": 50, "image_id": 50, "category_id": 7, "bbox": [5, 5, 30, 30]})
            content["annotations"].append({"id": 51, "image_id": 1, "category_id": 7, "bbox": [9, 9, 0, 5]})
            content["annotations"][1]["bbox"][0] = -8
        (data / "annotations" / f"{split}.json").write_text(json.dumps(content, indent=3))


def test_coco_annotations_are_cleaned_and_turned_back(sound, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_coco(data, sound)
    before = contents(data)
    config = write_config(tmp_path, data, DATASET="coco")
    assert main(["--cfg", str(config), "--fix", str(out)]) == 1
    content = json.loads((out / "annotations" / "train.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 5, 6]
    assert [item["id"] for item in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert content["annotations"][1]["bbox"] == [0, 20, 24, 30]
    assert content["annotations"][1]["segmentation"] == [[1, 2, 3, 4, 5, 6]]
    assert main(["--cfg", str(config), f"DATASET.DATASET_DIR={out}", f"EXP_DIR={tmp_path / 'b'}"]) == 0
    assert main(["--restore", str(out)]) == 0
    assert contents(data) == before
    assert {name: text for name, text in contents(out).items() if not name.startswith("fix_")} == before


# --- what must not be lost --------------------------------------------------------------------------------------------


def test_near_copies_can_stay_and_never_take_most_of_the_training(tmp_path, capsys):
    data = write_voc(tmp_path / "data", {"train": ["a", "b"], "test": ["c"]})
    image = cv2.GaussianBlur(cv2.imread(str(data / "JPEGImages" / "c.jpg")), (0, 0), 4)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    for number, name in enumerate("abc"):
        cv2.imwrite(str(data / "JPEGImages" / f"{name}.jpg"), cv2.convertScaleAbs(image, beta=4 * number))
    config = write_config(tmp_path, data)
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "out")]) == 2
    assert "--keep-near" in capsys.readouterr().err
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "out"), "--keep-near"]) == 1
    assert (tmp_path / "out" / "ImageSets" / "Main" / "train.txt").read_text() == "a\nb\n"


def test_files_of_others_stay(tmp_path, capsys):
    data = write_voc(tmp_path / "data", {"train": ["a", "b"], "test": ["c"]})
    config = write_config(tmp_path, data)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "check.json").write_text("{}")
    assert main(["--cfg", str(config), "--out", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "check.json").read_text() == "{}"
    for out in (tmp_path / "mine", data / "clean"):
        assert main(["--cfg", str(config), "--fix", str(out)]) == 2
    assert main(["--cfg", str(config), "--fix", str(tmp_path / "x"), "DATASET.DATASET=imagenet_vid"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_copy_that_was_edited_is_not_turned_back(tmp_path, capsys):
    data = write_voc(tmp_path / "data", {"train": ["a", "b"], "test": ["c"]}, {"a": [("cat", (9, 9, 9, 30))]})
    out = tmp_path / "out"
    assert main(["--cfg", str(write_config(tmp_path, data)), "--fix", str(out)]) == 1
    (out / "Annotations" / "a.xml").write_text("<annotation/>")
    assert main(["--restore", str(out)]) == 2
    assert "was changed since" in capsys.readouterr().err
    assert (out / "Annotations" / "a.xml").read_text() == "<annotation/>"
