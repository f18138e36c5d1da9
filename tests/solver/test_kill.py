"""Runs that are killed at any moment and started again end as if nothing had happened."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib.config import load_config, save_config
from lib.solver import checkpoint as ckpt
from lib.solver.solver import Solver
from lib.solver.writer import read_log

from .test_solver import equal

ROOT = Path(__file__).parent.parent.parent
CHILDREN = Path("/proc/self/task") / str(os.getpid()) / "children"

SETTINGS = [
    "TRAIN.OPTIMIZER.OPTIMIZER=adam", "TRAIN.OPTIMIZER.LEARNING_RATE=0.003", "TRAIN.EMA_DECAY=0.5", "TRAIN.LOG_EVERY=1",
    "TRAIN.CHECKPOINTS_ITERATIONS=2", "TRAIN.TRACK_MAP_EVERY=1", "DATASET.EVAL_SETS=train", "TEST.NUM_PICTURES=0",
]  # fmt: skip
"""Under which the best epoch changes now and then."""


def environment() -> dict:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


class Killer:
    """Starts train.py on a configuration and kills it at moments drawn from a seed."""

    def __init__(self, cfg, folder: Path, seed: int):
        self.run, self.file = Path(cfg.EXP_DIR), folder / f"killed_{seed}.yml"
        save_config(cfg, self.file)
        self.rng = np.random.default_rng(seed)
        self.workers: set[int] = set()

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "train.py", "--cfg", str(self.file)]
        return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)

    def kill_after(self, lines: int, longest_delay: float) -> bool:
        """Kill the process some time after it has logged so many lines; returns whether it was still alive."""
        log = self.run / "log.jsonl"

        def logged() -> int:
            return log.read_bytes().count(b"\n") if log.exists() else 0

        wanted = logged() + lines
        process = self.start()
        deadline = time.monotonic() + 120
        while logged() < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(self.rng.uniform(0, longest_delay))
        alive = process.poll() is None
        if alive:
            self.note_workers(process)
            process.send_signal(signal.SIGKILL)
        status = process.wait()
        assert status in (0, -signal.SIGKILL)
        return alive

    def note_workers(self, process: subprocess.Popen) -> None:
        """Remember its child processes, to see later that none is left."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            self.workers |= set(map(int, children.split()))

    def finish(self) -> None:
        """Start the run until its end."""
        assert self.start().wait(timeout=300) == 0


def is_running(pid: int) -> bool:
    """Whether a process still works; one that has ended but that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_same_end(one: Path, two: Path) -> None:
    """The last checkpoints, the best ones and the logged losses of two runs are the same."""
    for first, second in ((ckpt.last_checkpoint(one), ckpt.last_checkpoint(two)), (one / "best.pth", two / "best.pth")):
        assert first.name == second.name
        a, b = ckpt.read_checkpoint(first), ckpt.read_checkpoint(second)
        assert a.keys() == b.keys()
        for part in a.keys() - {"config"}:
            assert equal(a[part], b[part]), (first.name, part)
    losses = [
        [(line["step"], line["Train/loss"]) for line in read_log(run / "log.jsonl") if "Train/loss" in line]
        for run in (one, two)
    ]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == list(range(1, len(losses[0]) + 1))


def assert_tidy(run: Path) -> None:
    """Nothing is left of what was not finished, nor of positions within an epoch that is over."""
    assert not list(run.rglob("*.partial")) and not list(run.rglob("*_iter_*"))
    assert not (run / "set_aside").exists()


def assert_workers_end(workers: set[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if is_running(pid)]


@pytest.fixture(scope="module")
def undisturbed(shapes_dir, tmp_path_factory):
    """Function (build, number of epochs) -> folder of a run that nobody killed."""
    runs = {}

    def run(build, epochs: int) -> Path:
        if epochs not in runs:
            runs[epochs] = tmp_path_factory.mktemp("undisturbed")
            Solver(build(*SETTINGS, f"TRAIN.MAX_EPOCHS={epochs}", f"EXP_DIR={runs[epochs]}")).run()
        return runs[epochs]

    return run


def test_killed_and_started_again_ends_bit_equal(tiny, tmp_path, undisturbed):
    whole = undisturbed(tiny, 3)
    cfg = tiny(*SETTINGS, "DATASET.NUM_WORKERS=2")
    killer = Killer(cfg, tmp_path, seed=1)
    for lines in (4, 7):  # in the first epoch, and around an evaluation
        assert killer.kill_after(lines, 0.1)
    Solver(load_config(killer.file)).run()
    assert_same_end(whole, tmp_path / "run")
    assert_tidy(tmp_path / "run")
    if CHILDREN.exists():
        assert len(killer.workers) >= 4
        assert_workers_end(killer.workers)


DIES = """
import io, os, signal, sys
import torch
from torch.utils.data import get_worker_info
from lib.commands import train
from lib.dataset.detection import DetectionDataset
from lib.evaluation import Protocols
from lib.solver import checkpoint, evaluate, solver, writer
from lib.utils import files

moment, wanted, config = sys.argv[1], int(sys.argv[2]), sys.argv[3]
calls = []

def die():
    if get_worker_info() is not None:
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)

def is_due(*_):
    calls.append(1)
    return len(calls) == wanted

def before(owner, name, counts=lambda *arguments: True):
    function = getattr(owner, name)
    def deadly(*arguments, **options):
        if counts(*arguments) and is_due():
            die()
        return function(*arguments, **options)
    setattr(owner, name, deadly)

