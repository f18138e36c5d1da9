"""Workers that are lost, or short of something, change nothing of what the loader gives; their errors are one line."""

import gc
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.dataset.dataset_factory import create_loader
from lib.dataset.detection import DetectionDataset
from lib.dataset.workers import reason_of_death
from lib.utils.errors import UserError
from tests.dataset.folders import write_voc

from .test_clips import LENGTHS, write_videos
from .test_clips import config as video_config
from .test_clips import digest as video_digest
from .test_dataset_factory import config, digest

ROOT = Path(__file__).parent.parent.parent
LOST = "a process that loads images is lost"


@pytest.fixture
def root(tmp_path):
    stems = [f"i{n}" for n in range(20)]
    return write_voc(tmp_path / "set", {"train": stems, "val": stems[:1], "test": stems[8:]})


class Fault:
    """What `happens` in the first processes that reach the image `index`, `times` in all."""

    def __init__(self, folder, index, happens, times=1):
        self.tokens = [folder / f"token{number}" for number in range(times)]
        for token in self.tokens:
            token.touch()
        self.index, self.happens = index, happens

    def __call__(self, index):
        if index != self.index:
            return
        for token in self.tokens:
            if token.exists():
                token.unlink()
                self.happens()
                return

    @property
    def left(self) -> int:
        return sum(token.exists() for token in self.tokens)


@pytest.fixture
def strike(monkeypatch, tmp_path):
    """Function (index, what happens, times) that lets a fault come while an image is loaded."""
    load = DetectionDataset._load

    def arm(index, happens, times=1):
        fault = Fault(tmp_path, index, happens, times)

        def loaded(self, number):
            fault(number)
            return load(self, number)

        monkeypatch.setattr(DetectionDataset, "_load", loaded)
        return fault

    return arm


def die(number):
    return lambda: os.kill(os.getpid(), number)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if LOST in record.getMessage()]


def assert_no_workers(before):
    gc.collect()
    deadline = time.monotonic() + 10
    while set(multiprocessing.active_children()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("number, name", [(signal.SIGKILL, "Killed"), (signal.SIGBUS, "Bus error")])
@pytest.mark.parametrize("phase, index", [("train", 7), ("test", 5)])
def test_a_worker_that_dies_is_replaced_and_nothing_changes(root, strike, caplog, capfd, number, name, phase, index):
    expected = digest(create_loader(config(root), phase))
    fault = strike(index, die(number))
    loader = create_loader(config(root, workers=2), phase)
    assert digest(loader) == expected and not fault.left
    (line,) = warnings_of(caplog)
    assert f"(killed by signal: {name})" in line
    assert digest(loader) == (
        digest(create_loader(config(root), phase)) if phase == "test" else digest(one_epoch_on(root))
    )
    loader.close()
    assert "Traceback" not in capfd.readouterr().err


def one_epoch_on(root):
    loader = create_loader(config(root), "train")
    loader.set_position(2)
    return loader


def test_a_death_while_the_main_process_computes_does_not_disturb_it(root, caplog):
    expected = digest(create_loader(config(root), "train"))
    before = set(multiprocessing.active_children())
    loader, found = create_loader(config(root, workers=2), "train"), []
    for clip in loader:
        found.append(clip)
        if len(found) in (1, 4):
            victim = (set(multiprocessing.active_children()) - before).pop()
            os.kill(victim.pid, signal.SIGKILL)
            for _ in range(30):
                time.sleep(0.01)  # an optimizer step, in which torch would raise
    assert digest(found) == expected and len(warnings_of(caplog)) == 2
    loader.close()


@pytest.mark.parametrize("phase", ["train", "test"])
def test_a_death_between_two_epochs_is_noticed_in_the_next(root, caplog, phase):
    before = set(multiprocessing.active_children())
    alone, helped = (create_loader(config(root, workers=count), phase) for count in (0, 2))
    other = create_loader(config(root, workers=1), "train")  # which hears of it first
    assert digest(helped) == digest(alone)
    os.kill((set(multiprocessing.active_children()) - before).pop().pid, signal.SIGKILL)
    time.sleep(0.3)
    assert len(list(other)) == 6
    assert digest(helped) == digest(alone)
    for loader in (helped, other):
        loader.close()


def test_clips_go_on_where_they_were(tmp_path, strike, caplog):
    records = write_videos(tmp_path / "videos", LENGTHS)
    expected = [video_digest(create_loader(video_config(), phase, records)) for phase in ("train", "eval")]
    fault = strike(12, die(signal.SIGKILL), times=2)
    for phase, whole in zip(("train", "eval"), expected, strict=True):
        loader = create_loader(video_config(workers=2), phase, records)
        assert video_digest(loader) == whole
        loader.close()
    assert not fault.left and len(warnings_of(caplog)) == 2


def test_workers_that_die_again_and_again_end_in_one_line(root, strike, caplog):
    before = set(multiprocessing.active_children())
    strike(1, die(signal.SIGKILL), times=99)
    loader = create_loader(config(root, workers=1), "test")
    with pytest.raises(UserError) as error:
        list(loader)
    line = str(error.value)
    assert line.startswith("DATASET.NUM_WORKERS: ") and "lost 3 times before batch 1 was there" in line
    assert "fewer than 1 (0 loads" in line and "--shm-size" in line and "\n" not in line
    assert len(warnings_of(caplog)) == 2
    del error
    assert_no_workers(before)


def unsendable():
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def test_a_batch_that_finds_no_shared_memory_is_loaded_again(root, tmp_path, monkeypatch, caplog, capfd):
    """Without care it is dropped where it is sent, and the training process waits for ever."""
    expected = digest(create_loader(config(root), "train"))
    fault = Fault(tmp_path, 0, unsendable, times=2)
    share = torch.UntypedStorage._share_fd_cpu_
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", lambda storage: fault(0) or share(storage))
    loader = create_loader(config(root, workers=1), "train")
    assert digest(loader) == expected and not fault.left
    assert "unable to allocate shared memory" in warnings_of(caplog)[0]
    loader.close()
    assert "Traceback" not in capfd.readouterr().err


def no_memory():
    raise MemoryError("Unable to allocate 3.2 GiB for an array")


def test_a_worker_without_memory_tries_again_and_the_main_process_does_not(root, strike, caplog):
    expected = digest(create_loader(config(root), "test"))
    strike(7, no_memory)
    loader = create_loader(config(root, workers=1), "test")
    assert digest(loader) == expected and "MemoryError: Unable to allocate 3.2 GiB" in warnings_of(caplog)[0]
    loader.close()
    strike(7, no_memory)
    with pytest.raises(MemoryError):
        list(create_loader(config(root), "test"))


def test_an_image_is_not_to_blame_for_a_lack_of_memory(root, monkeypatch):
    loader = create_loader(config(root), "train")

    def fail(*_):
        error = cv2.error("Insufficient memory (Failed to allocate 900000 bytes) in function 'OutOfMemoryError'")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MemoryError):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_program_names_the_image_and_keeps_its_traceback(root, strike, caplog, workers):
    def fail():
        raise ValueError("operands could not be broadcast\ntogether")

    before = set(multiprocessing.active_children())
    caplog.set_level(logging.DEBUG)
    strike(7, fail)
    loader = create_loader(config(root, workers=workers), "train")
    path = loader.records.image_path(7)
    with pytest.raises(UserError) as error:
        list(loader)
    reason = "(ValueError: operands could not be broadcast)"
    assert str(error.value) == f"{path}: cannot be made a part of a batch {reason}; log.txt has the traceback"
    del error
    assert_no_workers(before)
    if not workers:
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.levelno == logging.DEBUG and record.getMessage() == path


