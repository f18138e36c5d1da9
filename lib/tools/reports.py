"""What the tools share: their names in messages, the check of a file in the way, the type of --images, and the warnings
of others as part of a report."""

import argparse
import json
import logging
import sys
from contextlib import contextmanager
from pathlib import Path

from ..utils.errors import UserError
from ..utils.log import ROOT


def is_report(path: Path, mark: str) -> bool:
    """Whether a file is JSON with the key `mark`, which a tool puts into its reports; only those are overwritten."""
    try:
        return mark in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def program(tool: str) -> str | None:
    """What a tool is called in its help.  Started with -m, argparse would call it by its file, which is not a command;
    an installed command knows its name, None."""
    return f"python -m {__package__}.{tool}" if sys.argv[0].endswith(f"{tool}.py") else None


def number(text: str) -> int:
    """The number that an option such as --images gives; argparse calls it by the name of this function."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: 1 and more")
    return value


@contextmanager
def warnings_collected():
    """The list of the warnings that the package logs meanwhile, which go nowhere else unless an error follows."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger(ROOT)
    before = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    try:
        yield messages
    except UserError:
        logger.handlers[:], logger.propagate = before
        for message in messages:
            logger.warning(message)
        raise
    finally:
        logger.handlers[:], logger.propagate = before
