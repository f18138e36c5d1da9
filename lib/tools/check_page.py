"""The page of the check tool: what is wrong, with pictures of it, worst first, and how classes and boxes are spread."""

import logging
from pathlib import Path

import cv2
import numpy as np

from ..dataset.image_header import UnreadableImage
from ..dataset.transforms import read_image
from ..solver.figures import render_figure
from ..utils.draw import GREY, PALETTE, WHITE, draw_boxes, draw_note
from ..utils.page import Page
from .check_plots import class_figure, count_figure, ratio_figure, size_figure
from .check_problems import Offender, Problem
from .check_sets import ImageSet
from .check_text import class_table, place_of, size_table, verdict

log = logging.getLogger(__name__)

HEIGHT, WIDTH = 300, 400
"""Pixels of a picture; of a pair, each image has as many."""

MARKED = PALETTE[5][::-1]
SMALLEST_MARK = 14  # pixels of the picture: smaller boxes are marked by a frame around them
MARGIN = 3.0  # times the box, of what is shown around one that would be lost in its image
LOST = 0.03  # of the longer side of the image


def write_page(path: Path, figures: dict, problems: list[Problem], sets: list[ImageSet], pictures: int) -> Path:
    """Write the page, with at most so many pictures of each problem; figures: what the JSON file holds."""
    exif = sets[0].records.exif
    parts = [f"{row['set']} {row['images']:,} images, {row['objects']:,} objects" for row in figures["sizes"]]
    about = f"{'; '.join(parts)}. Found: {verdict(problems)}. Written by lib.tools.check."
    page = Page(f"Data of {figures['check of']}", about)
    page.heading("What was found")
    if problems:
        page.table(
            ("", "what", "in", "what it means and what to do"),
            [(p.severity, p.headline(), p.sets(), p.advice) for p in problems],
        )
        page.text(
            "An error costs accuracy or makes a score wrong; a warning is probably a mistake; a note may be as it "
            "should be. Pictures of each follow in this order: orange is what is meant, grey are the other objects. A "
            f"cleaned copy of the data: python -m lib.tools.check --cfg {figures['check of']} --fix OUT",
            soft=True,
        )
    else:
        page.text("Nothing is wrong with this data, as far as a program can tell.")
    objects = _Objects(sets)
    for problem in problems:
        _add_problem(page, problem, objects, pictures, exif)
    _add_statistics(page, figures, sets)
    return page.write(path)


class _Objects:
    """The boxes of the objects of every image, by set and path."""

    def __init__(self, sets: list[ImageSet]):
        self._sets = {each.name: each.records for each in sets}
        self._index: dict[str, dict[str, int]] = {}

    def boxes(self, name: str, path: str) -> np.ndarray:
        """Boxes [N, 4] in pixels; none of an image that the set left out."""
        if name not in self._sets:
            return np.zeros((0, 4))
        if name not in self._index:
            self._index[name] = {path: i for i, path in enumerate(self._sets[name].paths)}
        image = self._index[name].get(path)
        return np.zeros((0, 4)) if image is None else self._sets[name].objects(image)[0]


def _add_problem(page: Page, problem: Problem, objects: _Objects, number: int, exif: str) -> None:
    """A section about a problem: pictures where there are any, else a list."""
    page.heading(problem.headline())
    page.text(f"{problem.severity.capitalize()}. {problem.advice}")
    pictures = []
    for offender in problem.offenders:
        if len(pictures) == number:
            break
        picture = _picture(offender, objects, exif)
        if picture is not None:
            pictures.append((picture, place_of(offender), _caption(offender)))
    if pictures:
        page.gallery(pictures)
        if problem.count > len(pictures):
            page.text(f"{len(pictures)} of {problem.count:,} are shown.", soft=True)
    else:
        rows = [(each.set, place_of(each), each.what) for each in problem.offenders[: 4 * number]]
        page.table(("set", "file", "what"), rows)


