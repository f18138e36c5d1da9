"""Notices that a run has stopped getting on, and keeps what each process was doing then."""

import faulthandler
import logging
import os
import platform
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from ..utils.distributed import is_together, rank

logger = logging.getLogger(__name__)

FOLDER = "stacks"
EXIT_STATUS = 1


class HangWatch:
    """Inside `watching()`, the calls of all threads go to EXP_DIR/stacks/process_N.txt when no `beat()` has come for
    `seconds`.

    A process that works with others then ends, since those wait for it, so that torchrun can start all anew; one alone
    goes on, and is told of again only after it has got on.  seconds 0: nothing is watched.
    """

    def __init__(self, seconds: float, exp_dir):
        self.seconds, self.folder = seconds, Path(exp_dir) / FOLDER
        self._latest = 0.0
        self._over: threading.Event | None = None

    def beat(self) -> None:
        """The run has got on."""
        self._latest = time.monotonic()

    @contextmanager
    def watching(self):
        """A stretch in which a beat is due every so often."""
        if not self.seconds or self._over is not None:
            yield
            return
        self.beat()
        self._over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(self._over,), name="hang watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._over = None

    def _watch(self, over: threading.Event) -> None:
        told = None
        while not over.wait(min(1.0, self.seconds / 4)):
            latest = self._latest
            if told != latest and time.monotonic() - latest > self.seconds:
                told = latest
                self._tell()

    def _tell(self) -> None:
        path = self.folder / f"process_{rank()}.txt"
        try:
            self.folder.mkdir(exist_ok=True)
            with path.open("a") as file:
                about = f"process {rank()}, id {os.getpid()}, on {platform.node()}"
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}, {about}: no step for {self.seconds:g} s\n")
                file.flush()
                faulthandler.dump_traceback(file)
            where = f"what it is doing is in {path}"
        except OSError as error:
            where = f"{path} cannot be written ({error.strerror or error})"
        logger.error(
            "process %d on %s has not finished a step for %g s (TRAIN.HANG_SECONDS); %s%s", rank(), platform.node(),
            self.seconds, where, "; it ends, since the others wait" if is_together() else "",
        )  # fmt: skip
        if is_together():
            logging.shutdown()
            os._exit(EXIT_STATUS)
