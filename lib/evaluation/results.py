"""Results files: the detections of a set of images as a JSON list in COCO's format, class names beside the numbers.

An entry is {"image_id", "category_id": label from 1, "category_name", "bbox": [x1, y1, x2 - x1, y2 - y1] in 0-based
pixels, "score"}.  The name decides which class an entry belongs to; the number is for tools that know no names.  The
image_id of a frame of a video is "video/000012".
"""

import json
import logging
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from ..structures import Detections, Target
from ..utils.errors import UserError, nearest
from .image_metric import pixel_boxes, scores_array
from .tracks import frame_of

log = logging.getLogger(__name__)

BOX_DECIMALS = 3
MAX_PIXELS = 1e9
"""Larger corners are no pixels of any image, and areas of theirs could overflow."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def written_id(image_id):
    """What results files call an image: its id, or "video/000012" for frame 12 of a video, which is (video, 12)."""
    frame = frame_of(image_id)
    return image_id if frame is None else f"{frame[0]}/{frame[1]:06d}"


def to_results(detections: list[Detections], targets: list[Target]) -> list[dict]:
    """The entries of some images, in the order of the detections; "category_name" only where class names are known."""
    entries = []
    for found, target in zip(detections, targets, strict=True):
        corners = np.round(pixel_boxes(found), BOX_DECIMALS)
        corners[:, 2:] = np.round(corners[:, 2:] - corners[:, :2], BOX_DECIMALS)
        # The shortest text of a float32 keeps every score apart from its neighbours, also near 1, with few digits.
        scores = scores_array(found, target.image_id).astype(np.float32).astype(str).tolist()
        names, image_id = found.names if found.class_names else None, written_id(target.image_id)
        for k, (label, bbox, score) in enumerate(zip(found.labels.tolist(), corners.tolist(), scores, strict=True)):
            entry = {"image_id": image_id, "category_id": label}
            if names:
                entry["category_name"] = names[k]
            entries.append(entry | {"bbox": bbox, "score": float(score)})
    return entries


class ResultsWriter:
    """Writes a results file image by image, one entry a line, and puts it in place only when it is complete.

    Used as a context manager: `with ResultsWriter(path) as writer: writer.add(detections, targets)`.  The file appears
    under its name at the end of the block; after an exception nothing is left behind and an older file stays.
    to_entries: what makes the entries of some images.  A file of another form is a subclass with other text before,
    between and behind the entries, and another `encode`.
    """

    opening, first, between, closing = "[", "\n", ",\n", "\n]\n"
    encode = staticmethod(_encode)

    def __init__(self, path, to_entries=to_results):
        self.path, self._to_entries = Path(path), to_entries
        self.num_entries = 0
        self._file = self._temporary = None

    def __enter__(self) -> "ResultsWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because os.replace is atomic only within one file system.
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        # File names that are not text hold lone surrogates; a backslash and their number is how JSON spells them.
        self._file = self._temporary.open("w", encoding="utf-8", errors="backslashreplace")
        self._file.write(self.opening)
        return self

    def add(self, detections: list[Detections], targets: list[Target]) -> None:
        """Append the detections of some images (boxes in pixels) under the image_id of their targets."""
        for entry in self._to_entries(detections, targets):
            self._file.write((self.between if self.num_entries else self.first) + self.encode(entry))
            self.num_entries += 1

    def __exit__(self, kind, value, traceback) -> None:
        try:
            with self._file:
                self._file.write(self.closing)
            if kind is None:
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def save_results(path, detections: Iterable[Detections], targets: Iterable[Target]) -> int:
    """Write a results file at once and return its number of entries; detections and targets may be generators."""
    with ResultsWriter(path) as writer:
        for found, target in zip(detections, targets, strict=True):
            writer.add([found], [target])
    return writer.num_entries


def load_results(path, class_names, category_ids=()) -> dict:
    """Read a results file: image_id -> Detections in pixels (float64), best first, images in the order of the file.

    Entries are matched to class_names (without the background) by "category_name", by "category_id" only in a file
    without names: it is one of category_ids, those that the data set gives its classes, or counts the classes from 1
    where the data set has none.  Equal scores keep the order of the file.  The image_ids are those of the file, which
    `written_id` makes of those of targets; [video, frame] is read like "video/000012", and another list becomes a
    tuple.
    Raises UserError for anything that is not such a file, with the index of the entry, counted from 0.
    """
    text = _read_text(path)
    columns = _Columns(path, tuple(class_names), tuple(category_ids))
    for index, entry in enumerate(_iterate_list(path, text)):
        columns.append(index, entry)
    return columns.to_detections()


class _Columns:
    """The entries of a file as flat arrays: a hundred bytes an entry, where dictionaries would take many hundred."""

    def __init__(self, path, class_names: tuple[str, ...], category_ids: tuple[int, ...] = ()):
        self.path, self.class_names, self.category_ids = path, class_names, category_ids
        self.images: dict = {}
        self.labels_of: dict = {}
        self.rows, self.labels, self.boxes, self.scores = array("q"), array("q"), array("d"), array("d")
        self.reordered = False

    def append(self, index: int, entry) -> None:
        """Take an entry in; the ordinary one passes without a look at each field, whatever fails is explained."""
        try:
            image_id, bbox, score = entry["image_id"], entry["bbox"], entry["score"]
            category = (entry.get("category_id"), entry.get("category_name"))
            label = self.labels_of.get(category) or self._new_category(index, *category)
            if len(bbox) != 4:
                raise ValueError
            self.boxes.extend(bbox)
            self.scores.append(score)
            image_id = written_id(tuple(image_id)) if isinstance(image_id, list) else image_id
            row = self.images.get(image_id)
            if row is None:
                row = self._new_image(image_id)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self._explain(index, entry)
        self.rows.append(row)
        self.labels.append(label)

    def fail(self, index: int, message: str) -> NoReturn:
        raise UserError(f"{self.path}: entry {index}: {message}") from None

    def _explain(self, index: int, entry) -> NoReturn:
        """The error for an entry that could not be taken in."""
        if not isinstance(entry, dict):
            self.fail(index, f"{_short(entry)} is not an object with image_id, category_id, bbox and score")
        for key in ("image_id", "bbox", "score"):
            if key not in entry:
                self.fail(index, f"'{key}' is missing; the entry has {', '.join(entry) or 'no keys'}")
        bbox = entry["bbox"]
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
            self.fail(index, f"bbox {_short(bbox)} is not a list of four numbers [x, y, width, height]")
        if not _is_number(entry["score"]):
            self.fail(index, f"score {_short(entry['score'])} is not a number")
        if not isinstance(entry["image_id"], (str, int, list)):
            self.fail(index, f"image_id {_short(entry['image_id'])} is not a string or a number")
        self.fail(index, f"{_short(entry)} cannot be read")

    def _new_image(self, image_id) -> int:
        if not isinstance(image_id, (str, int, tuple)):
            raise TypeError
        return self.images.setdefault(image_id, len(self.images))

    def _new_category(self, index: int, number, name) -> int:
        """The label of a pair of category_id and category_name not met before, checked against those that were."""
        if name is None:
            label = self._label_by_number(index, number)
        else:
            if name not in self.class_names:
                self.fail(index, f"category_name {_short(name)} is unknown; {nearest(name, self.class_names)}")
            label = self.class_names.index(name) + 1
        for other_number, other_name in self.labels_of:
            if (other_name is None) != (name is None):
                self.fail(index, "category_name is given in some entries and missing in others")
            numbered = number is not None and other_number is not None
            if name is not None and numbered and (number == other_number) != (name == other_name):
                earlier = f"but earlier {_short(other_number)} was '{other_name}'"
                self.fail(index, f"category_id {_short(number)} is '{name}' here, {earlier}")
        usual = (label, self.category_ids[label - 1]) if self.category_ids else (label,)
        self.reordered = self.reordered or (number is not None and number not in usual)
        self.labels_of[number, name] = label
        return label

    def _label_by_number(self, index: int, number) -> int:
        if number is None:
            self.fail(index, "'category_name' and 'category_id' are missing; one of them must tell the class")
        if self.category_ids:
            if number not in self.category_ids:
                allowed = f"one of the data set's, {', '.join(map(str, self.category_ids))}"
                self.fail(index, f"category_id {_short(number)} is not {allowed}, and no category_name tells the class")
            return self.category_ids.index(number) + 1
        if not isinstance(number, int) or not 1 <= number <= len(self.class_names):
            allowed = f"1 to {len(self.class_names)}, and no category_name tells the class"
            self.fail(index, f"category_id {_short(number)} is not in {allowed}")
        return number

    def to_detections(self) -> dict:
        """What was taken in, checked as a whole and split by image."""
        boxes, scores = np.array(self.boxes).reshape(-1, 4), np.array(self.scores)
        for bad, what in (
            (~np.isfinite(boxes).all(axis=1), "bbox holds a value that is not finite"),
            ((np.abs(boxes) > MAX_PIXELS).any(axis=1), f"bbox holds a value beyond {MAX_PIXELS:g} pixels"),
            (~np.isfinite(scores), "score is not finite"),
            ((boxes[:, 2:] < 0).any(axis=1), "bbox has a negative width or height; it is [x, y, width, height]"),
        ):
            if bad.any():
                self.fail(int(bad.argmax()), what)
        if self.reordered:
            log.warning("%s: category_id counts the classes otherwise than this data set; matched by name", self.path)
        if not self.images:
            return {}
        # The sum of two decimals is rounded to a decimal again.
        boxes[:, 2:] = np.round(boxes[:, :2] + boxes[:, 2:], 6)
        rows, labels = np.array(self.rows, dtype=np.int64), np.array(self.labels, dtype=np.int64)
        order = np.lexsort((-scores, rows))
        pieces = np.split(order, np.cumsum(np.bincount(rows, minlength=len(self.images)))[:-1])
        return {
            image_id: Detections(
                torch.from_numpy(boxes[piece]),
                torch.from_numpy(scores[piece]),
                torch.from_numpy(labels[piece]),
                self.class_names,
            )
            for image_id, piece in zip(self.images, pieces, strict=True)
        }


def _read_text(path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _iterate_list(path, text: str) -> Iterator:
    """The entries of a JSON list one after the other, so that they need not all be in memory as dictionaries."""
    decoder, whitespace = json.JSONDecoder(), re.compile(r"[ \t\n\r]*")
    position = whitespace.match(text).end()
    try:
        if text[position : position + 1] != "[":
            raise UserError(f"{path}: a list of detections is expected, found {_kind(json.loads(text))}")
        position = whitespace.match(text, position + 1).end()
        closed = text[position : position + 1] == "]"
        while not closed:
            entry, position = decoder.raw_decode(text, position)
            yield entry
            position = whitespace.match(text, position).end()
            separator = text[position : position + 1]
            closed = separator == "]"
            if not closed:
                if separator != ",":
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
                position = whitespace.match(text, position + 1).end()
        rest = whitespace.match(text, position + 1).end()
        if rest != len(text):
            raise json.JSONDecodeError("Extra data after the list", text, rest)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}") from error
    except UserError:
        raise
    except (RecursionError, ValueError) as error:  # brackets without end, a number of thousands of digits
        raise UserError(f"{path}: not a results file: {str(error).partition(';')[0]}") from None


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(value) -> str:
    return f"an object with the keys {', '.join(list(value)[:5])}" if isinstance(value, dict) else _short(value)


def _short(value, limit: int = 60) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deep"
    return text if len(text) <= limit else text[: limit - 3] + "..."
