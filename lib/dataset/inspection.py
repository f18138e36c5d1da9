"""What is wrong with a data set: cases, what becomes of each, the report and the one line on the screen.

A reader makes one `Findings` for each set that it opens, files what it meets under the cases below, and concludes.
DATASET.ON_BAD decides (sizes are those of the image file; a box may leave it by SLACK pixels unmentioned):

| met in a data set                                            | drop            | clip             | fail |
|--------------------------------------------------------------|-----------------|------------------|------|
| box empty, with NaN or infinite corners, outside the image   | box left out    | box left out     | stop |
| box reversed                                                 | box left out    | corners swapped  | stop |
| box of which less than half lies in the image                | box left out    | cut to the image | stop |
| box partly outside the image                                 | cut to the image| cut to the image | stop |
| object of an unknown class, without name or numeric corners  | object left out | object left out  | stop |
| object given in pixels where parts of the image are due      | object left out | object left out  | stop |
| object of an image that is not listed                        | object left out | object left out  | stop |
| image missing, empty, no image, truncated, oversized         | image left out  | image left out   | stop |
| annotation missing, malformed, with entities                 | image left out  | image left out   | stop |
| name in a list that leads out of the folder                  | line left out   | line left out    | stop |
| annotation that gives another size than the image            | image counts    | image counts     | stop |
| image listed twice                                           | counts once     | counts once      | stop |
| blank line in a list, image rotated by EXIF                  | told            | told             | told |

A set of which nothing is left, or whose objects are all of unknown classes, is a UserError in any case; an image
rotated by EXIF is one where DATASET.EXIF is fail.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..utils.errors import UserError, one_line
from ..utils.files import write_whole
from .image_header import ImageFacts

logger = logging.getLogger(__name__)

SLACK = 1.0
"""Pixels by which a box may leave its image unmentioned: tools that count from 0 are one off."""

PART_INSIDE = 0.5
"""A box of which less lies in its image is not cut but left out: what is left of it is hardly its object."""

LONGEST = 1000
"""Letters of a finding on the screen; the report has them all."""

NAMED = 3
"""Findings that an error message names."""

DROPPED, CUT, REPAIRED, KEPT = "dropped", "cut to the image", "repaired", "kept"


class Case(NamedTuple):
    """A kind of fault: what it is a fault of, in words, and what becomes of it under drop and clip.  A note is no
    fault: it is told, never failed on."""

    unit: str
    words: str
    drop: str = DROPPED
    clip: str = DROPPED
    note: bool = False


CASES = {
    "nan_box": Case("box", "with NaN or infinite corners"),
    "empty_box": Case("box", "empty"),
    "reversed_box": Case("box", "reversed", clip=REPAIRED),
    "outside_box": Case("box", "outside the image"),
    "mostly_outside_box": Case("box", "mostly outside the image", clip=CUT),
    "partly_outside_box": Case("box", "partly outside the image", CUT, CUT),
    "no_class_name": Case("object", "without a class name"),
    "no_box": Case("object", "without a box"),
    "no_number": Case("object", "whose corners are no numbers"),
    "not_relative": Case("object", "whose corners are no parts of the image's size"),
    "unknown_class": Case("object", "of an unknown class"),
    "unlisted_image": Case("object", "of an image that is not listed"),
    "missing_image": Case("image", "missing"),
    "empty_file": Case("image", "without content"),
    "no_image": Case("image", "of no known format"),
    "truncated_image": Case("image", "truncated"),
    "oversized_image": Case("image", "oversized"),
    "unreadable_image": Case("image", "unreadable"),
    "missing_annotation": Case("image", "without annotation"),
    "bad_annotation": Case("image", "with a malformed annotation"),
    "entities": Case("image", "with entities in the annotation"),
    "shared_image": Case("image", "claimed by two annotations"),
    "outside_folder": Case("image", "outside the folder"),
    "other_size": Case("image", "of another size than annotated", KEPT, KEPT),
    "listed_twice": Case("image", "listed twice", "counted once", "counted once"),
    "rotated": Case("image", "rotated by EXIF", KEPT, KEPT, note=True),
    "blank_line": Case("blank line", "in the lists", "passed over", "passed over", note=True),
}
"""All cases by the name that they have in the report."""


@dataclass(frozen=True)
class Checks:
    """How a data set is opened: DATASET.ON_BAD, DATASET.EXIF, and the folder of report and cache, '' for none."""

    on_bad: str = "drop"
    exif: str = "ignore"
    folder: str = ""


class Finding(NamedTuple):
    """Where a fault is: paths of image and annotation, number of the object from 1 (in a text file that of its line),
    and what was found."""

    image: str = ""
    annotation: str = ""
    object: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        place = (self.annotation if self.object else self.image) or self.annotation or self.image
        unit = "line" if place.endswith(".txt") else "object"
        place += f" {unit} {self.object}" if self.object else ""
        said = not place or self.detail.startswith((place, self.annotation or place))
        text = self.detail if said else f"{place} ({self.detail})" if self.detail else place
        return one_line(text if len(text) <= LONGEST else f"{text[:LONGEST]} ...")


class Findings:
    """All findings of one set that is opened for `role` (train, eval, test).

    num_known counts its objects of known classes, hints are clauses for the line on the screen.
    """

    def __init__(self, checks: Checks, role: str):
        self.checks, self.role = checks, role
        self.found: dict[str, list[Finding]] = defaultdict(list)
        self.num_known, self.hints = 0, []

    def add(self, case: str, finding: Finding):
        """File a finding under a case of CASES."""
        self.found[case].append(finding)

    def count(self, *cases: str) -> int:
        """The number of findings of some cases."""
        return sum(len(self.found[case]) for case in cases)

    def conclude(self, num_images: int, num_left: int, source: str) -> str:
        """Write the report, say in one line what was found, and return the path of the report ('' without a folder).

        num_images were named by the lists of `source`, num_left can be used.  UserError where the policy is fail and
        there is a fault, and where no image is left.
        """
        report = self._write(num_images, source)
        see = f"; see {report}" if report else ""
        failing = [case for case in self._sorted() if self._fails(case)]
        if failing:
            key = "ON_BAD" if any(not CASES[case].note for case in failing) else "EXIF"
            raise UserError(
                f"DATASET.{key} is fail: {self.role}: {self._headline(failing, num_images)}: "
                f"{self._listed(failing)}; {self._first(failing, NAMED)}{see}"
            )
        if not num_left:
            faults = self._sorted()
            told = f": {self._listed(faults)}; {self._first(faults, NAMED)}" if faults else ""
            raise UserError(f"{self.role}: no image of {source} can be used{told}{see}")
        self._tell(num_images, see)
        return report

    def _tell(self, num_images: int, see: str):
        """The line on the screen.  Images that EXIF turns as it is told to are no news."""
        cases = [case for case in self._sorted() if not (case == "rotated" and self.checks.exif == "apply")]
        if not cases:
            return
        faults = [case for case in cases if not CASES[case].note]
        by_action = defaultdict(list)
        for case in cases:
            by_action[self._action(case)].append(case)
        actions = "; ".join(f"{self._listed(group)} ({action})" for action, group in by_action.items())
        line = f"{self.role}: {self._headline(faults, num_images)}: {actions}"
        lost = self.role != "train" and any(CASES[case].unit == "image" for case in by_action[DROPPED])
        hints = [*map(one_line, self.hints), *["scores are those of the images left"] * lost]
        level = logging.WARNING if faults else logging.INFO
        logger.log(level, "%s", "; ".join([line, *hints, f"{self._first(faults or cases, 1)}{see}"]))

    def _fails(self, case: str) -> bool:
        if case == "rotated":
            return self.checks.exif == "fail"
        return self.checks.on_bad == "fail" and not CASES[case].note

    def _action(self, case: str) -> str:
        if self._fails(case):
            return "failed"
        return CASES[case].clip if self.checks.on_bad == "clip" else CASES[case].drop

    def _sorted(self) -> list[str]:
        return [case for case in CASES if self.found.get(case)]

    def _headline(self, cases, num_images: int) -> str:
        counts = Counter("image" if CASES[case].unit == "image" else "box" for case in cases for _ in self.found[case])
        named = [_counted(counts[unit], f"faulty {unit}") for unit in ("box", "image") if counts[unit]]
        return f"{' and '.join(named) or 'no fault'} in {num_images}"

    def _listed(self, cases) -> str:
        parts = ((len(self.found[case]), CASES[case]) for case in cases)
        return ", ".join(f"{_counted(count, case.unit)} {case.words}" for count, case in parts)

    def _first(self, cases, number: int) -> str:
        """The first findings, of as many cases as can be."""
        chosen = [self.found[case][0] for case in cases][:number]
        rest = (finding for case in cases for finding in self.found[case][1:])
        chosen += [finding for finding, _ in zip(rest, range(number - len(chosen)), strict=False)]
        return f"the first {'is' if len(chosen) == 1 else 'are'} {', '.join(map(str, chosen))}"

    def _write(self, num_images: int, source: str) -> str:
        if not self.checks.folder:
            return ""
        cases = {}
        for case in self._sorted():
            cases[case] = _as_entry(CASES[case], self._action(case), self.found[case])
        about = {"set": source, "images": num_images, "on_bad": self.checks.on_bad, "exif": self.checks.exif}
        path = Path(self.checks.folder) / f"data_report_{self.role}.json"
        return str(path) if write_atomically(path, _as_json({**about, "cases": cases})) else ""


def add_to_report(report: str, case: str, finding: Finding):
    """Add what was found after the set was opened, once; a report that is not there stays away."""
    if not report:
        return
    try:
        content = json.loads(Path(report).read_text(encoding="utf-8"))
        entry = content["cases"].setdefault(case, _as_entry(CASES[case], "found while reading", []))
        if finding._asdict() in entry["found"]:
            return
        entry["found"].append(finding._asdict())
        entry["count"] = len(entry["found"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: nothing can be added to it (%s)", report, error)
        return
    write_atomically(Path(report), _as_json(content))


def check_image(found: ImageFacts, said, place: Finding, findings: Findings) -> tuple[int, int] | None:
    """The size (height, width) that counts for an image, or None for one that is left out.

    found: the facts of its file; said: (height, width) of its annotation, or None; place: the image and its
    annotation.
    """
    if found.case:
        findings.add(found.case, place._replace(detail=found.detail))
        return None
    upright = findings.checks.exif == "apply"
    size, other = found.size(upright), found.size(not upright)
    fits = f"; DATASET.EXIF: {'ignore' if upright else 'apply'} would fit the annotation"
    hint = fits if said is not None and tuple(said) == other != size else ""
    if found.orientation != 1:
        findings.add("rotated", place._replace(detail=f"EXIF orientation {found.orientation}{hint}"))
    if said is not None and tuple(said) != size:
        detail = f"the image is {size[1]} x {size[0]}, the annotation says {said[1]} x {said[0]}{hint}"
        findings.add("other_size", place._replace(detail=detail))
        if hint and fits[2:] not in findings.hints:
            findings.hints.append(fits[2:])
    return size


def check_boxes(boxes, limits, findings: Findings, place: Callable[[int], Finding]):
    """Boxes float32 [M, 4] as they can be used, and the mask [M] of those that can.

    boxes: 0-based corners [M, 4] in pixels, of any kind; limits [M, 2] (width, height) of their images; place: the
    image, annotation, object and corners of a box by its position.
    """
    boxes, limits = np.array(boxes, np.float64).reshape(-1, 4), np.asarray(limits, np.float64).reshape(-1, 2)
    mend = findings.checks.on_bad == "clip"
    finite = np.isfinite(boxes).all(axis=1)
    boxes[~finite] = 0
    with np.errstate(over="ignore", invalid="ignore"):
        sides = np.diff(boxes.astype(np.float32).reshape(-1, 2, 2), axis=1)[:, 0]
    empty, swapped = (sides == 0).any(axis=1), (sides < 0).any(axis=1)
    if mend:
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    inside = np.clip(boxes, 0, np.tile(limits, 2)).astype(np.float32)
    touches = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    beyond = (boxes[:, :2] < -SLACK).any(axis=1) | (boxes[:, 2:] > limits + SLACK).any(axis=1)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        part = (inside[:, 2:] - inside[:, :2]).prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    little = beyond & ~(part >= PART_INSIDE)
    rules = (
        ("nan_box", ~finite, False),
        ("empty_box", empty, False),
        ("reversed_box", swapped & ~(mend & ~touches), mend),
        ("outside_box", ~touches, False),
        ("mostly_outside_box", little, mend),
        ("partly_outside_box", beyond, True),
    )
    left, good = np.ones(len(boxes), bool), np.ones(len(boxes), bool)
    for case, found, usable in rules:
        for position in np.flatnonzero(found & left).tolist():
            findings.add(case, place(position))
        good &= ~(found & left) | usable
        left &= ~found
    return inside, good


def write_atomically(path: Path, text: str) -> bool:
    """Write a file whole or not at all; a folder that cannot be written to is told once and harms nothing."""
    try:
        write_whole(path, text, errors="backslashreplace")
    except OSError as error:
        _tell_unwritable(str(path.parent), str(error.strerror or error))
        return False
    return True


@cache
def _tell_unwritable(folder: str, reason: str):
    logger.warning("%s: the reports and the cache of the data sets cannot be written (%s)", folder, reason)


def _as_entry(case: Case, action: str, found) -> dict:
    about = {"what": f"{case.unit} {case.words}", "action": action, "count": len(found)}
    return {**about, "found": [finding._asdict() for finding in found]}


def _as_json(content: dict) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}{'es' if unit.endswith('x') else 's'}"
