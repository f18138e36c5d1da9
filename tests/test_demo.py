"""demo.py on all that a user points it at: what is found, what is written, and what is said of the rest."""

import csv
import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from lib import demo_command, demo_drawing
from lib.commands import demo
from lib.config import load_config
from lib.predictor import ObjectDetector
from tests.dataset.test_inspection import png_header
from tests.detectors import write_detector
from tests.videos import read_video, write_video


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(configuration file, checkpoint) of a detector with random weights that finds something everywhere."""
    return write_detector(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def detector(trained):
    return ObjectDetector(load_config(trained[0]), trained[1])


@pytest.fixture
def run_demo(trained, detector, tmp_path, monkeypatch):
    """demo.py in a folder, with `out` as the folder of what it makes; returns the exit status."""

    def ready_detector(cfg, checkpoint):
        detector.batch_size = cfg.TEST.BATCH_SIZE
        return detector

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_command, "ObjectDetector", ready_detector)
    command = ["--cfg", str(trained[0]), "--checkpoint", str(trained[1]), "--out", "out"]
    return lambda *words: demo([*command, *map(str, words)])


def write_images(*paths, size=(50, 120)) -> None:
    for number, path in enumerate(map(Path, paths)):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def written() -> list[str]:
    return sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file())


def rows(name: str = "detections.json"):
    return json.loads(Path("out", name).read_text())


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--demo", "p/*.jpg"], ["a.jpg", "b.jpg"]),
        (["--demo", "p/a.jpg", "p/b.jpg", "p/c.png"], ["a.jpg", "b.jpg", "c.png"]),
        (["--demo", "p/a.jpg", "p/b.jpg", "TEST.BATCH_SIZE=1"], ["a.jpg", "b.jpg"]),
        (["--demo", "p/[ab]*", "--demo", "p/a.jpg"], ["a.jpg", "b.jpg"]),
        (["--demo", "p", "-r"], ["a.jpg", "b.jpg", "c.png", "q/a.jpg"]),
        (["--demo", "p/**/*.jpg"], ["a.jpg", "b.jpg", "q/a.jpg"]),
        (["--demo", "p/a.jpg", "--demo", "p/q"], ["a.jpg", "q/a.jpg"]),
        (["--demo", "p"], ["a.jpg", "b.jpg", "c.png"]),
    ],
)
def test_sources_are_named_below_the_folder_that_they_share(run_demo, words, expected):
    write_images("p/a.jpg", "p/b.jpg", "p/c.png", "p/q/a.jpg")
    assert run_demo(*words) == 0
    assert written() == sorted([*expected, "detections.json"])
    assert {row["image_id"] for row in rows()} == set(expected)


def test_recursion_leaves_out_what_an_earlier_demo_has_drawn(run_demo):
    write_images("a.jpg", "p/b.jpg")
    for _ in range(2):
        assert run_demo("--demo", ".", "-r") == 0
        assert written() == ["a.jpg", "detections.json", "p/b.jpg"]


def test_classes_may_have_thresholds_of_their_own(run_demo, monkeypatch, capsys):
    write_images("a.jpg")
    drawn = []
    draw = demo_drawing.draw_detections
    monkeypatch.setattr(demo_drawing, "draw_detections", lambda *given: drawn.append(given[1]) or draw(*given))
    assert run_demo("--demo", "a.jpg", "--threshold", "0") == 0
    every = rows()
    limits = {"disc": 0.2, "no": 1.0, "off": sorted(row["score"] for row in every if row["category_name"] == "off")[-3]}
    words = ",".join(f"{name}={score!r}" for name, score in limits.items() if name != "disc")
    assert run_demo("--demo", "a.jpg", "--threshold", f"0.2,{words}") == 0
    assert rows() == [row for row in every if row["score"] >= limits[row["category_name"]]]
    assert 3 <= len(rows()) < len(every) and {row["category_name"] for row in rows()} == {"disc", "off"}
    assert len(drawn[1]) == len(rows()) and "at least 0.2, no 1, off" in capsys.readouterr().out


@pytest.mark.parametrize(
    "threshold, message",
    [
        ("0.5,dsc=0.3", "threshold: 'dsc' is no class of this detector; did you mean 'disc'?"),
        ("0.5,disc=", "argument --threshold: invalid score 'disc='"),
        ("disc", "argument --threshold: invalid score 'disc'"),
        ("disc=7", "argument --threshold: 7 is out of range; allowed: 0 to 1"),
        ("disc=0.1,disc=0.2", "argument --threshold: 'disc' is given twice"),
    ],
)
def test_mistakes_in_a_threshold_are_told(run_demo, capsys, threshold, message):
    write_images("a.jpg")
    assert run_demo("--demo", "a.jpg", "--threshold", threshold) == 2
    assert capsys.readouterr().err.startswith(f"error: {'' if message[0] == 't' else 'command line: '}{message}")
    assert not Path("out").exists()


def test_every_format_says_the_same(run_demo):
    write_images("p/a, 1.jpg", "p/b.jpg", size=(40, 60))
    write_video("v.mp4", num_frames=3)
    assert run_demo("--demo", "p", "v.mp4", "--format", "json,csv,coco", "--threshold", "0.3") == 0
    assert set(written()) >= {"coco_images.json", "coco_results.json", "detections.csv", "detections.json"}
    entries = rows()
    with open("out/detections.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["image"] for row in table} == {"p/a, 1.jpg", "p/b.jpg", *(f"v/{number:06d}" for number in range(3))}
    for row, entry in zip(table, entries, strict=True):
        corners = [float(row[corner]) for corner in ("x1", "y1", "x2", "y2")]
        left, top, width, height = entry["bbox"]
        assert corners == pytest.approx([left, top, left + width, top + height], abs=1e-9)
        assert (row["image"], row["class"]) == (entry["image_id"], entry["category_name"])
        assert (int(row["label"]), float(row["score"])) == (entry["category_id"], entry["score"])
    images = COCO("out/coco_images.json")
    results = images.loadRes("out/coco_results.json")
    assert [image["file_name"] for image in images.dataset["images"]][:2] == ["p/a, 1.jpg", "p/b.jpg"]
    assert [(image["width"], image["height"]) for image in images.dataset["images"]] == [(60, 40)] * 2 + [(120, 50)] * 3
    for theirs, entry in zip(results.dataset["annotations"], entries, strict=True):
        assert images.imgs[theirs["image_id"]]["file_name"] == entry["image_id"]
        assert images.cats[theirs["category_id"]]["name"] == entry["category_name"]
        assert (theirs["bbox"], theirs["score"]) == (entry["bbox"], entry["score"])


def test_a_format_alone_and_an_unknown_one(run_demo, capsys):
    write_images("a.jpg")
    assert run_demo("--demo", "a.jpg", "--format", "csv") == 0
    assert written() == ["a.jpg", "detections.csv"]
    assert run_demo("--demo", "a.jpg", "--format", "csv,cocoa") == 2
    assert "--format: 'cocoa' is unknown; did you mean 'coco'?" in capsys.readouterr().err


def cut_video() -> str:
    """A video without its end, where mp4 keeps what it takes to read the rest."""
    whole = write_video(Path("cut.mp4")).read_bytes()
    Path("cut.mp4").write_bytes(whole[: len(whole) // 2])
    return "cut.mp4"


def make(name: str, content: bytes | None = None) -> str:
    """A file, or without content a folder."""
    Path(name).mkdir() if content is None else Path(name).write_bytes(content)
    return name


UNREADABLE = {
    "a broken image": (lambda: make("x.jpg", b"\xff\xd8\xff"), "x.jpg: 3 bytes that are no image"),
    "an empty image": (lambda: make("x.png", b""), "x.png: the file is empty"),
    "a text file": (lambda: make("x.txt", b"text"), "x.txt: 4 bytes that are no image"),
    "an image of 20,000 x 20,000 pixels": (lambda: make("x.png", png_header(20_000, 20_000)), "x.png: its header says"),
    "an empty folder": (lambda: make("x"), "x: the folder holds no images"),
    "a video cut in the middle": (cut_video, "cut.mp4: OpenCV cannot open this file"),
    "a camera that is not there": (lambda: "99", "camera 99: cannot be opened"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_fails_alone_and_is_skipped_beside_others(run_demo, capsys, kind):
    prepare, message = UNREADABLE[kind]
    word = prepare()
    assert run_demo("--demo", word) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not Path("out").exists() or not written()
    write_images("p/a.jpg")
    assert run_demo("--demo", "p/a.jpg", word) == 0
    out, err = capsys.readouterr()
    assert err.startswith(f"warning: skipped: {message}") and "drawn 1 picture, skipped 1" in out
    assert len(written()) == 2


def test_nothing_that_can_be_read(run_demo, capsys):
    Path("p").mkdir()
    words = [make("p/x.jpg", b"no"), make("p/y.jpg", b"no")]
    assert run_demo("--demo", "p") == 1
    assert capsys.readouterr().err.endswith("error: --demo p: none of its 2 images could be read\n")
    assert run_demo("--demo", *words, make("e")) == 1
    assert capsys.readouterr().err.endswith("error: --demo: none of the 3 images and videos could be read\n")
    assert not written()


def test_a_folder_of_all_sorts(run_demo, capsys):
    write_images("p/a.jpg", "p/b.jpg")
    for name, content in (("c.jpg", b"no"), ("d.txt", b"text"), ("e.png", png_header(60_000, 60_000)), ("f.jpg", None)):
        make(f"p/{name}", content)
    assert run_demo("--demo", "p") == 0
    out, err = capsys.readouterr()
    assert "drawn 2 pictures, skipped 3" in out and "neither image nor video: 1 file (d.txt)" in out
    assert [line.split(":")[2].strip() for line in err.splitlines()] == ["p/c.jpg", "p/e.png", "p/f.jpg"]
    assert written() == ["a.jpg", "b.jpg", "detections.json"]


def test_an_image_of_20000_pixels_is_drawn(run_demo):
    write_images("wide.png", size=(20, 20_000))
    assert run_demo("--demo", "wide.png") == 0
    assert cv2.imread("out/wide.png").shape == (20, 20_000, 3)


def test_a_picture_that_its_format_cannot_hold_is_told(run_demo, capsys):
    write_images("wide.bmp", size=(2, 70_000))
    assert run_demo("--demo", "wide.bmp") == 0
    assert "a picture of 70000 x 2 pixels cannot be written as .jpg" in capsys.readouterr().err
    assert written() == ["detections.json"]


@pytest.mark.parametrize("words, message", [
    (["--demo", "p/*.png"], "--demo p/*.png: no file fits this pattern"),
    (["--demo", "p/a.jpg", "nowhere.jpg"], "--demo nowhere.jpg: there is no such file or folder"),
    (["--demo", "p/*.jpg", "-t", "video"], "--demo p/a.jpg: .jpg is the suffix of images, but -t says video"),
])  # fmt: skip
def test_what_is_not_there_is_a_mistake(run_demo, capsys, words, message):
    write_images("p/a.jpg")
    assert run_demo(*words) == 2
    assert capsys.readouterr().err == f"error: {message}\n" and not Path("out").exists()


def test_videos_of_one_name_stay_apart(run_demo):
    write_video("a.mp4", num_frames=2)
    write_video("a.avi", num_frames=3, codec="MJPG")
    assert run_demo("--demo", "a.*", "--threshold", "0.3") == 0
    assert written() == ["a.mp4", "a_2.mp4", "detections.json"]
    assert [len(read_video(f"out/{name}.mp4")) for name in ("a", "a_2")] == [3, 2]
    names = {row["image_id"] for row in rows()}
    assert names == {"a/000000", "a/000001", "a/000002", "a_2/000000", "a_2/000001"}


@pytest.mark.parametrize("name", ["a.jpg", "detections.csv"])
def test_files_of_others_are_not_overwritten(run_demo, capsys, name):
    write_images("a.jpg")
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    if name == "detections.csv":
        Path("out", "config.yml").write_text("")  # of a run, whose test has written its results
    assert run_demo("--demo", "a.jpg", "--format", "csv") == 2
    assert f"--out out: holds {name}, which would be overwritten" in capsys.readouterr().err
    assert Path("out", name).read_text() == "mine"


def test_a_stop_leaves_complete_files(run_demo, monkeypatch, capsys):
    write_images(*(f"p/{number}.jpg" for number in range(6)))
    drawn, draw = [], demo_drawing.draw_detections

    def interrupt(*given):
        drawn.append(1)
        if len(drawn) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(*given)

    monkeypatch.setattr(demo_drawing, "draw_detections", interrupt)
    assert run_demo("--demo", "p", "--format", "json,csv", "TEST.BATCH_SIZE=4") == 130
    assert written() == ["0.jpg", "1.jpg", "2.jpg", "detections.csv", "detections.json"]
    assert {row["image_id"] for row in rows()} == {"0.jpg", "1.jpg", "2.jpg"}
    assert "stopped by SIGINT after 3 of 6 images; out holds them" in capsys.readouterr().err
