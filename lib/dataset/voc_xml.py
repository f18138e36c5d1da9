"""One XML annotation of the VOC kind, as written by the VOC organisers, LabelImg and most labelling tools."""

import xml.etree.ElementTree as ET
from typing import NamedTuple

from ..utils.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Annotation(NamedTuple):
    """What an XML file says: names [N], boxes [N] of (xmin, ymin, xmax, ymax) as in the file, difficult [N], size
    (height, width) or None where it is missing, and the file name of the image ('' where it is missing)."""

    names: list
    boxes: list
    difficult: list
    size: tuple[int, int] | None
    filename: str


def parse_annotation(path: str) -> Annotation:
    """Read one annotation; UserError with file and line, or file and object, if it cannot be understood."""
    root = _parse(path)
    if root.tag != "annotation":
        raise UserError(f"{path}: the root element is <{root.tag}>; a VOC annotation has <annotation>")
    found = Annotation([], [], [], _read_size(root.find("size")), (root.findtext("filename") or "").strip())
    for number, element in enumerate(root.iterfind("object"), 1):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise UserError(f"{path}: object {number} has no <name>")
        found.names.append(name)
        found.boxes.append(_read_box(element.find("bndbox"), path, number, name))
        found.difficult.append((element.findtext("difficult") or "").strip().lower() in ("1", "true"))
    return found


def _parse(path: str):
    try:
        with open(path, "rb") as file:
            return ET.XML(file.read())
    except ET.ParseError as error:
        line, column = error.position
        reason = str(error).partition(": line")[0]
        raise UserError(f"{path}, line {line}: malformed XML ({reason}, column {column})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, LookupError) as error:
        raise UserError(f"{path}: its text encoding cannot be read ({error}); save it as UTF-8") from None


def _read_size(element) -> tuple[int, int] | None:
    """(height, width) if both are positive numbers."""
    if element is None:
        return None
    try:
        size = int(float(element.findtext("height") or 0)), int(float(element.findtext("width") or 0))
    except (ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _read_box(element, path: str, number: int, name: str) -> tuple:
    where = f"{path}: object {number} ({name})"
    if element is None:
        raise UserError(f"{where} has no <bndbox>")
    texts = [element.findtext(corner) for corner in CORNERS]
    try:
        return tuple(map(float, texts))
    except (TypeError, ValueError):
        given = ", ".join(f"{corner} {text!r}" for corner, text in zip(CORNERS, texts, strict=True))
        raise UserError(f"{where}: <bndbox> needs four numbers, not {given}") from None
