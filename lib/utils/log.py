"""Logging of the scripts: plain lines on the screen, the same with time and source in a file of the run."""

import logging
import sys
from pathlib import Path

from tqdm import tqdm

from .errors import UserError

ROOT = __name__.split(".")[0]
"""Name of the package's root logger: lib in a checkout, ssds where installed."""


class ScreenHandler(logging.Handler):
    """Writes records above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(prefix + record.getMessage(), file=sys.stderr if prefix else sys.stdout)
        (sys.stderr if prefix else sys.stdout).flush()


def setup_logging(exp_dir=None) -> None:
    """Send the package's log to the screen, and to log.txt of `exp_dir` (appended) where it is given."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show stops no run
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(ScreenHandler())
    if exp_dir is not None:
        try:
            Path(exp_dir).mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(Path(exp_dir) / "log.txt", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UserError(f"EXP_DIR: {exp_dir}: cannot be made or written to ({error.strerror})") from None
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(file)
