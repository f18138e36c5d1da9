"""The benchmark tool: a row for whatever is asked for, consistent figures, and what fails by name."""

import csv
import json
import math
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.config.effective import dump_config
from lib.layers.postprocess import class_scores
from lib.predictor import ObjectDetector
from lib.tools.benchmark import CSV, PLOT, Worker, main
from lib.tools.benchmark_jobs import (
    Job,
    find_configs,
    find_weights,
    load_images,
    name_all,
    save_images,
    settle_classes,
)
from lib.tools.benchmark_report import COLUMNS
from lib.tools.benchmark_untrained import MOST_OF_ALL, write_untrained
from lib.tools.benchmark_worker import build
from lib.utils.errors import UserError

CFGS = Path(__file__).parents[2] / "experiments/cfgs"
SMALL = """\
MODEL: {SSDS: ssd_lite, NETS: mobilenet_v1_025, IMAGE_SIZE: [64, 64], PRECISION: fp32}
DATASET: {DATASET: custom, CLASSES: [disc, ring, star]}
DEVICE: cpu
"""
MEMORY = """\
MODEL: {SSDS: lstm_ssd, NETS: mobilenet_v1_025, IMAGE_SIZE: [96, 96], PRECISION: fp32,
        FEATURE_LAYER: [[11, 12, S, S], [128, 256, 64, 64]], RNN: {IN_USE: true}}
DATASET: {DATASET: custom, CLASSES: [disc, ring, star]}
DEVICE: cpu
"""


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


def write_config(folder: Path, name: str, text: str = SMALL) -> Path:
    path = folder / name
    path.write_text(text + f"EXP_DIR: {folder / 'none'}\n")
    return path


