"""What a run goes on from: stops in an evaluation, unreadable and later checkpoints, positions within an epoch."""

import logging
import os
import signal

import pytest
import torch

from lib.modeling.model_builder import create_model
from lib.predictor import ObjectDetector
from lib.solver import checkpoint as ckpt
from lib.solver import evaluate
from lib.solver.run import check_same_run, run_content, warn_of_meanings
from lib.solver.solver import Solver
from lib.solver.train_state import Stopped
from lib.solver.writer import read_log
from lib.utils.errors import UserError

from .test_solver import equal

PREFIX = "ssd_lite_mobilenet_v1_025_custom"
SCORED = ["TRAIN.TRACK_MAP_EVERY=1", "TRAIN.MAX_EPOCHS=2", "DATASET.EVAL_SETS=train", "TEST.NUM_PICTURES=0"]


def send_in_evaluation(monkeypatch, signals, image: int) -> None:
    """Send the signals to this process once, when the detections of this image come in."""
    to_cpu, seen = evaluate._to_cpu, []

    def send(found):
        seen.append(1)
        if len(seen) == image:
            for number in signals:
                os.kill(os.getpid(), number)
        return to_cpu(found)

    monkeypatch.setattr(evaluate, "_to_cpu", send)


@pytest.mark.parametrize("every", [1, 5])
def test_a_stop_gives_up_the_evaluation_and_the_next_start_repeats_it(tiny, tmp_path, monkeypatch, every):
    common = [*SCORED, f"TRAIN.CHECKPOINTS_EPOCHS={every}"]
    Solver(tiny(*common, f"EXP_DIR={tmp_path / 'whole'}")).run()
    stopped = tiny(*common)
    send_in_evaluation(monkeypatch, [signal.SIGTERM], image=2)
    with pytest.raises(Stopped, match="the same command continues") as stop:
        Solver(stopped).run()
    assert stop.value.exit_status == 143
    assert [path.name for path in (tmp_path / "run").glob("*.pth")] == [f"{PREFIX}_epoch_1.pth"]
    Solver(stopped).run()
    for name in (f"{PREFIX}_epoch_2.pth", "best.pth"):
        one, two = (ckpt.read_checkpoint(tmp_path / folder / name) for folder in ("whole", "run"))
        assert all(equal(one[part], two[part]) for part in one.keys() - {"config"})
    maps = [
        [line["Eval/mAP"] for line in read_log(tmp_path / folder / "log.jsonl") if "Eval/mAP" in line]
        for folder in ("whole", "run")
    ]
    assert maps[0] == maps[1] and len(maps[0]) == 2


def test_a_stop_in_the_last_evaluation_is_made_up_for(tiny, tmp_path, monkeypatch):
    cfg = tiny(*SCORED, "TRAIN.MAX_EPOCHS=1")
    send_in_evaluation(monkeypatch, [signal.SIGINT], image=1)
    with pytest.raises(Stopped):
        Solver(cfg).run()
    assert not (tmp_path / "run" / "best.pth").exists()
    Solver(cfg).run()
    assert ckpt.read_checkpoint(tmp_path / "run" / "best.pth")["position"]["epoch"] == 1
    assert not ckpt.read_checkpoint(tmp_path / "run" / f"{PREFIX}_epoch_1.pth")["to_score"]


