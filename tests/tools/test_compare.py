"""Differences that were planted are told and others are not; intervals are those of images that were really redrawn."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.config.effective import save_config
from lib.dataset.dataset_factory import create_records
from lib.evaluation import VIDMeanAP, VOCMeanAP, save_results
from lib.evaluation.resampling import ResampledAP, mean_over_classes
from lib.structures import Detections
from lib.tools.compare import main
from lib.tools.compare_runs import epochs_of, group_seeds, read_runs
from lib.tools.compare_sides import compare
from lib.tools.compare_statistics import interval_of, resample_weights, student_quantile, welch_interval
from lib.utils.errors import UserError
from tests.dataset.folders import write_voc
from tests.evaluation.builders import found, frame, truth

NAMES = ("cat", "dog", "owl")
SIZE = (120, 160)


def draw_scenes(rng, count):
    """(objects of each image as (label, x1, y1, x2, y2), how hard each image is)."""
    scenes = []
    for _ in range(count):
        corners = rng.integers(5, 60, (rng.integers(1, 6), 2))
        sides = rng.integers(15, 40, corners.shape)
        labels = rng.integers(1, len(NAMES) + 1, len(corners))
        scenes.append(
            [(int(n), *map(int, low), *map(int, low + s)) for n, low, s in zip(labels, corners, sides, strict=True)]
        )
    return scenes, rng.uniform(0, 1, count)


def detect(rng, scenes, hard, skill=0.0):
    """What a detector of some skill finds: boxes beside the true ones, some missed, some invented."""
    all_found = []
    for objects, how_hard in zip(scenes, hard, strict=True):
        rows = [
            (label, rng.beta(4, 2), *(np.array(box) + rng.normal(0, 2.5, 4)))
            for label, *box in objects
            if rng.uniform() < 0.8 - 0.4 * how_hard + skill
        ]
        for _ in range(rng.poisson(1 + 2 * how_hard)):
            low = rng.integers(5, 60, 2)
            rows.append((rng.integers(1, len(NAMES) + 1), rng.beta(2, 3), *low, *(low + rng.integers(15, 40, 2))))
        all_found.append(found(*sorted(rows, key=lambda row: -row[1]), class_names=NAMES))
    return all_found


def fed(metric, detections, targets):
    metric.update(detections, targets)
    return metric


# ------------------------------------------------------------------------------------------------ resampling


def test_weights_are_copies_of_images():
    rng = np.random.default_rng(0)
    scenes, hard = draw_scenes(rng, 30)
    marked = [[(*o, "difficult") if rng.uniform() < 0.15 else o for o in objects] for objects in scenes]
    targets, detections = [truth(*objects, size=SIZE) for objects in marked], detect(rng, scenes, hard)
    weights = resample_weights(np.arange(30), 6, seed=1)
    weights[:, 5] = 0
    weights[[i for i, objects in enumerate(scenes) if all(o[0] != 2 for o in objects)][:2], 5] = 3  # no dog at all
    sampled = ResampledAP(fed(VOCMeanAP(NAMES), detections, targets)).compute(weights)
    for column in range(weights.shape[1]):
        drawn = np.repeat(np.arange(30), weights[:, column])
        real = fed(VOCMeanAP(NAMES), [detections[i] for i in drawn], [targets[i] for i in drawn]).compute()
        for key, figures in sampled.items():
            expected = [real[f"{key}/{name}"] for name in NAMES]
            assert figures[:, column] == pytest.approx(expected, abs=1e-9, nan_ok=True)
            assert mean_over_classes(figures)[column] == pytest.approx(real[key], abs=1e-9, nan_ok=True)
    assert np.isnan(sampled["voc_area"][1, 5])


def test_weights_are_copies_of_videos():
    rng = np.random.default_rng(3)
    scenes, hard = draw_scenes(rng, 12)
    detections, units = detect(rng, scenes, hard), np.repeat(np.arange(4), 3)
    weights = resample_weights(units, 5, seed=2)
    assert (weights.reshape(4, 3, 5) == weights[::3, None]).all()  # all frames of a video together

    def target(index, copy=0):
        return frame(*scenes[index], video=f"{units[index]}-{copy}", number=index, size=SIZE)

    metric = fed(VIDMeanAP(NAMES), detections, [target(i) for i in range(12)])
    sampled = ResampledAP(metric).compute(weights)["voc_area"]
    for column in range(5):
        drawn = [(i, copy) for i in range(12) for copy in range(weights[i, column])]
        real = fed(VIDMeanAP(NAMES), [detections[i] for i, _ in drawn], [target(*each) for each in drawn]).compute()
        assert mean_over_classes(sampled)[column] == pytest.approx(real["map50"], abs=1e-9)


def test_equal_detectors_are_told_apart_as_rarely_as_promised():
    """Pairs of detectors that differ by their noise alone: the 95 % interval leaves out 0 in about 5 % of 200."""
    told = 0
    for number in range(200):
        rng = np.random.default_rng(number)
        scenes, hard = draw_scenes(rng, 20)
        targets = [truth(*objects, size=SIZE) for objects in scenes]
        metrics = [fed(VOCMeanAP(NAMES), detect(rng, scenes, hard), targets) for _ in range(2)]
        weights = resample_weights(np.arange(20), 300, seed=number)
        first, second = (mean_over_classes(ResampledAP(metric).compute(weights)["voc_area"]) for metric in metrics)
        value = metrics[1].compute()["voc_area"] - metrics[0].compute()["voc_area"]
        told += interval_of(value, second - first, 20).sign != 0
    assert 0.02 <= told / 200 <= 0.10


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.30265), (5, 2.57058), (30, 2.04227), (1000, 1.96234)]
)
def test_quantiles_of_students_t(freedom, expected):
    assert student_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-5)


def test_interval_between_seeds():
    # Variances 1 and 4 of three figures each: freedom (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 50/17.
    interval = welch_interval([1, 2, 3], [4, 6, 8])
    half = student_quantile(0.975, 50 / 17) * math.sqrt(5 / 3)
    assert interval == pytest.approx((4, 4 - half, 4 + half))
    assert welch_interval([1], [2, 3]) is None


# ------------------------------------------------------------------------------------------------ runs on disk


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(np.random.default_rng(5), 30)


@pytest.fixture(scope="module")
def data(tmp_path_factory, scenes):
    stems = [f"p{n:02d}" for n in range(len(scenes[0]))]
    objects = {
        stem: [(NAMES[label - 1], tuple(c + 1 for c in box)) for label, *box in each]
        for stem, each in zip(stems, scenes[0], strict=True)
    }
    return write_voc(tmp_path_factory.mktemp("data") / "set", {"train": stems[:1], "test": stems}, objects, size=SIZE)


@pytest.fixture
def make_run(tmp_path, data, scenes):
    """Function (name, noise, skill, KEY=VALUE words) -> folder of a run whose detector has that skill."""

    def make(name, noise=0, skill=0.0, *words, names=NAMES):
        folder = tmp_path / name
        given = [f"DATASET.DATASET_DIR={data}", "DATASET.DATASET=custom", "DATASET.CLASSES=cat,dog,owl"]
        given += ["DATASET.TRAIN_SETS=train", "DATASET.TEST_SETS=test", "PHASE=test", f"EXP_DIR={folder}", *words]
        cfg = load_config(None, given)
        save_config(cfg, folder / "config.yml")
        records = create_records(cfg, "test")
        targets = [records.target(i) for i in range(len(records))]
        detections = detect(np.random.default_rng(noise), *scenes, skill)[: len(targets)]
        save_results(folder / "detections.json", detections, targets)
        figures = fed(VOCMeanAP(NAMES), detections, targets).compute()
        results = {"class_names": list(names), "checkpoint": "x.pth", "epoch": 9, "mAP": figures["voc07"]} | figures
        results |= {"fps_network": 50.0, "fps_end_to_end": 40.0, "parameters": 1234567}
        (folder / "results.json").write_text(json.dumps(results))
        lines = [{"step": 10, "Train/loss": 3.0, "Train/epoch": 1.0}, {"step": 10, "Eval/mAP": 0.25},
                 {"step": 20, "Train/loss": 2.0, "Train/epoch": 2.0}, {"step": 20, "Eval/mAP": 0.5}]  # fmt: skip
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return make


def run(capsys, *words):
    """(exit status, what was printed, the error)."""
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_planted_difference_is_told(make_run, tmp_path, capsys):
    a, b = make_run("plain", 1), make_run("skilled", 2, 0.3, "TRAIN.EMA_DECAY=0.5", "DEVICE=cpu")
    out = tmp_path / "out"
    status, text, _ = run(capsys, a, b, "--out", out)
    assert status == 0 and "B (skilled) is better than A (plain)" in text.replace("\n", " ")
    assert "TRAIN.EMA_DECAY" in text and "1,234,567" in text
    assert "without effect on it: EXP_DIR, LOG_DIR, DEVICE" in text
    report = json.loads((out / "comparison.json").read_text())
    pair = report["pairs"][0]
    assert pair["better"] == "B" and pair["configuration"] == {"TRAIN.EMA_DECAY": [0.999, 0.5]}
    scores = [json.loads((folder / "results.json").read_text())["voc07"] for folder in (a, b)]
    assert pair["by_images"]["value"] == pytest.approx(scores[1] - scores[0], abs=2e-3)
    assert 0 < pair["by_images"]["low"] < pair["by_images"]["value"] < pair["by_images"]["high"]
    page = (out / "comparison.html").read_text()
    assert "is better than" in page and page.count("<img") >= 3 + 2 and "p0" in page
    assert {path.name for path in out.glob("*.png")} == {"differences_A_B.png", "precision_recall.png", "training.png"}

    status, text, _ = run(capsys, b, a, "--out", out)  # an earlier comparison makes way
    pair = json.loads((out / "comparison.json").read_text())["pairs"][0]
    assert status == 0 and pair["better"] == "A" and pair["by_images"]["high"] < 0


def test_equal_runs_do_not_differ(make_run, tmp_path, capsys):
    folders = make_run("one", 4), make_run("two", 4, 0.0, "TRAIN.EMA_DECAY=0.5")
    status, text, _ = run(capsys, *folders, "--out", tmp_path / "out")
    assert status == 0 and "No difference between A (one) and B (two) can be told" in text.replace("\n", " ")
    pair = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"][0]
    assert pair["by_images"] == {"value": 0, "low": 0, "high": 0} and pair["better"] is None
    assert "0 have more" in text.replace("\n", " ")


def test_seeds_of_one_configuration_are_one_side(make_run):
    words = "TRAIN.EMA_DECAY=0.5"
    folders = [make_run(f"a{seed}", seed, 0.0, f"SEED={seed}") for seed in range(3)]
    folders += [make_run(f"b{seed}", 9 + seed, 0.3, f"SEED={seed}", words) for seed in range(3)]
    runs = read_runs(folders[::2] + folders[1::2])
    assert [[each.name for each in group] for group in group_seeds(runs)] == [["a0", "a2", "a1"], ["b1", "b0", "b2"]]
    comparison = compare(runs)
    (pair,) = comparison.pairs
    scores = [[each.metric.compute()["voc07"] for each in side.runs] for side in comparison.sides]
    assert pair.overall.value == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    assert pair.seeds == pytest.approx(welch_interval(*scores))
    assert pair.sign == 1 and len(comparison.sides) == 2

    alone = compare(group_seeds(runs)[0])
    assert alone.only_seeds and len(alone.sides) == 3 and all(pair.seeds is None for pair in alone.pairs)


def test_noise_between_seeds_can_hide_a_difference(make_run):
    folders = [make_run("a0", 0, 0.0, "SEED=0"), make_run("a1", 1, 0.3, "SEED=1")]
    folders += [make_run(f"b{seed}", 5 + seed, 0.3, f"SEED={seed}", "TRAIN.EMA_DECAY=0.5") for seed in range(2)]
    (pair,) = compare(read_runs(folders)).pairs
    assert pair.overall.sign == 1 and pair.seeds.sign == 0 and pair.sign == 0


def test_epochs_of_a_run_are_no_seeds(make_run, tmp_path):
    folder = make_run("run", 1)
    for name in ("results", "detections"):
        (folder / f"{name}.json").rename(folder / f"{name}_epoch_10.json")
        (folder / f"{name}_epoch_20.json").write_text((folder / f"{name}_epoch_10.json").read_text())
    with pytest.raises(UserError, match="give one of its files: results_epoch_10.json, results_epoch_20.json"):
        read_runs([folder])
    runs = read_runs([folder / "results_epoch_10.json", folder / "results_epoch_20.json"])
    assert [each.name for each in runs] == ["run epoch 10", "run epoch 20"] and len(group_seeds(runs)) == 2


def test_one_run_and_three_runs(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [make_run(name, n, n / 6, f"TRAIN.EMA_DECAY=0.{n + 1}") for n, name in enumerate("xyz")]
    status, text, _ = run(capsys, folders[0])
    assert status == 0 and "1 run on 30 images" in text and Path("compare_x/comparison.html").is_file()
    status, text, _ = run(capsys, *folders)
    assert status == 0 and "B (y)" in text and "C (z)" in text
    report = json.loads(Path("compare_x_y_and_1_more/comparison.json").read_text())
    assert [(pair["first"], pair["second"]) for pair in report["pairs"]] == [("A", "B"), ("A", "C")]


def test_epochs_of_a_log():
    log = [{"Train/epoch": 1.0, "Train/loss": 2.0}, {"Eval/mAP": 0.1}, {"Train/epoch": 2.0}, {"Eval/mAP": None}]
    assert epochs_of(log, "Eval/mAP") == [(1.0, 0.1)] and epochs_of(log, "Train/loss") == [(1.0, 2.0)]


# ------------------------------------------------------------------------------------------------ bad input


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda b: (b / "results.json").unlink(),
            "not a tested run, without results.json; test it first: python train.py --cfg",
        ),
        (lambda b: (b / "detections.json").unlink(), "without detections.json"),
        (lambda b: (b / "config.yml").unlink(), "not a tested run, without config.yml; give an EXP_DIR"),
        (lambda b: (b / "results.json").write_text("{"), "not the results of a test"),
        (lambda b: (b / "results.json").write_text("[1]"), "not the results of a test"),
        (lambda b: change(b, "results.json", mAP="high"), "not the results of a test"),
        (lambda b: change(b, "results.json", class_names=["cat", "cow"]), "only runs of the same classes"),
        (lambda b: (b / "detections.json").write_text("7"), "a list of detections is expected"),
    ],
)
def test_what_is_no_tested_run_is_told_in_one_line(make_run, tmp_path, capsys, spoil, expected):
    a, b = make_run("a"), make_run("b")
    spoil(b)
    status, text, error = run(capsys, a, b, "--out", tmp_path / "out")
    assert status == 2 and expected in error and str(b) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_images_and_other_objects_are_refused(make_run, data):
    a, b = make_run("a"), make_run("b", 0, 0.0, "DATASET.TEST_SETS=train")
    with pytest.raises(UserError, match=r"tested on other images than .* \(1 and 30; only one has 'p01'\)"):
        read_runs([a, b])
    other = write_voc(data.parent / "other", {"train": ["p00"], "test": ["p00"]}, {"p00": [("cat", (1, 1, 9, 9))]})
    first = make_run("c", 0, 0.0, "DATASET.TEST_SETS=train")
    second = make_run("d", 0, 0.0, "DATASET.TEST_SETS=train", f"DATASET.DATASET_DIR={other}")
    with pytest.raises(UserError, match="the same images have other objects"):
        read_runs([first, second])


def test_a_data_set_that_is_gone_can_be_named_anew(make_run, data, tmp_path):
    a, b = (make_run(name) for name in "ab")
    for folder in (a, b):
        config = folder / "config.yml"
        config.write_text(config.read_text().replace(str(data), "/nowhere/set"))
    with pytest.raises(UserError, match="ground truth of its test images cannot be read.*DATASET.DATASET_DIR=FOLDER"):
        read_runs([a, b])
    assert len(read_runs([a, b], [f"DATASET.DATASET_DIR={data}"])) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{a}", "{a}"], "given twice"),
        (["{a}", "nowhere"], "nowhere: no such folder"),
        (["{a}/config.yml"], "not a run; give its folder"),
        (["SEED=1"], "no RUN is given"),
        (["{a}", "SEEED=1"], "SEEED: unknown key"),
        (["{a}", "--out", "{a}"], "holds other files; give a new folder"),
        (["{a}", "--out", "{a}/config.yml"], "is a file; give a folder"),
    ],
)
def test_mistakes_of_the_command_line(make_run, capsys, words, expected):
    folder = make_run("a")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, _, error = run(capsys, *(word.format(a=folder) for word in words))
    assert status == 2 and expected in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_results_of_another_ground_truth_are_told(make_run, caplog):
    folder = make_run("a")
    change(folder, "results.json", mAP=0.01, voc07=0.01)
    compare(read_runs([folder]))
    assert "its results say voc07 0.0100, its detections give" in caplog.text


def test_nothing_found_at_all_is_compared(make_run):
    a, b = make_run("a", 1, 0.3), make_run("b", 0, 0.0, "TRAIN.EMA_DECAY=0.5")
    (b / "detections.json").write_text("[]")
    change(b, "results.json", mAP=0.0, voc07=0.0)
    (pair,) = compare(read_runs([a, b])).pairs
    assert pair.sign == -1 and pair.second.score == 0


def test_no_detections_have_no_interval_of_their_own():
    empty = Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64))
    metric = fed(VOCMeanAP(("cat", "dog")), [empty], [truth((1, 1, 1, 9, 9))])
    figures = ResampledAP(metric).compute(np.ones((1, 3)))["voc07"]
    assert figures[0].tolist() == [0, 0, 0] and np.isnan(figures[1]).all()


def test_videos_are_drawn_whole(make_run, tmp_path, capsys):
    words = ["DATASET.DATASET=customRNN", "TEST.VIDEO_BREAK=0,12,20"]
    folders = [make_run("a", 1, 0.0, *words), make_run("b", 2, 0.3, *words, "TRAIN.EMA_DECAY=0.5")]
    comparison = compare(read_runs(folders))
    assert (comparison.key, comparison.unit, comparison.sides[0].num_units) == ("map50", "videos", 3)
    status, text, _ = run(capsys, *folders, "--out", tmp_path / "out")
    text = " ".join(text.split())
    assert status == 0 and "the 3 test videos are drawn" in text and "3 videos are few" in text
    assert "p12/0000" in (tmp_path / "out" / "comparison.html").read_text()
