"""COCO-VID: videos, or stills, with one JSON file for each set; the kind coco_vid of DATASET.DATASET."""

import logging
import os
import re
from dataclasses import replace
from pathlib import Path

from ..utils.errors import UserError
from .assembly import ClassTable, as_videos, build_records, check_any_known
from .coco_json import CocoFile, read_coco
from .detection import DATASETS, DetectionRecords
from .facts import FileFacts
from .inspection import Checks, Finding, Findings
from .split import NO_PLAN
from .voc_files import Entry, sample_names
from .voc_layout import choose_sets, existing_folder, leads_out

logger = logging.getLogger(__name__)

ANNOTATION_FOLDERS = ("annotations", "Annotations", "")
IMAGE_FOLDERS = ("", "images", "Data/VID", "data", "Data", "JPEGImages", "frames")
USUAL_SETS = {"train": ("train",), "eval": ("val",), "test": ("test", "val")}

_WHERE = "DATASET.TRAIN_SETS"
_CHECKS = Checks()


@DATASETS.register("coco_vid")
def read_coco_vid(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """Videos with COCO-VID annotations as DetectionRecords; arguments as voc.read_custom, the plan is not used.

    A set is a file annotations/<set>.json; without 'videos' in it, its images are stills.  Without class_names the
    classes are the categories in the order of their ids.  Without sets, those called train, val and test are used.
    """
    facts, findings = FileFacts(checks.folder), Findings(checks, role)
    folders = [CocoFolder(root) for root in map(existing_folder, roots)]
    chosen = _choose(folders, sets, role, where)
    files = {(folder, split): read_coco(folder.file(split)) for folder, split in chosen}
    classes = _classes(list(files.values()), class_names)
    _check_annotated(files.values(), role, where)
    parts, num_images, seen = [], 0, set()
    for (folder, split), file in files.items():
        entries, listed = folder.entries(split, file, seen, findings)
        num_images += len(entries)
        parts.append(_build(entries, listed, file, classes, f"{folder.name}/{split}", facts, findings))
        for number, detail in file.unlisted:
            findings.add("unlisted_image", Finding("", str(file.path), number, detail))
    facts.save()
    records = DetectionRecords.concat(parts)
    check_any_known(records, findings)
    report = findings.conclude(num_images + findings.count("outside_folder"), len(records), records.name)
    return replace(records, exif=checks.exif, report=report)


class CocoFolder:
    """A folder of images with annotation files, which it offers as image sets."""

    year = None

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        for place in ANNOTATION_FOLDERS:
            self._files = {file.stem: file for file in sorted((path / place).glob("*.json"))}
            if self._files:
                return
        raise UserError(
            f"DATASET.DATASET_DIR: {path} has no annotations/<set>.json; the folder holds {sample_names(path)}"
        )

    def offers(self) -> list[str]:
        return sorted(self._files)

    def file(self, split: str) -> Path:
        return self._files[split]

    def usual_set(self, word: str, where: str) -> str | None:
        """The set of that name, or the only one in whose name the word stands, as in instances_val2017."""
        found = [name for name in self._files if re.search(rf"(?<![a-z]){word}(?![a-z])", name.lower())]
        if word in self._files or not found:
            return word if found else None
        if len(found) > 1:
            raise UserError(
                f"{where}: {self.path} has several files that could be {word}: {', '.join(found)}; name one"
            )
        return found[0]

    def entries(self, split: str, file: CocoFile, seen: set, findings: Findings):
        """(entries, images) of a file that can be opened; names that lead out of the folder and images that were seen
        before go to the findings."""
        home, entries, listed = self._image_folder(split, file), [], []
        for image in file.images:
            name = _slashed(image.file_name)
            if leads_out(name):
                detail = f"{file.path}: '{image.file_name}' is no path below {home}"
                findings.add("outside_folder", Finding(detail=detail))
                continue
            entry = Entry(os.path.join(home, name), str(file.path), name)
            if entry.image in seen:
                findings.add("listed_twice", Finding(entry.image, entry.annotation))
                continue
            seen.add(entry.image)
            entries.append(entry)
            listed.append(image)
        return entries, listed

    def _image_folder(self, split: str, file: CocoFile) -> str:
        """The folder that the file names start from: the first of the usual ones in which an image is found."""
        words = dict.fromkeys((split, split.rpartition("_")[2]))
        own = [os.path.join(place, word) for word in words for place in IMAGE_FOLDERS]
        own += [os.path.join(word, place) for word in words for place in IMAGE_FOLDERS if place]
        homes = [os.path.join(self.path, place) if place else str(self.path) for place in (*own, *IMAGE_FOLDERS)]
        homes = [home for home in homes if os.path.isdir(home)]
        names = [name for image in file.images if not leads_out(name := _slashed(image.file_name))]
        for name in names:
            for home in homes:
                if os.path.isfile(os.path.join(home, name)):
                    return home
        first = file.images[0].file_name
        raise UserError(
            f"{file.path}: not one of its {len(file.images)} images is there, the first is '{first}'; looked in "
            f"{', '.join(homes)}"
        )


def _choose(folders, sets, role: str, where: str) -> list:
    """[(folder, split)] that are opened for a role."""
    if sets:
        return list(dict.fromkeys(choose_sets(folders, sets, where, "annotations/{}.json")))
    found = [(folder, split) for folder in folders if (split := _usual_set(folder, role, where))]
    if not found:
        offered = "; ".join(f"{folder.path} has {', '.join(folder.offers())}" for folder in folders)
        raise UserError(f"{where}: no usual set for {role}: {offered}; name one")
    return found


def _usual_set(folder: CocoFolder, role: str, where: str) -> str | None:
    return next(filter(None, (folder.usual_set(word, where) for word in USUAL_SETS[role])), None)


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


def _check_annotated(files, role: str, where: str):
    """UserError for training and evaluation without annotations; a test may go without, for its detections."""
    for file in files:
        if not file.annotated:
            said = f"{file.path}: has no 'annotations'"
            if role != "test":
                raise UserError(f"{where}: {said}")
            logger.warning("%s; its images count as images without objects", said)


def _build(entries, listed, file: CocoFile, classes: ClassTable, name: str, facts: FileFacts, findings: Findings):
    """The records of one file."""
    images = facts.images([entry.image for entry in entries])
    annotations = [image.annotation for image in listed]
    records, kept = build_records(entries, images, annotations, classes, name, findings)
    if not file.videos:
        return records
    return as_videos(records, kept, [image.video for image in listed], [image.frame for image in listed], file.videos)


def _slashed(name: str) -> str:
    return name.replace("\\", "/")
