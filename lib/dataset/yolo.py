"""Images with YOLO labels, a text file for each; the kind yolo of DATASET.DATASET."""

import logging
from dataclasses import replace

from ..utils.errors import UserError
from .assembly import ClassTable, build_records, check_any_known
from .detection import DATASETS, DetectionRecords
from .facts import FileFacts
from .image_header import ImageFacts
from .inspection import Checks, Finding, Findings
from .split import NO_PLAN
from .voc import choose_or_default
from .voc_xml import Annotation, BadAnnotation
from .yolo_layout import YoloFolder, label_places, open_yolo_folders
from .yolo_txt import SET_KEYS, parse_labels

logger = logging.getLogger(__name__)

NOTHING_SAID = Annotation([], [], [], [], None, "", [], [])

_WHERE = "DATASET.TRAIN_SETS"
_CHECKS = Checks()


@DATASETS.register("yolo")
def read_yolo(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """Images with YOLO labels as DetectionRecords; arguments as voc.read_custom, but a root may be a data.yaml.

    Without class_names the classes are those of data.yaml, classes.txt or obj.names, in the order of their numbers;
    where no file names them, class_names do so in that order.  An image without a label file holds no objects.
    """
    facts, findings = FileFacts(checks.folder), Findings(checks, role)
    folders = open_yolo_folders(roots, plan)
    sets = [SET_KEYS.get(name, name) if isinstance(name, str) else name for name in sets or ()]
    chosen = choose_or_default(folders, sets, role, where, "images/{}")
    names_of = {folder: _names(folder, class_names) for folder, _ in chosen}
    classes = ClassTable(class_names or _joint_names(names_of))
    entries = {folder: {} for folder, _ in chosen}
    for folder, split in dict.fromkeys(chosen):
        for entry in folder.entries(split, findings):
            if entries[folder].setdefault(entry.image, entry) is not entry:
                findings.add("listed_twice", Finding(entry.image, entry.annotation))
    num_images = sum(map(len, entries.values())) + findings.count("missing_image")
    parts = []
    for folder, found in entries.items():
        _tell_unlabelled(folder, list(found.values()), role)
        parts.append(_build(list(found.values()), names_of[folder], classes, folder, facts, findings))
    facts.save()
    name = " + ".join(f"{folder.name}/{split}" for folder, split in chosen)
    records = DetectionRecords.concat(parts)
    check_any_known(records, findings)
    report = findings.conclude(num_images, len(records), name)
    return replace(records, name=name, exif=checks.exif, report=report)


def _names(folder: YoloFolder, class_names) -> dict[int, str]:
    """{number: name} of a folder's classes."""
    if folder.names is None and not class_names:
        raise UserError(
            f"{folder.path}: no file names the classes (data.yaml, classes.txt or obj.names); DATASET.CLASSES must "
            f"name them in the order of their numbers"
        )
    return dict(enumerate(class_names)) if folder.names is None else folder.names


def _joint_names(names_of: dict) -> list[str]:
    """The classes of all folders, which must have the same."""
    (first, names), *others = names_of.items()
    for other, found in others:
        if set(found.values()) != set(names.values()):
            raise UserError(
                f"{first.names_file} and {other.names_file} have different classes, {', '.join(names.values())} and "
                f"{', '.join(found.values())}; DATASET.CLASSES must name the classes"
            )
    return list(names.values())


def _tell_unlabelled(folder: YoloFolder, entries, role: str):
    """UserError for training and evaluation without a label file; else how many images have none."""
    without = [entry for entry in entries if not entry.annotation]
    if entries and len(without) == len(entries) and role != "test":
        raise UserError(
            f"{role}: not one of {len(entries)} images of {folder.path} has a label file; that of the first would be "
            f"{label_places(entries[0].image)[0]}"
        )
    if without:
        logger.info("%s: %s: %d of %d images have no label file and count as images without objects",
                    role, folder.path, len(without), len(entries))  # fmt: skip


def _build(entries, names: dict, classes: ClassTable, folder: YoloFolder, facts: FileFacts, findings: Findings):
    """The records of one folder."""
    images = facts.images([entry.image for entry in entries])
    said = iter(facts.annotations([entry.annotation for entry in entries if entry.annotation], parse_labels))
    annotations = [next(said) if entry.annotation else NOTHING_SAID for entry in entries]
    upright = findings.checks.exif == "apply"
    found = [_in_pixels(*pair, names, upright) for pair in zip(annotations, images, strict=True)]
    return build_records(entries, images, found, classes, folder.name, findings)[0]


def _in_pixels(found: Annotation | BadAnnotation, image: ImageFacts, names: dict, upright: bool):
    """An annotation of parse_labels with the names of its classes and corners in pixels."""
    if isinstance(found, BadAnnotation):
        return found
    height, width = image.size(upright)
    known = [position for position, index in enumerate(found.names) if int(index) in names]
    missing = sorted(set(range(len(found.names))) - set(known))
    faults = [[found.numbers[i], "unknown_class", f"class {found.names[i]} has no name; {_allowed(names)}"]
              for i in missing]  # fmt: skip
    boxes = [found.boxes[i] for i in known]
    return Annotation(
        [names[int(found.names[i])] for i in known],
        [[x1 * width, y1 * height, x2 * width, y2 * height] for x1, y1, x2, y2 in boxes],
        [False] * len(known),
        [found.numbers[i] for i in known],
        None,
        "",
        [*found.faults, *faults],
        [""] * len(known),
    )


def _allowed(names: dict) -> str:
    return f"allowed: {min(names)} to {max(names)}"
