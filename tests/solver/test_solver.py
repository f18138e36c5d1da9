"""Whole runs on a tiny data set: what a user sees and what is left on disk."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.dataset.shapes import annotation_xml
from lib.solver import checkpoint as ckpt
from lib.solver.solver import Solver
from lib.solver.train_state import Stopped
from lib.solver.writer import read_log
from lib.utils.errors import UserError


def weights(path):
    return ckpt.read_checkpoint(path)


def equal(a, b):
    """Whether two checkpoint contents are the same, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_a_run_from_training_to_results(tiny, tmp_path):
    cfg = tiny("PHASE=train,eval,test", "TRAIN.CHECKPOINTS_KEPT=2")
    Solver(cfg).run()
    run = tmp_path / "run"
    kept = sorted(p.name for p in run.glob("*.pth"))
    assert kept == [
        "best.pth",
        "ssd_lite_mobilenet_v1_025_custom_epoch_2.pth",
        "ssd_lite_mobilenet_v1_025_custom_epoch_3.pth",
    ]
    content = weights(run / kept[-1])
    assert content["class_names"] == list(Solver(cfg).class_names) and content["position"]["epoch"] == 3
    assert load_config(run / "config.yml") == cfg
    results = json.loads((run / "results.json").read_text())
    assert results["epoch"] == 3 and 0 <= results["mAP"] <= 1 and results["fps_end_to_end"] > 0
    assert {"voc07", "voc_area", "AP", "AP50", "ARl", "errors/missed", "cost/missed"} <= results.keys()
    assert results["confusion"]["names"] == [*results["class_names"], "background"]
    assert "IoU above 0.5" in results["legend"]["mAP"]
    detections = json.loads((run / "detections.json").read_text())
    assert detections and {"image_id", "category_id", "category_name", "bbox", "score"} <= set(detections[0])
    assert len(list((run / "pictures").glob("*.jpg"))) == 2
    tags = {tag for line in (run / "log.jsonl").read_text().splitlines() for tag in json.loads(line)}
    assert {"Train/loc_loss", "Train/conf_loss", "Train/lr", "Train/images_per_second", "Eval/mAP", "Test/mAP"} <= tags
    assert {"Test COCO/AP", "Test errors/missed"} <= tags and "Eval COCO/AP" not in tags
    assert list(run.glob("events.out.tfevents.*"))


def test_training_again_says_it_is_complete_and_changes_nothing(tiny, tmp_path, caplog):
    Solver(tiny("TRAIN.MAX_EPOCHS=1")).run()
    (path,) = (tmp_path / "run").glob("*_epoch_1.pth")
    before = path.read_bytes()
    with caplog.at_level(logging.INFO, "lib"):
        logging.getLogger("lib").propagate = True
        solver = Solver(tiny("TRAIN.MAX_EPOCHS=1"))
        logging.getLogger("lib").propagate = True
        solver.run()
    assert "training is complete" in caplog.text and path.read_bytes() == before


@pytest.mark.parametrize("stop_after, workers", [(1, 0), (7, 1), (10, 2)])
def test_stopped_and_started_again_ends_bit_equal(tiny, tmp_path, monkeypatch, stop_after, workers):
    common = ["TRAIN.OPTIMIZER.OPTIMIZER=adam", "TRAIN.TRACK_MAP=False"]
    Solver(tiny(*common, f"EXP_DIR={tmp_path / 'whole'}")).run()
    stopped = tiny(*common, f"EXP_DIR={tmp_path / 'stopped'}", f"DATASET.NUM_WORKERS={workers}")
    take_step = Solver._train_step
    steps = []

    def step_and_signal(self, *args):
        import os
        import signal

        losses = take_step(self, *args)
        steps.append(1)
        if len(steps) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses

    monkeypatch.setattr(Solver, "_train_step", step_and_signal)
    with pytest.raises(Stopped) as stop:
        Solver(stopped).run()
    assert stop.value.exit_status == 143 and len(steps) == stop_after
    Solver(stopped).run()
    assert len(steps) == 15
    name = "ssd_lite_mobilenet_v1_025_custom_epoch_3.pth"
    one, two = (weights(tmp_path / folder / name) for folder in ("whole", "stopped"))
    for part in ("model", "ema", "optimizer", "position", "rng"):
        assert equal(one[part], two[part]), part


