"""A run that goes on and on takes no more memory, files, processes or time in late epochs than in early ones."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lib.config import save_config

ROOT = Path(__file__).parent.parent.parent
EARLY, LATE = slice(8, 13), slice(47, 52)
"""Around epoch 10, when everything has been in use, and epoch 50."""

WATCHED = """
import json, os, sys, time
from pathlib import Path
from lib.commands import train
from lib.solver.solver import Solver

train_epoch, exp_dir, pages = Solver._train_epoch, Path(sys.argv[2]), os.sysconf("SC_PAGE_SIZE")

def size_of(*patterns):
    return sum(path.stat().st_size for pattern in patterns for path in exp_dir.glob(pattern))

def watched(self, *arguments):
    before = time.process_time()
    train_epoch(self, *arguments)
    row = {
        "seconds": time.process_time() - before,
        "memory": int(Path("/proc/self/statm").read_text().split()[1]) * pages,
        "files": len(os.listdir("/proc/self/fd")),
        "children": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
        "logs": size_of("log.jsonl", "log.txt"),
        "tensorboard": size_of("events*", "*/events*"),
        "film strip": size_of("film_strip/*", "film_strip.jpg"),
        "checkpoints": size_of("*.pth"),
    }
    with open(sys.argv[3], "a") as file:
        file.write(json.dumps(row) + "\\n")

Solver._train_epoch = watched
sys.exit(train(["--cfg", sys.argv[1]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_late_epochs_take_no_more_than_early_ones(tiny, tmp_path):
    cfg = tiny(
        "DATASET.NUM_WORKERS=2", "TRAIN.MAX_EPOCHS=52", "TRAIN.TRACK_MAP_EVERY=1", "TRAIN.CHECKPOINTS_KEPT=2",
        "TRAIN.LOG_EVERY=1",
    )  # fmt: skip
    save_config(cfg, tmp_path / "x.yml")
    command = [sys.executable, "-c", WATCHED, tmp_path / "x.yml", tmp_path / "run", tmp_path / "rows"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert len(rows) == 52

    def typical(name: str) -> list[float]:
        return [statistics.median(row[name] for row in rows[span]) for span in (EARLY, LATE)]

    for name in ("files", "children"):
        early, late = typical(name)
        assert late <= early, (name, early, late)
    early, late = typical("memory")
    assert late - early < 8e6, (early, late)
    early, late = typical("seconds")
    assert late < 1.3 * early, (early, late)
    early, late = typical("checkpoints")
    assert late < 1.01 * early
    strip = [row["film strip"] for row in rows]
    assert strip[-1] < 1.05 * strip[-10]  # full from 40 columns on
    for name, bytes_per_epoch in {"logs": 3e3, "tensorboard": 6e4}.items():
        early, late = typical(name)
        assert (late - early) / 39 < bytes_per_epoch, (name, early, late)
