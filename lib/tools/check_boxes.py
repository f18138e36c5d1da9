"""Boxes that stand out: too small for the network, unlike their class, or twice in the same place."""

import numpy as np
import torch

from ..layers.box import pairwise_iou
from .check_problems import NOTE, WARNING, Offender, Problem
from .check_sets import ImageSet

EDGES = (8, 16, 32, 64, 128)
"""Edges of the size classes, roots of areas in pixels of the network's input."""

TINY, MANY_TINY = 8, 0.05
SAME_PLACE = 0.9  # IoU
WHOLE = 0.98  # of the image
BORDER = 2.0  # pixels: a box that touches the border may show a part of its object
FAR, CLOSE = 6.0, 2.0  # robust standard deviations from the median of the class
LEAST_OBJECTS = 20  # of a class or images of a set, to know what is usual
LEAST_SPREAD = 0.15  # of logarithms: objects of one size are not all 1 pixel apart
MANY_OBJECTS = 10
SHOWN = 500  # offenders kept of a kind that may be met everywhere


def input_sides(each: ImageSet, image_size) -> np.ndarray:
    """Width and height of every object [M, 2] in pixels of the network's input of `image_size` (height, width)."""
    return each.sides() / each.records.sizes[each.owner][:, ::-1] * np.asarray(image_size, np.float64)[::-1]


def size_rows(sets: list[ImageSet], image_size) -> list[dict]:
    """For every set: objects, how many fall between the EDGES, the median size (root of the area at the network's
    input), and the ratios width / height in the file that 1 %, half and 99 % of the objects stay below."""
    rows = []
    for each in sets:
        row = {"set": each.name, "images": len(each.records), "objects": len(each.owner)}
        sizes = np.sqrt(input_sides(each, image_size).prod(axis=1))
        counts = np.bincount(np.digitize(sizes, EDGES), minlength=len(EDGES) + 1).tolist()
        names = [f"<{EDGES[0]}", *(f"{a}-{b}" for a, b in zip(EDGES, EDGES[1:], strict=False)), f">={EDGES[-1]}"]
        row["sizes"] = dict(zip(names, counts, strict=True))
        sides = each.sides()
        some = len(sides) > 0
        row["median_size"] = round(float(np.median(sizes)), 1) if some else None
        points = np.quantile(sides[:, 0] / sides[:, 1], (0.01, 0.5, 0.99)).round(3).tolist() if some else None
        row["ratios"] = points
        rows.append(row)
    return rows


def find_box_problems(sets: list[ImageSet], image_size) -> list[Problem]:
    """The problems with boxes that could be read; those that could not were told when the set was opened."""
    same, other = _same_place(sets)
    return [same, other, *_unlike_class(sets), _tiny(sets, image_size), _whole_image(sets), _crowded(sets)]


def _same_place(sets: list[ImageSet]) -> list[Problem]:
    same, other = [], []
    for each in sets:
        offsets, boxes = each.records.offsets, torch.from_numpy(each.records.boxes)
        for image in np.flatnonzero(np.diff(offsets) > 1).tolist():
            first, last = offsets[image : image + 2].tolist()
            ious = torch.triu(pairwise_iou(boxes[first:last], boxes[first:last]), 1)
            for i, j in (ious > SAME_PLACE).nonzero().tolist():
                if not (each.single[first + i] and each.single[first + j]):
                    continue
                names = each.class_of(first + i), each.class_of(first + j)
                words = f"two boxes of {names[0]}" if names[0] == names[1] else f"{names[0]} and {names[1]}"
                offender = each.offender(image, f"{words}, IoU {ious[i, j]:.2f}", [first + i, first + j])
                (same if names[0] == names[1] else other).append(offender)
    return [
        Problem("same_box", WARNING, f"pair of boxes of one class in the same place (IoU above {SAME_PLACE})",
                "One object annotated twice, most likely: of the two at most one can be found. Delete one.", same),
        Problem("same_place", WARNING, f"pair of boxes of two classes in the same place (IoU above {SAME_PLACE})",
                "The detector is told two things of one object. Delete the wrong one, unless objects may be both.",
                other),
    ]  # fmt: skip


