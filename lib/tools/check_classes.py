"""How classes are spread over the sets, and names that are probably one class."""

import difflib
import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from .check_problems import ERROR, NOTE, WARNING, Offender, Problem
from .check_sets import ImageSet

RARE_SPELLING = 0.1
"""A spelling with fewer objects than this part of the other's is a slip; else the two may be classes on purpose."""

ALIKE = 0.8  # of difflib
FAR_APART, SURE = 2.0, 4.0
"""Shares of images with a class are far apart if one is twice the other and that is so many standard errors."""

IMBALANCE = 20


def class_rows(sets: list[ImageSet]) -> list[dict]:
    """For every class its name, and for every set its objects, the images that hold it and their share."""
    rows = [{"class": name, "sets": {}} for name in sets[0].records.class_names]
    for each in sets:
        objects = each.records.num_objects_per_class()
        keys = np.unique(each.owner * (len(rows) + 1) + each.records.labels)
        images = np.bincount(keys % (len(rows) + 1), minlength=len(rows) + 1)[1:]
        for row, number, holding in zip(rows, objects.tolist(), images.tolist(), strict=True):
            share = round(holding / len(each.records), 4)
            row["sets"][each.name] = {"objects": number, "images": holding, "share": share}
    return rows


def find_class_problems(sets: list[ImageSet], rows: list[dict], named: bool) -> list[Problem]:
    """The problems with classes; named: whether DATASET.CLASSES chose the names, so that none is a slip."""
    slips = {} if named else variants(_count_objects(sets))
    classes = [row for row in rows if row["class"] not in slips]
    spelling = [] if named else _spelling(sets, slips)
    return [*spelling, *_missing(classes), _far_apart(sets, classes), _imbalance(classes), _empty_images(sets)]


def variants(counts: dict[str, int]) -> dict[str, str]:
    """{spelling: the usual one} of names that differ in case and separators only, the rare ones (RARE_SPELLING)."""
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_plain(name), []).append(name)
    usual = {key: max(names, key=counts.get) for key, names in groups.items()}
    pairs = {name: usual[_plain(name)] for name in counts if name != usual[_plain(name)]}
    return {name: other for name, other in pairs.items() if counts[name] < RARE_SPELLING * counts[other]}


def known_names(sets: list[ImageSet], named: bool) -> Callable[[str], str | None]:
    """The name that counts for a name in an annotation, None for an unknown class; named as in find_class_problems.

    Names that were chosen count in any case and with any separators; of names that were found the slips are mended.
    """
    names = sets[0].records.class_names
    if not named:
        slips = variants(_count_objects(sets))
        return lambda name: slips.get(name, name)
    usual = {_plain(name): name for name in names}
    return lambda name: name if name in names else usual.get(_plain(name))


def _count_objects(sets: list[ImageSet]) -> dict[str, int]:
    """The objects of every class that has any."""
    counts: Counter = Counter()
    for each in sets:
        counts.update(dict(zip(each.records.class_names, each.records.num_objects_per_class().tolist(), strict=True)))
    return {name: count for name, count in counts.items() if count}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _spelling(sets: list[ImageSet], slips: dict[str, str]) -> list[Problem]:
    counts, alike = _count_objects(sets), {}
    for name, count in counts.items():
        if name in slips or any(letter.isdigit() for letter in name):
            continue
        same = [other for other in counts if other != name and _plain(other) == _plain(name)]
        close = same or [
            other
            for other in difflib.get_close_matches(name, [each for each in counts if each != name], 3, ALIKE)
            if count < RARE_SPELLING * counts[other] and not any(letter.isdigit() for letter in other)
        ]
        if close and counts[close[0]] >= count:
            alike[name] = close[0]
    found = (
        ("class_slip", ERROR, slips, "The detector learns two classes where there is one. Correct the names, or let "
         "--fix do it."),
        ("class_alike", WARNING, alike, "If the two are one class, correct the names; if not, nothing is wrong."),
    )  # fmt: skip
    title = "object whose class name is nearly another's"
    return [Problem(key, level, title, advice, _objects_of(sets, pairs, counts)) for key, level, pairs, advice in found]


