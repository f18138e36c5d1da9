"""The layout of ImageNet VID: Data/VID and Annotations/VID with a folder for each snippet, and lists in ImageSets."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from ..utils.errors import UserError
from .inspection import Finding, Findings
from .voc_files import IMAGE_TYPES, Entry, images_by_stem, sample_names
from .voc_layout import existing_folder, leads_out, read_lines

SPLITS = ("train", "val", "test")
CLASS_LIST = re.compile(r"train_\d+")
NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)

MAX_DIGITS = 18
"""Numbers of frames with more digits are none."""

FORMS = "'snippet', 'snippet flag', 'snippet/frame index', 'snippet 1 frame length' and 'snippet start 0 length'"


class Row(NamedTuple):
    """A line of a list: where it stands, the path that it names, and the numbers behind it."""

    place: str
    path: str
    numbers: list[int]


class VidFolder:
    """A folder that holds Data/VID.  A snippet is called by its path below that, as 'val/ILSVRC2015_val_00000000'."""

    year = None

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.images, self.annotations = path / "Data" / "VID", path / "Annotations" / "VID"
        places = (path / "ImageSets", path / "ImageSets" / "VID")
        self._lists = {file.stem: file for place in places for file in sorted(place.glob("*.txt"))}
        self._class_lists = [file for name, file in self._lists.items() if CLASS_LIST.fullmatch(name)]
        self._frames, self._names = {}, {}

    def offers(self) -> list[str]:
        folders = [split for split in SPLITS if (self.images / split).is_dir()]
        joined = ["train"] if self._class_lists else []
        return list(dict.fromkeys([*folders, *joined, *self._lists]))

    def choose(self, split: str, chosen: dict, findings: Findings):
        """Add the frames of a set to `chosen`, a dictionary of snippets and their chosen stems as {stem: None}.

        The set is the list of that name; train is all lists of one class together; without lists a set is the
        snippets in the folder of that name.  A frame that is listed a second time goes to the findings.
        """
        if split in self._lists:
            self._read_list(self._lists[split], chosen, findings)
        elif split == "train" and self._class_lists:
            for source in self._class_lists:
                self._read_list(source, chosen, findings)
        else:
            for snippet in self._walk(split):
                chosen.setdefault(snippet, {}).update(dict.fromkeys(self.frames(snippet)))

    def entries(self, snippet: str, stems) -> tuple[list[Entry], list[int]]:
        """The chosen frames of a snippet in order of time, and their numbers; frames without an XML file have '' for
        its path."""
        folder = self.annotations / snippet
        noted = {item.name for item in os.scandir(folder)} if folder.is_dir() else ()
        found, numbers = [], []
        for stem, (number, file) in self.frames(snippet).items():
            if stem in stems:
                annotation = f"{folder}{os.sep}{stem}.xml" if f"{stem}.xml" in noted else ""
                found.append(Entry(f"{self.images}{os.sep}{snippet}{os.sep}{file}", annotation, f"{snippet}/{stem}"))
                numbers.append(number)
        return found, numbers

    def frames(self, snippet: str) -> dict[str, tuple[int, str]]:
        """{stem: (number, file name)} of a snippet in order of time; empty if the folder holds no image.

        Names that are numbers count as these numbers; other ones are sorted and counted from 0.
        """
        if snippet not in self._frames:
            files = {stem: names[0] for stem, names in images_by_stem(self.images / snippet).items()}
            numbered = all(stem.isascii() and stem.isdecimal() and len(stem) <= MAX_DIGITS for stem in files)
            numbered = numbered and len({int(stem) for stem in files}) == len(files)
            stems = sorted(files, key=int) if numbered else sorted(files, key=_by_numbers)
            numbers = map(int, stems) if numbered else range(len(stems))
            self._frames[snippet] = {stem: (n, files[stem]) for n, stem in zip(numbers, stems, strict=True)}
        return self._frames[snippet]

    def _walk(self, split: str):
        """The snippets below the folder of a split, sorted."""
        for folder, subfolders, files in os.walk(self.images / split, followlinks=True):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            if any(os.path.splitext(file)[1].lower() in IMAGE_TYPES for file in files):
                yield os.path.relpath(folder, self.images).replace(os.sep, "/")

    def _read_list(self, source: Path, chosen: dict, findings: Findings):
        """Add what a list names to `chosen`.

        A path alone and one with a flag that is not -1 are whole snippets; snippet/frame is a frame.  Three numbers
        are those of FGFA's lists: the middle one is a frame, unless it is 0 for every snippet of the list.
        """
        rows = self._read_rows(source, findings)
        by_frame = len({row.path for row in rows}) < len(rows) or any(row.numbers[1:2] > [0] for row in rows)
        hint = next((split for split in SPLITS if split in re.split(r"[^a-z]+", source.stem.lower())), SPLITS[0])
        missing, found = [], 0
        for row in rows:
            snippet, stem = self._find(row.path, hint)
            found += snippet is not None
            if snippet is None:
                missing.append(f"{row.place}: there is no snippet or frame '{row.path}' below {self.images}")
            elif stem is not None:
                self._add_frame(chosen, snippet, stem, findings)
            elif len(row.numbers) == 2:
                raise UserError(f"{row.place}: two numbers after the name of a snippet; allowed: {FORMS}")
            elif len(row.numbers) == 3 and by_frame:
                stems = [stem for stem, (number, _) in self.frames(snippet).items() if number == row.numbers[1]]
                for stem in stems:
                    self._add_frame(chosen, snippet, stem, findings)
                if not stems:
                    missing.append(f"{row.place}: {self.images / snippet} has no frame {row.numbers[1]}")
            elif row.numbers != [-1]:
                # A snippet that several lists name, for several classes, is nothing to tell.
                chosen.setdefault(snippet, {}).update(dict.fromkeys(self.frames(snippet)))
                there, listed = len(self.frames(snippet)), row.numbers[2] if len(row.numbers) == 3 else 0
                if there < listed:
                    missing.append(f"{row.place}: {self.images / snippet} holds {there} of the {listed} frames listed")
        if rows and not found:
            raise UserError(f"{missing[0]}; nor is anything else that the list names")
        for detail in missing:
            findings.add("missing_image", Finding(detail=detail))

    def _read_rows(self, source: Path, findings: Findings) -> list[Row]:
        """The lines of a list that name something below Data/VID; the other ones go to the findings."""
        rows, lines = [], read_lines(source)
        for number, line in lines:
            place = f"{source}, line {number}"
            if not line:
                findings.add("blank_line", Finding(detail=place))
            elif leads_out(line):
                findings.add("outside_folder", Finding(detail=f"{place}: '{line}' is no path below {self.images}"))
            else:
                path, numbers = _path_and_numbers(line)
                rows.append(Row(place, path.replace("\\", "/").rstrip("/"), numbers))
        if not any(line for _, line in lines):
            raise UserError(f"{source}: the list names no snippet")
        return rows

    def _add_frame(self, chosen: dict, snippet: str, stem: str, findings: Findings):
        stems = chosen.setdefault(snippet, {})
        if stem in stems:
            findings.add("listed_twice", Finding(str(self.images / snippet / self.frames(snippet)[stem][1])))
        stems[stem] = None

    def _find(self, path: str, hint: str) -> tuple[str | None, str | None]:
        """(snippet, stem) for a path of a list; the stem is None for a whole snippet, both are None for nothing."""
        parent, _, last = path.rpartition("/")
        snippet = self._snippet(parent, hint) if parent else None
        if snippet is None:
            return self._snippet(path, hint), None
        stem = os.path.splitext(last)[0] if last.lower().endswith(IMAGE_TYPES) else last
        return (snippet, stem) if stem in self.frames(snippet) else (None, None)

    def _snippet(self, path: str, hint: str) -> str | None:
        """The snippet that a list calls `path`, with or without the split in front; `hint` is the likeliest split."""
        if (path, hint) not in self._names:
            candidates = (path, f"{hint}/{path}", *(f"{split}/{path}" for split in SPLITS if split != hint))
            self._names[path, hint] = next((name for name in candidates if self.frames(name)), None)
        return self._names[path, hint]


def open_vid_folders(roots) -> list[VidFolder]:
    """The folders with Data/VID that the roots (paths) are or hold; UserError where there is none or a choice."""
    found = []
    for root in map(existing_folder, roots):
        children = [root, *sorted(child for child in root.iterdir() if child.is_dir())]
        folders = [child for child in children if (child / "Data" / "VID").is_dir()]
        if not folders:
            hint = "; DATASET.DATASET: imagenet reads it in VOC layout" if (root / "JPEGImages").is_dir() else ""
            raise UserError(
                f"DATASET.DATASET_DIR: {root} is no ImageNet VID, which has Data/VID, Annotations/VID and "
                f"ImageSets/VID; the folder holds {sample_names(root)}{hint}"
            )
        if folders[0] != root and len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise UserError(f"DATASET.DATASET_DIR: {root} holds several data sets: {names}; name the one to use")
        found.append(VidFolder(folders[0]))
    return found


def _path_and_numbers(line: str) -> tuple[str, list[int]]:
    """The path of a line and the whole numbers behind it, up to three."""
    for count in (3, 2, 1):
        path, *words = line.rsplit(None, count)
        if len(words) == count and all(map(NUMBER.fullmatch, words)):
            return path, list(map(int, words))
    return line, []


def _by_numbers(text: str) -> tuple:
    """Sorts frame2 before frame10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)], text
