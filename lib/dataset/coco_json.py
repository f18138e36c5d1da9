"""Annotation files of COCO and COCO-VID: read, checked, and sorted by image and by time."""

import json
import logging
import math
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from ..utils.errors import UserError
from .voc_xml import Annotation

logger = logging.getLogger(__name__)

FRAME_KEYS = ("frame_id", "frame_index")
TRACK_KEYS = ("instance_id", "track_id")

OUTLINES = re.compile(rb'"(?:segmentation|counts)"\s*:\s*\[[-+.,\d\seE\[\]]*\]')
"""Lists of numbers that outline objects: most of COCO's files, and of no use here.  No text inside JSON looks like
this, because its quotes would have backslashes before them."""


class CocoImage(NamedTuple):
    """An image: its id, its file name, its video (a position in CocoFile.videos, -1 for a still), its number there, and
    what the file says of its objects, with boxes as corners."""

    id: int | str
    file_name: str
    video: int
    frame: int
    annotation: Annotation


class CocoFile(NamedTuple):
    """What a file says: class names in the order of the category ids, and these ids; images; the names of the videos,
    [] for stills; whether there are annotations at all; the annotations of images that are not listed, as (number from
    1, detail).

    The images of a video stand together, in order of time; a still among videos is a video of its own.
    """

    path: Path
    class_names: list[str]
    category_ids: list[int | str]
    images: list[CocoImage]
    videos: list[str]
    annotated: bool
    unlisted: list[tuple[int, str]]


def read_coco(path: Path) -> CocoFile:
    """Read an annotation file; UserError for one that does not have the form of COCO or COCO-VID.

    Corners are x, y, x + width, y + height of 'bbox'; 'instance_id' or 'track_id' names the track.  'iscrowd' is a
    crowd, and difficult; but an object that has a track is a single one, and difficult only.  Objects that are
    incomplete are told by the annotation of their image.
    """
    content = _load(path)
    categories = _by_id(path, content, "categories")
    class_names = {key: _text(item, "name", place) for key, (place, item) in categories.items()}
    listed = _by_id(path, content, "images")
    if not listed:
        raise UserError(f"{path}: 'images' is empty")
    annotated = content.get("annotations") is not None
    items = _items(path, content, "annotations") if annotated else []
    annotations, unlisted = _sort_by_image(items, listed, class_names)
    videos = _by_id(path, content, "videos") if content.get("videos") else {}
    number_of = {key: number for number, key in enumerate(videos)}
    if not videos and any(item.get("video_id") is not None for _, item in listed.values()):
        logger.warning("%s: its images have a video_id, but there are no 'videos': they are read as stills", path)
    images = []
    for key, (place, item) in listed.items():
        annotation = annotations[key]._replace(size=_size(item))
        video = _video_number(item, number_of, place) if videos else -1
        images.append(CocoImage(key, _text(item, "file_name", place), video, _frame_number(item, place), annotation))
    titles = []
    if videos:
        images, titles = _by_time(images, _titles(videos), path)
    ids = sorted(class_names, key=lambda key: (isinstance(key, str), key))
    return CocoFile(path, [class_names[key] for key in ids], ids, images, titles, annotated, unlisted)


def _load(path: Path) -> dict:
    try:
        try:
            content = json.loads(OUTLINES.sub(b'"segmentation":0', path.read_bytes()))
        except json.JSONDecodeError:
            content = json.loads(path.read_bytes())  # once more, for the place of the mistake in the file as it is
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}"
        raise UserError(f"{where}: malformed JSON ({error.msg}, column {error.colno})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: no JSON that can be read ({error})") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds a {type(content).__name__}; COCO annotations are an object with 'images', 'annotations' "
            f"and 'categories'"
        )
    return content


def _items(path: Path, content: dict, key: str) -> list[dict]:
    """The list of objects under a key."""
    items = content.get(key)
    if items is None:
        videos = content.get("videos")
        listed = isinstance(videos, list) and any(isinstance(video, dict) and "file_names" in video for video in videos)
        hint = "; files that list the images of each video (YouTube-VIS) are not read" if listed else ""
        held = ", ".join(map(repr, content)) or "nothing"
        raise UserError(f"{path}: has no '{key}'; it holds {held}{hint}")
    if not isinstance(items, list):
        raise UserError(f"{path}: '{key}' is no list")
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise UserError(f"{path}: {key}[{position}] is no object: {_shown(item)}")
    return items


def _by_id(path: Path, content: dict, key: str) -> dict:
    """{id: (place, object)} of the list under a key; place names the object in messages."""
    found = {}
    for position, item in enumerate(_items(path, content, key)):
        place, number = f"{path}: {key}[{position}]", item.get("id")
        if not _is_id(number):
            raise UserError(f"{place}: 'id' is {_shown(number)}; it must be a whole number or a text")
        if number in found:
            raise UserError(f"{place}: the id {number!r} is also that of {found[number][0].rpartition(': ')[2]}")
        found[number] = place, item
    return found


