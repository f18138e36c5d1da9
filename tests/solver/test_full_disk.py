"""Disks that are full or read-only: one line, nothing is lost, and with room again the run goes on."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys

import pytest

from lib.commands import train
from lib.config import save_config
from lib.solver import checkpoint as ckpt
from lib.solver.scoring import Scorer
from lib.solver.solver import Solver
from lib.solver.writer import read_log
from lib.utils.log import setup_logging

MB = 1 << 20


class SmallDisk:
    """A file system of its own, which can be filled and emptied."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
        if made.returncode:
            pytest.skip("nothing can be mounted here")

    def set_options(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes free."""
        with open(self.folder / "filling", "wb") as file, contextlib.suppress(OSError):
            free = shutil.disk_usage(self.folder).free - left
            while free > 0:
                free -= file.write(bytes(min(free, MB)))
                file.flush()

    def empty(self) -> None:
        (self.folder / "filling").unlink()


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", "-l", disk.folder])


@pytest.fixture
def run_on(disk, tiny, tmp_path, capfd):
    """Function (overrides) -> (exit status, lines on stderr, stdout) of train.py in a folder of the small disk."""

    def run(*overrides):
        cfg = tiny("TRAIN.TRACK_MAP=False", f"EXP_DIR={disk.folder / 'run'}", *overrides)
        save_config(cfg, tmp_path / "x.yml")
        capfd.readouterr()
        status = train(["--cfg", str(tmp_path / "x.yml")])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return status, err.splitlines(), out

    return run


def when(monkeypatch, owner, name, calls):
    """Do `calls[n]` at the n-th call of a method, before it and with its object."""
    method, made = getattr(owner, name), []

    def wrapped(self, *arguments, **options):
        made.append(1)
        calls.get(len(made), lambda _: None)(self)
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, wrapped)


def test_a_checkpoint_that_does_not_fit_ends_the_run_which_goes_on_when_there_is_room(disk, run_on, monkeypatch):
    run = disk.folder / "run"
    with monkeypatch.context() as patch:
        when(patch, Solver, "_save", {2: lambda _: disk.fill(200_000)})
        status, lines, _ = run_on()
    (line,) = lines
    assert (
        status == 1
        and line.startswith(f"error: {run}/")
        and "_epoch_2.pth: No space left on device (0.2 MB free)" in line
    )
    first = ckpt.last_checkpoint(run)
    assert first.name.endswith("_epoch_1.pth") and ckpt.read_checkpoint(first)["position"]["epoch"] == 1
    assert not list(run.glob("*.partial")) and not list(run.glob("*.lock"))
    disk.empty()
    assert run_on()[:2] == (0, [])
    assert ckpt.last_checkpoint(run).name.endswith("_epoch_3.pth")


def test_logs_that_do_not_fit_stop_nothing(disk, run_on, monkeypatch):
    """Full from the second step to the end of the epoch: what is written in between is told once for each log."""

    def fill(solver):
        disk.fill()
        for _ in range(2):  # more than the rest of a block
            logging.getLogger("lib").info("x" * 5000)
            solver.writer.scalars({"x" * 5000: 1.0}, 1)

    run = disk.folder / "run"
    with monkeypatch.context() as patch:
        when(patch, Solver, "_train_step", {2: fill})
        when(patch, Solver, "_save", {1: lambda _: disk.empty()})
        status, lines, _ = run_on("TRAIN.LOG_EVERY=1")
    assert status == 0 and len(lines) == 2 and all(line.startswith("warning: ") for line in lines)
    assert "log.txt cannot be written (No space left on device (0.0 MB free)); the run goes on without" in "".join(
        lines
    )
    assert "the log cannot be written" in "".join(lines)
    assert ckpt.read_checkpoint(ckpt.last_checkpoint(run))["position"]["epoch"] == 3
    steps = {entry["step"] for entry in read_log(run / "log.jsonl") if "Train/loss" in entry}
    assert steps >= {1, *range(7, 16)}


@pytest.mark.parametrize(
    "moment, name",
    [("_run", "detections.json"), pytest.param("_write_plots", "precision_recall.png", marks=pytest.mark.slow)],
)
def test_the_files_of_a_test_that_do_not_fit_are_one_line(disk, run_on, monkeypatch, moment, name):
    assert run_on("TRAIN.MAX_EPOCHS=1")[0] == 0
    with monkeypatch.context() as patch:
        when(patch, Scorer, moment, {1: lambda _: disk.fill()})
        status, lines, out = run_on("PHASE=test")
    assert status == 1 and f"error: {disk.folder}/run/{name}: No space left on device (0.0 MB free)" in lines
    assert all(line.startswith(("warning: ", "error: ")) for line in lines)
    assert ("mAP" in out) == (moment == "_write_plots")  # what was computed is shown all the same
    assert not (disk.folder / "run" / name).exists() and not list((disk.folder / "run").glob(".*"))
    disk.empty()
    assert run_on("PHASE=test")[:2] == (0, []) and (disk.folder / "run" / name).exists()


def test_a_read_only_folder_is_told_before_anything_begins(disk, run_on):
    disk.set_options("ro")
    status, lines, out = run_on()
    assert (status, out) == (2, "")
    assert lines == [f"error: EXP_DIR: {disk.folder}/run: cannot be made or written to (Read-only file system)"]


def test_an_old_log_that_can_be_written_does_not_hide_that_nothing_new_can(tiny, tmp_path, capfd):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.txt").write_text("")
    if os.geteuid() == 0:
        if subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
            pytest.skip("no folder can be locked for root here")
    else:
        folder.chmod(0o555)
    try:
        save_config(tiny(), tmp_path / "x.yml")
        assert train(["--cfg", str(tmp_path / "x.yml")]) == 2
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", folder])
        folder.chmod(0o755)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: EXP_DIR: {folder}: cannot be made or written to (")


def test_a_screen_that_goes_to_a_full_disk_stops_nothing(monkeypatch, tmp_path):
    full = open("/dev/full", "w")  # noqa: SIM115  closing it fails, too
    monkeypatch.setattr(sys, "stdout", full)
    setup_logging(tmp_path)
    logging.getLogger("lib").info("a line")
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()
    setup_logging()
    assert "a line" in (tmp_path / "log.txt").read_text()