def _objects_of(sets, pairs: dict[str, str], counts) -> list[Offender]:
    """The objects of the classes that `pairs` renames."""
    offenders = []
    for each in sets:
        labels = {label: name for label, name in enumerate(each.records.class_names, 1) if name in pairs}
        for position in np.flatnonzero(np.isin(each.records.labels, list(labels))).tolist():
            name = labels[int(each.records.labels[position])]
            other = pairs[name]
            what = f"'{name}' ({_objects(counts[name])}), but '{other}' ({_objects(counts[other])})"
            offenders.append(each.offender(int(each.owner[position]), what, [position]))
    return offenders


def _objects(count: int) -> str:
    return f"{count:,} object{'s' * (count != 1)}"


def _missing(rows: list[dict]) -> list[Problem]:
    unlearnt, unscored, unseen = [], [], []
    for row in rows:
        numbers = {name: part["objects"] for name, part in row["sets"].items()}
        if not any(numbers.values()):
            unseen.append(Offender("", "", row["class"]))
        elif not numbers.get("train", 1):
            held = ", ".join(f"{count:,} in {name}" for name, count in numbers.items() if count)
            unlearnt.append(Offender("train", "", f"{row['class']}: no object in train, {held}"))
        else:
            for name in [name for name, count in numbers.items() if not count]:
                unscored.append(Offender(name, "", f"{row['class']}: no object in {name}"))
    return [
        Problem("class_not_in_train", WARNING, "class that training never sees", "The detector cannot learn it, and "
                "its average precision of 0 counts in the mean. Split the images anew, or leave the class out of "
                "DATASET.CLASSES.", unlearnt),
        Problem("class_not_scored", NOTE, "class without an object in a set", "No average precision can be computed "
                "for it there.", unscored),
        Problem("class_without_objects", NOTE, "class without any object", "It costs the head channels and is never "
                "found; leave it out of DATASET.CLASSES.", unseen),
    ]  # fmt: skip


def _far_apart(sets: list[ImageSet], rows: list[dict]) -> Problem:
    """Classes that far more of the images of a set hold than of train's."""
    # Frames of a video are one draw, not many.
    sizes = {each.name: len(each.records) for each in sets if not each.records.is_video}
    offenders = []
    for row in rows:
        train = row["sets"].get("train") if "train" in sizes else None
        for name, part in row["sets"].items():
            if name == "train" or name not in sizes or train is None or not (train["images"] and part["images"]):
                continue
            held, total = train["images"] + part["images"], sizes["train"] + sizes[name]
            spread = (held / total * (1 - held / total) * (1 / sizes["train"] + 1 / sizes[name])) ** 0.5
            one, other = train["images"] / sizes["train"], part["images"] / sizes[name]
            if max(one, other) >= FAR_APART * min(one, other) and abs(one - other) >= SURE * spread:
                what = f"{row['class']}: in {100 * one:.1f} % of the images of train, {100 * other:.1f} % of {name}'s"
                offenders.append(Offender(name, "", what))
    advice = (
        f"Training and {' or '.join(name for name in sizes if name != 'train') or 'test'} show different worlds. If "
        "that was not meant, split the images anew."
    )
    return Problem("shares_apart", WARNING, "class far more frequent in one set than in another", advice, offenders)


def _imbalance(rows: list[dict]) -> Problem:
    numbers = {row["class"]: row["sets"]["train"]["objects"] for row in rows if "train" in row["sets"]}
    numbers = {name: count for name, count in numbers.items() if count}
    offenders = []
    if numbers:
        most = max(numbers, key=numbers.get)
        for name, count in sorted(numbers.items(), key=lambda item: item[1]):
            if IMBALANCE * count <= numbers[most]:
                offenders.append(Offender("train", "", f"{name}: {count:,} objects, {most} {numbers[most]:,}"))
    advice = f"Less than a {IMBALANCE}th of the largest. DATASET.SAMPLING repeat_factor shows rare classes more often."
    return Problem("imbalance", NOTE, "class rare in training", advice, offenders)


def _empty_images(sets: list[ImageSet]) -> Problem:
    offenders = []
    for each in sets:
        empty = np.flatnonzero(np.diff(each.records.offsets) == 0)
        offenders += [each.offender(image, "no object") for image in empty.tolist()]
    advice = "They teach what background looks like, if they are really empty; look whether objects were forgotten."
    return Problem("no_object", NOTE, "image without an object", advice, offenders)