def write_run(folder: Path, config: Path) -> Path:
    """The folder of a run as a test leaves it: its configuration, two checkpoints, the results of the first one."""
    folder.mkdir()
    cfg = load_config(config, [f"EXP_DIR={folder}"])
    (folder / "config.yml").write_text(dump_config(cfg))
    settle_classes(cfg)
    for epoch in (3, 4):
        write_untrained(cfg, [noise()], folder / f"x_epoch_{epoch}.pth")
    figures = {"class_names": ["disc", "ring", "star"], "mAP": 0.625, "voc07": 0.625}
    (folder / "results.json").write_text(json.dumps(figures | {"checkpoint": "elsewhere/x_epoch_3.pth"}))
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """(exit status, rows by name and batch, folder) of good files, a broken one, a detector for video and a run."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "many").mkdir()
    small = write_config(folder / "many", "a.yml")
    write_config(folder / "many", "b.yml", "MODEL: {NETS: mobilnet_v2}\n")
    write_config(folder / "many", "c.yml", MEMORY)
    write_run(folder / "run", small)
    words = ["--cfg", str(folder / "many/*.yml"), "MODEL.COMPILE=none", "--runs", str(folder / "ru?")]
    words += ["--batches", "1,2", "--threads", "1", "--quick", "--size", "80x60", "--together", "8"]
    status = main([*words, "--out", str(folder / "out")])
    with (folder / "out" / CSV).open() as file:
        rows = list(csv.DictReader(file))
    return status, {(row["name"], row["batch"]): row for row in rows}, folder


def test_there_is_a_row_for_every_detector_and_batch(report):
    _, rows, _ = report
    assert set(rows) == {("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("c", "1"), ("run", "1"), ("run", "2")}
    assert all(list(row) == list(COLUMNS) for row in rows.values())


def test_what_fails_is_named_and_the_others_go_on(report):
    status, rows, _ = report
    assert status == 1
    assert {name for (name, _), row in rows.items() if row["status"] == "failed"} == {"b"}
    assert "did you mean 'mobilenet_v2'" in rows["b", "1"]["reason"] and not rows["b", "1"]["network_ms"]


def test_the_figures_of_a_row_agree_with_each_other(report):
    for row in (row for row in report[1].values() if row["status"] == "ok"):
        number = {key: float(value) for key, value in row.items() if key.endswith(("_ms", "_s", "batch")) and value}
        parts = [number[f"{part}_ms"] for part in ("preprocess", "backbone", "neck_head", "postprocess")]
        assert min(parts) > 0 and sum(parts) == pytest.approx(number["end_to_end_ms"])
        assert parts[1] + parts[2] == pytest.approx(number["network_ms"])
        for stage in ("preprocess", "network", "postprocess", "end_to_end"):
            assert 0 < number[f"{stage}_p50_ms"] <= number[f"{stage}_p95_ms"]
        for stage in ("network", "end_to_end"):
            assert number[f"{stage}_images_per_s"] == pytest.approx(1000 * number["batch"] / number[f"{stage}_ms"])
        assert int(row["parameters"]) > 1000 and int(row["macs"]) > 1000 and float(row["memory_mb"]) > 0


def test_a_row_tells_where_and_how_it_was_measured(report):
    row = report[1]["a", "2"]
    assert row["device"] and row["precision"] == "fp32" and row["compile"] == "none" and row["threads"] == "1"
    assert row["images"] == "4 drawn scenes of 80x60" and row["torch"] and row["memory_is"]
    assert float(row["score_threshold"]) == 0.01 and float(row["nms_iou"]) == 0.6 and row["max_per_class"] == "100"
    assert not row["compile_s"] and not row["decode_ms"]


def test_weights_and_map_are_those_of_the_tested_checkpoint(report):
    rows = report[1]
    assert rows["a", "1"]["weights"] == "untrained" and int(rows["a", "1"]["candidates"]) > 0
    assert not rows["a", "1"]["mAP"] and not rows["a", "1"]["checkpoint"]
    assert rows["run", "1"]["weights"] == "trained" and rows["run", "1"]["mAP"] == "0.625"
    assert rows["run", "1"]["checkpoint"].endswith("run/x_epoch_3.pth") and "VOC2007" in rows["run", "1"]["mAP_rule"]


def test_a_detector_for_video_runs_frame_by_frame(report):
    row = report[1]["c", "1"]
    assert row["recurrent"] == "True" and row["status"] == "ok" and report[1]["a", "1"]["recurrent"] == "False"


def test_runs_with_an_map_are_in_the_plot(report):
    picture = cv2.imread(str(report[2] / "out" / PLOT))
    assert picture is not None and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_without_an_map_there_is_no_plot_and_a_line_says_why(tmp_path, capsys):
    small = write_config(tmp_path, "a.yml")
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((60, 80, 3), np.uint8))
    words = ["--batches", "1", "--threads", "1,2", "--quick", "--images", str(tmp_path)]
    assert main(["--cfg", str(small), *words, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "no plot" in text and not (tmp_path / "out" / PLOT).exists()
    assert "end to end" in text and "untrained" in text and "scores above 0.01, IoU 0.6" in text
    with (tmp_path / "out" / CSV).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["threads"] for row in rows] == ["1", "2"] and float(rows[0]["decode_ms"]) > 0


def test_the_help_says_what_every_column_holds(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COLUMNS) and "95 % of the runs took less" in text


MISTAKES = {
    ("--cfg", "nowhere/*.yml"): "--cfg nowhere/*.yml: matches nothing",
    (): "nothing to measure",
    ("--runs", "nowhere"): "--runs nowhere: matches nothing",
    ("--cfg", "{a}", "--images", "nowhere"): "--images nowhere: there is no such folder",
    ("--cfg", "{a}", "--batches", "1,0"): "argument --batches: 0 is out of range",
    ("--cfg", "{a}", "--size", "300"): "argument --size: invalid size value: '300'",
    ("--cfg", "{a}", "--compile", "fast"): "argument --compile: fast is unknown; allowed: none, default, max",
    ("--batches", "1", "--cfg", "{a}", "--quick", "b.yml"): "'b.yml': a word that no option takes",
    ("--cfg", "{a}", "--out", "{taken}"): "holds benchmark.csv, which is no benchmark's; give another folder",
    ("--cfg", "{a}", "--out", "{a}"): "this folder cannot be made",
}  # fmt: skip


@pytest.mark.parametrize("words", MISTAKES, ids=lambda words: " ".join(words) or "nothing")
def test_mistakes_are_one_line(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / CSV).write_text("mine\n")
    places = {"a": write_config(tmp_path, "a.yml"), "taken": tmp_path / "taken"}
    assert main([word.format(**places) for word in words]) == 2
    assert MISTAKES[words] in capsys.readouterr().err
    assert (tmp_path / "taken" / CSV).read_text() == "mine\n"


def test_a_process_that_is_killed_is_a_failure_and_not_the_end(tmp_path):
    worker = Worker(job_of(write_config(tmp_path, "a.yml"), tmp_path))
    with worker:
        os.kill(worker._process.pid, signal.SIGKILL)
        worker.prepare()
        worker.run_round()
        row = worker.row({})
    assert row["status"] == "failed" and "killed (signal 9), as systems do when memory runs out" in row["reason"]


def job_of(config: Path, folder: Path) -> Job:
    images = load_images(None, (80, 60))[0][:1]
    save_images(images, folder / "images.npz")
    return Job("x", config, None, None, (), None, 1, True, folder / "images.npz", 0, 1)


def test_files_that_others_build_on_are_left_out(tmp_path):
    (tmp_path / "base").mkdir()
    write_config(tmp_path / "base", "voc.yml")
    whole = write_config(tmp_path, "a.yml")
    assert find_configs([f"{tmp_path}/**/*.yml"]) == [whole]
    assert find_configs([f"{tmp_path}/base/*.yml"]) == [tmp_path / "base/voc.yml"]
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="matches no YAML file"):
        find_configs([f"{tmp_path}/*.txt"])


def test_names_tell_all_apart(tmp_path):
    runs = [(tmp_path / "x" / "a", None), (tmp_path / "y" / "a", tmp_path / "y" / "a" / "results_epoch_3.json")]
    assert name_all([Path("cfgs/a.yml")], runs) == ["cfgs/a", "x/a", "y/a epoch 3"]


def test_an_map_of_other_weights_is_not_shown(tmp_path):
    run = write_run(tmp_path / "run", write_config(tmp_path, "a.yml"))
    cfg = load_config(run / "config.yml", [f"TEST.CHECKPOINT={run / 'x_epoch_4.pth'}"])
    assert find_weights(cfg, run / "results.json") == (run / "x_epoch_4.pth", None, "")
    (run / "x_epoch_3.pth").unlink()
    cfg = load_config(run / "config.yml")
    assert find_weights(cfg, run / "results.json") == (run / "x_epoch_4.pth", None, "")


@pytest.mark.parametrize("loss", ["multibox", "sigmoid_focal"])
def test_untrained_weights_leave_as_many_candidates_as_they_say(tmp_path, loss):
    cfg = load_config(write_config(tmp_path, "a.yml"), [f"CRITERION.CONF_LOSS={loss}"])
    settle_classes(cfg)
    said = write_untrained(cfg, [noise()], tmp_path / "w.pth")
    detector, counted = ObjectDetector(cfg, tmp_path / "w.pth"), []
    postprocess = detector.postprocess

    def count(predictions, sizes):
        counted.append((class_scores(predictions.conf, loss == "sigmoid_focal") > 0.01).sum().item())
        return postprocess(predictions, sizes)

    detector.postprocess = count
    detector.predict(noise())
    assert counted == [pytest.approx(said, abs=2)]
    assert said == pytest.approx(MOST_OF_ALL * len(detector.model.priors) * 3, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("path", find_configs([f"{CFGS}/**/*.yml"]), ids=lambda path: str(path.relative_to(CFGS)))
def test_every_file_that_comes_along_can_be_measured(path, tmp_path):
    detector, facts = build(job_of(path, tmp_path), load_images(None, (80, 60))[0][:1], tmp_path)
    assert facts["weights"] == "untrained" and facts["candidates"] > 0 and math.isfinite(facts["macs"])
    assert len(detector.predict(np.zeros((60, 80, 3), np.uint8))) == 1
