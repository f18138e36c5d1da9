"""Training ends when the score has not risen for long enough, and only then."""

import logging

import pytest

from lib.config import load_config
from lib.solver.run import find_run
from lib.solver.solver import Solver
from lib.utils.errors import UserError


@pytest.fixture
def run(tiny, monkeypatch, caplog):
    """Function (scores by epoch, overrides) -> (last epoch, the line about the end), in one EXP_DIR."""

    def run(scores, *overrides):
        cfg = tiny("TRAIN.MAX_EPOCHS=6", "TRAIN.TRACK_MAP_EVERY=1", "TRAIN.CHECKPOINTS_EPOCHS=6", *overrides)
        solver = Solver(cfg)
        monkeypatch.setattr(
            solver.scorer,
            "score",
            lambda model, phase, step, epoch, between: {"mAP": scores[step // 5 - 1]},  # 5 steps an epoch
        )
        caplog.clear()
        logging.getLogger("lib").propagate = True
        with caplog.at_level(logging.INFO, "lib"):
            solver.run()
        (end,) = [record.getMessage() for record in caplog.records if "training is complete" in record.getMessage()]
        return find_run(cfg)[1]["position"]["epoch"], end

    return run


SCORES = [0.1, 0.3, 0.2, 0.29, 0.4, 0.5]


def test_ends_when_the_best_is_too_old_and_goes_on_when_patience_grows(run):
    epoch, line = run(SCORES, "TRAIN.EARLY_STOP_EPOCHS=2")
    assert epoch == 4
    assert line.startswith("training is complete: 4 of 6 epochs are done, and no evaluation after epoch 2 was better")
    assert run(SCORES, "TRAIN.EARLY_STOP_EPOCHS=2") == (4, line)
    assert run(SCORES, "TRAIN.EARLY_STOP_EPOCHS=3") == (6, "training is complete: 6 of 6 epochs are done")


def test_is_off_by_default(run):
    assert run([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])[0] == 6


def test_judges_at_evaluations_only(run):
    """The best of epoch 2 is older than one epoch at epoch 3, but nobody has looked since."""
    epoch, _ = run([0, 0.1, 0, 0.2, 0, 0.1], "TRAIN.EARLY_STOP_EPOCHS=1", "TRAIN.TRACK_MAP_EVERY=2")
    assert epoch == 6


def test_needs_the_map():
    with pytest.raises(UserError, match=r"EARLY_STOP_EPOCHS: watches the mAP of TRAIN.TRACK_MAP, which is False"):
        load_config(None, ["TRAIN.EARLY_STOP_EPOCHS=2", "TRAIN.TRACK_MAP=False"])
