"""The smallest score at which a detection counts: one for all classes, or some classes with one of their own."""

from collections.abc import Mapping
from numbers import Real

from .errors import UserError, nearest

OTHERS = ""
"""Stands for the classes that are not named; no class can have it as its name."""


class ScoreThreshold:
    """A smallest score from 0 to 1, or {class name: smallest score} with OTHERS for the classes that it does not name
    (0 without that entry).  Classes are known by `class_names` (of the labels 1, 2, ...), where there are none by
    their labels as text.  UserError for anything else.
    """

    def __init__(self, threshold: "float | Mapping[str, float] | ScoreThreshold", class_names=()):
        if isinstance(threshold, ScoreThreshold):
            threshold = threshold.given
        given = dict(threshold) if isinstance(threshold, Mapping) else {OTHERS: threshold}
        for name, score in given.items():
            if not isinstance(score, Real) or isinstance(score, bool) or not 0 <= score <= 1:
                of_class = f" of '{name}'" if name != OTHERS else ""
                raise UserError(f"threshold{of_class}: {score!r} is no score; allowed: 0 to 1")
        self.given = given
        self.others = float(given.get(OTHERS, 0.0))
        self._of_labels = {_label(name, class_names): float(s) for name, s in given.items() if name != OTHERS}

    def mask(self, scores, labels):
        """Which of the detections with these scores [K] and labels [K] count, bool [K]; tensors or arrays."""
        enough = scores >= self.others
        for label, least in self._of_labels.items():
            enough = (labels != label) & enough | (labels == label) & (scores >= least)
        return enough

    def __str__(self) -> str:
        named = [f"{name} {score:g}" for name, score in self.given.items() if name != OTHERS]
        return ", ".join([f"{self.others:g}", *named])


def _label(name: str, class_names) -> int:
    if name in class_names:
        return class_names.index(name) + 1
    if not class_names and str(name).isascii() and str(name).isdigit() and int(name):
        return int(name)
    hint = nearest(name, class_names) if class_names else "its classes have no names; allowed: their numbers, from 1"
    raise UserError(f"threshold: '{name}' is no class of this detector; {hint}")
