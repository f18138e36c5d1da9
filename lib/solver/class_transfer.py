"""Fine-tuning by class name: the class predictions of a file for the classes, and their order, of the model."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from ..utils.class_names import VOC_CLASSES, published_class_names

SYNONYMS = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "tv": "tvmonitor"}
"""Names of COCO for classes of VOC, where they differ in more than spaces."""

GROWTH = (4, 6)
"""Boxes per cell in a file and in the model of which the first ones correspond: the level has one more ratio here, and
ratios stand in the order of the boxes.  (The family has 6 boxes on the first level, other SSD300s 4.)"""


@dataclass
class ClassMatch:
    """Which row of a file each class comes from: `rows` are pairs (class here, class in the file), the background
    included; `new` and `dropped` are the names that only one side has; `assumed` says whose names a file without names
    was taken to have."""

    rows: list[tuple[int, int]]
    taken: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    assumed: str = ""

    def __str__(self) -> str:
        return f"{len(self.taken)} classes taken over by name, {len(self.new)} new, {len(self.dropped)} dropped"

    def table(self) -> str:
        """The names of each kind."""
        kinds = {"taken over": self.taken, "new here": self.new, "dropped": self.dropped}
        head = f"classes by name{self.assumed and f' (the file is taken to have those of {self.assumed})'}:"
        lines = [
            textwrap.fill(", ".join(names) or "none", 110, initial_indent=f"  {kind:10} {len(names):3}  ",
                          subsequent_indent=" " * 17)
            for kind, names in kinds.items()
        ]  # fmt: skip
        return "\n".join([head, *lines])


class Fit(NamedTuple):
    """What `fit_head` did: the tensors in the shapes of the model, the match of classes where one was needed, the
    predictors that got fewer boxes than they have, and why predictions were left as they are."""

    tensors: dict[str, Tensor]
    match: ClassMatch | None = None
    grown: tuple[str, ...] = ()
    hint: str = ""


def match_classes(theirs: Sequence[str], ours: Sequence[str]) -> ClassMatch:
    """Pairs of equal names, whatever their order.  Case, spaces and punctuation do not count, nor does whether a class
    of VOC has the name that COCO gives it."""
    there, here = _keys(theirs), _keys(ours)
    if there is None or here is None:
        there, here = ({name: i for i, name in enumerate(names)} for names in (theirs, ours))
    shared = {key: place for key, place in here.items() if key in there}
    taken = [
        ours[i] if ours[i] == theirs[there[key]] else f"{ours[i]} (there {theirs[there[key]]})"
        for key, i in shared.items()
    ]
    return ClassMatch(
        rows=[(0, 0), *((i + 1, there[key] + 1) for key, i in shared.items())],
        taken=taken,
        new=[ours[i] for key, i in here.items() if key not in there],
        dropped=[theirs[i] for key, i in there.items() if key not in here],
    )


def take_rows(theirs: Tensor, ours: Tensor, boxes: tuple[int, int], rows: Sequence[tuple[int, int]]) -> Tensor:
    """`ours` [boxes here * width, ...] with rows of `theirs` [boxes there * width there, ...] in it.

    `boxes` are those (there, here) of a cell; `rows` are pairs (here, there) within the width, the classes or
    coordinates of a box.
    """
    there, here = boxes
    result = ours.clone()
    places, sources = ([pair[side] for pair in rows] for side in (0, 1))
    grid, source = result.view(here, -1, *ours.shape[1:]), theirs.to(ours).view(there, -1, *theirs.shape[1:])
    grid[:there, places] = source[:, sources]
    return result


def fit_head(model: nn.Module, state: dict[str, Tensor], stored: Sequence[str] | None, ours: Sequence[str]) -> Fit:
    """The predictors of a file in the shapes and classes of the model's head, for `copy_weights`.

    `stored` are the class names in the file, None for files without; these have published ones where their number is
    known, but a file with as many classes as the model is only reordered if it can have no others.  `ours` are the
    names of the model's classes, empty where unknown.
    """
    levels, own = _levels(model, state), model.state_dict()
    counts = {level.num_classes for level in levels}
    if len(counts) != 1 or None in counts:
        return Fit({})
    (count,), num_classes = counts, model.head.num_classes
    theirs = published_class_names(count) if stored is None else tuple(stored)
    known = len(theirs) + 1 == count and len(ours) + 1 == num_classes
    match = match_classes(theirs, ours) if known else None
    in_place = [(i, i) for i in range(num_classes)]
    if count == num_classes and match is not None and (match.rows == in_place or stored is None and match.new):
        match = None
    elif count != num_classes and match is None:
        whose = "run" if len(theirs) + 1 == count else "file"
        return Fit({}, hint=f"the class names of the {whose} are not known, so no class is taken over by name")
    if match is not None and stored is None:
        match.assumed = "VOC" if theirs == VOC_CLASSES else "COCO"
    tensors, grown = {}, []
    for level in levels:
        grows = level.boxes == GROWTH
        if grows or match is not None and level.boxes[0] == level.boxes[1]:
            adapted = _take(level.conf, state, own, level.boxes, in_place if match is None else match.rows)
            if grows:
                adapted |= _take(level.loc, state, own, level.boxes, [(i, i) for i in range(4)])
                grown += [level.conf] if adapted else []
            tensors |= adapted
    return Fit(tensors, match, tuple(grown))


def _take(place: str, state, own, boxes: tuple[int, int], rows) -> dict[str, Tensor]:
    """Weight and bias of a predictor with rows of the file in them, where it reads as many channels in both."""
    if state[f"{place}.weight"].shape[1:] != own[f"{place}.weight"].shape[1:]:
        return {}
    names = [name for name in (f"{place}.weight", f"{place}.bias") if name in state]
    return {name: take_rows(state[name], own[name], boxes, rows) for name in names}


class _Level(NamedTuple):
    """A pair of predictors by name, the boxes of a cell (there, here) and the classes there, None if these are odd."""

    loc: str
    conf: str
    boxes: tuple[int, int]
    num_classes: int | None


def _levels(model: nn.Module, state: dict[str, Tensor]) -> list[_Level]:
    """The predictors of the head that a state dict has as well."""
    head = getattr(model, "head", None)
    if not hasattr(head, "conf_predictors"):
        return []
    names = {id(module): name for name, module in model.named_modules()}
    levels = []
    for loc, conf in zip(head.loc_predictors(), head.conf_predictors(), strict=True):
        loc_name, conf_name = names[id(loc)], names[id(conf)]
        weights = [state.get(f"{name}.weight") for name in (loc_name, conf_name)]
        if all(weight is not None and weight.dim() for weight in weights):
            num_loc, num_conf = (len(weight) for weight in weights)
            fits = num_loc % 4 == 0 and num_loc > 0 and num_conf % (num_loc // 4) == 0
            classes = num_conf // (num_loc // 4) if fits else None
            levels.append(_Level(loc_name, conf_name, (num_loc // 4, loc.out_channels // 4), classes))
    return levels


def _keys(names: Sequence[str]) -> dict[str, int] | None:
    """Index by what counts of a name; None if two names would be the same."""
    keys = {}
    for index, name in enumerate(names):
        plain = "".join(letter for letter in name.casefold() if letter.isalnum()) or name
        keys[SYNONYMS.get(plain, plain)] = index
    return keys if len(keys) == len(names) else None
