"""Facts about the files of a data set, read once: headers of images and parsed annotations, kept in a cache file.

The cache is one file of two lines of JSON in the folder of the run: what it was written by and the checksum of the
rest, and the facts by path, each with the size and the time of the file that it tells about.  A cache that is not
exactly as it was written, or of another version, counts as none.
"""

import json
import logging
import os
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import PIL

from .image_header import ImageFacts, read_facts
from .inspection import write_atomically
from .voc_xml import Annotation, BadAnnotation, parse_annotation

logger = logging.getLogger(__name__)

CACHE_FILE = "data_cache.json"
VERSION = [4, cv2.__version__, PIL.__version__]
NUM_THREADS = 8
CHUNK = 64
"""Files that a thread looks at in one go."""


class FileFacts:
    """What the files of data sets say; `folder` keeps the cache, '' keeps none."""

    def __init__(self, folder: str = ""):
        self._file = Path(folder) / CACHE_FILE if folder else None
        self._kept = _load(self._file) if self._file else {}
        self._seen = {}
        self._changed = False

    def images(self, paths) -> list[ImageFacts]:
        """The facts of image files, in their order."""
        return self._ask(paths, read_facts, ImageFacts._make)

    def annotations(self, paths, parse: Callable | None = None) -> list[Annotation | BadAnnotation]:
        """The annotations in XML files, or in those that `parse` reads, in their order; for one that cannot be
        understood, why."""
        return self._ask(paths, partial(_parse, parse or parse_annotation), _restore_annotation)

    def save(self):
        """Write the cache if there is anything new."""
        if self._file is None or not self._changed:
            return
        self._changed = False
        body = json.dumps(self._kept, separators=(",", ":"))
        head = json.dumps({"version": VERSION, "checksum": zlib.crc32(body.encode())})
        write_atomically(self._file, f"{head}\n{body}\n")

    def _ask(self, paths, read: Callable, restore: Callable) -> list:
        """What is known of the paths: seen by this object, kept in the cache, or read now."""
        fresh = [path for path in dict.fromkeys(paths) if path not in self._seen]
        chunks = [fresh[start : start + CHUNK] for start in range(0, len(fresh), CHUNK)]

        def look(chunk) -> list:
            return [self._look(path, read, restore) for path in chunk]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow finds odd about a file
            if len(chunks) > 1:
                with ThreadPoolExecutor(NUM_THREADS) as pool:
                    results = [result for found in pool.map(look, chunks) for result in found]
            else:
                results = [result for chunk in chunks for result in look(chunk)]
        for path, (key, row, fact) in zip(fresh, results, strict=True):
            self._seen[path] = fact
            if row is not None:
                self._kept[key] = row
                self._changed = True
        return [self._seen[path] for path in paths]

    def _look(self, path: str, read: Callable, restore: Callable):
        """(key in the cache, row to keep or None, fact) of one file."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return "", None, read(path)
        key, stamp = os.path.abspath(path), [status.st_size, status.st_mtime_ns]
        row = self._kept.get(key)
        if row is not None and row[:2] == stamp:
            return key, None, restore(row[2:])
        fact = read(path)
        row = [fact.case, str(fact)] if isinstance(fact, BadAnnotation) else list(fact)
        return key, [*stamp, *row], fact


def _parse(parse: Callable, path: str) -> Annotation | BadAnnotation:
    try:
        return parse(path)
    except BadAnnotation as error:
        return error


def _restore_annotation(row) -> Annotation | BadAnnotation:
    if len(row) == 2:
        return BadAnnotation(row[1], row[0])
    found = Annotation._make(row)
    size = None if found.size is None else tuple(found.size)
    return found._replace(size=size, crowds=tuple(found.crowds), areas=tuple(found.areas))


def _load(file: Path) -> dict:
    """The facts of a cache file; {} for one that is missing, damaged or of another version."""
    try:
        head, _, body = file.read_text(encoding="utf-8").partition("\n")
        about, body = json.loads(head), body.rstrip("\n")
        if about["version"] == VERSION and about["checksum"] == zlib.crc32(body.encode()):
            return json.loads(body)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}