def _caption(offender: Offender) -> str:
    return offender.what if offender.other else f"{offender.set}: {offender.what}"


def _picture(offender: Offender, objects: _Objects, exif: str):
    """The image of an offender with its boxes, or both images of a pair; None where it cannot be read."""
    try:
        image = _marked(offender, objects.boxes(offender.set, offender.image), exif)
        if offender.other is None:
            return image
        role, path = offender.other
        other = _marked(Offender(role, path, ""), objects.boxes(role, path), exif)
    except UnreadableImage:
        return None
    image, other = draw_note(image, offender.set), draw_note(other, role)
    gap = np.full((6, WIDTH, 3), WHITE, np.uint8)
    return np.vstack([_fit(image), gap, _fit(other)])


def _marked(offender: Offender, others, exif: str) -> np.ndarray:
    """An image with its objects in grey and the boxes of an offender marked, as large as it is shown; of a small box
    the surroundings."""
    image = read_image(offender.image, exif) if offender.image else None
    if image is None:
        raise UnreadableImage("no image is named")
    height, width = image.shape[:2]
    boxes = np.array(offender.boxes, np.float64).reshape(-1, 4)
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    boxes = np.hstack([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])])
    left, top, right, bottom = _view(boxes, width, height)
    image = image[top:bottom, left:right]
    scale = min(WIDTH / image.shape[1], HEIGHT / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    shift = np.array([left, top] * 2)
    image = draw_boxes(image, (np.asarray(others, np.float64).reshape(-1, 4) - shift) * scale, colors=GREY, thickness=1)
    return draw_boxes(image, _visible((boxes - shift) * scale), colors=MARKED, thickness=2)


def _view(boxes, width: int, height: int) -> tuple[int, int, int, int]:
    """What of an image is shown: all of it, or the surroundings of a single box that would be lost in it."""
    if len(boxes) != 1 or (boxes[0, 2:] - boxes[0, :2]).max() >= LOST * max(width, height):
        return 0, 0, width, height
    centre = (boxes[0, :2] + boxes[0, 2:]) / 2
    if not (0 <= centre[0] <= width and 0 <= centre[1] <= height):
        return 0, 0, width, height
    side = min(max(MARGIN * (boxes[0, 2:] - boxes[0, :2]).max(), 0.3 * max(width, height)), width, height)
    left, top = (int(np.clip(c - side / 2, 0, n - side)) for c, n in zip(centre, (width, height), strict=True))
    return left, top, round(left + side), round(top + side)


def _visible(boxes) -> np.ndarray:
    """Boxes of which those too small to see become a frame around them."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half = np.maximum(half, SMALLEST_MARK / 2)
    return np.hstack([middle - half, middle + half])


def _fit(image) -> np.ndarray:
    """An image in the middle of a white field as wide as all."""
    field = np.full((image.shape[0], WIDTH, 3), WHITE, np.uint8)
    left = (WIDTH - image.shape[1]) // 2
    field[:, left : left + image.shape[1]] = image
    return field


def _add_statistics(page: Page, figures: dict, sets: list[ImageSet]) -> None:
    height, width = figures["image_size"]
    page.heading("Classes")
    head, *rows = class_table(figures["classes"])
    objects = [[part["objects"] for part in row["sets"].values()] for row in figures["classes"]]
    page.table(head, [(name, *zip(cells, own, strict=True)) for (name, *cells), own in zip(rows, objects, strict=True)])
    page.picture(render_figure(class_figure(figures["classes"])))
    page.heading("Sizes and shapes")
    head, *rows = size_table(figures["sizes"])
    page.table(head, rows, f"Sizes are roots of areas in pixels of the network's input, {height} x {width}.")
    for figure in (size_figure(sets, figures["image_size"]), ratio_figure(sets), count_figure(sets)):
        page.picture(render_figure(figure))
    page.text(f"How well the priors cover these objects: python -m lib.tools.priors --cfg {figures['check of']}")
