"""What the tools that write reports share: the check of a file in the way, and the type of --images."""

import argparse
import json
from pathlib import Path


def is_report(path: Path, mark: str) -> bool:
    """Whether a file is JSON with the key `mark`, which a tool puts into its reports; only those are overwritten."""
    try:
        return mark in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def number(text: str) -> int:
    """The number that an option such as --images gives; argparse calls it by the name of this function."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: 1 and more")
    return value
