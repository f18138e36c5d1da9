"""What becomes of objects and images in a cleaned copy: DATASET.ON_BAD clip, whatever the configuration says."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..dataset.inspection import CASES, Checks, Finding, Findings, check_boxes
from ..dataset.voc_xml import Annotation
from ..utils.errors import UserError
from .check_leaks import LEAKS
from .check_problems import Problem

LEFT_OUT = "left out"
MOST_TAKEN = 0.5
"""Of the training images: from here on near copies are rather the pictures of one fixed camera."""


class Change(NamedTuple):
    """What becomes of an object, and why: left out, unless there is another box (corners as in its file) or name."""

    why: str
    box: list[float] | None = None
    name: str | None = None

    @property
    def what(self) -> str:
        if self.box is None and self.name is None:
            return "object left out"
        return "box corrected" if self.box is not None else "class renamed"


class Removals(NamedTuple):
    """Images that a cleaned copy lacks, by path, with the reason: everywhere, or in all lists but those that score."""

    everywhere: dict[str, str]
    training: dict[str, str]


def judge_objects(found: Annotation, size, known: Callable[[str], str | None], first_pixel: int) -> dict[int, Change]:
    """{number of the object: Change} for those of an image of `size` (height, width) that do not stay as they are.

    known: the name that counts for a name, None for an unknown class; first_pixel: the number that the file gives to
    the first row and column.
    """
    changes = {number: Change(_words(case)) for number, case, _ in found.faults}
    kept = []
    for position, name in enumerate(found.names):
        usual = known(name)
        if usual is None:
            changes[found.numbers[position]] = Change(_words("unknown_class"))
            continue
        kept.append(position)
        if usual != name:
            changes[found.numbers[position]] = Change(f"'{name}' is '{usual}'", name=usual)
    findings = Findings(Checks("clip"), "")
    corners = np.array([found.boxes[i] for i in kept], np.float64).reshape(-1, 4) - first_pixel
    limits = np.tile(size[::-1], 2)
    boxes, good = check_boxes(
        corners, np.tile(limits[:2], (len(kept), 1)), findings, lambda position: Finding(object=position + 1)
    )
    for case, faults in findings.found.items():
        for fault in faults:
            position = fault.object - 1
            number = found.numbers[kept[position]]
            name = changes[number].name if number in changes else None
            # The last column of a file that counts from 1 is the width, not one more.
            box = np.minimum(boxes[position].astype(float) + first_pixel, limits).round(2).tolist()
            changes[number] = Change(_words(case), box, name) if good[position] else Change(_words(case))
    return changes


def removals(problems: list[Problem], num_train: int, keep_near: bool) -> Removals:
    """The images that go because of these problems; UserError where near copies would take most of the training."""
    everywhere, training = {}, {}
    for problem in problems:
        near = problem.key == "leaked_picture"
        if near and not keep_near and problem.count > MOST_TAKEN * num_train:
            raise UserError(
                f"--fix: {problem.count:,} of {num_train:,} training images are nearly the same as others; that is "
                "one fixed camera rather than copies; --keep-near leaves them"
            )
        for offender in problem.offenders:
            if problem.key == "undecodable":
                everywhere[offender.image] = f"cannot be decoded: {offender.what}"
            elif offender.set == "train" and (problem.key in (*LEAKS, "same_pixels")) and not (near and keep_near):
                role, path = offender.other
                training[offender.image] = f"{offender.what}; the other is {path} ({role})"
    return Removals(everywhere, training)


def _words(case: str) -> str:
    return f"{CASES[case].unit} {CASES[case].words}"
