"""The layouts of data sets with YOLO labels: sets by data.yaml, by lists of images or by folders, or none at all."""

import logging
import os
from functools import cached_property
from pathlib import Path

from ..utils.errors import UserError
from .inspection import Finding, Findings
from .split import SplitPlan, kept_split
from .voc_files import IMAGE_TYPES, Entry, sample_names, walk
from .voc_layout import existing_folder, read_lines
from .yolo_txt import SET_KEYS, Description, read_description, read_names

logger = logging.getLogger(__name__)

NAMES_FILES = ("classes.txt", "obj.names", "*.names", "_darknet.labels")
NAMES_FOLDERS = ("", "data", "labels", "images", "train")
IMAGE_PARENTS = ("images", "JPEGImages")
"""Folders beside which labels lie in a folder called labels."""


class YoloFolder:
    """A folder of images and labels, which it offers as image sets.

    Sets are what a data.yaml names, else the lists train.txt, val.txt and test.txt, else folders of these names, alone
    or in `images`; without any of them a seeded split is drawn once and kept.  The set 'all' is everything.  The labels
    of images/a.jpg are labels/a.txt, or beside it.  `names` {number: name} is None where no file names the classes.
    """

    year = None

    def __init__(self, path: Path, label: str, plan: SplitPlan, description: Description | None):
        self.path, self.name, self._label, self._plan = path, path.name, label, plan
        self._base = _base(path, description)
        self.names_file, self.names = _names(path, description)
        self._sets = (description.sets if description else {}) or _lists(path) or _folders(path)
        self.drawn = not self._sets

    def offers(self) -> list[str]:
        return [*(self._plan.used() if self.drawn else self._sets), "all"]

    def entries(self, split: str, findings: Findings) -> list[Entry]:
        """The images of a set; lines of lists that name none, and labels without an image, go to the findings."""
        if split == "all":
            return self._all
        if self.drawn:
            keys = [entry.key for entry in self._all]
            sets, said = kept_split(keys, self._plan, self._label, str(self.path))
            counts = ", ".join(f"{len(names)} {part}" for part, names in sets.items())
            logger.info("%s has no image sets; %s: %s", self.path, said, counts)
            chosen = set(sets[split])
            return [entry for entry in self._all if entry.key in chosen]
        images = []
        for text in self._sets[split]:
            place = self._find(text)
            images += self._listed(place, findings) if place.is_file() else self._below(place, findings)
        return self._to_entries(images)

    @cached_property
    def _all(self) -> list[Entry]:
        images = _images_below(self.path)
        if not images:
            raise UserError(f"{self.path}: holds no image; it holds {sample_names(self.path)}")
        return self._to_entries(images)

    def _to_entries(self, images: list[str]) -> list[Entry]:
        return [Entry(image, labels_of(image), self._key(image)) for image in images]

    def _key(self, image: str) -> str:
        """The path of an image below the folder, the same on every machine; elsewhere its own."""
        below = os.path.relpath(image, self.path).replace(os.sep, "/")
        return image if below.startswith("../") else below

    def _find(self, text: str) -> Path:
        """The folder or list that a data.yaml names; some exporters write ../ for its own folder."""
        plain = text.replace("\\", "/")
        for candidate in dict.fromkeys((plain, plain.removeprefix("../"))):
            for base in (self._base, self.path):
                if os.path.exists(base / candidate):
                    return Path(os.path.normpath(base / candidate))
        raise UserError(f"{self.names_file}: there is no folder or list '{text}' in {self._base}; "
                        f"it holds {sample_names(self._base)}")  # fmt: skip

    def _below(self, folder: Path, findings: Findings) -> list[str]:
        images = _images_below(folder)
        if not images:
            raise UserError(f"{folder}: holds no image; it holds {sample_names(folder)}")
        apart = {labels for image in images if (labels := label_places(image)[0]) != label_places(image)[1]}
        for place in sorted({os.path.dirname(labels) for labels in apart if os.path.isdir(os.path.dirname(labels))}):
            for name in sorted(os.listdir(place)):
                labels = os.path.join(place, name)
                if name.endswith(".txt") and labels not in apart and name not in NAMES_FILES:
                    findings.add("missing_image", Finding("", labels, None, "there is no image of that name"))
        return images

    def _listed(self, source: Path, findings: Findings) -> list[str]:
        """The images of a list.  Where it was written elsewhere, its paths have as many folders too many in front as
        the first one that is found without them."""
        lines, images, left = read_lines(source), [], None
        for number, line in lines:
            place = f"{source}, line {number}"
            if not line:
                findings.add("blank_line", Finding(detail=place))
                continue
            parts = line.replace("\\", "/").split("/")
            depths = range(len(parts)) if left is None else (left,)
            image = next((found for depth in depths if (found := self._named(source, parts[depth:]))), None)
            if image is None:
                findings.add("missing_image", Finding(detail=f"{place}: there is no image '{line}'"))
                continue
            if left is None:
                left = next(depth for depth in depths if self._named(source, parts[depth:]))
            images.append(image)
        if not any(line for _, line in lines):
            raise UserError(f"{source}: the list names no image")
        return images

    def _named(self, source: Path, parts: list[str]) -> str | None:
        name = "/".join(parts)
        paths = (os.path.normpath(base / name) for base in (self._base, source.parent))
        return next((path for path in paths if os.path.isfile(path)), None)


