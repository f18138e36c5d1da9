"""What an image file tells without being decoded: its size, its EXIF orientation, and whether its end is there."""

import mmap
import os
import threading
import warnings
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..utils.errors import UserError
from ..utils.shortage import lacks_memory

READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

HEADER_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")
"""Formats whose header Pillow reads; files of any other format are decoded once."""

MAX_PIXELS = 178_956_970
"""Larger images are not decoded: from here on Pillow, too, speaks of a decompression bomb."""

MAX_BYTES = 2 * 3 * 2 * MAX_PIXELS
"""Larger files are not opened: twice what as many pixels take with 16 bits for each colour."""

ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""

QUIET = threading.Lock()
"""Held while warnings are switched off, which is so for all threads."""

TAIL = 4096
"""Bytes in which the end of an image is looked for first; some cameras write more behind it."""


class UnreadableImage(UserError):
    """An image file that is missing, empty, or no image that OpenCV can decode."""


class ImageFacts(NamedTuple):
    """(height, width) of the stored pixels, EXIF orientation 1 to 8, and what is wrong with the file: a case of
    inspection.CASES and its detail, '' if nothing is."""

    height: int = 0
    width: int = 0
    orientation: int = 1
    case: str = ""
    detail: str = ""

    def size(self, upright: bool) -> tuple[int, int]:
        """(height, width) as stored, or after turning the image as EXIF says."""
        turned = upright and self.orientation in TURNED
        return (self.width, self.height) if turned else (self.height, self.width)


def read_facts(path: str) -> ImageFacts:
    """The facts of an image file; whatever is wrong with it is told by them.  Pillow may warn of odd files."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading from a pipe would never end
        return ImageFacts(case="unreadable_image", detail="is no file")
    try:
        with open(path, "rb") as file:
            num_bytes = file.seek(0, os.SEEK_END)
            if num_bytes > MAX_BYTES:
                return ImageFacts(case="oversized_image", detail=f"the file has more than {MAX_BYTES:,} bytes")
            if not num_bytes:
                return ImageFacts(case="empty_file", detail="the file has no bytes")
            file.seek(0)
            return _look_at(file, path, num_bytes)
    except FileNotFoundError:
        return ImageFacts(case="missing_image", detail="there is no such file")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return ImageFacts(case="unreadable_image", detail=f"cannot be read ({reason})")


def read_orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8, of an image file's content; 1 where it says nothing, or OpenCV obeys by itself."""
    found = _ask_quietly(BytesIO(data))
    return found[3] if found and found[0] != "TIFF" else 1


def refuse_oversized(path: str) -> None:
    """UnreadableImage for an image file of more than MAX_BYTES or whose header says more than MAX_PIXELS, and for what
    is neither file nor folder; what has no header, or one that Pillow does not read, passes."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UnreadableImage(f"{path}: is no file")
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise UnreadableImage(f"{path}: has more than {MAX_BYTES:,} bytes; make it smaller")
        with open(path, "rb") as file:
            found = _ask_quietly(file)
    except UserError:
        raise
    except (OSError, ValueError):
        return
    if found and found[1] * found[2] > MAX_PIXELS:
        raise UnreadableImage(f"{path}: its header says more than {MAX_PIXELS:,} pixels; make it smaller")


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image turned as its EXIF orientation (1 to 8) asks for."""
    if orientation in TURNED:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def decode(data: np.ndarray, path: str) -> np.ndarray:
    """The stored pixels of a file's content, uint8 BGR [H, W, 3]; UnreadableImage if there are none."""
    try:
        image = cv2.imdecode(data, READ_FLAGS) if data.size else None
    except cv2.error as error:
        if lacks_memory(error):  # no fault of the image
            raise MemoryError(f"{path}: {error.err or error}") from None
        raise UnreadableImage(f"{path}: OpenCV cannot decode this image ({error.err or error})") from None
    if image is None:
        what = f"{data.size} bytes that are no image OpenCV can decode" if data.size else "the file is empty"
        raise UnreadableImage(f"{path}: {what}")
    return image


def _look_at(file, path: str, num_bytes: int) -> ImageFacts:
    found = _ask_pillow(file)
    if found is None or found[0] == "TIFF" and found[3] != 1:
        # OpenCV turns a TIFF file by itself, whatever it is asked for.
        return _decoded_facts(file, path)
    kind, width, height, orientation = found
    if width * height > MAX_PIXELS:
        return ImageFacts(case="oversized_image", detail=f"the header says more than {MAX_PIXELS:,} pixels")
    if kind in ("JPEG", "MPO") and not _occurs(b"\xff\xd9", file, _scan_start(file), num_bytes):
        return ImageFacts(height, width, orientation, "truncated_image", "the JPEG file has no end marker")
    if kind == "PNG" and not _occurs(b"IEND", file, 8, num_bytes):
        return ImageFacts(height, width, orientation, "truncated_image", "the PNG file has no IEND")
    return ImageFacts(height, width, orientation)


def _ask_quietly(file) -> tuple[str, int, int, int] | None:
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _ask_pillow(file)


def _ask_pillow(file) -> tuple[str, int, int, int] | None:
    """(format, width, height, orientation) by Pillow, or None where it knows none of its formats."""
    try:
        with Image.open(file, formats=HEADER_FORMATS) as image:
            found = image.format, *image.size
            block = image.info.get("exif")
            tags = image.tag_v2 if image.format == "TIFF" else None
    except Image.DecompressionBombError:
        return "bomb", MAX_PIXELS + 1, 1, 1
    except Exception:  # a broken file ends in whatever its parser stumbles over
        return None
    try:
        if block:
            tags = Image.Exif()
            tags.load(block)
        orientation = int(tags.get(ORIENTATION, 1)) if tags is not None else 1
    except Exception:
        orientation = 1
    return *found, orientation if 1 <= orientation <= 8 else 1


def _decoded_facts(file, path: str) -> ImageFacts:
    """The facts of a file that has to be decoded for them."""
    file.seek(0)
    try:
        height, width = decode(np.frombuffer(file.read(), np.uint8), path).shape[:2]
    except UnreadableImage as error:
        return ImageFacts(case="no_image", detail=str(error).removeprefix(f"{path}: "))
    return ImageFacts(height, width)


def _scan_start(file) -> int:
    """Where the first scan of a JPEG begins.  An end marker before it is that of a thumbnail."""
    position = 2
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:
            return position
        if head[1] == 0xFF:
            position += 1
        elif head[1] == 0x01 or 0xD0 <= head[1] <= 0xD9:
            position += 2
        else:
            position += 2 + max(2, int.from_bytes(head[2:], "big"))


def _occurs(marker: bytes, file, start: int, num_bytes: int) -> bool:
    """Whether a file holds the marker behind byte `start`; its last bytes are looked at first."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # a large file need not fit into memory
        return any(data.find(marker, first) >= 0 for first in dict.fromkeys((max(start, num_bytes - TAIL), start)))