def test_only_what_is_about_workers_is_taken_for_a_death():
    assert reason_of_death(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == ""
    assert reason_of_death(RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")) == "exited unexpectedly"
    assert (
        reason_of_death(ConnectionResetError(104, "Connection reset by peer")) == "[Errno 104] Connection reset by peer"
    )
    assert reason_of_death(EOFError()) == "EOFError"


def test_training_stops_when_most_images_are_gone(root, caplog):
    loader = create_loader(config(root, "TRAIN.BATCH_SIZE=4"), "train")
    for number in range(0, 20, 2):
        (root / "JPEGImages" / f"i{number}.jpg").unlink()
    assert len(list(loader)) == 5 and caplog.text.count("stands in") == 10  # half of them may be gone
    (root / "JPEGImages" / "i1.jpg").unlink()
    with pytest.raises(
        UserError, match=r"11 of its 20 images cannot be read any more, one of them is .*jpg: cannot be"
    ):
        list(loader)


SMALL_SHARED_MEMORY = """
mount -t tmpfs -o size=600k tmpfs /dev/shm
exec {python} - {root} <<'END'
import sys
from lib.dataset.dataset_factory import create_loader
from lib.utils.errors import UserError
from tests.dataset.test_dataset_factory import config
root = sys.argv[1]
small = create_loader(config(root, workers=2), "train")
print("small", len(list(small)))
small.close()
try:
    list(create_loader(config(root, "MODEL.IMAGE_SIZE=600", workers=2), "train"))
except UserError as error:
    print("large", error)
END
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root")
def test_a_small_shared_memory_ends_in_one_line_and_not_in_a_hang(root):
    script = SMALL_SHARED_MEMORY.format(python=sys.executable, root=root)
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if "permission denied" in done.stderr.lower():
        pytest.skip("no mounts here")
    first, second = done.stdout.splitlines()
    assert first == "small 6"
    assert second.startswith("large DATASET.NUM_WORKERS: ") and "shared memory" in second
    assert "Traceback" not in done.stderr


def test_batches_of_images_of_different_sizes_are_one_line(root, monkeypatch):
    sample = DetectionDataset.sample

    def odd(self, epoch, index, *others):
        found = sample(self, epoch, index, *others)
        return found._replace(image=np.zeros((5, 5 + index, 3), np.uint8))

    monkeypatch.setattr(DetectionDataset, "sample", odd)
    with pytest.raises(UserError, match=r"\.jpg: cannot be made a part of a batch \(ValueError: all input arrays must"):
        list(create_loader(config(root), "train"))
