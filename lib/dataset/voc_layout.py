"""The layouts of VOC-like data sets: year folders with image sets, or folders of images and XML files alone.

Both kinds of folder answer the same questions: `offers()`, the names of its image sets, `lists`, their files where
there are any, `entries(split, findings)`, the images of one with their annotations, and `listed_annotations()`, those
of all sets.
"""

import logging
import os
import re
from collections import defaultdict
from pathlib import Path

from ..utils.errors import UserError, nearest
from .facts import FileFacts
from .inspection import Finding, Findings
from .split import SplitPlan, kept_split
from .voc_files import IMAGE_TYPES, Entry, images_by_stem, key_below, named_file, pair_files, sample_names

logger = logging.getLogger(__name__)

IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "")
ANNOTATION_FOLDERS = ("Annotations", "annotations", "xml", "xmls", "labels", "")
YEAR_FOLDER = re.compile(r"(?:VOC)?((?:19|20)\d\d)")
SPLIT_FOLDERS = {name: name for name in ("train", "val", "test", "trainval")} | {"valid": "val", "validation": "val"}
CLASS_FLAGS = ("-1", "0", "1")
MAX_LIST_BYTES = 2**30


class ListedFolder:
    """A folder in VOC layout with lists of images.  `year` is None where its name tells none."""

    drawn = False

    def __init__(self, path: Path, lists: dict, facts: FileFacts):
        match = YEAR_FOLDER.fullmatch(path.name)
        self.path, self.name, self.year = path, path.name, match.group(1) if match else None
        self.lists, self._facts = lists, facts
        self._images = _first_folder(path, IMAGE_FOLDERS)
        self._annotations = _first_folder(path, ANNOTATION_FOLDERS)
        self._listings = {}

    def offers(self) -> list[str]:
        return sorted(self.lists)

    def entries(self, split: str, findings: Findings) -> list[Entry]:
        """The images of a list, in its order; lines that name none go to the findings.

        Blank lines are passed over.  A second column of -1, 0 or 1 is that of VOC's lists of one class: it says that
        the class is absent, only difficult, or present; the absent ones are left out.
        """
        source, found = self.lists[split], []
        lines = read_lines(source)
        for number, line in lines:
            place = f"{source}, line {number}"
            if not line:
                findings.add("blank_line", Finding(detail=place))
            elif leads_out(line):
                findings.add("outside_folder", Finding(detail=f"{place}: '{line}' is no name below {self._images}"))
            else:
                found += self._entry(line, place, findings)
        if not any(line for _, line in lines):
            raise UserError(f"{source}: the list names no image")
        return found

    def _entry(self, line: str, place: str, findings: Findings) -> list[Entry]:
        """The image of a line; none where it is left out."""
        stem, image = self._find_image(line)
        first, *flag = line.rsplit(None, 1)
        if image is None and flag and flag[0] in CLASS_FLAGS:
            if flag[0] == "-1":
                return []
            stem, image = self._find_image(first)
        annotation = str(self._annotations / f"{stem}.xml")
        if not os.path.isfile(annotation):
            detail = f"{place}: there is no annotation {annotation}"
            findings.add("missing_annotation", Finding(image or "", annotation, None, detail))
            return []
        image = image or self._image_of_annotation(annotation, stem)
        if image is None:
            holds = sample_names(self._images)
            detail = f"{place}: no image '{stem}' of any type in {self._images}, which holds {holds}"
            findings.add("missing_image", Finding("", annotation, None, detail))
            return []
        return [Entry(image, annotation, stem)]

    def listed_annotations(self) -> list[str]:
        """The annotations of the images of all lists, as far as they exist."""
        lines = {line for source in self.lists.values() for _, line in read_lines(source)}
        lines = {line for line in lines if line and not leads_out(line)}
        stems = {text for line in lines for text in (line, line.rsplit(None, 1)[0])}
        stems |= {os.path.splitext(text)[0] for text in stems if text.lower().endswith(IMAGE_TYPES)}
        paths = (str(self._annotations / f"{stem}.xml") for stem in sorted(stems))
        return [path for path in paths if os.path.isfile(path)]

    def _find_image(self, text: str):
        """(stem, image file or None) for an entry of a list, which may carry an extension or a sub-folder."""
        for stem in (text, os.path.splitext(text)[0]) if text.lower().endswith(IMAGE_TYPES) else (text,):
            folder, _, name = stem.rpartition("/")
            if folder not in self._listings:
                self._listings[folder] = images_by_stem(self._images / folder)
            files = self._listings[folder].get(name)
            if files:
                return stem, str(self._images / folder / files[0])
        return stem, None

    def _image_of_annotation(self, annotation: str, stem: str) -> str | None:
        """The image that the annotation itself names, in the folder where its own name would be."""
        name = named_file(annotation, self._facts)
        folder = stem.rpartition("/")[0]
        return self._find_image(f"{folder}/{name}".strip("/"))[1] if name else None


