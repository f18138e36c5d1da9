"""Copies of images as problems: what training shares with eval and test, and what occurs twice."""

from dataclasses import dataclass

import numpy as np

from .check_copies import Copy, Pictures, exact_copies, look_at, near_copies
from .check_problems import ERROR, WARNING, Problem
from .check_sets import ImageSet

RANKS = ("test", "eval", "train")
"""The set that keeps an image comes first: copies are told of the later one."""

SAME_PLACE = 2.0  # pixels by which the boxes of a copy may differ unmentioned

LEAK = "The score counts what was learnt by heart."
WORDS = {
    "leaked_file": (ERROR, "image of train listed by {0}, too", f"{LEAK} Take it out of one list; --fix takes it from "
                    "training."),
    "leaked_pixels": (ERROR, "image of train with the same pixels as one of {0}", f"{LEAK} --fix takes it from "
                      "training."),
    "leaked_picture": (ERROR, "image of train nearly the same as one of {0}", f"{LEAK} The two are one picture "
                       "resized, compressed again, mirrored, cut or taken a moment later; look at the pairs. --fix "
                       "takes them from training, --keep-near leaves them."),
    "scored_twice": (WARNING, "image of eval with a copy in test", "The best checkpoint is chosen by images that it "
                     "is tested on."),
    "same_pixels": (WARNING, "image with the same pixels as another one of the set", "It counts twice; in training it "
                    "also wastes time. --fix leaves one of each in training."),
    "same_picture": (WARNING, "image nearly the same as another one of the set", "Both count, though they hardly "
                     "tell more than one. Nothing is wrong if they belong to a series."),
}  # fmt: skip
"""Key of a problem: its severity, title and advice."""

LEAKS = ("leaked_file", "leaked_pixels", "leaked_picture")


@dataclass
class _Index:
    """The files of all sets, each once, those of test first: path, position of its set and image there; shared holds
    (file, set, image) of the sets that list it as well."""

    paths: list[str]
    places: list[tuple[int, int]]
    shared: list[tuple[int, int, int]]


def find_copies(sets: list[ImageSet]) -> list[Problem]:
    """The problems with copies among all images, which are decoded for it, and with those that cannot be decoded."""
    sets = sorted(sets, key=lambda each: RANKS.index(each.name))
    index = _index_files(sets)
    records = [each.records for each in sets]
    pictures = look_at([lambda s=s, i=i: records[s].read(i) for s, i in index.places])
    videos = _videos(sets, index)
    found = {key: [] for key in WORDS}
    for number, later, image in index.shared:
        _file(found, sets, index.places[number], (later, image), "the same file", "leaked_file")
    exact = exact_copies(pictures.digests)
    near = near_copies(pictures, [place[0] for place in index.places], videos, [copy.other for copy in exact])
    for copy in [copy for copy in exact if not _within_video(copy, videos, pictures, sets, index)] + near:
        one, other = index.places[copy.one], index.places[copy.other]
        if copy.exact:
            what = "the same pixels" + _other_objects(sets, one, other)
        else:
            what = ("mirrored, " if copy.mirrored else "") + f"correlation of the pictures {copy.agreement:.2f}"
        _file(found, sets, one, other, what, "leaked_pixels" if copy.exact else "leaked_picture")
    scored = " and ".join(each.name for each in sets if each.name != "train")
    problems = []
    for key, (severity, title, advice) in WORDS.items():
        problems.append(Problem(key, severity, title.format(scored or "test"), advice, found[key]))
    return [_undecodable(sets, index, pictures), *problems]


def _file(found: dict, sets, one, other, what: str, leak: str) -> None:
    """Put a pair, each as (set, image), under the key that it belongs to."""
    (first, i), (second, j) = one, other
    names = sets[first].name, sets[second].name
    offender = sets[second].offender(j, what)
    offender.other = names[0], sets[first].records.image_path(i)
    if names[0] == names[1]:
        key = "same_picture" if leak == "leaked_picture" else "same_pixels"
    else:
        key = leak if names[1] == "train" else "scored_twice"
    found[key].append(offender)


def _index_files(sets: list[ImageSet]) -> _Index:
    index, known = _Index([], [], []), {}
    for position, each in enumerate(sets):
        for image, path in enumerate(each.records.paths):
            number = known.setdefault(path, len(index.paths))
            if number == len(index.paths):
                index.paths.append(path)
                index.places.append((position, image))
            else:
                index.shared.append((number, position, image))
    return index


def _videos(sets: list[ImageSet], index: _Index) -> np.ndarray:
    """The number of the video of every file, different ones for stills."""
    numbers, start = [], 0
    for each in sets:
        count = len(each.records)
        numbers.append(start + (each.records.video_of(np.arange(count)) if each.records.is_video else np.arange(count)))
        start += count
    return np.array([numbers[position][image] for position, image in index.places], np.int64)


def _within_video(copy: Copy, videos, pictures: Pictures, sets, index: _Index) -> bool:
    """Whether a copy is none to speak of: of a frame of its own video, or a plain frame, as a fade to black has."""
    is_video = sets[index.places[copy.other][0]].records.is_video
    return videos[copy.one] == videos[copy.other] or bool(is_video and pictures.plain[copy.other])


def _other_objects(sets, one, other) -> str:
    """What to say where the annotations of two copies differ, '' where they do not."""
    (boxes, labels), (other_boxes, other_labels) = (_sorted_objects(sets[s], i) for s, i in (one, other))
    if len(boxes) != len(other_boxes):
        return f"; annotated differently, with {len(other_boxes)} objects and {len(boxes)}"
    if (labels != other_labels).any() or (np.abs(boxes - other_boxes) > SAME_PLACE).any():
        return "; annotated differently"
    return ""


def _sorted_objects(each: ImageSet, image: int):
    boxes, labels, _ = each.records.objects(image)
    order = np.lexsort((*boxes.round(-1).T, labels))
    return boxes[order], labels[order]


def _undecodable(sets, index: _Index, pictures: Pictures) -> Problem:
    offenders = []
    for number, reason in enumerate(pictures.reasons):
        if reason:
            position, image = index.places[number]
            offenders.append(sets[position].offender(image, reason.removeprefix(f"{index.paths[number]}: ")))
    advice = "Its header is sound, its content is not: training puts another image in its place. --fix leaves it out."
    return Problem("undecodable", ERROR, "image that cannot be decoded", advice, offenders)