def test_two_runs_with_a_seed_are_equal_and_two_seeds_differ(tiny, tmp_path):
    ends = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        Solver(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False", f"SEED={seed}", f"EXP_DIR={tmp_path / name}")).run()
        ends.append(weights(next((tmp_path / name).glob("*_epoch_1.pth")))["model"])
    assert equal(ends[0], ends[1]) and not equal(ends[0], ends[2])


def test_accumulated_batches_make_one_step(tiny, tmp_path):
    Solver(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.ACCUMULATE=2", "TRAIN.TRACK_MAP=False")).run()
    content = weights(next((tmp_path / "run").glob("*_epoch_1.pth")))
    assert content["position"] == {"epoch": 1, "batch": 0, "step": 3}  # 5 batches: 2 + 2 + 1


def test_evaluation_leaves_the_model_as_it_was(tiny):
    solver = Solver(tiny())
    solver.model.train()
    before = {name: tensor.clone() for name, tensor in solver.model.state_dict().items()}
    solver.scorer.score(solver.model, "eval", 1)
    assert equal(before, dict(solver.model.state_dict())) and solver.model.training
    assert all(module.training for module in solver.model.modules())


def test_fresh_start_from_published_weights(tiny, tmp_path):
    source = Solver(tiny(f"EXP_DIR={tmp_path / 'source'}", "SEED=9"))
    state = {n.replace("backbone.layers", "module.base", 1): t for n, t in source.model.state_dict().items()}
    torch.save(state, tmp_path / "published.pth")
    cfg = tiny(
        f"RESUME_CHECKPOINT={tmp_path / 'published.pth'}", "TRAIN.RESUME_SCOPE=base", "TRAIN.TRAINABLE_SCOPE=loc,conf",
        "TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False",
    )  # fmt: skip
    Solver(cfg).run()
    end = weights(next((tmp_path / "run").glob("*_epoch_1.pth")))["model"]
    for name, tensor in source.model.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(end[name], tensor), name
    assert not torch.equal(end["head.loc.0.weight"], source.model.state_dict()["head.loc.0.weight"])


@pytest.mark.parametrize(
    "override, expected",
    [
        ("MODEL.NETS=mobilenet_v1_050", "MODEL.NETS mobilenet_v1_025, now it is mobilenet_v1_050"),
        ("MODEL.IMAGE_SIZE=96", "MODEL.IMAGE_SIZE"),
        ("DATASET.CLASSES=ring,cross,star,triangle,square,circle", "was trained for the classes"),
    ],
)
def test_another_model_in_the_same_folder_is_refused(tiny, tmp_path, override, expected):
    Solver(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False")).run()
    files = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.pth")}
    for phase in ("train", "test"):
        with pytest.raises(UserError, match="give EXP_DIR another folder") as error:
            Solver(tiny("TRAIN.MAX_EPOCHS=2", override, f"PHASE={phase}")).run()
        assert expected in str(error.value)
    assert files == {path: path.read_bytes() for path in (tmp_path / "run").glob("*.pth")}


def test_scope_of_epochs_is_scored_one_by_one(tiny, tmp_path):
    Solver(tiny("TRAIN.TRACK_MAP=False")).run()
    Solver(tiny("PHASE=test", "TEST.TEST_SCOPE=[2, 9]")).run()
    epochs = [json.loads((tmp_path / "run" / f"results_epoch_{e}.json").read_text())["epoch"] for e in (2, 3)]
    assert epochs == [2, 3] and not (tmp_path / "run" / "results_epoch_1.json").exists()
    scores = [json.loads((tmp_path / "run" / f"results_epoch_{e}.json").read_text())["mAP"] for e in epochs]
    lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "Test by epoch/mAP" in line]
    assert [(line["step"], line["Test by epoch/mAP"]) for line in lines] == list(zip(epochs, scores, strict=True))
    assert cv2.imread(str(tmp_path / "run" / "map_over_epochs.png")).std() > 0
    table = (tmp_path / "run" / "log.txt").read_text().partition("over epochs")[2].split()
    assert {"2", "3", *(f"{score:.3f}" for score in scores)} <= set(table)


def test_one_epoch_has_no_course(tiny, tmp_path):
    Solver(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False", "PHASE=train,test")).run()
    assert not (tmp_path / "run" / "map_over_epochs.png").exists()


def test_nothing_to_test_is_said(tiny):
    with pytest.raises(UserError, match="nothing to test"):
        Solver(tiny("PHASE=test")).run()


def test_a_loss_that_is_not_finite_stops_and_names_the_images(tiny):
    with pytest.raises(FloatingPointError) as error:
        Solver(
            tiny("TRAIN.OPTIMIZER.LEARNING_RATE=1e30", "TRAIN.CLIP_NORM=0", "TRAIN.LR_SCHEDULER.WARM_UP_ITERATIONS=0")
        ).run()
    assert "images train_0" in str(error.value) and "learning rate 9.8e+29" in str(error.value)


def test_visualize_writes_pictures(tiny, tmp_path):
    Solver(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False", "PHASE=train,visualize")).run()
    assert list((tmp_path / "run" / "visualize").rglob("*.png"))


def draw_plain_set(root, count=16, side=96):
    """Dark discs and bright bars, one of each on every picture, in VOC layout."""
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        image = np.full((side, side, 3), 128, np.uint8)
        x, y, radius = (int(v) for v in (rng.integers(24, 34), rng.integers(24, 72), rng.integers(12, 20)))
        cv2.circle(image, (x, y), radius, (30, 30, 30), -1)
        left, top = (int(v) for v in (rng.integers(52, 60), rng.integers(4, 50)))
        cv2.rectangle(image, (left, top), (left + 24, top + 40), (230, 230, 230), -1)
        cv2.imwrite(str(root / "JPEGImages" / f"{i}.png"), image)
        boxes = {"disc": (x - radius, y - radius, x + radius, y + radius), "bar": (left, top, left + 24, top + 40)}
        objects = [(name, tuple(v + 1 for v in box), False) for name, box in boxes.items()]
        (root / "Annotations" / f"{i}.xml").write_text(annotation_xml(f"{i}.png", side, side, objects))
    (root / "ImageSets/Main/train.txt").write_text("".join(f"{i}\n" for i in range(count)))


def test_learns_a_plain_set_by_heart(tiny, tmp_path):
    """The whole path, from files through augmentation, loss and post-processing to mAP, is right if this works."""
    draw_plain_set(tmp_path / "plain")
    cfg = tiny(
        f"DATASET.DATASET_DIR={tmp_path / 'plain'}", "DATASET.TEST_SETS=train", "MODEL.IMAGE_SIZE=96",
        "MODEL.FEATURE_LAYER=[[5,11,13],[64,128,256]]", "MODEL.SIZES=[[20,20],[36,36],[60,60],[90,90]]",
        "TRAIN.MAX_EPOCHS=60", "TRAIN.CHECKPOINTS_EPOCHS=60", "TRAIN.TRACK_MAP=False", "TRAIN.BATCH_SIZE=8",
        "TRAIN.OPTIMIZER.OPTIMIZER=adam", "TRAIN.OPTIMIZER.LEARNING_RATE=0.003", "TRAIN.OPTIMIZER.MOMENTUM_2=0.999",
        "TRAIN.LR_SCHEDULER.SCHEDULER=SGDR", "TRAIN.EMA_DECAY=0.9", "DATASET.PROB=0", "DATASET.CROP_PROB=0",
        "MATCHER.UNMATCHED_THRESHOLD=0.4", "PHASE=train,test",
    )  # fmt: skip
    Solver(cfg).run()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["mAP"] > 0.9