def label_places(image: str) -> tuple[str, str]:
    """Where the labels of an image may lie: in a folder labels instead of the last one called images, or beside it."""
    beside = f"{os.path.splitext(image)[0]}.txt"
    parts = beside.split(os.sep)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] in IMAGE_PARENTS:
            return os.sep.join([*parts[:position], "labels", *parts[position + 1 :]]), beside
    return beside, beside


def labels_of(image: str) -> str:
    """The label file of an image, '' where there is none."""
    return next((path for path in label_places(image) if os.path.isfile(path)), "")


def open_yolo_folders(roots, plan: SplitPlan) -> list[YoloFolder]:
    """The folders of DATASET.DATASET_DIR, each a folder or its data.yaml."""
    folders = []
    for position, root in enumerate(roots, 1):
        root = Path(os.path.expanduser(root))
        is_file = root.suffix.lower() in (".yaml", ".yml") and root.is_file()
        folder = existing_folder(root.parent if is_file else root)
        description = read_description(root) if is_file else _description(folder)
        if is_file and description is None:
            raise UserError(f"DATASET.DATASET_DIR: {root}: has no 'names', so it describes no data set")
        repeated = any(folder.name == other.name for other in folders)
        label = f"{folder.name}-{position}" if repeated else folder.name
        folders.append(YoloFolder(folder, label, plan, description))
    return folders


def _description(folder: Path) -> Description | None:
    """The data.yaml of a folder, else the only YAML file in it that names classes."""
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    files = [file for file in files if file.stem in ("data", "dataset")][:1] or files
    found = [description for file in files if (description := read_description(file))]
    if len(found) > 1:
        names = ", ".join(description.file.name for description in found)
        raise UserError(f"DATASET.DATASET_DIR: {folder} has several descriptions: {names}; give the path of one")
    return found[0] if found else None


def _base(path: Path, description: Description | None) -> Path:
    """The folder from which a data.yaml counts; one that is not there belongs to another machine."""
    base = path / os.path.expanduser(description.folder) if description and description.folder else path
    return base if os.path.isdir(base) else path


def _names(path: Path, description: Description | None) -> tuple[Path | None, dict[int, str] | None]:
    if description:
        return description.file, description.names
    found = [file for place in NAMES_FOLDERS for name in NAMES_FILES for file in sorted((path / place).glob(name))]
    return (found[0], read_names(found[0])) if found else (None, None)


def _lists(path: Path) -> dict[str, list[str]]:
    found = {}
    for word, name in SET_KEYS.items():
        if (path / f"{word}.txt").is_file():
            found.setdefault(name, [f"{word}.txt"])
    return found


def _folders(path: Path) -> dict[str, list[str]]:
    """The sets by folders: images/train, train/images or train, as far as there is more than one."""
    for parent in ("images", "JPEGImages", ""):
        found = {}
        for word, name in SET_KEYS.items():
            for place in (f"{word}/images", word):
                if (path / parent / place).is_dir():
                    found.setdefault(name, [f"{parent}/{place}".lstrip("/")])
        if len(found) > 1:
            return found
    return {}


def _images_below(folder: Path) -> list[str]:
    return [
        os.path.join(place, name)
        for place, names in walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_TYPES
    ]
