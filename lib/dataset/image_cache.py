"""Decoded training images, kept in memory or in a file, and shrunk to what the network can use."""

import dataclasses
import hashlib
import logging
import math
import mmap
import os
from pathlib import Path

import cv2
import numpy as np
from torch import multiprocessing

from ..utils.errors import UserError
from .detection import DetectionRecords

logger = logging.getLogger(__name__)

RAM = "ram"
SPARE = 0.8  # of the memory that is available
GIB = 2**30


class ImageCache:
    """The pixels of the images of `records`, at `sizes` int32 [I, 2] (height, width), from their first reading on.

    All processes that are forked from this one share them, and with a folder also those of later runs: the file's name
    stands for the list of images, their times and sizes.  UserError where there is no room.
    """

    def __init__(self, records: DetectionRecords, sizes: np.ndarray, place: str):
        self._records, self._sizes = records, sizes
        lengths = sizes.astype(np.int64).prod(axis=1) * 3
        self._starts = np.concatenate([[0], lengths.cumsum()]) + len(records)
        total = int(self._starts[-1])
        memory = _in_memory(total) if place == RAM else _in_file(Path(place) / self._file_name(), total)
        # A byte for each image says whether it is there; it is set when the pixels are.
        self._bytes = np.frombuffer(memory, np.uint8)
        where = "memory" if place == RAM else Path(place) / self._file_name()
        logger.info(
            "decoded images are kept in %s: up to %.1f GiB, %d of %d there already",
            where, total / GIB, int(self._bytes[: len(records)].sum()), len(records),
        )  # fmt: skip

    def read(self, index: int) -> np.ndarray:
        """Image `index` as uint8 BGR [H, W, 3]; UnreadableImage if it is not there and cannot be read.

        One that is of another size than its annotation says is shrunk by as much, and not kept.
        """
        height, width = self._sizes[index].tolist()
        pixels = self._bytes[self._starts[index] : self._starts[index + 1]].reshape(height, width, 3)
        if self._bytes[index]:
            return pixels.copy()
        image = self._records.read(index)
        said = self._records.size(index)
        if image.shape[:2] != said:
            size = [
                max(round(side * new / old), 1)
                for side, new, old in zip(image.shape[:2], (height, width), said, strict=True)
            ]
            return _resized(image, *size)
        image = _resized(image, height, width)
        pixels[:] = image
        self._bytes[index] = 1
        return image

    def _file_name(self) -> str:
        digest = hashlib.sha256(self._records.exif.encode() + self._sizes.tobytes())
        for path in self._records.paths:
            digest.update(path.encode("utf-8", "surrogateescape") + b"\0")
            try:
                status = os.stat(path)
                digest.update(f"{status.st_mtime_ns} {status.st_size}".encode())
            except OSError:  # told when it is read
                pass
        return f"images_{digest.hexdigest()[:20]}.bin"


def with_cache(records: DetectionRecords, place: str, least) -> DetectionRecords:
    """The records with images that are read once and then kept in `place`, 'ram' or a folder; those of which both sides
    are longer than `least` (height, width) are shrunk until one is not, with their boxes."""
    sizes = records.sizes.astype(np.float64)
    factors = np.minimum((np.asarray(least) / sizes).max(axis=1), 1) if least[0] else np.ones(len(sizes))
    shrunk = np.maximum(np.rint(sizes * factors[:, None]), 1).astype(np.int32)
    ratios = np.repeat(shrunk / sizes, np.diff(records.offsets), axis=0)  # of the images of the objects
    return dataclasses.replace(
        records,
        sizes=shrunk,
        boxes=(records.boxes * np.tile(ratios[:, ::-1], 2)).astype(np.float32),
        areas=None if records.areas is None else records.areas * ratios.prod(axis=1),
        cache=ImageCache(records, shrunk, place),
    )


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _in_memory(total: int) -> mmap.mmap:
    if multiprocessing.get_start_method() != "fork":
        raise UserError(
            "DATASET.CACHE: ram is shared with forked worker processes only, which this system does not have; "
            "give a folder"
        )
    available = _available_memory()
    if total > SPARE * available:
        raise UserError(
            f"DATASET.CACHE: ram would take up to {total / GIB:.1f} GiB, {available / GIB:.1f} are available; give a "
            "folder, or a lower DATASET.CACHE_SCALE"
        )
    return mmap.mmap(-1, total)


def _available_memory() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf


def _in_file(path: Path, total: int) -> mmap.mmap:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            # Room for all is taken at once: a full disk would kill a process that writes to the mapping.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, total)
            else:
                file.truncate(total)
            return mmap.mmap(file.fileno(), total)
    except OSError as error:
        raise UserError(
            f"DATASET.CACHE: {path} cannot be made {total / GIB:.1f} GiB large ({error.strerror or error})"
        ) from None
