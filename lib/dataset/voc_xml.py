"""One XML annotation of the VOC kind, as written by the VOC organisers, LabelImg and most labelling tools."""

import os
import xml.etree.ElementTree as ET
from typing import NamedTuple
from xml.parsers import expat

from ..utils.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")

MAX_BYTES = 32 * 2**20
"""Larger files are no annotations of one image."""
USUAL_BYTES = 100_000
MAX_DEPTH = 100
"""Elements within each other, of which only files of more than USUAL_BYTES can have so many that they do harm."""


class BadAnnotation(UserError):
    """An annotation that cannot be understood; `case` is that of inspection.CASES."""

    def __init__(self, message: str, case: str = "bad_annotation"):
        super().__init__(message)
        self.case = case


class Annotation(NamedTuple):
    """What an XML file says.

    names [N]; boxes [N] of [xmin, ymin, xmax, ymax] as in the file; difficult [N]; numbers [N], which object of the
    file each is, from 1; size (height, width) or None where it is missing; the file name of the image ('' where it is
    missing); faults, a list of [number, case of inspection.CASES, detail] for each object that is not among the N;
    tracks [N], the name of each object throughout its video, '' where it has none; crowds, the positions of those of
    the N that are crowds; areas [N] in pixels of the objects inside the boxes, () where nothing is said of them.
    """

    names: list
    boxes: list
    difficult: list
    numbers: list
    size: tuple[int, int] | None
    filename: str
    faults: list
    tracks: list
    crowds: list | tuple = ()
    areas: list | tuple = ()


def parse_annotation(path: str) -> Annotation:
    """Read one annotation; BadAnnotation with file and line if it cannot be understood."""
    root = _parse(path)
    if root.tag != "annotation":
        raise BadAnnotation(f"{path}: the root element is <{root.tag}>; a VOC annotation has <annotation>")
    filename = (root.findtext("filename") or "").strip()
    found = Annotation([], [], [], [], _read_size(root.find("size")), filename, [], [])
    for number, element in enumerate(root.iterfind("object"), 1):
        name = (element.findtext("name") or "").strip()
        box, case, detail = _read_box(element.find("bndbox"))
        if not name:
            found.faults.append([number, "no_class_name", "has no <name>"])
        elif case:
            found.faults.append([number, case, f"{name}: {detail}"])
        else:
            found.names.append(name)
            found.boxes.append(box)
            found.difficult.append((element.findtext("difficult") or "").strip().lower() in ("1", "true"))
            found.numbers.append(number)
            found.tracks.append((element.findtext("trackid") or "").strip())
    return found


def _parse(path: str):
    try:
        text = read_annotation(path)
        if len(text) > USUAL_BYTES or b"<!DOCTYPE" in text.replace(b"\0", b""):  # zeros: UTF-16
            _refuse_growth(text, path)
        return ET.XML(text)
    except (ET.ParseError, expat.ExpatError) as error:
        line, column = (error.lineno, error.offset) if isinstance(error, expat.ExpatError) else error.position
        reason = str(error).partition(": line")[0]
        raise BadAnnotation(f"{path}, line {line}: malformed XML ({reason}, column {column})") from None
    except OSError as error:
        raise BadAnnotation(f"{path}: cannot be read ({error.strerror or error})") from None
    except (LookupError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise BadAnnotation(f"{path}: its text encoding cannot be read ({error}); save it as UTF-8") from None


def read_annotation(path: str) -> bytes:
    """The content of an annotation file, XML or text; BadAnnotation for one that is too large or no file at all."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading from a pipe would never end
        raise BadAnnotation(f"{path}: is no file")
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise BadAnnotation(f"{path}: larger than {MAX_BYTES >> 20} MB, which is no annotation of an image")
    return text


def _refuse_growth(text: bytes, path: str):
    """Entities can grow without end and name other files; no annotation needs any, nor endless nesting."""
    parser, depth = expat.ParserCreate(), 0

    def refuse(name, *_):
        line = parser.CurrentLineNumber
        raise BadAnnotation(f"{path}, line {line}: declares the entity '{name}', which is refused", "entities")

    def enter(*_):
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise BadAnnotation(
                f"{path}, line {parser.CurrentLineNumber}: more than {MAX_DEPTH} elements in each other"
            )

    def leave(_):
        nonlocal depth
        depth -= 1

    parser.EntityDeclHandler, parser.StartElementHandler, parser.EndElementHandler = refuse, enter, leave
    parser.Parse(text, True)


def _read_size(element) -> tuple[int, int] | None:
    """(height, width) if both are positive numbers."""
    if element is None:
        return None
    try:
        size = int(float(element.findtext("height") or 0)), int(float(element.findtext("width") or 0))
    except (ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _read_box(element) -> tuple[list | None, str, str]:
    """(box, '', '') or (None, case, detail) of a <bndbox>."""
    if element is None:
        return None, "no_box", "has no <bndbox>"
    texts = [element.findtext(corner) for corner in CORNERS]
    try:
        return list(map(float, texts)), "", ""
    except (TypeError, ValueError):
        given = ", ".join(f"{corner} {text!r}" for corner, text in zip(CORNERS, texts, strict=True))
        return None, "no_number", f"<bndbox> needs four numbers, not {given}"
