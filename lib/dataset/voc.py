"""Data sets with VOC annotations: the kinds voc, custom, customRNN and imagenet of DATASET.DATASET.

A kind is a parser from plain arguments to `DetectionRecords`, registered in DATASETS under its name.
"""

import logging
from collections import Counter
from dataclasses import replace

import numpy as np

from ..utils.class_names import IMAGENET_VID_CLASSES, VOC_CLASSES
from ..utils.errors import UserError, nearest
from .detection import DATASETS, DetectionRecords
from .split import NO_PLAN
from .transforms import read_image
from .voc_layout import choose_sets, default_sets, open_folders
from .voc_xml import parse_annotation

logger = logging.getLogger(__name__)

_DISCOVERY_HINT = " (DATASET.DATASET: custom takes the names from the annotations)"
SLACK = 1.0
"""Pixels by which a box may leave its image unmentioned: tools that count from 0 are one off."""


@DATASETS.register("voc")
def read_voc(roots, sets, role, class_names=(), plan=NO_PLAN, where="DATASET.TRAIN_SETS") -> DetectionRecords:
    """Pascal VOC: the twenty classes, unless others are given.  Arguments as read_custom."""
    return read_custom(roots, sets, role, class_names or VOC_CLASSES, plan, where)


@DATASETS.register("imagenet")
def read_imagenet(roots, sets, role, class_names=(), plan=NO_PLAN, where="DATASET.TRAIN_SETS") -> DetectionRecords:
    """ImageNet VID in VOC layout: its thirty synsets, unless others are given.  Arguments as read_custom."""
    return read_custom(roots, sets, role, class_names or IMAGENET_VID_CLASSES, plan, where)


@DATASETS.register("customRNN")
@DATASETS.register("custom")
def read_custom(roots, sets, role, class_names=(), plan=NO_PLAN, where="DATASET.TRAIN_SETS") -> DetectionRecords:
    """Any data set with VOC annotations.

    roots: folders that are joined; sets: split names and [year, split] pairs, or None for what the folders offer to
    `role` (train, eval, test); class_names without the background, or () for those found, sorted, in all sets, so
    that training and test agree; plan: how folders without lists are split; where: the key that gave the sets.
    Boxes without area, with a NaN or outside the image are dropped, others cut to the image, in one warning.
    Raises UserError for anything missing, malformed or unknown.
    """
    folders = open_folders(roots, plan)
    chosen = choose_sets(folders, sets, where) if sets else default_sets(folders, role)
    if not chosen and role == "eval":
        logger.warning("%s is not set and no val set is left to use: the test images choose the best checkpoint", where)
        chosen = default_sets(folders, "test")
    if not chosen:
        offered = "; ".join(f"{folder.path} has {', '.join(folder.offers())}" for folder in folders)
        raise UserError(f"{where}: no usual set for {role}: {offered}; name one")
    parsed = {}
    level = logging.INFO if role == "train" else logging.DEBUG
    class_names = tuple(class_names) or discover_classes(folders, parsed, level)
    _check_names(class_names)
    faults = _Faults()
    parts, seen = [], Counter()
    for folder in dict.fromkeys(folder for folder, _ in chosen):
        splits = [split for owner, split in chosen if owner is folder]
        entries = [entry for split in dict.fromkeys(splits) for entry in folder.entries(split)]
        seen["all"] += len(entries)
        entries = list({entry.image: entry for entry in entries}.values())
        seen["once"] += len(entries)
        parts.append(_build(entries, class_names, folder.name, parsed, faults))
    if seen["all"] > seen["once"]:
        logger.warning("%s: %d images named more than once count once", where, seen["all"] - seen["once"])
    faults.tell()
    names = " + ".join(f"{folder.name}/{split}" for folder, split in chosen)
    return replace(DetectionRecords.concat(parts), name=names)


