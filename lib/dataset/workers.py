"""The processes that read images: which signals they heed, and how the training process hears that one has died."""

import logging
import multiprocessing.queues
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2

logger = logging.getLogger(__name__)


class Shortage(NamedTuple):
    """Travels in place of a batch for which a worker lacked memory, shared memory or files."""

    reason: str


def start_worker(worker: int) -> None:
    """Signals that a terminal or job manager sends to all processes are left to the training process, which ends its
    workers itself; every worker computes on one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere a worker dies of any SIGTERM
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    cv2.setNumThreads(0)
    # What cannot be sent is dropped otherwise, and the training process waits for it for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_shortage
    # Of those who pass batches on: what happens where one is loaded is sent.
    sys.excepthook = lambda *error: logger.debug("a process that loads images", exc_info=error)


def _obey_parent(parent: int) -> None:
    """End this process when its parent sends SIGTERM; the same signal from anybody else goes by."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _send_shortage(queue, error: Exception, sent: tuple) -> None:
    """Send the reason in place of a batch, which is (number, batch) on its way."""
    queue.put((sent[0], Shortage(str(error).partition("\n")[0])))


class _Deaths:
    """Holds back what torch raises when a worker dies, which it does wherever the main thread stands: in the middle of
    an optimizer step."""

    def __init__(self):
        self._raise = None
        self._waiting = self._came = False

    def hold_back(self) -> None:
        """To be called after torch has started workers."""
        if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and handler != self._handle:
            self._raise = handler
            signal.signal(signal.SIGCHLD, self._handle)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Inside, where a batch is waited for, the error comes at once."""
        self._waiting = True
        try:
            if self._came:
                self._came = False
                self._raise(signal.SIGCHLD, None)
            yield
        finally:
            self._waiting = False

    def _handle(self, number, frame) -> None:
        if self._waiting:
            self._raise(number, frame)
        else:
            self._came = True


DEATHS = _Deaths()


def reason_of_death(error: Exception) -> str:
    """What an error of waiting for a batch says of dead workers, in one line; '' where it is about something else."""
    text = str(error).partition("\n")[0].strip()
    if isinstance(error, (OSError, EOFError)):  # the worker has gone while its batch was being fetched
        return text or type(error).__name__
    found = re.match(
        r"DataLoader worker \(pid\S* [\d, ]+\) (?:is )?([^.]*)|((?:Pin memory|Too many open files)[^.]*)", text
    )
    if found is None:
        return ""
    return (isinstance(error.__cause__, RuntimeError) and reason_of_death(error.__cause__)) or found[1] or found[2]
