"""Logging of the scripts: plain lines on the screen, the same with time and source in a file of the run."""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from tqdm import tqdm

from .distributed import launched_rank
from .errors import UserError, one_line
from .files import about_file

ROOT = __name__.split(".")[0]
"""Name of the package's root logger: lib in a checkout, ssds where installed."""


class PlainFormatter(logging.Formatter):
    """Formats records so that no name in them, of a file or a class, can steer the terminal that shows them."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(one_line, super().format(record).split("\n")))


PLAIN = PlainFormatter()


class ScreenHandler(logging.Handler):
    """Writes records above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        if launched_rank():
            prefix = f"[process {launched_rank()}] {prefix}"
        with suppress(OSError):  # a screen that is gone, or a full disk that it goes to, stops no run
            tqdm.write(prefix + PLAIN.format(record), file=sys.stderr if prefix else sys.stdout)
            (sys.stderr if prefix else sys.stdout).flush()


class LogFile(logging.FileHandler):
    """A file of the log; that it cannot be written any more is told once and stops nothing."""

    def __init__(self, path):
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            reason = about_file(error, self.baseFilename).strerror
            logging.getLogger(ROOT).warning(
                "%s cannot be written (%s); the run goes on without", self.baseFilename, reason
            )

    def close(self) -> None:
        with suppress(OSError):  # what it still held
            super().close()


def setup_logging(exp_dir=None) -> None:
    """Send the package's log to the screen, and to log.txt of `exp_dir` (appended) where it is given, there with the
    details that only somebody who looks for a fault wants.

    Of several processes the first tells all that, the others warnings on the screen.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show stops no run
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(ScreenHandler(logging.WARNING if launched_rank() else logging.INFO))
    if exp_dir is not None and not launched_rank():
        try:
            Path(exp_dir).mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=exp_dir):  # an old log may be writable in a folder that takes no new files
                file = LogFile(Path(exp_dir) / "log.txt")
        except OSError as error:
            raise UserError(f"EXP_DIR: {exp_dir}: cannot be made or written to ({error.strerror})") from None
        logger.addHandler(file)