def test_a_second_interrupt_leaves_at_once_with_what_was_saved(tiny, tmp_path, monkeypatch):
    send_in_evaluation(monkeypatch, [signal.SIGINT, signal.SIGINT], image=1)
    with pytest.raises(KeyboardInterrupt):
        Solver(tiny(*SCORED)).run()
    assert [path.name for path in (tmp_path / "run").glob("*.pth*")] == [f"{PREFIX}_epoch_1.pth"]


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def flip_a_byte(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [cut, flip_a_byte])
def test_training_falls_back_from_an_unreadable_checkpoint(tiny, tmp_path, caplog, spoil):
    run = tmp_path / "run"
    Solver(tiny("TRAIN.TRACK_MAP=False")).run()
    whole = ckpt.read_checkpoint(run / f"{PREFIX}_epoch_3.pth")
    for epoch in (2, 3):
        spoil(run / f"{PREFIX}_epoch_{epoch}.pth")
    with pytest.raises(UserError, match="epoch_3.pth: not a readable checkpoint"):
        Solver(tiny("PHASE=test")).run()
    solver = Solver(tiny("TRAIN.TRACK_MAP=False"))
    logging.getLogger("lib").propagate = True
    solver.run()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "epoch_3.pth" in warning and "epoch_2.pth" in warning and warning.endswith(f"back to {PREFIX}_epoch_1.pth")
    again = ckpt.read_checkpoint(run / f"{PREFIX}_epoch_3.pth")
    assert all(equal(whole[part], again[part]) for part in ("model", "ema", "optimizer", "rng", "position"))
    assert sorted(path.name[-11:] for path in (run / "set_aside").iterdir()) == ["epoch_2.pth", "epoch_3.pth"]


def test_a_run_whose_checkpoints_are_all_unreadable_is_not_begun_anew(tiny, tmp_path):
    Solver(tiny("TRAIN.TRACK_MAP=False", "TRAIN.MAX_EPOCHS=1")).run()
    cut(tmp_path / "run" / f"{PREFIX}_epoch_1.pth")
    with pytest.raises(UserError, match="epoch_1.pth: not a readable checkpoint.*give EXP_DIR another folder"):
        Solver(tiny("TRAIN.TRACK_MAP=False")).run()


@pytest.mark.parametrize("spoil", [cut, flip_a_byte])
def test_an_unreadable_best_is_put_aside_and_chosen_anew(tiny, tmp_path, caplog, spoil):
    run = tmp_path / "run"
    Solver(tiny(*SCORED, "TRAIN.MAX_EPOCHS=1")).run()
    spoil(run / "best.pth")
    with pytest.raises(UserError, match="best.pth: not a readable checkpoint"):
        Solver(tiny("PHASE=test", "TEST.CHECKPOINT=best")).run()
    solver = Solver(tiny(*SCORED))
    logging.getLogger("lib").propagate = True
    solver.run()
    assert (
        "best.pth: not a readable checkpoint" in caplog.text
        and "the next evaluation chooses the best anew" in caplog.text
    )
    assert ckpt.read_checkpoint(run / "best.pth")["position"]["epoch"] == 2
    assert [path.name for path in (run / "set_aside").iterdir()] == ["best.pth"]


def test_going_back_with_resume_puts_the_later_course_aside(tiny, tmp_path):
    run = tmp_path / "run"
    Solver(tiny(*SCORED, "TRAIN.MAX_EPOCHS=3", "TRAIN.CHECKPOINTS_KEPT=2", "SEED=1")).run()
    best = ckpt.read_checkpoint(run / "best.pth")["position"]["epoch"]
    back = tiny(*SCORED, f"TRAIN.RESUME={run / PREFIX}_epoch_2.pth", "SEED=1", "TRAIN.OPTIMIZER.LEARNING_RATE=0.001")
    later = ckpt.read_checkpoint(run / f"{PREFIX}_epoch_3.pth")
    back.TRAIN.MAX_EPOCHS = 3
    Solver(back).run()
    assert equal(later, ckpt.read_checkpoint(run / "set_aside" / f"{PREFIX}_epoch_3.pth"))
    assert not equal(later["model"], ckpt.read_checkpoint(run / f"{PREFIX}_epoch_3.pth")["model"])
    assert (run / "set_aside" / "best.pth").exists() == (best == 3)


