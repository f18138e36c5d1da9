"""One training at a time in a folder: a lock that ends with its process, however that ends."""

import errno
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..utils.errors import UserError

logger = logging.getLogger(__name__)

LOCK_FILE = "train.lock"


@contextmanager
def locked_run(exp_dir) -> Iterator[None]:
    """Hold the lock of a run's folder inside; UserError, naming the holder, while another process has it.

    A POSIX record lock: forked workers do not inherit it, it holds between hosts that share the folder by NFS, and none
    is left of a process that was killed.  Where the system has no such locks, a warning, and the run goes on without.
    """
    try:
        import fcntl
    except ImportError:
        logger.warning("this system has no file locks: do not start two trainings in one EXP_DIR (%s)", exp_dir)
        yield
        return
    path = Path(exp_dir) / LOCK_FILE
    try:
        file = _open_locked(path, fcntl)
    except OSError as error:
        logger.warning(
            "%s: cannot be locked (%s): do not start two trainings in one EXP_DIR", path, error.strerror or error
        )
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before the lock ends, so that it is no other's
        file.close()


def _open_locked(path: Path, fcntl):
    """The lock file, locked, with a line about this process in it."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  as long as the lock
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                file.truncate(0)
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                file.write(json.dumps({"host": platform.node(), "process": os.getpid(), "since": now}) + "\n")
                file.flush()
                return file
        except OSError as error:
            holder = _holder(file)
            with suppress(OSError):
                file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise UserError(
                f"EXP_DIR: another training writes to {path.parent}: {holder}; stop it, or give EXP_DIR another folder"
            ) from None
        file.close()  # its last holder has removed it since it was opened


def _is_at(path: Path, file) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _holder(file) -> str:
    """Who wrote the lock file."""
    try:
        file.seek(0)
        found = json.loads(file.read())
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has only begun"
