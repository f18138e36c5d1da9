"""COCO, and other stills with annotations of its form; the kind coco of DATASET.DATASET."""

import logging
from dataclasses import replace

import numpy as np

from ..utils.errors import UserError
from .assembly import ClassTable, as_videos, build_records, check_any_known
from .coco_json import CocoFile, read_coco
from .coco_layout import choose_files, open_coco_folders
from .detection import DATASETS, DetectionRecords
from .facts import FileFacts
from .inspection import Checks, Finding, Findings
from .split import NO_PLAN

logger = logging.getLogger(__name__)

MANY_IMAGES = 50_000
"""From so many on, the first look at the files takes a while."""

_WHERE = "DATASET.TRAIN_SETS"
_CHECKS = Checks()


@DATASETS.register("coco")
def read_coco_stills(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """Stills with COCO's annotations as DetectionRecords; arguments as voc.read_custom, the plan is not used.

    A set is a file, annotations/<set>.json or instances_<set>.json; ['2017', 'train'] is train2017.  Without
    class_names the classes are the categories in the order of their ids, which for COCO's own are its eighty in the
    usual order.  Without sets, those called train, val and test are used.
    """
    return read_coco_files(roots, sets, role, class_names, where, checks, videos=False)


def read_coco_files(roots, sets, role, class_names, where, checks, videos: bool) -> DetectionRecords:
    """The sets of annotation files as DetectionRecords; `videos`: where a file lists videos, the images are their
    frames."""
    facts, findings = FileFacts(checks.folder), Findings(checks, role)
    chosen = choose_files(open_coco_folders(roots), sets, role, where)
    files = {(folder, split): read_coco(folder.file(split)) for folder, split in chosen}
    classes = _classes(list(files.values()), class_names)
    _check_annotated(files.values(), role, where)
    category_ids = _category_ids(files.values(), classes.names)
    parts, num_images, seen = [], 0, set()
    for (folder, split), file in files.items():
        entries, listed = folder.entries(split, file, seen, findings)
        num_images += len(entries)
        name = f"{folder.name}/{split}"
        if len(entries) >= MANY_IMAGES:
            logger.info("%s: looking at %d images", name, len(entries))
        part, kept = _build(entries, listed, file, classes, name, facts, findings)
        part = replace(part, category_ids=category_ids, image_numbers=_numbers([listed[i].id for i in kept]))
        if file.videos and videos:
            part = as_videos(part, kept, [i.video for i in listed], [i.frame for i in listed], file.videos)
        elif file.videos:
            logger.warning("%s: its videos are read as stills; DATASET.DATASET: coco_vid reads videos", file.path)
        parts.append(part)
        for number, detail in file.unlisted:
            findings.add("unlisted_image", Finding("", str(file.path), number, detail))
    facts.save()
    records = DetectionRecords.concat(parts)
    check_any_known(records, findings)
    report = findings.conclude(num_images + findings.count("outside_folder"), len(records), records.name)
    return replace(records, exif=checks.exif, report=report)


def _build(entries, listed, file: CocoFile, classes: ClassTable, name: str, facts: FileFacts, findings: Findings):
    """The records of one file, and the positions of the entries that they hold."""
    images = facts.images([entry.image for entry in entries])
    return build_records(entries, images, [image.annotation for image in listed], classes, name, findings)


def _classes(files: list[CocoFile], class_names) -> ClassTable:
    """The classes given, else those of all files, which must have the same."""
    if class_names:
        return ClassTable(class_names)
    first = files[0]
    if not first.class_names:
        raise UserError(f"{first.path}: 'categories' is empty")
    for file in files[1:]:
        if set(file.class_names) != set(first.class_names):
            raise UserError(
                f"{first.path} and {file.path} have different categories, {', '.join(first.class_names)} and "
                f"{', '.join(file.class_names)}; DATASET.CLASSES must name the classes"
            )
    return ClassTable(first.class_names, f"{first.path}: categories")


def _category_ids(files, names) -> tuple[int, ...]:
    """The category ids of the classes; () where a class has none, or not the same number in all files."""
    tables = [dict(zip(file.class_names, file.category_ids, strict=True)) for file in files]
    found = {tuple(table.get(name) for name in names) for table in tables}
    ids = found.pop()
    return ids if not found and all(isinstance(number, int) for number in ids) else ()


def _numbers(ids) -> np.ndarray | None:
    """The ids int64 [I] of images; None where one is a text, or too large for any tool."""
    fits = all(isinstance(number, int) and abs(number) < 1 << 63 for number in ids)
    return np.asarray(ids, np.int64) if fits else None


def _check_annotated(files, role: str, where: str):
    """UserError for training and evaluation without annotations; a test may go without, for its detections."""
    for file in files:
        if not file.annotated:
            said = f"{file.path}: has no 'annotations'"
            if role != "test":
                raise UserError(f"{where}: {said}")
            logger.warning("%s; its images count as images without objects", said)
