"""The layouts of data sets with COCO's annotations: where JSON files and images lie, and which file is a set."""

import os
import re
from pathlib import Path

from ..utils.errors import UserError, nearest
from .coco_json import CocoFile
from .inspection import Finding, Findings
from .voc_files import Entry, sample_names
from .voc_layout import existing_folder, leads_out

ANNOTATION_FOLDERS = ("annotations", "Annotations", "")
IMAGE_FOLDERS = ("", "images", "Data/VID", "data", "Data", "JPEGImages", "frames")
USUAL_SETS = {"train": ("train",), "eval": ("val", "valid", "validation")}
USUAL_SETS["test"] = ("test", *USUAL_SETS["eval"])

UNANNOTATED = "image_info_"
PREFIXES = ("instances_", UNANNOTATED)
"""What COCO's files have in front of the name of a set: those with objects and those that list images only."""

OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_")
"""COCO's annotations that are not meant where a set is called by its name alone."""

COCO_FOLDER = re.compile(r"(?:train|val|test|unlabeled)20\d\d")
COCO_IMAGE = re.compile(r"(?:COCO_[a-z]+20\d\d_)?\d{12}\.jpg")
"""The names of COCO's own folders of images, and those of its images, which are unlike in all of its sets."""


class CocoFolder:
    """A folder of images with annotation files, which it offers as image sets.

    The files lie in `annotations` or in the folder itself, as train.json or instances_train2017.json; or one lies in
    each of its folders, as train/_annotations.coco.json, and the set is called as the folder.
    """

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        for place in ANNOTATION_FOLDERS:
            self._files = {file.stem: file for file in sorted((path / place).glob("*.json"))}
            if self._files:
                return
        found = {child.name: sorted(child.glob("*.json")) for child in sorted(path.iterdir()) if child.is_dir()}
        self._files = {name: files[0] for name, files in found.items() if len(files) == 1}
        if not self._files:
            below = [name for name in found if any((path / name / "annotations").glob("*.json"))]
            hint = f"; did you mean {path / below[0]}?" if below else f"; the folder holds {sample_names(path)}"
            raise UserError(f"DATASET.DATASET_DIR: {path} has no annotations/<set>.json{hint}")

    def offers(self) -> list[str]:
        return sorted({_without_prefix(name) for name in self._files})

    def file(self, split: str) -> Path:
        return self._files[split]

    def find(self, word: str, year: str, where: str) -> str | None:
        """The file of a set: called so, with COCO's words around it (instances_train2017 for train of 2017), or the
        only one in whose name the word stands."""
        word = word.rpartition("/")[2].removesuffix(".json")
        for text in dict.fromkeys((f"{word}{year}", word)):
            for name in (text, *(prefix + text for prefix in PREFIXES)):
                if name in self._files:
                    return name
        return None if year else self._only(word, where, OTHER_TASKS)

    def usual_set(self, role: str, where: str) -> str | None:
        """The set that is usual for a role: train, val or test, of which files without objects are none."""
        words = USUAL_SETS[role]
        return next(filter(None, (self._only(word, where, (*OTHER_TASKS, UNANNOTATED)) for word in words)), None)

    def _only(self, word: str, where: str, passed_over: tuple[str, ...]) -> str | None:
        """The file of that name, or the only one in whose name the word stands."""
        pattern = re.compile(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])")
        found = [name for name in self._files if pattern.search(name.lower()) and not name.startswith(passed_over)]
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
        home, homes = self._homes(split, file)
        entries, listed = [], []
        for image in file.images:
            name = _slashed(image.file_name)
            if leads_out(name):
                detail = f"{file.path}: '{image.file_name}' is no path below {home}"
                findings.add("outside_folder", Finding(detail=detail))
                continue
            entry = Entry(os.path.join(homes.get(name, home), name), str(file.path), name)
            if entry.image in seen:
                findings.add("listed_twice", Finding(entry.image, entry.annotation))
                continue
            seen.add(entry.image)
            entries.append(entry)
            listed.append(image)
        return entries, listed

    def _homes(self, split: str, file: CocoFile) -> tuple[str, dict[str, str]]:
        """(folder, {name: folder}): where the file names start from, and where those do that start elsewhere.

        That is the first of the usual folders in which an image is found.  A set of COCO that has none of its own, as
        minival2014 or test-dev2017, takes its images from the folders of the others, which give no name twice.
        """
        usual = [home for home in self._usual_homes(split, file.path) if os.path.isdir(home)]
        names = [name for image in file.images if not leads_out(name := _slashed(image.file_name))]
        for name in names:
            for home in usual:
                if os.path.isfile(os.path.join(home, name)):
                    return home, {}
        shares = not COCO_FOLDER.fullmatch(_without_prefix(split)) and any(map(COCO_IMAGE.fullmatch, names))
        official = self._coco_homes() if shares else []
        homes = {name: home for home in reversed(official) for name in os.listdir(home) if COCO_IMAGE.fullmatch(name)}
        homes = {name: homes[name] for name in names if name in homes}
        if homes:
            return next(iter(homes.values())), homes
        looked = ", ".join(dict.fromkeys([*usual, *official]))
        raise UserError(
            f"{file.path}: not one of its {len(file.images)} images is there, the first is "
            f"'{file.images[0].file_name}'; looked in {looked}; a usual place is {self.path / _without_prefix(split)}"
        )

    def _usual_homes(self, split: str, file: Path) -> list[str]:
        words = dict.fromkeys((split, _without_prefix(split), split.rpartition("_")[2]))
        own = [os.path.join(place, word) for word in words for place in IMAGE_FOLDERS]
        own += [os.path.join(word, place) for word in words for place in IMAGE_FOLDERS if place]
        places = dict.fromkeys((*own, *IMAGE_FOLDERS))
        return [*(os.path.join(self.path, place) if place else str(self.path) for place in places), str(file.parent)]

    def _coco_homes(self) -> list[str]:
        parents = [self.path, self.path / "images"]
        found = [child for parent in parents if parent.is_dir() for child in sorted(parent.iterdir())]
        return [str(child) for child in found if COCO_FOLDER.fullmatch(child.name) and child.is_dir()]


def open_coco_folders(roots) -> list[CocoFolder]:
    """The folders of DATASET.DATASET_DIR."""
    return [CocoFolder(existing_folder(root)) for root in roots]


def choose_files(folders: list[CocoFolder], sets, role: str, where: str) -> list[tuple[CocoFolder, str]]:
    """[(folder, split)] for `sets`, names and [year, name] pairs, or for those that are usual for a role.

    A name means that set in every folder that offers it.  UserError, which names the key `where`, if none does.
    """
    if not sets:
        chosen = [(folder, split) for folder in folders if (split := folder.usual_set(role, where))]
        if not chosen:
            offered = "; ".join(f"{folder.path} has {', '.join(folder.offers())}" for folder in folders)
            raise UserError(f"{where}: no usual set for {role}: {offered}; name one")
        return chosen
    chosen = {}
    for item in sets:
        *year, word = [item] if isinstance(item, str) else [str(part) for part in item]
        year = year[0] if year else ""
        found = [(folder, split) for folder in folders if (split := folder.find(word, year, where))]
        if not found:
            places = ", ".join(str(folder.path) for folder in folders)
            offered = {name for folder in folders for name in folder.offers()}
            file = f"instances_{word}{year}" if year else word
            raise UserError(
                f"{where}: {places} has no image set '{word}' (annotations/{file}.json); "
                f"{nearest(word + year, offered)}"
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _slashed(name: str) -> str:
    return name.replace("\\", "/")
