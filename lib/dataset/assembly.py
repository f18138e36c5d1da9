"""From images and their annotations to records: sizes, classes, objects and boxes checked, the same for all kinds."""

import math
from collections import Counter

import numpy as np

from ..utils.class_names import check_shown
from ..utils.errors import UserError, nearest
from .detection import DetectionRecords, with_videos
from .inspection import Finding, Findings, check_boxes, check_image
from .voc_xml import Annotation, BadAnnotation

MAX_TRACK = 1 << 62
"""Track numbers from here on are names like any other."""


class ClassTable:
    """The classes of a data set in the order of their labels; UserError naming `where` for names that cannot be.

    synonyms {word: word of the list}: what annotations may also call a class.
    """

    def __init__(self, names, where: str = "DATASET.CLASSES", synonyms=None):
        self.names = tuple(names)
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        if repeated:
            raise UserError(f"{where}: '{repeated[0]}' is named twice")
        check_shown(self.names, where)
        if not all(name.strip() for name in self.names):
            raise UserError(f"{where}: name {[bool(n.strip()) for n in self.names].index(False) + 1} is empty")
        self.label_of = {name: label for label, name in enumerate(self.names, 1)}
        self._synonyms, self._told = dict(synonyms or {}), {}
        for word, name in self._synonyms.items():
            if name in self.label_of:
                self.label_of.setdefault(word, self.label_of[name])

    def unknown(self, name: str) -> str:
        """What to say of a class that is none of these."""
        if name not in self._told:
            other = self._synonyms.get(name)
            called = f" ({other})" if other else ""
            self._told[name] = f"class '{name}'{called} is unknown; {nearest(other or name, self.names)}"
        return self._told[name]


def build_records(
    entries, images, annotations, classes: ClassTable, name: str, findings: Findings, first_pixel: int = 0
):
    """(DetectionRecords, positions int64 [I] of the entries that they hold); what is wrong goes to the findings.

    For every entry (voc_files.Entry) its ImageFacts and its Annotation, or the BadAnnotation met instead; first_pixel:
    the number that the annotations give to the first row and column.
    """
    kept, sizes, counts, numbers, labels, boxes, difficult, crowd, areas, tracks = (
        [],
        [],
        [],
        [],
        [],
        [],
        [],
        [],
        [],
        [],
    )
    for position, (entry, image, found) in enumerate(zip(entries, images, annotations, strict=True)):
        size = _check_entry(entry, image, found, findings)
        if size is None:
            continue
        known = _known_objects(entry, found, classes, findings)
        kept.append(position)
        sizes.append(size)
        counts.append(len(known))
        numbers += [found.numbers[i] for i in known]
        labels += [classes.label_of[found.names[i]] for i in known]
        boxes += [found.boxes[i] for i in known]
        difficult += [found.difficult[i] for i in known]
        crowd += [i in found.crowds for i in known]
        areas += [found.areas[i] if found.areas else math.nan for i in known]
        tracks += [found.tracks[i] for i in known]
    owner = np.repeat(np.arange(len(kept)), counts)

    def place(position: int) -> Finding:
        entry, (height, width) = entries[kept[owner[position]]], sizes[owner[position]]
        corners = ", ".join(f"{value:g}" for value in boxes[position])
        return Finding(entry.image, entry.annotation, numbers[position], f"{corners} in {width} x {height} pixels")

    limits = np.asarray(sizes, np.float64).reshape(-1, 2)[owner][:, ::-1]
    corners = np.asarray(boxes, np.float64).reshape(-1, 4) - first_pixel
    cleaned, good = check_boxes(corners, limits, findings, place)
    records = DetectionRecords.build(
        classes.names,
        [entries[position].image for position in kept],
        [entries[position].key for position in kept],
        sizes,
        cleaned[good],
        np.asarray(labels, np.int64)[good],
        np.asarray(difficult, bool)[good],
        np.bincount(owner[good], minlength=len(kept)),
        name,
    )
    if any(crowd):
        records.crowd = np.asarray(crowd, bool)[good]
    if not all(map(math.isnan, areas)):
        records.areas = np.asarray(areas, np.float64)[good]
    if any(tracks):
        records.track_ids = track_numbers(tracks)[good]
    return records, np.asarray(kept, np.int64)


def as_videos(records: DetectionRecords, kept, videos, frames, names) -> DetectionRecords:
    """Records of build_records as frames of videos, less those of which nothing is kept.

    videos: the number of the video of every entry, ascending; frames: that of the frame in it; names of the videos.
    """
    lengths = np.bincount(np.asarray(videos, np.int64)[kept], minlength=len(names))
    left = [name for name, length in zip(names, lengths, strict=True) if length]
    offsets = np.cumsum([0, *lengths[lengths > 0]])
    return with_videos(records, offsets, left, np.asarray(frames, np.int64)[kept])


def track_numbers(names) -> np.ndarray:
    """int64 [M] for the names of tracks: a number is itself, other words get numbers of their own, '' is -1."""
    number_of = {word: _plain_number(word) for word in sorted(set(names))}
    free = max([number for number in number_of.values() if number is not None], default=-1) + 1
    for word, number in number_of.items():
        if number is None:
            number_of[word], free = (free, free + 1) if word else (-1, free)
    return np.asarray([number_of[name] for name in names], np.int64)


def check_any_known(records: DetectionRecords, findings: Findings, hint: str = ""):
    """UserError, with a hint, if all objects are of unknown classes; otherwise the nearest names go into the line on
    the screen."""
    unknown = findings.found["unknown_class"]
    if not unknown:
        return
    if not findings.num_known:
        raise UserError(f"{unknown[0]}{hint}; not one of {len(unknown)} objects is of a known class")
    counts = Counter(finding.detail for finding in unknown)
    told = [f"{count} times {detail.partition('; allowed')[0]}" for detail, count in counts.most_common(4)]
    findings.hints.append(", ".join(told) + (f" and {len(counts) - 4} other names" if len(counts) > 4 else ""))


def _check_entry(entry, image, found: Annotation | BadAnnotation, findings: Findings):
    """The size (height, width) of an image, or None if it or its annotation cannot be used."""
    place = Finding(entry.image, entry.annotation)
    if isinstance(found, BadAnnotation):
        findings.add(found.case, place._replace(detail=str(found)))
        return None
    return check_image(image, found.size, place, findings)


def _known_objects(entry, found: Annotation, classes: ClassTable, findings: Findings) -> list[int]:
    """Positions of the objects of known classes; the other ones and those that are incomplete go to the findings."""
    for number, case, detail in found.faults:
        findings.add(case, Finding(entry.image, entry.annotation, number, detail))
    known = [position for position, name in enumerate(found.names) if name in classes.label_of]
    findings.num_known += len(known)
    if len(known) < len(found.names):
        for position, name in enumerate(found.names):
            if name not in classes.label_of:
                finding = Finding(entry.image, entry.annotation, found.numbers[position], classes.unknown(name))
                findings.add("unknown_class", finding)
    return known


def _plain_number(word: str) -> int | None:
    """The number that a word is and that is written as this word only."""
    if not (word.isascii() and word.isdecimal()) or len(word) > 19:
        return None
    number = int(word)
    return number if str(number) == word and number < MAX_TRACK else None
