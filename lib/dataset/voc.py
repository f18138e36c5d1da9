"""Data sets with VOC annotations: the kinds voc, custom, customRNN and imagenet of DATASET.DATASET.

A kind is a parser from plain arguments to `DetectionRecords`, registered in DATASETS under its name.
"""

import logging
from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ..utils.class_names import IMAGENET_VID_CLASSES, VOC_CLASSES
from ..utils.errors import UserError, nearest
from .detection import DATASETS, DetectionRecords
from .facts import FileFacts
from .inspection import Checks, Finding, Findings, check_boxes, check_image
from .split import NO_PLAN
from .voc_layout import choose_sets, default_sets, open_folders
from .voc_xml import Annotation, BadAnnotation

logger = logging.getLogger(__name__)

_DISCOVERY_HINT = " (DATASET.DATASET: custom takes the names from the annotations)"
_WHERE = "DATASET.TRAIN_SETS"
_CHECKS = Checks()
_WITHOUT_ENTRY = ("missing_image", "missing_annotation", "outside_folder", "shared_image")


@DATASETS.register("voc")
def read_voc(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """Pascal VOC: the twenty classes, unless others are given.  Arguments as read_custom."""
    return read_custom(roots, sets, role, class_names or VOC_CLASSES, plan, where, checks)


@DATASETS.register("imagenet")
def read_imagenet(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """ImageNet VID in VOC layout: its thirty synsets, unless others are given.  Arguments as read_custom."""
    return read_custom(roots, sets, role, class_names or IMAGENET_VID_CLASSES, plan, where, checks)


@DATASETS.register("customRNN")
@DATASETS.register("custom")
def read_custom(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """Any data set with VOC annotations, as DetectionRecords.

    roots: folders that are joined; sets: split names and [year, split] pairs, or None for what the folders offer to
    `role` (train, eval, test); class_names without the background, or () for those found, sorted, in all sets, so
    that training and test agree; plan: how folders without lists are split; where: the key that gave the sets;
    checks: what becomes of faulty files, annotations and boxes (inspection.py).  Raises UserError for folders and
    sets that are not there, and where nothing usable is left.
    """
    facts, findings = FileFacts(checks.folder), Findings(checks, role)
    folders = open_folders(roots, plan, facts)
    chosen = _choose(folders, sets, role, where)
    level = logging.INFO if role == "train" else logging.DEBUG
    class_names = tuple(class_names) or discover_classes(folders, facts, level)
    _check_names(class_names)
    entries = {folder: {} for folder, _ in chosen}
    for folder, split in dict.fromkeys(chosen):
        for entry in folder.entries(split, findings):
            if entries[folder].setdefault(entry.image, entry) is not entry:
                findings.add("listed_twice", Finding(entry.image, entry.annotation))
    num_images = sum(map(len, entries.values())) + findings.count(*_WITHOUT_ENTRY)
    parts = [
        _build(list(found.values()), class_names, folder.name, facts, findings) for folder, found in entries.items()
    ]
    facts.save()
    names = " + ".join(f"{folder.name}/{split}" for folder, split in chosen)
    records = DetectionRecords.concat(parts)
    _check_classes(records, findings)
    report = findings.conclude(num_images, len(records), names)
    return replace(records, name=names, exif=checks.exif, report=report)


def discover_classes(folders, facts: FileFacts, level: int = logging.DEBUG) -> tuple[str, ...]:
    """All class names in all image sets of the folders, sorted."""
    found = [fact for folder in folders for fact in facts.annotations(folder.listed_annotations())]
    readable = [fact for fact in found if not isinstance(fact, BadAnnotation)]
    counts = Counter(name for fact in readable for name in fact.names)
    if not counts:
        places = ", ".join(str(folder.path) for folder in folders)
        if not readable:
            why = f"not one of {len(found)} can be read: {found[0]}" if found else "no listed image has one"
            raise UserError(f"{places}: the classes come from VOC annotations (.xml), and {why}")
        raise UserError(f"{places}: no annotation holds an object; DATASET.CLASSES must name the classes")
    names = ", ".join(f"{name} ({counts[name]})" for name in sorted(counts))
    logger.log(level, "classes found: %s", names)
    if len({name.casefold() for name in counts}) < len(counts) and level == logging.INFO:
        logger.warning("some class names differ in upper and lower case only, and count as different: %s", names)
    return tuple(sorted(counts))


def _choose(folders, sets, role: str, where: str) -> list:
    """[(folder, split)] that are opened for a role."""
    chosen = choose_sets(folders, sets, where) if sets else default_sets(folders, role)
    if not chosen and role == "eval":
        logger.warning("%s is not set and no val set is left to use: the test images choose the best checkpoint", where)
        chosen = default_sets(folders, "test")
    if not chosen:
        offered = "; ".join(f"{folder.path} has {', '.join(folder.offers())}" for folder in folders)
        raise UserError(f"{where}: no usual set for {role}: {offered}; name one")
    return chosen


def _check_names(names):
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"DATASET.CLASSES: '{repeated[0]}' is named twice")
    if not all(name.strip() for name in names):
        raise UserError(f"DATASET.CLASSES: name {[bool(n.strip()) for n in names].index(False) + 1} is empty")


def _check_classes(records: DetectionRecords, findings: Findings):
    """UserError if all objects are of unknown classes; otherwise the nearest names go into the line on the screen."""
    unknown = findings.found["unknown_class"]
    if not unknown:
        return
    counts = Counter(finding.detail for finding in unknown)
    if not findings.num_known:
        hint = _DISCOVERY_HINT if records.class_names in (VOC_CLASSES, IMAGENET_VID_CLASSES) else ""
        raise UserError(f"{unknown[0]}{hint}; not one of {len(unknown)} objects is of a known class")
    told = [f"{count} times {detail.partition('; allowed')[0]}" for detail, count in counts.most_common(4)]
    findings.hints.append(", ".join(told) + (f" and {len(counts) - 4} other names" if len(counts) > 4 else ""))


def _build(entries, class_names, name: str, facts: FileFacts, findings: Findings) -> DetectionRecords:
    """The records of one folder."""
    label_of = {text: label for label, text in enumerate(class_names, 1)}
    kept, sizes, counts, numbers, labels, boxes, difficult = [], [], [], [], [], [], []
    images = facts.images([entry.image for entry in entries])
    annotations = facts.annotations([entry.annotation for entry in entries])
    for entry, image, found in zip(entries, images, annotations, strict=True):
        size = _check_entry(entry, image, found, findings)
        if size is None:
            continue
        known = _known_objects(entry, found, label_of, class_names, findings)
        kept.append(entry)
        sizes.append(size)
        counts.append(len(known))
        numbers += [found.numbers[i] for i in known]
        labels += [label_of[found.names[i]] for i in known]
        boxes += [found.boxes[i] for i in known]
        difficult += [found.difficult[i] for i in known]
    owner = np.repeat(np.arange(len(kept)), counts)

    def place(position: int) -> Finding:
        entry, (height, width) = kept[owner[position]], sizes[owner[position]]
        corners = ", ".join(f"{value:g}" for value in boxes[position])
        return Finding(entry.image, entry.annotation, numbers[position], f"{corners} in {width} x {height} pixels")

    limits = np.asarray(sizes, np.float64).reshape(-1, 2)[owner][:, ::-1]
    cleaned, good = check_boxes(np.asarray(boxes, np.float64).reshape(-1, 4) - 1, limits, findings, place)
    return DetectionRecords.build(
        class_names,
        [entry.image for entry in kept],
        [entry.key for entry in kept],
        sizes,
        cleaned[good],
        np.asarray(labels, np.int64)[good],
        np.asarray(difficult, bool)[good],
        np.bincount(owner[good], minlength=len(kept)),
        name,
    )


def _check_entry(entry, image, found: Annotation | BadAnnotation, findings: Findings):
    """The size (height, width) of an image, or None if it or its annotation cannot be used."""
    place = Finding(entry.image, entry.annotation)
    if isinstance(found, BadAnnotation):
        findings.add(found.case, place._replace(detail=str(found)))
        return None
    return check_image(image, found.size, place, findings)


def _known_objects(entry, found: Annotation, label_of: dict, class_names, findings: Findings) -> list[int]:
    """Positions of the objects of known classes; the other ones and those that are incomplete go to the findings."""
    for number, case, detail in found.faults:
        findings.add(case, Finding(entry.image, entry.annotation, number, detail))
    known = [position for position, name in enumerate(found.names) if name in label_of]
    findings.num_known += len(known)
    for position, name in enumerate(found.names):
        if name not in label_of:
            detail = _unknown_class(name, class_names)
            findings.add("unknown_class", Finding(entry.image, entry.annotation, found.numbers[position], detail))
    return known


@lru_cache(maxsize=1024)
def _unknown_class(name: str, class_names) -> str:
    return f"class '{name}' is unknown; {nearest(name, class_names)}"