class LooseFolder:
    """Images and XML files without lists: side by side, as LabelImg saves them, or in folders of their own.

    Images without an XML file are left out, since nobody said that they hold nothing; an XML file without objects
    does say so.  Where every annotation lies below a folder called train, val (valid, validation), test or trainval,
    these are the image sets; otherwise a seeded split is drawn once and kept.  The set 'all' is everything.
    """

    year, lists = None, {}

    def __init__(self, path: Path, label: str, plan: SplitPlan, facts: FileFacts):
        self.path, self.name, self._label, self._plan = path, path.name, label, plan
        self._entries, self._spare, self._faults = pair_files(path, facts)
        if not self._entries:
            if self._faults:
                raise UserError(f"{path}: no annotation has an image; the first is {self._faults[0][1]}")
            raise UserError(
                f"{path}: no VOC data set: neither lists in ImageSets/Main, nor VOC<year> folders, nor XML "
                f"annotations; the folder holds {sample_names(path)}"
            )
        self._sets = self._sets_by_folder()
        self.drawn = self._sets is None

    def offers(self) -> list[str]:
        names = self._plan.used() if self.drawn else list(self._sets)
        joined = ["trainval"] if {"train", "val"} <= set(names) and "trainval" not in names else []
        return [*names, *joined, "all"]

    def entries(self, split: str, findings: Findings) -> list[Entry]:
        """The images of a set, sorted by name.  Annotations without an image belong to no set: train tells of them."""
        if split not in ("val", "test"):
            for case, finding in self._faults:
                findings.add(case, finding)
        if self._spare and split not in ("val", "test"):
            logger.warning(
                "%s: %d images without an XML file are left out, the first is %s (an XML file without objects makes "
                "an image background)", self.path, len(self._spare), self._spare[0],
            )  # fmt: skip
        if split == "all":
            return list(self._entries)
        keys = [key_below(self.path, entry) for entry in self._entries]
        if self._sets is None:
            self._sets, said = kept_split(keys, self._plan, self._label, str(self.path))
            counts = ", ".join(f"{len(names)} {part}" for part, names in self._sets.items())
            logger.info("%s has no image sets; %s: %s", self.path, said, counts)
        sets = {"trainval": [*self._sets.get("train", ()), *self._sets.get("val", ())], **self._sets}
        chosen = set(sets[split])
        return [entry for entry, key in zip(self._entries, keys, strict=True) if key in chosen]

    def listed_annotations(self) -> list[str]:
        return [entry.annotation for entry in self._entries]

    def _sets_by_folder(self) -> dict | None:
        sets = defaultdict(list)
        for entry in self._entries:
            key = key_below(self.path, entry)
            words = [SPLIT_FOLDERS[part.lower()] for part in key.split("/")[:-1] if part.lower() in SPLIT_FOLDERS]
            if not words:
                return None
            sets[words[0]].append(key)
        return dict(sets) if len(sets) > 1 else None


def open_folders(roots, plan: SplitPlan, facts: FileFacts) -> list:
    """The folders in VOC layout that the roots (paths) are or hold."""
    found, labels = [], []
    for root in roots:
        root = existing_folder(root)
        folders = _listed_folders(root, facts)
        if not folders:
            labels.append(root.name)
            repeat = labels.count(root.name)
            folders = [LooseFolder(root, root.name if repeat == 1 else f"{root.name}-{repeat}", plan, facts)]
        found += folders
    return found


def existing_folder(root) -> Path:
    """The folder of DATASET.DATASET_DIR, by a path that has a name; UserError if there is none."""
    root = Path(os.path.expanduser(root))
    if not root.is_dir():
        raise UserError(f"DATASET.DATASET_DIR: there is no folder {root}; {_where_it_ends(root)}")
    return root if root.name not in ("", ".", "..") else root.resolve()


