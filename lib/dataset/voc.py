"""Data sets with VOC annotations: the kinds voc, custom, customRNN and imagenet of DATASET.DATASET.

A kind is a parser from plain arguments to `DetectionRecords`, registered in DATASETS under its name.
"""

import logging
from collections import Counter
from dataclasses import replace

from ..utils.class_names import IMAGENET_VID_CLASSES, VOC_CLASSES
from ..utils.errors import UserError
from .assembly import ClassTable, build_records, check_any_known
from .detection import DATASETS, DetectionRecords
from .facts import FileFacts
from .inspection import Checks, Finding, Findings
from .split import NO_PLAN
from .voc_layout import choose_sets, default_sets, open_folders
from .voc_xml import BadAnnotation

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
    chosen = choose_or_default(folders, sets, role, where)
    level = logging.INFO if role == "train" else logging.DEBUG
    classes = ClassTable(class_names or discover_classes(folders, facts, level))
    entries = {folder: {} for folder, _ in chosen}
    for folder, split in dict.fromkeys(chosen):
        for entry in folder.entries(split, findings):
            if entries[folder].setdefault(entry.image, entry) is not entry:
                findings.add("listed_twice", Finding(entry.image, entry.annotation))
    num_images = sum(map(len, entries.values())) + findings.count(*_WITHOUT_ENTRY)
    parts = [_build(list(found.values()), classes, folder.name, facts, findings) for folder, found in entries.items()]
    facts.save()
    names = " + ".join(f"{folder.name}/{split}" for folder, split in chosen)
    records = DetectionRecords.concat(parts)
    check_any_known(records, findings, _DISCOVERY_HINT if classes.names in (VOC_CLASSES, IMAGENET_VID_CLASSES) else "")
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


def choose_or_default(folders, sets, role: str, where: str, file: str = "ImageSets/Main/{}.txt") -> list:
    """[(folder, split)] that are opened for a role: `sets` as of choose_sets, else what the folders suggest."""
    chosen = choose_sets(folders, sets, where, file) if sets else default_sets(folders, role)
    if not chosen and role == "eval":
        logger.warning("%s is not set and no val set is left to use: the test images choose the best checkpoint", where)
        chosen = default_sets(folders, "test")
    if not chosen:
        offered = "; ".join(f"{folder.path} has {', '.join(folder.offers())}" for folder in folders)
        raise UserError(f"{where}: no usual set for {role}: {offered}; name one")
    return chosen


def _build(entries, classes: ClassTable, name: str, facts: FileFacts, findings: Findings) -> DetectionRecords:
    """The records of one folder."""
    images = facts.images([entry.image for entry in entries])
    annotations = facts.annotations([entry.annotation for entry in entries])
    return build_records(entries, images, annotations, classes, name, findings, first_pixel=1)[0]
