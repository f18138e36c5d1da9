"""The image sets that the check tool looks at, opened without stopping, and what opening them found."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..dataset.dataset_factory import create_records
from ..dataset.detection import DetectionRecords
from ..dataset.inspection import CASES, DROPPED
from ..utils.errors import UserError
from .check_problems import ERROR, NOTE, WARNING, Offender, Problem
from .reports import warnings_collected

NUMBER = r"(-?(?:\d[\d.e+-]*|inf|nan))"
CORNERS = re.compile(rf"{NUMBER}, {NUMBER}, {NUMBER}, {NUMBER} in ")
"""How a finding about a box begins."""

MEANING = {
    "box": "Boxes like these teach nothing or wrong things.",
    "object": "The object is in the picture, but training and scoring take it for background.",
    "image": "The image is in the list, but takes no part.",
}
MEND = "Correct the annotation, or let --fix OUT write a cleaned copy."


@dataclass
class ImageSet:
    """The images of a role: train, eval or test; owner [M] is the image of every object."""

    name: str
    records: DetectionRecords

    def __post_init__(self):
        self.owner = np.repeat(np.arange(len(self.records)), np.diff(self.records.offsets))
        crowd = self.records.crowd
        self.single = np.ones(len(self.owner), bool) if crowd is None else ~crowd
        """Mask [M] of the objects that are no crowd."""

    def sides(self) -> np.ndarray:
        """Width and height of every box [M, 2] in pixels."""
        return (self.records.boxes[:, 2:] - self.records.boxes[:, :2]).astype(np.float64)

    def offender(self, image: int, what: str, objects=()) -> Offender:
        """What is wrong with an image, or with some of its objects, given by their numbers among all."""
        boxes = [[round(value, 1) for value in self.records.boxes[i].tolist()] for i in objects]
        return Offender(self.name, self.records.image_path(image), what, boxes=boxes)

    def class_of(self, position: int) -> str:
        """The class name of an object."""
        return self.records.class_names[self.records.labels[position] - 1]


def open_sets(cfg) -> tuple[list[ImageSet], list[Problem]]:
    """The sets of train, eval and test, each set of images once, and the problems met on the way.

    ON_BAD fail counts as drop, so that all faults are found.  A set that cannot be opened is a problem; a UserError
    where that is true of all.
    """
    data, found, problems, failed = cfg.DATASET, [], [], []
    data.ON_BAD = "drop" if data.ON_BAD == "fail" else data.ON_BAD
    exif, data.EXIF = data.EXIF, "ignore" if data.EXIF == "fail" else data.EXIF
    names, said = (), []
    for role in _roles(cfg):
        with warnings_collected() as warnings:
            try:
                records = create_records(cfg, role, names)
            except UserError as error:
                failed.append((role, error))
                continue
        names = records.class_names
        same = next((other for other in found if _same_images(other.records, records)), None)
        said += [text for text in warnings if not records.report or not text.endswith(f"see {records.report}")]
        if same is not None:
            problems.append(_opened_twice(same.name, role, len(records)))
            continue
        found.append(ImageSet(role, records))
        problems += read_report(Path(records.report), role, exif) if records.report else []
    if not found:
        raise failed[0][1]
    problems += _not_opened(cfg, failed)
    offenders = [Offender("", "", text) for text in dict.fromkeys(said)]
    advice = "What the trainer would say, too."
    problems.append(Problem("told", NOTE, "remark made on opening the data", advice, offenders))
    return found, join_problems(problems)


def join_problems(problems) -> list[Problem]:
    """The problems with those of the same key, from several sets, made one."""
    joined: dict[str, Problem] = {}
    for problem in problems:
        known = joined.setdefault(problem.key, problem)
        if known is not problem:
            known.offenders += problem.offenders
    return list(joined.values())


def read_report(report: Path, role: str, exif: str = "ignore") -> list[Problem]:
    """The problems in a report that inspection.Findings wrote."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{report}: what opening {role} found cannot be read ({error})") from None
    problems = []
    for key, entry in content["cases"].items():
        case = CASES[key]
        severity = NOTE if case.note else ERROR if entry["action"] == DROPPED else WARNING
        severity = ERROR if key == "rotated" and exif == "fail" else severity
        advice = f"{entry['action'].capitalize()} by DATASET.ON_BAD {content['on_bad']}."
        if not case.note:
            advice = f"{advice} {MEANING[case.unit]} {MEND}" if entry["action"] == DROPPED else f"{advice} {MEND}"
        offenders = [_offender(role, finding) for finding in entry["found"]]
        problems.append(Problem(key, severity, f"{case.unit} {case.words}", advice, offenders))
    return problems


def _offender(role: str, finding: dict) -> Offender:
    number = f"object {finding['object']}: " if finding["object"] else ""
    match = CORNERS.match(finding["detail"])
    boxes = [[float(word) for word in match.groups()]] if match else []
    what = f"{number}{finding['detail']}" if finding["detail"] else number.rstrip(": ")
    return Offender(role, finding["image"], what, finding["annotation"], boxes)


def _not_opened(cfg, failed) -> list[Problem]:
    """The problem of sets that cannot be opened, and the remark on those that no phase would open."""
    offenders = [Offender(role, "", str(error)) for role, error in failed]
    needed = [offender for offender in offenders if offender.set in _needed(cfg)]
    others = [offender for offender in offenders if offender.set not in _needed(cfg)]
    advice = "Nothing in it was looked at."
    return [
        Problem("not_opened", ERROR, "set that cannot be opened", advice, needed),
        Problem("not_there", NOTE, "set that no phase of PHASE opens, nor can be opened", advice, others),
    ]


def _needed(cfg) -> set[str]:
    """The roles whose sets the phases open."""
    tracked = ["eval"] * bool("train" in cfg.PHASE and cfg.TRAIN.TRACK_MAP)
    return {"test" if phase == "visualize" else phase for phase in [*cfg.PHASE, *tracked]}


def _roles(cfg) -> list[str]:
    """The roles whose sets are looked at: eval only where something would open it."""
    evaluates = bool(cfg.DATASET.EVAL_SETS) or cfg.TRAIN.TRACK_MAP or "eval" in cfg.PHASE
    return ["train", "test", *["eval"] * evaluates]


def _same_images(one: DetectionRecords, other: DetectionRecords) -> bool:
    return len(one) == len(other) and set(one.paths) == set(other.paths)


def _opened_twice(first: str, second: str, count: int) -> Problem:
    offender = [Offender(second, "", f"all {count:,} images of {second} are those of {first}")]
    if first == "train":
        advice = f"A score on images that were trained on says nothing about others; name another set for {second}."
        return Problem(f"{second}_is_train", ERROR, f"Training and {second} open the same images", advice, offender)
    advice = "The best checkpoint is chosen by the images that it is tested on, so the score is a little too good."
    return Problem("test_is_eval", NOTE, "Evaluation and test open the same images", advice, offender)