def choose_sets(folders, sets, where: str, file: str = "ImageSets/Main/{}.txt") -> list:
    """[(folder, split)] for `sets`, a list of split names and [year, split] pairs; messages name the key `where` and
    the file of a set.

    A name alone means that set in every folder that offers it.  A year means the folders of that year, or one that
    has no year in its name.  UserError if no folder offers a set.
    """
    chosen = []
    for item in sets:
        *year, split = [item] if isinstance(item, str) else [str(part) for part in item]
        year = year[0].removeprefix("VOC") if year else None
        candidates = [f for f in folders if year is None or year in (f.year, f.name)]
        candidates = candidates or [f for f in folders if f.year is None]
        matches = [(folder, split) for folder in candidates if split in folder.offers()]
        places = ", ".join(str(folder.path) for folder in candidates or folders)
        if not candidates:
            raise UserError(f"{where}: there is no folder VOC{year} for ['{year}', '{split}']; there are: {places}")
        if not matches:
            offered = {name for folder in candidates for name in folder.offers()}
            raise UserError(
                f"{where}: {places} has no image set '{split}' ({file.format(split)}); {nearest(split, offered)}"
            )
        chosen += matches
    return chosen


def default_sets(folders, role: str) -> list:
    """[(folder, split)] that the folders suggest for `role`, train, eval or test; empty where they offer nothing.

    Where there is a test set, trainval is for training; without one val takes its place, and then only train is.  A
    drawn split keeps val apart.  eval is val where val is not trained on.
    """
    has_test = any("test" in folder.offers() for folder in folders)
    chosen = []
    for folder in folders:
        offers = folder.offers()
        words = ("trainval", "train") if has_test and not folder.drawn else ("train", "trainval")
        train = next((word for word in words if word in offers), None)
        if role == "train":
            split = train
        elif role == "eval":
            split = "val" if train != "trainval" else None
        else:
            split = "test" if has_test else "val"
        if split in offers:
            chosen.append((folder, split))
    return chosen


def _listed_folders(root: Path, facts: FileFacts) -> list[ListedFolder]:
    """The folders with lists: the root itself, else its year folders, also below a folder VOCdevkit."""
    lists = _lists(root)
    if lists:
        return [ListedFolder(root, lists, facts)]
    children = sorted(child for child in root.iterdir() if child.is_dir())
    years = [(child, _lists(child)) for child in children if YEAR_FOLDER.fullmatch(child.name)]
    found = [ListedFolder(child, lists, facts) for child, lists in years if lists]
    if found:
        return found
    if (root / "VOCdevkit").is_dir():
        return _listed_folders(root / "VOCdevkit", facts)
    others = [child.name for child in children if _lists(child)]
    if others:
        raise UserError(
            f"DATASET.DATASET_DIR: {root} is no data set but holds some: {', '.join(others[:8])}; name the one to use"
        )
    return []


def _lists(folder: Path) -> dict:
    """{split: list file} of a folder in VOC layout."""
    for place in (folder / "ImageSets" / "Main", folder / "ImageSets"):
        lists = {file.stem: file for file in sorted(place.glob("*.txt"))}
        if lists:
            return lists
    return {}


def read_lines(source: Path) -> list[tuple[int, str]]:
    """The lines of a list with their numbers, without spaces at their ends; blank ones too."""
    try:
        if source.stat().st_size > MAX_LIST_BYTES:
            raise UserError(f"{source}: larger than {MAX_LIST_BYTES >> 20} MB, which is no list of images")
        text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror or error})") from None
    if text.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise UserError(f"{source}: is UTF-16 text; save it as UTF-8")
    lines = [line.strip() for line in text.split("\n")]
    return list(enumerate(lines if lines[-1] else lines[:-1], 1))


def leads_out(text: str) -> bool:
    """Whether a name of a list is no path below a folder."""
    parts = os.path.normpath(text.replace("\\", "/")).replace("\\", "/").split("/")
    return parts[0] in ("", "..") or bool(os.path.splitdrive(text)[0]) or "\0" in text


def _first_folder(path: Path, names) -> Path:
    return next(path / name for name in names if (path / name).is_dir())


def _where_it_ends(path: Path) -> str:
    """The deepest folder of a path that exists, and what it holds."""
    parent = next(folder for folder in path.absolute().parents if folder.is_dir())
    return f"{parent} holds {sample_names(parent)}"