def discover_classes(folders, parsed: dict, level: int = logging.DEBUG) -> tuple[str, ...]:
    """All class names in all image sets of the folders, sorted; fills `parsed` {path: Annotation} on the way."""
    counts = Counter()
    for folder in folders:
        for path in folder.listed_annotations():
            parsed[path] = parse_annotation(path)
            counts.update(parsed[path].names)
    if not counts:
        places = ", ".join(str(folder.path) for folder in folders)
        raise UserError(f"{places}: no annotation holds an object; DATASET.CLASSES must name the classes")
    logger.log(level, "classes found: %s", ", ".join(f"{name} ({counts[name]})" for name in sorted(counts)))
    return tuple(sorted(counts))


def _check_names(names):
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"DATASET.CLASSES: '{repeated[0]}' is named twice")


def _build(entries, class_names, name: str, parsed: dict, faults) -> DetectionRecords:
    """The records of one folder."""
    label_of = {text: label for label, text in enumerate(class_names, 1)}
    sizes, counts, labels, boxes, difficult = [], [], [], [], []
    for entry in entries:
        found = parsed.get(entry.annotation) or parse_annotation(entry.annotation)
        for number, text in enumerate(found.names, 1):
            if text not in label_of:
                hint = _DISCOVERY_HINT if class_names in (VOC_CLASSES, IMAGENET_VID_CLASSES) else ""
                help_text = nearest(text, class_names) + hint
                raise UserError(f"{entry.annotation}: object {number}: class '{text}' is unknown; {help_text}")
            labels.append(label_of[text])
        sizes.append(_image_size(entry, found))
        counts.append(len(found.names))
        boxes += found.boxes
        difficult += found.difficult
    raw = np.asarray(boxes, np.float64).reshape(-1, 4)
    owner = np.repeat(np.arange(len(entries)), counts)
    cleaned, good = _clean(raw, np.asarray(sizes, np.float64).reshape(-1, 2)[owner], owner, entries, counts, faults)
    kept = np.bincount(owner[good], minlength=len(entries))
    return DetectionRecords.build(
        class_names,
        [entry.image for entry in entries],
        [entry.key for entry in entries],
        sizes,
        cleaned[good],
        np.asarray(labels, np.int64)[good],
        np.asarray(difficult, bool)[good],
        kept,
        name,
    )


def _image_size(entry, annotation) -> tuple[int, int]:
    """(height, width).  The image itself is asked where the annotation gives none, or one that its boxes exceed."""
    size = annotation.size
    if size is not None:
        height, width = size
        if all(box[2] <= width + SLACK and box[3] <= height + SLACK for box in annotation.boxes):
            return size
    return read_image(entry.image).shape[:2]


def _clean(raw, sizes, owner, entries, counts, faults):
    """0-based boxes [M, 4] cut to their images of sizes [M, 2] (height, width), and the mask of the good ones."""
    boxes = raw - 1
    limits = sizes[:, ::-1]
    finite = np.isfinite(boxes).all(axis=1)
    boxes[~finite] = 0
    area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    touches = (boxes[:, :2] < limits).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    beyond = (boxes[:, :2] < -SLACK).any(axis=1) | (boxes[:, 2:] > limits + SLACK).any(axis=1)
    cases = {
        "with NaN or infinite corners dropped": ~finite,
        "empty or reversed dropped": finite & ~area,
        "outside the image dropped": finite & area & ~touches,
        "partly outside cut to the image": finite & area & touches & beyond,
    }
    starts = np.cumsum([0, *counts])
    for case, found in cases.items():
        for position in np.flatnonzero(found)[:1]:
            number = position - starts[owner[position]] + 1
            corners = ", ".join(f"{value:g}" for value in raw[position])
            place = f"{entries[owner[position]].annotation} object {number} ({corners})"
            faults.add(case, int(np.count_nonzero(found)), place)
    return np.clip(boxes, 0, np.tile(limits, 2)), finite & area & touches


class _Faults:
    """Counts of annotation faults, told in one line."""

    def __init__(self):
        self._counts, self._first = Counter(), ""

    def add(self, case: str, count: int, place: str):
        self._counts[case] += count
        self._first = self._first or place

    def tell(self):
        if self._counts:
            cases = ", ".join(f"{count} {case}" for case, count in self._counts.items())
            logger.warning("boxes in the annotations: %s; the first is %s", cases, self._first)