def _sort_by_image(items, listed: dict, class_names: dict) -> tuple[dict, list]:
    """({image id: Annotation}, unlisted) of the objects, which are numbered from 1 through the file."""
    found = defaultdict(lambda: Annotation([], [], [], [], None, "", [], [], [], []))
    unlisted = []
    for number, item in enumerate(items, 1):
        key, category = item.get("image_id"), item.get("category_id")
        if not _is_id(key) or key not in listed:
            unlisted.append((number, f"image_id {_shown(key)} is the id of no image"))
            continue
        image, name = found[key], class_names.get(category) if _is_id(category) else None
        box, case, detail = _corners(item.get("bbox"))
        if category is None:
            image.faults.append([number, "no_class_name", "has no category_id"])
        elif name is None:
            image.faults.append([number, "unknown_class", f"category_id {_shown(category)} is the id of no category"])
        elif case:
            image.faults.append([number, case, f"{name}: {detail}"])
        else:
            track, crowd = _track(item), bool(item.get("iscrowd"))
            if crowd and not track:
                image.crowds.append(len(image.names))
            image.names.append(name)
            image.boxes.append(box)
            image.difficult.append(crowd)
            image.numbers.append(number)
            image.tracks.append(track)
            image.areas.append(_area(item))
    return found, unlisted


def _corners(bbox) -> tuple[list | None, str, str]:
    """(box, '', '') or (None, case, detail) of x, y, width, height."""
    if bbox is None:
        return None, "no_box", "has no bbox"
    try:
        x, y, width, height = map(float, bbox if isinstance(bbox, list) else ())
    except (TypeError, ValueError, OverflowError):
        return None, "no_number", f"bbox needs the four numbers x, y, width, height, not {_shown(bbox)}"
    return [x, y, x + width, y + height], "", ""


def _track(item: dict) -> str:
    """The name of an object's track, '' for none; so count numbers below 0, and what is neither number nor text."""
    value = _first_given(item, TRACK_KEYS)
    if value is None:
        return ""
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    is_name = value >= 0 if isinstance(value, int | float) else isinstance(value, str)
    return str(value) if is_name else ""


def _area(item: dict) -> float:
    """The area of an object's outline in pixels, NaN where it is not given or no positive number."""
    value = item.get("area")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < sys.float_info.max else math.nan


def _size(item: dict) -> tuple[int, int] | None:
    """(height, width) if both are positive numbers."""
    try:
        size = int(item["height"]), int(item["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _video_number(item: dict, number_of: dict, place: str) -> int:
    """The position of an image's video, -1 where it names none."""
    key = item.get("video_id")
    if key is None:
        return -1
    if not _is_id(key) or key not in number_of:
        raise UserError(f"{place}: video_id {_shown(key)} is the id of no video")
    return number_of[key]


def _frame_number(item: dict, place: str) -> int | None:
    """The number of a frame in its video, None where it has none."""
    value = _first_given(item, FRAME_KEYS)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 62):
        key = next(key for key in FRAME_KEYS if item.get(key) is not None)
        raise UserError(f"{place}: {key} is {_shown(value)}; it must be a whole number")
    return value


def _first_given(item: dict, keys):
    for key in keys:
        value = item.get(key)
        if value is not None:
            return value
    return None


def _titles(videos: dict) -> list[str]:
    """The names of the videos, with the id added to those that several have."""
    names = [str(item.get("name") or key) for key, (_, item) in videos.items()]
    counts = Counter(names)
    return [f"{name}/{key}" if counts[name] > 1 else name for name, key in zip(names, videos, strict=True)]


def _by_time(images, titles, path: Path) -> tuple[list[CocoImage], list[str]]:
    """The images sorted by video and frame, and the names of the videos; stills come last, each as a video."""
    of_video = [[] for _ in titles]
    stills = []
    for image in images:
        (stills if image.video < 0 else of_video[image.video]).append(image)
    ordered = [image for name, frames in zip(titles, of_video, strict=True) for image in _frames(frames, name, path)]
    ordered += [image._replace(video=len(titles) + n, frame=image.frame or 0) for n, image in enumerate(stills)]
    return ordered, titles + [image.file_name for image in stills]


def _frames(images, name: str, path: Path) -> list[CocoImage]:
    """The images of a video in order of time; without numbers that is their order in the file."""
    unnumbered = [image for image in images if image.frame is None]
    if unnumbered and len(unnumbered) < len(images):
        raise UserError(f"{path}: video '{name}': {unnumbered[0].file_name} has no frame_id, other frames have one")
    if unnumbered:
        return [image._replace(frame=frame) for frame, image in enumerate(images)]
    images = sorted(images, key=lambda image: image.frame)
    for one, other in zip(images[:-1], images[1:], strict=True):
        if one.frame == other.frame:
            raise UserError(f"{path}: video '{name}': {one.file_name} and {other.file_name} are both frame {one.frame}")
    return images


def _text(item: dict, key: str, place: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: '{key}' is {_shown(value)}; it must be a text")
    return value


def _is_id(value) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _shown(value) -> str:
    """A value in a message, cut short."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deep"
    return text if len(text) <= 60 else f"{text[:57]}..."