def test_the_position_in_the_name_decides_not_the_time(tmp_path):
    names = ["p_epoch_9.pth", "p_epoch_10_iter_8.pth", "p_epoch_10_iter_12.pth", "p_epoch_10.pth"]
    for age, name in enumerate(names):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (10 - age, 10 - age))
    assert [path.name for _, path in ckpt.epoch_checkpoints(tmp_path)] == names
    assert ckpt.last_checkpoint(tmp_path).name == names[-1]
    (tmp_path / names[-1]).unlink()  # a user goes back
    assert ckpt.last_checkpoint(tmp_path).name == "p_epoch_10_iter_12.pth"


@pytest.mark.parametrize(
    "names, left",
    [
        (["1", "2_iter_2", "2_iter_4", "2_iter_6"], ["1", "2_iter_4", "2_iter_6"]),
        (["1", "2_iter_4", "2_iter_6", "2"], ["1", "2"]),
        (["1", "2", "3", "4_iter_2"], ["2", "3", "4_iter_2"]),
        (["1_iter_2", "1_iter_4", "2_iter_2"], ["1_iter_4", "2_iter_2"]),
    ],
)
def test_positions_within_an_epoch_give_way_to_its_end(tmp_path, names, left):
    for name in names:
        (tmp_path / f"p_epoch_{name}.pth").write_text("x")
    ckpt.delete_old_checkpoints(tmp_path, "p", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"p_epoch_{name}.pth" for name in left)


def test_a_start_removes_what_a_killed_save_left_and_hides_what_was_logged(tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / f"{PREFIX}_epoch_7.pth.partial").write_bytes(b"half")
    (run / "log.jsonl").write_text('{"time": 1.0, "step": 3, "Train/loss": 8.0}\n{"time": 1.1, "st')
    Solver(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False")).run()
    assert not list(run.glob("*.partial"))
    steps = [line["step"] for line in read_log(run / "log.jsonl") if "Train/loss" in line]
    assert steps == [2, 4, 5]


def test_checkpoints_within_an_epoch_are_off_by_default_and_change_nothing(tiny, tmp_path, monkeypatch):
    saved, save = [], ckpt.save_atomically
    monkeypatch.setattr(ckpt, "save_atomically", lambda content, path: saved.append(path.name) or save(content, path))
    common = ["TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False"]
    Solver(tiny(*common, f"EXP_DIR={tmp_path / 'off'}")).run()
    Solver(tiny(*common, f"EXP_DIR={tmp_path / 'on'}", "TRAIN.CHECKPOINTS_ITERATIONS=2")).run()
    assert saved == [f"{PREFIX}_epoch_{position}.pth" for position in ("1", "1_iter_2", "1_iter_4", "1")]
    one, two = (ckpt.read_checkpoint(tmp_path / name / f"{PREFIX}_epoch_1.pth") for name in ("off", "on"))
    assert equal(one["model"], two["model"]) and torch.equal(one["rng"]["torch"], two["rng"]["torch"])


def test_weights_keep_the_kind_of_scores_that_they_were_trained_for(tiny, tmp_path, caplog):
    """Softmax scores stay softmax scores, whatever loss taught them; sigmoids are another thing."""
    names, cfg = ["a", "b", "c"], tiny("MODEL.NUM_CLASSES=4")
    path = tmp_path / "softmax.pth"
    ckpt.save_atomically(run_content(cfg, names, model=create_model(cfg).state_dict()), path)
    content = ckpt.read_checkpoint(path)
    alike, other = (tiny("MODEL.NUM_CLASSES=4", f"CRITERION.CONF_LOSS={loss}") for loss in ("focal", "sigmoid_focal"))
    check_same_run(content, path, alike, names)
    warn_of_meanings(content, path, alike)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    ObjectDetector(alike, path)
    for use in (lambda: check_same_run(content, path, other, names), lambda: ObjectDetector(other, path)):
        with pytest.raises(UserError, match="trained with CRITERION.CONF_LOSS multibox, now it is sigmoid_focal"):
            use()
    warn_of_meanings(content, path, other)
    assert "softmax.pth was trained with CRITERION.CONF_LOSS multibox" in caplog.text
