"""The page of a test: what it is worth in figures, and the images that went worst and best."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..dataset.image_header import UnreadableImage
from ..evaluation import Protocols, written_id
from ..structures import Detections, Target
from ..utils.draw import image_grid
from ..utils.page import Page
from .gallery import draw_outcome
from .outcomes import Outcome, OutcomeKeeper

logger = logging.getLogger(__name__)

PICTURE_SIDE = 640  # pixels of the longer side
HOW_TO_READ = (
    "Each picture shows the annotation and the detections with a score of {threshold:g} or more "
    "(TEST.PICTURE_THRESHOLD). A detection is right when it takes an object of its class at an IoU of 0.5, best score "
    "first; every object can be taken once, so a second detection of it is wrong. Difficult objects are not counted. A "
    "click enlarges a picture; the buttons show only images with errors in one class."
)
WORST = "By F1 of the image, then by the number of errors. Errors in the annotation show up here, too."
BEST = "By F1 of the image; of those without an error, the ones with most objects."

COSTS = {
    "fps_network": "images per second of the network alone, in batches of TEST.BATCH_SIZE",
    "fps_end_to_end": "the same with loading, preprocessing and post-processing",
    "parameters": "learnt numbers",
    "macs": "multiply-adds for one image",
}
"""Figures that are no scores, and what they are."""

MORE_SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Scores that a page shows besides those that a run is compared by."""


class Scored(NamedTuple):
    """What a page is about: its title and a line below, the figures of the test by name, the protocols that made them,
    and plots by title."""

    title: str
    about: str
    figures: dict[str, float]
    protocols: Protocols
    plots: dict[str, np.ndarray]


def write_outcome_page(path: Path, scored: Scored, keeper: OutcomeKeeper, number: int) -> Path:
    """Write the page with at most `number` pictures of each kind; UserError where that cannot be done."""
    page = Page(scored.title, scored.about)
    page.heading("In figures")
    page.table(("figure", "value", "meaning"), _headlines(scored, keeper))
    page.table(*_classes(scored))
    worst, best = keeper.worst_and_best(number)
    if worst or best:
        page.heading("How to read the pictures")
        page.text(HOW_TO_READ.format(threshold=keeper.threshold))
        page.picture(legend_picture(keeper.class_names), "", lossless=True)
    for kind, text, chosen in (("worst", WORST, worst), ("best", BEST, best)):
        if chosen:
            page.heading(f"The {len(chosen)} {kind} images")
            page.text(text, soft=True)
            _add_pictures(page, keeper, chosen)
    if scored.plots:
        page.heading("Plots")
        for caption, picture in scored.plots.items():
            page.picture(picture, caption.capitalize())
    return page.write(path)


def _headlines(scored: Scored, keeper: OutcomeKeeper) -> list[tuple]:
    """Rows (name, value, meaning)."""
    right, wrong, missed = keeper.totals()
    at = f"score {keeper.threshold:g} or more, IoU 0.5"
    figures, meanings = scored.figures, scored.protocols.legend(scored.figures) | COSTS
    shares = [("precision", wrong, "{} of {} detections are right"), ("recall", missed, "{} of {} objects are found")]

    def rows_of(names) -> list[tuple]:
        return [(name, _shown(figures[name]), meanings.get(name, "")) for name in names if name in figures]

    rows = rows_of(dict.fromkeys((*scored.protocols.headline_keys(), *MORE_SCORES)))
    for name, rest, words in shares:
        whole = right + rest
        rows.append((name, right / whole if whole else None, f"{words.format(right, whole)}; {at}"))
    return rows + rows_of(COSTS)


def _shown(value: float):
    """Large numbers in millions."""
    return (f"{value / 1e6:.2f} M", value) if value >= 1e6 else value


def _classes(scored: Scored) -> tuple:
    """Columns, rows and caption of the table of the classes."""
    protocols, figures = scored.protocols, scored.figures
    counts, best = protocols.ranked.counts(), protocols.ranked.best_f1()
    columns = ("class", "objects", "average precision", "best F1", "at score", "precision there", "recall there")
    rows = [
        (name, counts[name]["objects"], figures[f"{protocols.main}/{name}"], point.f1, point.score, point.precision,
         point.recall)
        for name, point in best.items()
    ]  # fmt: skip
    meaning = protocols.legend(figures)["mAP"]
    return columns, rows, f"Average precision: {meaning}. F1, precision and recall at IoU 0.5 and the score given."


def _add_pictures(page: Page, keeper: OutcomeKeeper, chosen: list[Outcome]) -> None:
    pictures, tags = [], []
    for outcome in chosen:
        try:
            image = keeper.records.read(outcome.index)
        except UnreadableImage as error:  # gone since it was scored
            logger.warning("no picture of an image: %s", error)
            continue
        side = min(PICTURE_SIDE, max(image.shape[:2]))
        picture = draw_outcome(image, outcome.target, outcome.found, keeper.class_names, keeper.threshold, side)
        image_id = written_id(keeper.records.image_id(outcome.index))
        pictures.append((picture, str(image_id), caption_of(outcome)))
        tags.append([*outcome.missed_of, *outcome.wrong_of])
    page.gallery(pictures, tags)


def caption_of(outcome: Outcome) -> str:
    """The counts of an image in words."""
    counts = [f"F1 {outcome.f1:.2f}: {outcome.true_positives} right"]
    for word, count, classes in (
        ("wrong", outcome.false_positives, outcome.wrong_of), ("missed", outcome.missed, outcome.missed_of)
    ):  # fmt: skip
        names = ", ".join(f"{name} {number}" if number > 1 else name for name, number in classes.most_common())
        counts.append(f"{count} {word}" + (f" ({names})" if names else ""))
    return ", ".join(counts)


def legend_picture(class_names) -> np.ndarray:
    """What right, wrong, missed and difficult look like, drawn as on the pictures."""
    grey, box = np.full((110, 210, 3), 200, np.uint8), [60.0, 42, 150, 98]
    unit = [value / side for value, side in zip(box, (210, 110, 210, 110), strict=True)]
    shifted = [value + 7 for value in box]
    cases = {
        "right: detection on its object": ([unit], [False], [shifted]),
        "wrong: detection without object": ([], [], [shifted]),
        "missed: dashed, with its class": ([unit], [False], []),
        "difficult: not counted": ([unit], [True], []),
    }
    tiles = []
    for boxes, difficult, detected in cases.values():
        target = Target(_array(boxes), np.ones(len(boxes), int), np.array(difficult, bool))
        found = Detections(
            _array(detected), np.full(len(detected), 0.87), np.ones(len(detected), int), tuple(class_names)
        )
        tiles.append(draw_outcome(grey, target, found, class_names, 0.0))
    return image_grid(tiles, len(tiles), list(cases))


def _array(boxes) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 4)
