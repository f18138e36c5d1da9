"""The text files of the YOLO format: labels of an image, names of classes, and the description of a data set."""

import math
from pathlib import Path
from typing import NamedTuple

from ..config.yaml_text import Node, parse_yaml, read_text
from ..utils.errors import UserError
from .voc_layout import read_lines
from .voc_xml import Annotation, BadAnnotation, read_annotation

FARTHEST = 2.0
"""Coordinates beyond, in parts of the image's size, are no slip at its border: somebody wrote pixels."""

SET_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What a set may be called, and what it is called here."""


class Description(NamedTuple):
    """What a data.yaml says: its file, {number of a class: name}, its folder ('' for none), {set: folders or lists}."""

    file: Path
    names: dict[int, str]
    folder: str
    sets: dict[str, list[str]]


def parse_labels(path: str) -> Annotation:
    """Read the labels of an image; BadAnnotation for a file that is no text.

    A line is an object: the number of its class and centre x, centre y, width, height, or the corners of a polygon,
    which becomes the box around it; all in parts of the image's size.  `names` of the result are the numbers of the
    classes as text, `boxes` corners in parts of the size, `numbers` those of the lines.
    """
    found = Annotation([], [], [], [], None, "", [], [])
    for number, line in enumerate(_read(path).split("\n"), 1):
        words = line.split()
        if not words:
            continue
        index, box, case, detail = _read_object(words)
        if case:
            found.faults.append([number, case, detail])
            continue
        found.names.append(index)
        found.boxes.append(box)
        found.difficult.append(False)
        found.numbers.append(number)
        found.tracks.append("")
    return found


def _read(path: str) -> str:
    try:
        return read_annotation(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadAnnotation(f"{path}: is no text in UTF-8") from None
    except OSError as error:
        raise BadAnnotation(f"{path}: cannot be read ({error.strerror or error})") from None


def _read_object(words: list[str]) -> tuple[str, list, str, str]:
    """(number of the class as text, corners, '', '') or ('', [], case, detail) of a line."""
    if len(words) < 5 or len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        form = "a line is a class and four numbers, or a class and the corners of a polygon"
        return "", [], "no_number", f"{form}, not {len(words)} words: {_shown(words)}"
    try:
        index, *values = map(float, words)
    except ValueError:
        return "", [], "no_number", f"not numbers only: {_shown(words)}"
    if not index.is_integer() or index < 0:
        return "", [], "no_class_name", f"'{words[0]}' is no number of a class"
    if not all(map(math.isfinite, values)):
        return str(int(index)), [math.nan] * 4, "", ""
    if max(map(abs, values)) > FARTHEST:
        return "", [], "not_relative", f"not in parts of the image's size: {_shown(words)}"
    if len(values) > 4:
        xs, ys = values[::2], values[1::2]
        return str(int(index)), [min(xs), min(ys), max(xs), max(ys)], "", ""
    x, y, width, height = values
    return str(int(index)), [x - width / 2, y - height / 2, x + width / 2, y + height / 2], "", ""


def read_names(path: Path) -> dict[int, str]:
    """{number of a class: name} of a file with a name in each line, classes.txt or obj.names."""
    lines = [line for _, line in read_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not all(lines):
        raise UserError(f"{path}, line {lines.index('') + 1}: is empty; a line names the class of its number")
    if not lines:
        raise UserError(f"{path}: names no class")
    return dict(enumerate(lines))


def read_description(path: Path) -> Description | None:
    """Read a data.yaml; None for YAML without 'names', UserError for one that cannot be understood."""
    node = parse_yaml(read_text(path), str(path))
    if node is None or not isinstance(node.value, dict) or "names" not in node.value:
        return None
    content = node.value
    if "kpt_shape" in content:
        raise UserError(f"{path}:{content['kpt_shape'].line}: kpt_shape: labels with keypoints are not read")
    names = _names(path, content["names"])
    count = content.get("nc")
    if count is not None and count.value != str(len(names)):
        raise UserError(f"{path}:{count.line}: nc: {count.show()} given, but 'names' are {len(names)}")
    sets = {}
    for key, name in SET_KEYS.items():
        if key in content and not content[key].is_null:
            sets.setdefault(name, _texts(path, key, content[key]))
    folder = content["path"].value if "path" in content else ""
    return Description(path, names, folder if isinstance(folder, str) else "", sets)


def _names(path: Path, node: Node) -> dict[int, str]:
    if isinstance(node.value, list):
        return dict(enumerate(_texts(path, "names", node)))
    if not isinstance(node.value, dict) or not all(key.isdecimal() and len(key) < 10 for key in node.value):
        raise UserError(f"{path}:{node.line}: names: {node.show()} is neither a list nor numbers with names")
    texts = {int(key): _texts(path, f"names: {key}", item) for key, item in node.value.items()}
    return {number: text[0] for number, text in sorted(texts.items())}


def _texts(path: Path, key: str, node: Node) -> list[str]:
    """The texts of a node that is one or a list of them."""
    items = node.value if isinstance(node.value, list) else [node]
    if not items or not all(isinstance(item.value, str) and item.value.strip() for item in items):
        raise UserError(f"{path}:{node.line}: {key}: {node.show()} is no text and no list of texts")
    return [item.value.strip() for item in items]


def _shown(words: list[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 60 else f"{text[:57]}..."
