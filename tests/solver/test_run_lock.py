"""Two trainings in one folder: the second is refused, whatever became of earlier ones."""

import errno
import fcntl
import logging
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib.solver.run_lock import LOCK_FILE, locked_run
from lib.solver.solver import Solver
from lib.utils.errors import UserError

ROOT = Path(__file__).parent.parent.parent

HOLDER = """
import sys, time
from lib.solver.run_lock import locked_run
with locked_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path/run."""
    (tmp_path / "run").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_told_who_is_at_work_and_a_killed_one_leaves_nothing(tmp_path, holder):
    with pytest.raises(UserError) as error, locked_run(tmp_path / "run"):
        pass
    who = f"process {holder.pid} on {re.escape(platform.node())}, since \\d{{4}}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d"
    what = f"EXP_DIR: another training writes to {tmp_path}/run: {who}; stop it, or give EXP_DIR another folder"
    assert re.fullmatch(what, str(error.value))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with locked_run(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_a_run_holds_it_while_it_trains_and_a_second_one_changes_nothing(tiny, tmp_path, holder):
    cfg = tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False")
    with pytest.raises(UserError, match="another training writes to"):
        Solver(cfg).run()
    assert not list((tmp_path / "run").glob("*.pth")) and not (tmp_path / "run" / "config.yml").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    Solver(cfg).run()
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_what_does_not_train_works_beside_it(tiny, tmp_path):
    Solver(tiny("TRAIN.MAX_EPOCHS=1", "TRAIN.TRACK_MAP=False")).run()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        Solver(tiny("PHASE=eval")).run()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_workers_do_not_inherit_it(tmp_path):
    """A worker that outlives its killed parent must not keep the folder."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def die_leaving_a_child():
        with locked_run(tmp_path):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            writer.send(child)
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=die_leaving_a_child)
    process.start()
    child = reader.recv()
    process.join()
    try:
        with locked_run(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_warned_about(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with caplog.at_level(logging.WARNING), locked_run(tmp_path):
        (record,) = caplog.records
    assert "cannot be locked (No locks available)" in record.getMessage()


def test_a_system_without_them_too(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with caplog.at_level(logging.WARNING), locked_run(tmp_path):
        assert "no file locks" in caplog.text


def test_a_lock_file_that_its_holder_removes_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """Between opening and locking the former holder ends: the file that was opened is no longer there."""
    lockf, calls = fcntl.lockf, []

    def lock_late(file, flags):
        calls.append(1)
        if len(calls) == 1:
            (tmp_path / LOCK_FILE).unlink()
        return lockf(file, flags)

    monkeypatch.setattr(fcntl, "lockf", lock_late)
    with locked_run(tmp_path):
        assert len(calls) == 2 and (tmp_path / LOCK_FILE).read_text().startswith('{"host"')
