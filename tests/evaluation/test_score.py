"""The score tool: a results file against the ground truth of a folder, without a model."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.dataset.detection import DetectionRecords, with_videos
from lib.evaluation import Protocols
from lib.tools.score import main, score_results
from lib.utils.errors import UserError

NAMES = ("cat", "dog")
BOX = (10, 10, 29, 29)


def records(ids=("a", "b", "c"), labels=(1, 1, 2)):
    """One object BOX in each image of 100 x 80 pixels."""
    paths, sizes, counts = [f"{i}.jpg" for i in ids], [(80, 100)] * len(ids), [1] * len(ids)
    boxes, difficult = [BOX] * len(ids), [False] * len(ids)
    return DetectionRecords.build(NAMES, paths, ids, sizes, boxes, labels, difficult, counts, "pets")


def entry(image_id, score=0.5, name="cat", box=BOX):
    bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    number = NAMES.index(name) + 1
    return {"image_id": image_id, "category_id": number, "category_name": name, "bbox": bbox, "score": score}


@pytest.fixture
def results(tmp_path):
    def write(*entries):
        path = tmp_path / "results.json"
        path.write_text(json.dumps(entries))
        return path

    return write


def scored(path, of=None, set_name="test", headline=None):
    """The protocols after the results file, by default for `records()`."""
    of = records() if of is None else of
    protocols = Protocols(of.class_names, headline or ("vid" if of.is_video else "voc07"), of.is_video, 0.4)
    return score_results(protocols, of, path, set_name)


def test_images_without_detections_count(results, caplog):
    metric = scored(results(entry("b")))
    assert metric.ranked.num_images == 3
    assert metric.compute()["voc_area/cat"] == 1 / 2
    assert metric.compute()["voc_area/dog"] == 0
    assert "2 of 3 images have no detections" in caplog.text


def test_empty_file_scores_zero(results, caplog):
    assert scored(results()).compute()["voc07"] == 0
    assert "3 of 3 images" in caplog.text


def test_complete_file_needs_no_word(results, caplog):
    metric = scored(results(entry("a"), entry("b"), entry("c", name="dog")))
    assert metric.compute()["voc07"] == 1
    assert caplog.text == ""


def test_equal_scores_rank_in_the_order_of_the_file(results):
    wrong = entry("a", box=(60, 60, 70, 70))
    assert scored(results(wrong, entry("b"))).compute()["voc_area/cat"] == 1 / 4
    assert scored(results(entry("b"), wrong)).compute()["voc_area/cat"] == 1 / 2


def test_image_outside_the_set_is_named(results):
    with pytest.raises(
        UserError, match=r"results\.json: image 'x' is not in the eval sets \(3 images, the first is 'a'"
    ):
        scored(results(entry("a"), entry("x"), entry("y")), set_name="eval")


def test_ambiguous_image_ids_are_refused(results):
    with pytest.raises(UserError, match="two images of the test sets are named 'a'"):
        scored(results(entry("a")), of=records(("a", "b", "a")))


def test_frames_of_videos_are_found_by_video_and_number(results, caplog):
    videos = with_videos(records(), [0, 2, 3], ["park", "road"], [7, 8, 0])
    rows = [entry("park/000007"), entry("park/000008"), entry("road/000000", name="dog")]
    assert scored(results(*rows), of=videos).compute()["map50"] == 1
    assert caplog.text == ""
    with pytest.raises(
        UserError, match=r"image 'park/7' is not in the test sets \(3 images, the first is 'park/000007'"
    ):
        scored(results(entry("park/7")), of=videos)


def test_results_in_the_words_of_coco(results, caplog):
    """Numbers of images and categories as in the annotation file, and no names."""
    of_coco = replace(records(), category_ids=(17, 18), image_numbers=np.array([139, 285, 632]))

    def plain(image_id, category_id):
        return {"image_id": image_id, "category_id": category_id, "bbox": [10, 10, 19, 19], "score": 0.5}

    figures = scored(results(plain(139, 17), plain(285, 17), plain(632, 18)), of_coco, headline="coco").compute()
    assert figures["mAP"] == figures["AP"] == 1
    assert scored(results(entry("a"), entry("b"), entry("c", name="dog")), of_coco).compute()["voc07"] == 1
    assert caplog.text == ""
    with pytest.raises(UserError, match=r"entry 1: category_id 2 is not one of the data set's, 17, 18"):
        scored(results(plain(139, 17), plain(139, 2)), of_coco)
    with pytest.raises(UserError, match=r"image 7 is not in the test sets \(3 images, the first is 139\)"):
        scored(results(plain(139, 17), plain(7, 17)), of_coco)


@pytest.fixture(autouse=True)
def logging_as_before():
    """The command sends the package's log to the screen; other tests listen to it."""
    logger = logging.getLogger("lib")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def write_voc(folder: Path):
    """A data set in VOC layout: two test images and one for training, each with one cat at BOX."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    corners = "".join(f"<{k}>{v + 1}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True))
    for name in ("a", "b", "t"):
        cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), np.zeros((80, 100, 3), np.uint8))
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>100</width><height>80</height><depth>3</depth>"
            f"</size><object><name>cat</name><difficult>0</difficult><bndbox>{corners}</bndbox></object></annotation>"
        )
    (folder / "ImageSets" / "Main" / "test.txt").write_text("a\nb\n")
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("t\n")


@pytest.fixture
def cfg(tmp_path):
    write_voc(tmp_path / "pets")
    path = tmp_path / "pets.yml"
    path.write_text(
        "DATASET:\n  DATASET: custom\n  CLASSES: [cat, dog]\n  TRAIN_SETS: [trainval]\n  TEST_SETS: [test]\n"
        f"EXP_DIR: {tmp_path / 'run'}\n"
    )
    return path


def test_command_prints_the_table(tmp_path, cfg, results, capsys):
    path = results(entry("a"), entry("b", score=0.25, box=(0, 0, 5, 5)))
    root = f"DATASET.DATASET_DIR={tmp_path / 'pets'}"
    assert main(["--cfg", str(cfg), "--detections", str(path), root]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(next(line for line in lines if line.startswith("cat")).split()).startswith("cat 2 0 2 0.545 0.500")
    assert " ".join(next(line for line in lines if line.startswith("mAP")).split()) == "mAP 2 0 2 0.545 0.500"
    assert lines[-1].startswith("mAP 0.545: VOC2007 average precision at 11 recalls, IoU above 0.5")
    assert main(["--cfg", str(cfg), "--detections", str(path), root, "TEST.METRIC=coco"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("mAP 0.505: COCO average precision")


def test_command_scores_other_sets(tmp_path, cfg, results, capsys):
    options = ["--cfg", str(cfg), "--detections", str(results(entry("t")))]
    root = f"DATASET.DATASET_DIR={tmp_path / 'pets'}"
    assert main([*options, root, "--sets", "train"]) == 0
    assert "mAP" in capsys.readouterr().out
    assert main([*options, root]) == 2
    error = capsys.readouterr().err
    assert "image 't' is not in the test sets" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("override", ["DATASET.DATASET_DRI=x", "DATASET.DATASET_DIR=/nonexistent"])
def test_command_tells_a_mistake_in_one_line(cfg, results, capsys, override):
    assert main(["--cfg", str(cfg), "--detections", str(results()), override]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().count("\n") == 0
    assert "Traceback" not in captured.err


def test_help_tells_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--cfg", "--detections", "--sets", "KEY=VALUE"))
