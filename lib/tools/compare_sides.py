"""The figures of a comparison: sides, each a run or several seeds of one configuration, and pairs of them."""

import logging
import math
import string
from dataclasses import dataclass

import numpy as np

from ..evaluation.resampling import ResampledAP, mean_over_classes
from ..utils.errors import UserError
from .compare_runs import Run, group_seeds
from .compare_statistics import Interval, interval_of, resample_weights, welch_interval

log = logging.getLogger(__name__)

TOLERANCE = 0.005
"""How far the figure of a results file may be from that of the detections beside it: boxes are written rounded."""

FIGURES = {
    "voc07": "mAP (VOC07, IoU 0.5)",
    "voc_area": "mAP (area, IoU 0.5)",
    "map50": "mAP (area, IoU 0.5)",
}
"""Figures that have an interval, and what they are called."""


@dataclass
class Side:
    """One side of a comparison: its letter, its runs (seeds of one configuration), the mean of their figures by class
    and over all, and those means of every resample: samples [C, B], of `num_units` images or videos."""

    letter: str
    runs: list[Run]
    per_class: dict[str, float]
    scores: list[float]
    samples: np.ndarray
    num_units: int

    @property
    def name(self) -> str:
        """The name of its first run, and how many there are."""
        return self.runs[0].name + (f" ({len(self.runs)} seeds)" if len(self.runs) > 1 else "")

    @property
    def score(self) -> float:
        """The figure, mean of its runs."""
        return float(np.mean(self.scores))

    def interval(self) -> Interval:
        """The figure and its interval by images."""
        return interval_of(self.score, mean_over_classes(self.samples), self.num_units)

    def errors(self) -> np.ndarray:
        """Wrong detections and missed objects [I] of each image, mean of its runs."""
        return np.mean([[o.false_positives + o.missed for o in run.outcomes] for run in self.runs], axis=0)


@dataclass
class Pair:
    """The differences second - first: over all by images, between seeds (None without several on both sides), and by
    class; and the errors that each image has more, [I]."""

    first: Side
    second: Side
    overall: Interval
    seeds: Interval | None
    per_class: dict[str, Interval]
    more_errors: np.ndarray

    @property
    def sign(self) -> int:
        """1 where the second is better beyond doubt, -1 where the first is, else 0."""
        if self.seeds is not None and self.seeds.sign != self.overall.sign:
            return 0
        return self.overall.sign


@dataclass
class Comparison:
    """What is compared by the figure `key` on `num_units` images or videos (`unit`); only_seeds: the runs differ by
    nothing but their seed."""

    runs: list[Run]
    sides: list[Side]
    pairs: list[Pair]
    key: str
    unit: str
    num_units: int
    only_seeds: bool


def compare(runs: list[Run]) -> Comparison:
    """Compare all sides with the first."""
    records, groups = runs[0].records, group_seeds(runs)
    only_seeds = len(groups) == 1 and len(runs) > 1
    groups = [[run] for run in runs] if only_seeds else groups
    if len(groups) > len(string.ascii_uppercase):
        raise UserError(f"{len(groups)} runs are too many to compare; give {len(string.ascii_uppercase)} at most")
    units = records.video_of(np.arange(len(records))) if records.is_video else np.arange(len(records))
    num_units, weights, key = len(np.unique(units)), resample_weights(units), headline(runs[0])
    sides = [
        _make_side(letter, group, key, weights, num_units)
        for letter, group in zip(string.ascii_uppercase, groups, strict=False)
    ]
    pairs = [_make_pair(sides[0], side) for side in sides[1:]]
    return Comparison(runs, sides, pairs, key, "videos" if records.is_video else "images", num_units, only_seeds)


def headline(run: Run) -> str:
    """The figure that is resampled: what the test phase called mAP, else the area under the curve at IoU 0.5, which
    COCO's figures cannot be resampled without (they take minutes each)."""
    if run.records.is_video:
        return "map50"
    score = run.results["mAP"]
    return next(
        (key for key in ("voc07", "voc_area") if score is not None and run.results.get(key) == score), "voc_area"
    )


def _make_side(letter: str, runs: list[Run], key: str, weights, num_units: int) -> Side:
    figures = [run.metric.compute() for run in runs]
    for run, own in zip(runs, figures, strict=True):
        _check_results(run, own, key)
    samples = np.mean([_resampled(run, key, weights) for run in runs], axis=0)
    names = runs[0].class_names
    per_class = {name: float(np.mean([own[f"{key}/{name}"] for own in figures])) for name in names}
    return Side(letter, runs, per_class, [own[key] for own in figures], samples, num_units)


def _resampled(run: Run, key: str, weights) -> np.ndarray:
    return ResampledAP(run.metric).compute(weights)["voc_area" if key == "map50" else key]


def _check_results(run: Run, figures: dict, key: str) -> None:
    said = run.results.get(key)
    if said is not None and not math.isnan(figures[key]) and abs(said - figures[key]) > TOLERANCE:
        log.warning(
            "%s: its results say %s %.4f, its detections give %.4f by the ground truth of today, which counts here",
            run.folder, key, said, figures[key],
        )  # fmt: skip


def _make_pair(first: Side, second: Side) -> Pair:
    differences = second.samples - first.samples
    overall = mean_over_classes(second.samples) - mean_over_classes(first.samples)
    per_class = {
        name: interval_of(second.per_class[name] - first.per_class[name], differences[row], first.num_units)
        for row, name in enumerate(first.per_class)
    }
    return Pair(
        first,
        second,
        interval_of(second.score - first.score, overall, first.num_units),
        welch_interval(first.scores, second.scores),
        per_class,
        second.errors() - first.errors(),
    )
