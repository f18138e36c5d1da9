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
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                self.workers |= set(map(int, children.split()))
            process.send_signal(signal.SIGKILL)
        status = process.wait()
        assert status in (0, -signal.SIGKILL)
        return alive

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


DIES_WHILE_SAVING = """
import io, os, signal, sys
import torch

save, calls = torch.save, []

def half(content, file):
    calls.append(file.name)
    if len(calls) == int(sys.argv[1]):
        whole = io.BytesIO()
        save(content, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, file)

torch.save = half
from lib.commands import train
train(["--cfg", sys.argv[2]])
"""


@pytest.mark.parametrize("call, unfinished", [(4, "best.pth"), (8, "_epoch_2.pth")])
def test_killed_while_saving_ends_bit_equal(tiny, tmp_path, undisturbed, call, unfinished):
    """Saves of an epoch: after steps 2 and 4, before the evaluation, the best, and after it."""
    whole = undisturbed(tiny, 3)
    cfg = tiny(*SETTINGS)
    save_config(cfg, tmp_path / "x.yml")
    command = [sys.executable, "-c", DIES_WHILE_SAVING, str(call), str(tmp_path / "x.yml")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    (partial,) = (tmp_path / "run").glob("*.partial")
    assert partial.name.endswith(f"{unfinished}.partial")
    Solver(cfg).run()
    assert_same_end(whole, tmp_path / "run")
    assert_tidy(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("workers, kills", [(0, 10), (2, 10)])
def test_killed_many_times_ends_bit_equal(tiny, tmp_path, undisturbed, workers, kills):
    """Kills fall into starting, loading, steps, evaluations and saves, as the seed draws them."""
    whole = undisturbed(tiny, 12)
    cfg = tiny(*SETTINGS, "TRAIN.MAX_EPOCHS=12", f"DATASET.NUM_WORKERS={workers}")
    killer = Killer(cfg, tmp_path, seed=workers)
    done = 0
    while done < kills:
        lines = int(killer.rng.integers(0, 7))
        assert killer.kill_after(lines, 0.2 if lines else 4.0), "the run ended before all kills were done"
        done += 1
    killer.finish()
    assert_same_end(whole, tmp_path / "run")
    assert_tidy(tmp_path / "run")
    assert_workers_end(killer.workers)
