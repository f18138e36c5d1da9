"""The scripts behind the table of detectors with and without memory."""

import json

import cv2
import numpy as np
import pytest

from experiments import film_strip, video_study
from lib.config import load_config
from lib.dataset.dataset_factory import create_records
from lib.dataset.shapes_folder import VideoParameters
from lib.dataset.shapes_video import write_videos
from lib.evaluation import save_results
from lib.structures import Detections


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos") / "data"
    write_videos(folder, VideoParameters(num_train=1, num_val=1, num_test=2, size=96, frames=24, classes=2), 1)
    return folder


@pytest.fixture(scope="module")
def truth(data):
    records = create_records(load_config(None, ["DATASET.DATASET=coco_vid", f"DATASET.DATASET_DIR={data}"]), "test")
    return [records.target(index) for index in range(len(records))], records.class_names


def found_in(targets, names, seen):
    """Detections that are the objects of the targets where `seen` says so."""
    results = []
    for target, shown in zip(targets, seen, strict=True):
        height, width = target.size
        boxes = target.boxes.double() * target.boxes.new_tensor([width, height, width, height])
        scores = boxes.new_full((len(boxes),), 0.9)
        results.append(
            Detections(boxes, scores, target.labels, tuple(names)).select(target.labels > (0 if shown else 9))
        )
    return results


def strengths(data):
    return [image["strength"] for image in json.loads((data / "annotations" / "test.json").read_text())["images"]]


def test_scores_are_split_by_degradation(data, truth, tmp_path):
    """A detector that sees clean frames only is perfect on those and blind on the others."""
    targets, names = truth
    save_results(tmp_path / "d.json", found_in(targets, names, [s == 0 for s in strengths(data)]), targets)
    split = video_study.split_by_degradation(tmp_path / "d.json", data)
    assert split["mAP_clean"] == pytest.approx(1) and split["mAP_degraded"] == 0


def test_strip_shows_the_passage_in_which_runs_differ(data, truth, tmp_path, monkeypatch, capsys):
    targets, names = truth
    for name, seen in (("all", lambda s: True), ("clean", lambda s: s == 0)):
        save_results(tmp_path / f"{name}.json", found_in(targets, names, map(seen, strengths(data))), targets)
    arguments = [f"with={tmp_path}/all.json", f"without={tmp_path}/clean.json", "--frames", "5"]
    monkeypatch.setattr("sys.argv", ["film_strip", *arguments, "--data", str(data), "--out", str(tmp_path / "s.jpg")])
    assert film_strip.main() == 0
    first = int(capsys.readouterr().out.split(" to ")[0][-6:])
    picture = cv2.imread(str(tmp_path / "s.jpg"))
    assert picture is not None and picture.shape[1] > 4 * picture.shape[0] / 2 and first >= 0


def test_passage_stays_within_a_video():
    gains = np.array([0, 0, 3, 3, 0, 0, 2, 2])
    assert film_strip.best_passage(gains, np.array([0, 3, 8]), 2) == 6
    assert film_strip.best_passage(gains, np.array([0, 8]), 2) == 2


def test_table_has_means_and_every_seed():
    rows = [
        {"model": "recurrent", "seed": str(seed), "seconds": "600", **dict.fromkeys(video_study.FIGURES, str(mean))}
        for seed, mean in ((1, 0.5), (0, 0.4))
    ]
    speeds = [{"model": "recurrent", "fps": str(fps)} for fps in (90, 100, 80)]
    line = video_study.table(rows, speeds).splitlines()[-1]
    assert line.startswith("| recurrent | 0.400, 0.500 | 0.450 |") and line.endswith("| 90.0 | 600 |")