def _unlike_class(sets: list[ImageSet]) -> list[Problem]:
    """Sizes and ratios far from the usual of their class, over all sets; boxes at the border are passed over."""
    sides = np.concatenate([each.sides() for each in sets])
    image_sides = np.concatenate([each.records.sizes[each.owner][:, ::-1] for each in sets]).astype(np.float64)
    labels = np.concatenate([each.records.labels for each in sets])
    boxes = np.concatenate([each.records.boxes for each in sets])
    inner = (boxes[:, :2] > BORDER).all(axis=1) & (boxes[:, 2:] < image_sides - BORDER).all(axis=1)
    inner &= np.concatenate([each.single for each in sets])
    ratios = np.log(sides[:, 0] / sides[:, 1])
    sizes = np.log(sides.prod(axis=1) / image_sides.prod(axis=1)) / 2
    found = {"swapped": [], "odd_ratio": [], "odd_size": []}
    for label in np.unique(labels).tolist():
        chosen = np.flatnonzero(inner & (labels == label))
        if len(chosen) < LEAST_OBJECTS:
            continue
        (ratio, ratio_spread), (size, size_spread) = _usual(ratios[chosen]), _usual(sizes[chosen])
        off_ratio, off_size = (ratios[chosen] - ratio) / ratio_spread, (sizes[chosen] - size) / size_spread
        mirrored = np.abs(-ratios[chosen] - ratio) / ratio_spread
        far, swapped = np.abs(off_ratio) > FAR, (np.abs(off_ratio) > FAR) & (mirrored < CLOSE)
        for key, mask, off, usual in (
            ("swapped", swapped, off_ratio, np.exp(ratio)),
            ("odd_ratio", far & ~swapped, off_ratio, np.exp(ratio)),
            ("odd_size", np.abs(off_size) > FAR, off_size, np.exp(size)),
        ):
            found[key] += [(abs(off[i]), int(chosen[i]), float(usual)) for i in np.flatnonzero(mask).tolist()]
    texts = {
        "swapped": (WARNING, "box with width and height swapped, probably", "Turned round, it would be as its class."),
        "odd_ratio": (NOTE, "box of a shape unusual in the class", f"More than {FAR:g} robust standard deviations from "
                      "the median of the class, on a scale of logarithms. Look whether the box fits its object."),
        "odd_size": (NOTE, "box of a size unusual in the class", f"More than {FAR:g} robust standard deviations "
                     "from the median of the class, on a scale of logarithms. Look whether the box fits its object."),
    }  # fmt: skip
    starts = np.cumsum([0, *(len(each.owner) for each in sets)])
    problems = []
    for key, (severity, title, advice) in texts.items():
        ranked = sorted(found[key], key=lambda item: -item[0])
        offenders = [_outlier(sets, starts, position, usual, key) for _, position, usual in ranked]
        problems.append(Problem(key, severity, title, advice, offenders))
    return problems


def _usual(values) -> tuple[float, float]:
    """(median, robust standard deviation) of values."""
    middle = np.median(values)
    return float(middle), max(1.4826 * float(np.median(np.abs(values - middle))), LEAST_SPREAD)


def _outlier(sets, starts, position: int, usual: float, key: str) -> Offender:
    number = int(np.searchsorted(starts, position, side="right")) - 1
    each, own = sets[number], position - int(starts[number])
    image, (x1, y1, x2, y2) = int(each.owner[own]), each.records.boxes[own].tolist()
    width, height = x2 - x1, y2 - y1
    sides = f"{each.class_of(own)} of {width:.0f} x {height:.0f} pixels"
    if key == "odd_size":
        area = each.records.sizes[image].astype(float).prod()
        what = f"{sides}, {np.sqrt(width * height / area) / usual:.2g} times the usual side"
    else:
        what = f"{sides}: width / height {width / height:.2g}, usually {usual:.2g}"
    return each.offender(image, what, [own])


def _tiny(sets: list[ImageSet], image_size) -> Problem:
    offenders, counts, many = [], {}, False
    for each in sets:
        sizes = np.sqrt(input_sides(each, image_size).prod(axis=1))
        small = np.flatnonzero((sizes < TINY) & each.single)
        small = small[np.argsort(sizes[small], kind="stable")]
        if len(small):
            counts[each.name] = len(small)
            many |= len(small) >= MANY_TINY * len(sizes)
        for position in small[:SHOWN].tolist():
            what = f"{each.class_of(position)}: side {sizes[position]:.1f} pixels at the network's input"
            offenders.append(each.offender(int(each.owner[position]), what, [position]))
    height, width = image_size
    advice = (
        f"The root of the area, after the image is resized to MODEL.IMAGE_SIZE {height} x {width}. Hardly any detector "
        "finds such objects: a larger IMAGE_SIZE or a level of finer stride helps. How well the priors cover them: "
        "python -m lib.tools.priors."
    )
    title = f"object below {TINY} pixels at the network's input"
    return Problem("tiny", WARNING if many else NOTE, title, advice, offenders, counts)


def _whole_image(sets: list[ImageSet]) -> Problem:
    offenders = []
    for each in sets:
        share = each.sides().prod(axis=1) / each.records.sizes[each.owner].astype(np.float64).prod(axis=1)
        for position in np.flatnonzero(share >= WHOLE).tolist():
            what = f"{each.class_of(position)} on {100 * share[position]:.0f} % of the image"
            offenders.append(each.offender(int(each.owner[position]), what, [position]))
    advice = "Right for close-ups; often left over from a tool that needs a box in every image."
    return Problem("whole_image", NOTE, "box on the whole image", advice, offenders)


def _crowded(sets: list[ImageSet]) -> Problem:
    offenders = []
    for each in sets:
        counts = np.diff(each.records.offsets)
        held = counts[counts > 0]
        if len(held) < LEAST_OBJECTS:
            continue
        middle, spread = _usual(np.log(held))
        limit = max(np.exp(middle + FAR * spread), MANY_OBJECTS)
        for image in np.flatnonzero(counts > limit).tolist():
            positions = range(*each.records.offsets[image : image + 2].tolist())
            what = f"{counts[image]} objects, usually {np.exp(middle):.0f}"
            offenders.append(each.offender(image, what, positions))
    advice = "Look whether boxes were pasted twice or belong to another image."
    return Problem("crowded", NOTE, "image with far more objects than usual", advice, offenders)
