"""Whether a difference between runs is more than chance: intervals by resampling of images, and between seeds."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
FEW_UNITS = 20
"""Below so many images, or videos, the bootstrap knows too little to be trusted."""


class Interval(NamedTuple):
    """A difference of two figures, and the 95 % interval around it."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def resample_weights(units, num_resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each of I images is drawn, int64 [I, B], when what they belong to is drawn with replacement.

    units [I] numbers it from 0: each image by itself, or all frames of a video together, because they resemble each
    other and say little more than one of them.
    """
    units = np.asarray(units)
    count = int(units.max(initial=-1)) + 1
    drawn = np.random.default_rng(seed).integers(0, max(count, 1), (num_resamples, count))
    weights = np.stack([np.bincount(row, minlength=count) for row in drawn], axis=1)
    return weights[units]


def interval_of(value: float, samples: np.ndarray, num_units: int) -> Interval:
    """The interval of a figure of `num_units` images or videos from its resamples [B], of which NaN are left out.

    It is the percentile interval, widened a little as few images call for: as Student's t is wider than the normal
    distribution.  (Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 2015, 3.4: the
    expanded percentile interval.)
    """
    known = samples[~np.isnan(samples)]
    if math.isnan(value) or not len(known) or num_units < 2:
        return Interval(value, math.nan, math.nan)
    reach = math.sqrt(num_units / (num_units - 1)) * student_quantile((1 + LEVEL) / 2, num_units - 1)
    tail = math.erfc(reach / math.sqrt(2)) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def welch_interval(first, second) -> Interval | None:
    """The difference of the means of two groups of figures (second - first) and its t interval with unequal variances;
    None where a group has fewer than two figures.

    (Welch, The generalization of Student's problem when several different population variances are involved,
    Biometrika 1947.)
    """
    if min(len(first), len(second)) < 2:
        return None
    value = float(np.mean(second) - np.mean(first))
    parts = [(float(np.var(group, ddof=1)) / len(group), len(group) - 1) for group in (first, second)]
    variance = sum(part for part, _ in parts)
    if not variance:
        return Interval(value, value, value)
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    half = student_quantile((1 + LEVEL) / 2, freedom) * math.sqrt(variance)
    return Interval(value, value - half, value + half)


@cache
def student_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t distribution with `freedom` degrees of freedom, at least 1, to about 1e-5 of itself.

    With t = sqrt(freedom) tan(angle) the density over the angle is cos(angle) ** (freedom - 1), without tails.
    """
    angle = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.clip(np.cos(angle), 0, None) ** (freedom - 1)
    total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(probability, total / total[-1], angle)))