def after(owner, name):
    function = getattr(owner, name)
    def deadly(*arguments, **options):
        result = function(*arguments, **options)
        if is_due():
            die()
        return result
    setattr(owner, name, deadly)

def while_saving(name):
    save = torch.save
    def half(content, file):
        if name in file.name and is_due():
            whole = io.BytesIO()
            save(content, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            die()
        save(content, file)
    torch.save = half

def half_a_line(log, record):
    if is_due():
        log._json.write('{"time": 1, "st')
        log._json.flush()
        die()
    add_line(log, record)

add_line = writer.RunWriter._add_line
if moment == "log":
    writer.RunWriter._add_line = half_a_line
{
    "opening": lambda: before(solver, "create_records"),
    "loading": lambda: before(DetectionDataset, "_load"),
    "step": lambda: after(torch.optim.Optimizer, "zero_grad"),
    "saving": lambda: while_saving(".pth"),
    "best": lambda: while_saving("best.pth"),
    "saved": lambda: before(files.os, "replace", lambda source, target: str(target).endswith(".pth")),
    "tidying": lambda: before(checkpoint, "delete_old_checkpoints"),
    "evaluation": lambda: before(evaluate, "_to_cpu"),
    "figures": lambda: before(Protocols, "compute"),
    "log": lambda: None,
}[moment]()
sys.exit(train(["--cfg", config]))
"""
"""A training that is killed at the n-th time that it comes to a moment."""

MOMENTS = {
    "start": 0, "opening": 2, "loading": 30, "step": 6, "saving": 6, "best": 1, "saved": 6, "tidying": 4,
    "evaluation": 30, "figures": 2, "log": 8, "anywhere": 0,
}  # fmt: skip
"""The moments, and the largest n of each; "start" and "anywhere" are killed from outside."""


def dying(moment: str, number: int, file: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", DIES, moment, str(number), str(file)]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("call, unfinished", [(4, "best.pth"), (8, "_epoch_2.pth")])
def test_killed_while_saving_ends_bit_equal(tiny, tmp_path, undisturbed, call, unfinished):
    """Saves of an epoch: after steps 2 and 4, before the evaluation, the best, and after it."""
    whole = undisturbed(tiny, 3)
    cfg = tiny(*SETTINGS)
    save_config(cfg, tmp_path / "x.yml")
    assert dying("saving", call, tmp_path / "x.yml").wait() == -signal.SIGKILL
    (partial,) = (tmp_path / "run").glob("*.partial")
    assert partial.name.endswith(f"{unfinished}.partial")
    Solver(cfg).run()
    assert_same_end(whole, tmp_path / "run")
    assert_tidy(tmp_path / "run")


KILLS = int(os.environ.get("SSDS_TEST_KILLS", "24"))
"""Kills of the test below, with and without workers together."""
STEPS_AT_RISK = 2
"""Optimizer steps between two checkpoints of SETTINGS."""


class Survivor(Killer):
    """Kills at moments of every kind in turn, and looks after each what is left."""

    def __init__(self, cfg, folder: Path, seed: int):
        super().__init__(cfg, folder, seed)
        self.reached = 0

    def kill_at(self, moment: str) -> None:
        """Start the run and see it killed; a moment that does not come before the end is an error."""
        if moment == "anywhere":
            assert self.kill_after(int(self.rng.integers(1, 7)), 0.2), "the run ended before all kills were done"
        elif moment == "start":
            assert self.kill_after(0, 4.0), "the run ended before all kills were done"
        else:
            process = dying(moment, int(self.rng.integers(1, MOMENTS[moment] + 1)), self.file)
            while process.poll() is None:
                self.note_workers(process)
                time.sleep(0.05)
            assert process.returncode == -signal.SIGKILL, (moment, "the run ended before all kills were done")

    def look(self) -> None:
        """Every checkpoint can be read, and no more is lost than the steps since the last one."""
        positions = [ckpt.read_checkpoint(path)["position"] for _, path in ckpt.epoch_checkpoints(self.run)]
        if (self.run / "best.pth").exists():
            ckpt.read_checkpoint(self.run / "best.pth")
        saved = max((position["step"] for position in positions), default=0)
        log = read_log(self.run / "log.jsonl") if (self.run / "log.jsonl").exists() else []
        trained = max((line["step"] for line in log if "Train/loss" in line), default=0)
        assert trained - saved <= STEPS_AT_RISK and saved >= self.reached
        self.reached = saved


@pytest.mark.slow
@pytest.mark.parametrize("workers, kills", [(0, KILLS - KILLS // 2), (2, KILLS // 2)])
def test_killed_many_times_ends_bit_equal(tiny, tmp_path, undisturbed, workers, kills):
    """Kills fall into starting, opening and loading data, steps, saves, evaluations and logging in turn, at times that
    the seed draws."""
    epochs = max(12, 2 * kills)
    whole = undisturbed(tiny, epochs)
    cfg = tiny(*SETTINGS, f"TRAIN.MAX_EPOCHS={epochs}", f"DATASET.NUM_WORKERS={workers}")
    survivor = Survivor(cfg, tmp_path, seed=workers)
    for number in range(kills):
        survivor.kill_at(list(MOMENTS)[number % len(MOMENTS)])
        survivor.look()
    survivor.finish()
    assert_same_end(whole, tmp_path / "run")
    assert_tidy(tmp_path / "run")
    assert_workers_end(survivor.workers)
