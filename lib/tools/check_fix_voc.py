"""The cleaned copy of a data set with VOC annotations, in VOC layout whatever the layout of the original."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from ..dataset.facts import FileFacts
from ..dataset.inspection import Checks, Finding, Findings, check_image
from ..dataset.split import SplitPlan
from ..dataset.voc_files import Entry
from ..dataset.voc_layout import choose_sets, default_sets, existing_folder, open_folders, read_lines
from ..dataset.voc_xml import CORNERS, BadAnnotation
from .check_classes import known_names
from .check_fix_rules import Change, Removals, judge_objects

IMAGES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Main"


def fix_voc(data, plan: SplitPlan, facts: FileFacts, sets, gone: Removals, copy) -> list[str]:
    """Fill the copy; its folders for DATASET.DATASET_DIR.

    All image sets that the folders offer are written, also those that the configuration does not open.
    """
    roots = [data.DATASET_DIR] if isinstance(data.DATASET_DIR, str) else list(data.DATASET_DIR)
    folders = open_folders(roots, plan, facts)
    scored = _scored(data, folders, {each.name for each in sets})
    known = known_names(sets, bool(data.CLASSES) or data.DATASET in ("voc", "imagenet"))
    homes = _homes(roots)
    for folder in folders:
        prefix = _prefix(folder, homes)
        _Folder(folder, prefix, copy, facts, known, Checks("clip", data.EXIF)).write(
            _splits(folder, data), {split for other, split in scored if other is folder}, gone
        )
    return [str(copy.out / home) if home else str(copy.out) for home in homes.values()]


def _scored(data, folders, opened: set[str]) -> list:
    """[(folder, split)] that eval and test open, as far as these roles were opened."""
    chosen = []
    for sets, role in ((data.EVAL_SETS, "eval"), (data.TEST_SETS, "test")):
        if role in opened:
            where = f"DATASET.{role.upper()}_SETS"
            chosen += choose_sets(folders, sets, where) if sets else default_sets(folders, role)
    return chosen


def _splits(folder, data) -> list[str]:
    """The sets that are written: all, but of a drawn split only those that are drawn or named, because a list
    trainval would be trained on by default."""
    offers = folder.offers()
    if not folder.drawn:
        return offers
    named = [item for key in ("TRAIN_SETS", "EVAL_SETS", "TEST_SETS") for item in data[key] or ()]
    named = {item if isinstance(item, str) else str(item[-1]) for item in named}
    return [split for split in offers if split != "trainval" or split in named]


def _homes(roots) -> dict[Path, str]:
    """{folder of DATASET_DIR: where its copy lies below the new one}: the new one itself where there is only one."""
    homes: dict[Path, str] = {}
    for root in map(existing_folder, roots):
        name = root.name if len(roots) > 1 else ""
        homes[root] = f"{name}-{len(homes) + 1}" if name and name in homes.values() else name
    return homes


def _prefix(folder, homes: dict[Path, str]) -> str:
    """Where a folder lies in the copy, '' or ending in a slash; folders of years keep their names."""
    root = next(root for root in homes if folder.path == root or root in folder.path.parents)
    parts = [homes[root]] + ([folder.name] if folder.path != root else [])
    return "".join(f"{part}/" for part in parts if part)


class _Folder:
    """A folder in VOC layout or of loose files, on its way into the copy.  Names of images are those of its entries."""

    def __init__(self, folder, prefix: str, copy, facts: FileFacts, known, checks: Checks):
        self.folder, self.prefix, self.copy = folder, prefix, copy
        self.facts, self.known, self.checks = facts, known, checks

    def write(self, splits: list[str], scored: set[str], gone: Removals) -> None:
        """Write lists, images and annotations; scored: the sets that keep what training has to give away."""
        listed = {split: self.folder.entries(split, Findings(Checks(), "")) for split in splits}
        entries = {entry.key: entry for found in listed.values() for entry in found}
        bad = self._unusable(list(entries.values()))
        for key, entry in entries.items():
            if entry.image in gone.everywhere:
                bad.setdefault(key, gone.everywhere[entry.image])
        taken = {key: gone.training[entry.image] for key, entry in entries.items() if entry.image in gone.training}
        needed: set[str] = set()
        for split, found in listed.items():
            why = bad if split in scored else {**taken, **bad}
            keys = list(dict.fromkeys(entry.key for entry in found if entry.key not in why))
            needed.update(keys)
            self._write_list(split, keys, set(entries) - set(keys), why)
        for key, entry in entries.items():
            if key in needed:
                self._write_entry(entry)
            else:
                annotation = entry.annotation if os.path.isfile(entry.annotation) else ""
                why = bad.get(key) or taken[key]
                self.copy.leave_out(entry.image, self._image(entry), why, annotation, self._annotation(entry))

    def _unusable(self, entries: list[Entry]) -> dict[str, str]:
        """{name: why} of the images that nothing can be done with."""
        images = self.facts.images([entry.image for entry in entries])
        annotations = self.facts.annotations([entry.annotation for entry in entries])
        bad = {}
        for entry, image, found in zip(entries, images, annotations, strict=True):
            if isinstance(found, BadAnnotation):
                bad[entry.key] = str(found)
            elif image.case:
                bad[entry.key] = image.detail
        return bad

    def _write_list(self, split: str, keys: list[str], others: set[str], reasons: dict[str, str]) -> None:
        """The list of a set: names, or the lines of the original that name one of the keys, or one of the other images
        to say that a class is absent; reasons: why images are not in the copy."""
        place = f"{self.prefix}{LISTS}/{split}.txt"
        source = self.folder.lists.get(split)
        if source is None:
            self.copy.add_file(None, place, "".join(f"{key}\n" for key in keys).encode("utf-8", "surrogateescape"))
            return
        left, lines, lost = set(keys), [], []
        for _, line in read_lines(source):
            known = [text for text in _meanings(line) if text in left or text in others and text not in reasons]
            if known:
                left.discard(known[0])
                lines.append(line)
            elif line:
                lost.append(line)
        content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        same = [line for _, line in read_lines(source)] == lines
        self.copy.add_file(str(source), place, None if same else content)
        for line in lost:
            known = next((reasons[text] for text in _meanings(line) if text in reasons), None)
            why = known or "listed before, or there is no such image or annotation"
            self.copy.change("line left out", place, why, line)

    def _write_entry(self, entry: Entry) -> None:
        """An image, and its annotation with what is wrong mended."""
        self.copy.add_image(entry.image, self._image(entry))
        (image,), (found,) = self.facts.images([entry.image]), self.facts.annotations([entry.annotation])
        size = check_image(image, found.size, Finding(), Findings(self.checks, ""))
        changes = judge_objects(found, size, self.known, first_pixel=1)
        resized = found.size is not None and tuple(found.size) != tuple(size)
        place = self._annotation(entry)
        if not changes and not resized:
            self.copy.add_file(entry.annotation, place)
            return
        root = ET.parse(entry.annotation, ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))).getroot()
        if resized:
            self._correct_size(root, found.size, size, place)
        for number, element in list(enumerate(root.iterfind("object"), 1)):
            if number in changes:
                self._apply(root, element, changes[number], number, place)
        self.copy.add_file(entry.annotation, place, ET.tostring(root, encoding="unicode").encode() + b"\n")

    def _apply(self, root, element, change: Change, number: int, place: str) -> None:
        """Change or remove one <object>."""
        before = {"name": (element.findtext("name") or "").strip()}
        before["box"] = [(element.findtext(f"bndbox/{corner}") or "").strip() for corner in CORNERS]
        if change.box is None and change.name is None:
            root.remove(element)
            self.copy.change(change.what, place, change.why, before, None, number)
            return
        after = dict(before)
        if change.name is not None:
            element.find("name").text = after["name"] = change.name
        if change.box is not None:
            after["box"] = [f"{value:.12g}" for value in change.box]
            for corner, text in zip(CORNERS, after["box"], strict=True):
                element.find(f"bndbox/{corner}").text = text
        self.copy.change(change.what, place, change.why, before, after, number)

    def _correct_size(self, root, said, size, place: str) -> None:
        for tag, value in (("height", size[0]), ("width", size[1])):
            root.find(f"size/{tag}").text = str(value)
        self.copy.change("size corrected", place, "the image has another size", list(said), list(size))

    def _image(self, entry: Entry) -> str:
        return f"{self.prefix}{IMAGES}/{entry.key}{os.path.splitext(entry.image)[1]}"

    def _annotation(self, entry: Entry) -> str:
        return f"{self.prefix}{ANNOTATIONS}/{entry.key}.xml"


def _meanings(line: str) -> list[str]:
    """The names that a line of a list may stand for: with an extension, or a flag of VOC's lists of one class."""
    words = [line, line.rsplit(None, 1)[0]] if line else []
    return [*words, *(os.path.splitext(word)[0] for word in words)]
