"""Files that are there as a whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path, text: str, errors: str = "strict") -> None:
    """Write a text file in a folder that is made where it is missing; a file of that name is replaced when the new one
    is complete.  OSError where that cannot be done; `errors` as of str.encode."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # every process its own
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.write_text(text, encoding="utf-8", errors=errors)
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
