"""Files that are there as a whole or not at all, and what to say when they cannot be written."""

import errno
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path, content: str | bytes, errors: str = "strict") -> None:
    """Write a file in a folder that is made where it is missing; one of that name is replaced when the new one is
    complete.  Text becomes UTF-8, `errors` as of str.encode.  OSError, as of `replacing`, where that cannot be done."""
    data = content.encode("utf-8", errors) if isinstance(content, str) else content
    path = Path(path)
    with replacing(path, path.with_name(f".{path.name}.{os.getpid()}.tmp")) as file:  # every process its own
        file.write(data)


def plain_name(text: str, limit: int = 150) -> str:
    """A file name for any text, such as the id of an image: slashes and what no file system takes become _, and names
    beyond `limit` letters are cut and end with a checksum."""
    name = re.sub(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|]', "_", text)
    if len(name.encode(errors="replace")) <= limit:
        return name
    digits = f"_{zlib.crc32(text.encode(errors='surrogatepass')):08x}"
    return name.encode(errors="replace")[: limit - len(digits)].decode(errors="ignore") + digits


@contextmanager
def replacing(path, unfinished, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end of the block, and until then has the name `unfinished`;
    nothing is left of it after an error.  durable: it is on the disk before it takes that place.

    Raises OSError with `path` for its file name, which tells how much room there is if it was too little.
    """
    path, unfinished = Path(path), Path(unfinished)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise about_file(error, path) from None
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def about_file(error: OSError, path) -> OSError:
    """An error of writing as one that names `path`, with the free space of its disk where space is what it lacks."""
    text = error.strerror or str(error)
    if error.errno in NO_SPACE and not text.endswith(" free)"):
        with suppress(OSError):
            text = f"{text} ({shutil.disk_usage(Path(path).parent).free / 1e6:.1f} MB free)"
    return OSError(error.errno, text, str(path))


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk, on systems that can; elsewhere it gets there in their own time."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
