"""The scripts as a user calls them: exit status and what stands on the screen."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.commands import demo, train
from lib.config import load_config
from lib.dataset.shapes import Parameters, write_dataset
from lib.predictor import ObjectDetector
from lib.utils.errors import UserError
from tests.detectors import write_detector

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(configuration file, checkpoint) of a detector with random weights that finds something everywhere."""
    return write_detector(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (50, 120, 3), dtype=np.uint8)


def test_predict_takes_arrays_and_paths_and_stays_in_the_image(trained, image, tmp_path):
    detector = ObjectDetector(load_config(trained[0]), trained[1])
    cv2.imwrite(str(tmp_path / "a.png"), image)
    one, two = detector.predict([image, tmp_path / "a.png"])
    assert torch.equal(one.boxes, two.boxes) and len(one) and set(one.names) <= {"disc", "no", "off"}
    assert (one.boxes >= 0).all() and (one.boxes[:, 2] <= 120).all() and (one.boxes[:, 3] <= 50).all()
    assert one.scores.tolist() == sorted(one.scores.tolist(), reverse=True)
    (alone,) = detector.predict(image, threshold=float(one.scores[3]))
    assert len(alone) == 4


def test_batches_do_not_change_what_is_found(trained, image):
    cfg = load_config(trained[0], ["TEST.BATCH_SIZE=2"])
    detector = ObjectDetector(cfg, trained[1])
    images = [image, image[:, ::-1].copy(), image[::-1].copy()]
    for together, single in zip(detector.predict(images), images, strict=True):
        (alone,) = detector.predict([single])
        assert torch.allclose(together.scores, alone.scores, atol=1e-5)


@pytest.mark.parametrize("given", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 7])
def test_what_is_no_image_is_refused(trained, given):
    detector = ObjectDetector(load_config(trained[0]), trained[1])
    with pytest.raises(UserError, match="must be a path or a BGR uint8 array"):
        detector.predict([given])


def test_demo_on_a_folder_with_an_unreadable_file(trained, image, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), image)
    cv2.imwrite(str(folder / "b.bmp"), image)
    (folder / "broken.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    args = ["--cfg", str(trained[0]), "--demo", str(folder), "-t", "folder", "--checkpoint", str(trained[1])]
    assert demo([*args, "--out", str(tmp_path / "out"), "--threshold", "0.2"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.bmp.jpg", "detections.json"]
    assert cv2.imread(str(tmp_path / "out" / "a.png")).shape == image.shape
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} <= {"a.png", "b.bmp"} and all(row["score"] >= 0.2 for row in rows)
    assert "broken.jpg" in capsys.readouterr().err


def test_demo_never_overwrites_its_input(trained, image, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), image)
    before = (tmp_path / "a.png").read_bytes()
    args = ["--cfg", str(trained[0]), "--demo", str(tmp_path), "--checkpoint", str(trained[1]), "--out", str(tmp_path)]
    assert demo(args) == 2
    assert (tmp_path / "a.png").read_bytes() == before and "would be overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--demo", "nowhere"], "there is no such file or folder"),
        (["--demo", "rtsp://me:secret@host/a", "-t", "image"], "--demo rtsp://me:***@host/a: there is no such file"),
        (["rtsp://me:secret@host/a", "--demo", "{image}"], "rtsp://me:***@host/a"),
        (["--demo", "{empty}", "-t", "image"], "is a folder, but -t says image"),
        (["--demo", "{image}", "--checkpoint", "none.pth"], "no such checkpoint"),
        (["--demo", "{image}"], "nothing to test"),
    ],
)
def test_demo_mistakes_are_one_line(trained, image, tmp_path, capsys, arguments, expected):
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "i.png"), image)
    arguments = [a.format(empty=tmp_path / "empty", image=tmp_path / "i.png") for a in arguments]
    assert demo(["--cfg", str(trained[0]), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert expected in error and error.startswith("error: ") and "\n" not in error


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--cfg", "no.yml"], "no.yml"),
        (["--cfg", "{cfg}", "TRAIN.BATCHSIZE=3"], "TRAIN.BATCH_SIZE"),
        (["--cfg", "{cfg}", "DATASET.DATASET_DIR={cfg}_nowhere"], "nowhere"),
        (["--cfg", "{cfg}", "MODEL.NETS=vgg17", "DATASET.DATASET_DIR={data}"], "did you mean 'vgg16'"),
        (["--cfg", "{cfg}", "DATASET.DATASET=vocc"], "DATASET.DATASET: 'vocc' is unknown"),
        (["--cfg", "{cfg}", "DEVICE=cuda:9", "DATASET.DATASET_DIR={data}"], "DEVICE"),
    ],
)
def test_train_mistakes_are_one_line(trained, tmp_path, capsys, arguments, expected):
    write_dataset(tmp_path / "data", Parameters(num_train=2, num_val=1, num_test=1, size=64), num_workers=0)
    cfg = tmp_path / "y.yml"
    cfg.write_text(trained[0].read_text().replace("CLASSES: [disc, 'no', off]", "CLASSES: []"))
    assert train([a.format(cfg=cfg, data=tmp_path / "data") for a in arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert expected in line


def test_the_script_ends_without_a_traceback():
    result = subprocess.run([sys.executable, "train.py", "--cfg", "no.yml"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


def test_help_and_print_config(trained, capsys):
    for arguments in (["--help"], ["--cfg", str(trained[0]), "--print-config"]):
        with pytest.raises(SystemExit) as end:
            raise SystemExit(train(arguments))
        assert end.value.code in (0, None)
    out = capsys.readouterr().out
    assert "--phase" in out and "mobilenet_v1_025" in out
