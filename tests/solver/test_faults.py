"""Trainings that lose their images, memory, workers or time: one line, and nothing of what was learnt is lost."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lib.commands import train
from lib.config import save_config
from lib.dataset.detection import DetectionDataset
from lib.modeling.inference import InferenceNetwork
from lib.solver import checkpoint as ckpt
from lib.solver import solver as solver_module
from lib.solver.solver import Solver
from lib.solver.task import DetectionTask
from lib.solver.writer import read_log
from lib.utils.errors import UserError

from .test_solver import equal

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def command(tmp_path, capfd):
    """Function (configuration) -> (exit status, lines on stderr) of train.py."""

    def run(cfg):
        save_config(cfg, tmp_path / "x.yml")
        capfd.readouterr()
        status = train(["--cfg", str(tmp_path / "x.yml")])
        return status, capfd.readouterr().err.splitlines()

    return run


@contextlib.contextmanager
def at_step(number, action):
    """Do something before the training step of that number."""
    take_step, taken = Solver._train_step, []

    def step(self, *arguments):
        taken.append(1)
        if len(taken) == number:
            action()
        return take_step(self, *arguments)

    Solver._train_step = step
    try:
        yield
    finally:
        Solver._train_step = take_step


def assert_same_weights(one: Path, two: Path):
    a, b = (ckpt.read_checkpoint(ckpt.last_checkpoint(run)) for run in (one, two))
    for part in a.keys() - {"config"}:
        assert equal(a[part], b[part]), part


@pytest.fixture
def own_data(shapes_dir, tmp_path):
    """A copy of the data set that a test may spoil."""
    return shutil.copytree(shapes_dir, tmp_path / "data")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_images_that_are_gone_stop_a_training_which_goes_on_when_they_are_back(
    tiny, tmp_path, own_data, command, workers
):
    common = ["TRAIN.TRACK_MAP=False", f"DATASET.DATASET_DIR={own_data}", "TRAIN.MAX_EPOCHS=2"]
    Solver(tiny(*common, f"EXP_DIR={tmp_path / 'whole'}")).run()
    cfg = tiny(*common, f"DATASET.NUM_WORKERS={workers}")
    images, away = own_data / "JPEGImages", own_data / "away"
    with at_step(3, lambda: images.rename(away)):
        status, lines = command(cfg)
    saved = ckpt.last_checkpoint(tmp_path / "run")
    assert status == 2 and f"; saved {saved}, the same command continues" in lines[-1]
    assert lines[-1].startswith("error: 20 images in a row cannot be read, the first is ")
    away.rename(images)
    assert command(cfg)[0] == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_evaluation_images_that_are_gone_lose_no_epoch(tiny, tmp_path, own_data, command):
    names = (own_data / "ImageSets" / "Main" / "val.txt").read_text().split()
    cfg = tiny(
        f"DATASET.DATASET_DIR={own_data}", "TRAIN.MAX_EPOCHS=1", "TRAIN.CHECKPOINTS_EPOCHS=9", "TEST.NUM_PICTURES=0"
    )

    def lose():
        for name in names:
            next((own_data / "JPEGImages").glob(f"{name}.*")).rename(tmp_path / name)

    with at_step(2, lose):
        status, lines = command(cfg)
    assert status == 2 and "none of its 6 images can be read; saved " in lines[-1]
    content = ckpt.read_checkpoint(ckpt.last_checkpoint(tmp_path / "run"))
    assert content["position"]["epoch"] == 1 and content["to_score"]


def test_a_mistake_before_the_first_step_saves_nothing(tiny, tmp_path, own_data, monkeypatch):
    def fail(*_):
        raise UserError("no image")

    monkeypatch.setattr(DetectionDataset, "sample", fail)
    with pytest.raises(UserError, match="^no image$"):
        Solver(tiny("TRAIN.TRACK_MAP=False")).run()
    assert not list((tmp_path / "run").glob("*.pth"))


def test_workers_that_are_killed_change_no_weight(tiny, tmp_path):
    common = ["TRAIN.TRACK_MAP=False", "TRAIN.MAX_EPOCHS=2"]
    Solver(tiny(*common, f"EXP_DIR={tmp_path / 'whole'}")).run()
    before = set(multiprocessing.active_children())

    def kill_one():
        os.kill((set(multiprocessing.active_children()) - before).pop().pid, signal.SIGKILL)

    with at_step(2, kill_one), at_step(7, kill_one):
        Solver(tiny(*common, "DATASET.NUM_WORKERS=2")).run()
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    assert (tmp_path / "run" / "log.txt").read_text().count("a process that loads images is lost") >= 2


def test_too_little_memory_in_a_step_is_one_line_that_says_what_to_lower(tiny, tmp_path, command):
    def fail():
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB"
        )

    with at_step(3, fail):
        status, lines = command(tiny("TRAIN.TRACK_MAP=False", "TRAIN.CHECKPOINTS_ITERATIONS=1"))
    what = "halve TRAIN.BATCH_SIZE and double TRAIN.ACCUMULATE, or lower TEST.BATCH_SIZE or MODEL.IMAGE_SIZE"
    assert status == 1 and lines == [f"error: out of memory (tried to allocate 2.50 GiB); {what}"]
    assert ckpt.read_checkpoint(ckpt.last_checkpoint(tmp_path / "run"))["position"]["step"] == 2


def test_a_real_lack_of_memory_is_told_the_same_way(tiny, monkeypatch, command):
    run = DetectionTask.forward

    def greedy(self, *arguments):
        torch.empty(1 << 55)
        return run(self, *arguments)

    monkeypatch.setattr(DetectionTask, "forward", greedy)
    status, (line,) = command(tiny("TRAIN.TRACK_MAP=False"))
    assert status == 1 and line.startswith("error: out of memory (tried to allocate ")


def terminate(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "owner, name", [(solver_module, "create_records"), (Solver, "_resume"), (solver_module, "find_first")]
)
def test_sigterm_before_the_first_step_ends_in_one_line(tiny, tmp_path, monkeypatch, command, owner, name):
    function = getattr(owner, name)

    def interrupted(*arguments, **options):
        terminate()
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)
    assert command(tiny()) == (143, ["stopped by SIGTERM"])
    assert not list((tmp_path / "run").glob("*.pth*")) and not list((tmp_path / "run").glob("*.lock"))


def test_sigterm_while_a_network_is_compiled_for_a_test_ends_in_one_line(tiny, tmp_path, monkeypatch, command):
    assert command(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False"))[0] == 0
    monkeypatch.setattr(InferenceNetwork, "warm_up", terminate)
    status, lines = command(tiny("PHASE=test"))
    assert (status, lines[-1]) == (143, "stopped by SIGTERM") and "Traceback" not in "".join(lines)
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_the_checkpoint_is_written_does_not_break_it(
    tiny, tmp_path, monkeypatch, command, second
):
    save = torch.save

    class Impatient:
        """A file whose first bytes make somebody send another signal."""

        def __init__(self, file):
            self.file, self.written = file, 0

        def write(self, data):
            self.written += 1
            if self.written == 3:
                os.kill(os.getpid(), second)
            return self.file.write(data)

        def flush(self):
            self.file.flush()

    monkeypatch.setattr(torch, "save", lambda content, file: save(content, Impatient(file)))
    with at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT)):
        status, (line,) = command(tiny("TRAIN.TRACK_MAP=False"))
    saved = ckpt.last_checkpoint(tmp_path / "run")
    assert ckpt.read_checkpoint(saved)["position"]["step"] == 2 and not list((tmp_path / "run").glob("*.partial"))
    told = f"stopped by SIGINT; saved {saved}, the same command continues"
    assert (status, line) == (130, told if second == signal.SIGTERM else "interrupted")


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["Train/loss", "Eval/mAP"])
def test_a_job_manager_that_gives_30_seconds_finds_the_run_saved(tiny, tmp_path, wanted):
    """The signal goes to all processes of the job at once, as job managers send it."""
    cfg = tiny(
        "DATASET.NUM_WORKERS=2", "TRAIN.MAX_EPOCHS=500", "TRAIN.TRACK_MAP_EVERY=1", "TRAIN.CHECKPOINTS_EPOCHS=500"
    )
    save_config(cfg, tmp_path / "x.yml")
    process = subprocess.Popen(
        [sys.executable, "train.py", "--cfg", str(tmp_path / "x.yml")], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    log, deadline = tmp_path / "run" / "log.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and wanted in log.read_text()):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and err.splitlines()[-1].startswith("stopped by SIGTERM; saved ")
    assert "Traceback" not in err
    content = ckpt.read_checkpoint(ckpt.last_checkpoint(tmp_path / "run"))
    steps = [entry["step"] for entry in read_log(log) if "Train/loss" in entry]
    assert content["position"]["step"] >= max(steps)
