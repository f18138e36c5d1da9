"""The page of a comparison: what the terminal shows, with plots, and with the images that became right or wrong."""

import numpy as np

from ..config.yaml_text import write_value
from ..dataset.image_header import UnreadableImage
from ..evaluation import written_id
from ..solver.figures import render_figure
from ..utils.draw import draw_truth_and_detections, image_grid
from ..utils.page import Page
from .compare_figures import curves_figure, difference_figure, training_figure
from .compare_runs import Run, changed_keys
from .compare_sides import Comparison, Pair
from .compare_text import SPEEDS, changes_in_words, class_rows, notes, points, side_rows, span, verdict

MOST_PICTURES = 8
"""Images that are shown of those that became better, and of those that became worse."""

PICTURE_SIDE = 640  # pixels of each of the two pictures of an image


def write_page(comparison: Comparison, path, about: str) -> dict[str, np.ndarray]:
    """Write the page; the plots on it by name."""
    page, plots = Page("Comparison of runs", about), {}
    for pair in comparison.pairs:
        page.text(verdict(pair, comparison.key))
    _add_figures(page, comparison)
    for pair in comparison.pairs:
        _add_pair(page, pair, comparison, plots)
    plots["precision_recall"] = render_figure(curves_figure(comparison))
    page.heading("Precision and recall")
    page.text("At IoU 0.5, a line for each run. A curve further to the top and to the right is better.", soft=True)
    page.picture(plots["precision_recall"])
    training = training_figure(comparison)
    if training is not None:
        plots["training"] = render_figure(training)
        page.heading("Training")
        page.picture(plots["training"], "From log.jsonl of the runs.")
    for pair in comparison.pairs:
        _add_images(page, pair, comparison)
    _add_results(page, comparison)
    page.heading("How to read the intervals")
    for note in notes(comparison):
        page.text(note)
    page.write(path)
    return plots


def figure_rows(runs: list[Run]) -> list[list]:
    """[name, value of each run, meaning] for every figure of the results that is one number for the whole test."""
    legend = MEANINGS | {key: text for run in runs for key, text in run.results.get("legend", {}).items()}
    rows, headlines = [], []
    for key in dict.fromkeys(key for run in runs for key in run.results):
        values = [run.results.get(key) for run in runs]
        numbers = all(value is None or isinstance(value, int | float) for value in values)
        # The headlines come first, and again under the names of their protocols.
        if "/" in key or not numbers or (not key.startswith("mAP") and values in headlines):
            continue
        headlines += [values] if key.startswith("mAP") else []
        rows.append([key, *values, legend.get(key, "")])
    return rows


MEANINGS = {key: f"images per second, {text}" for key, text in SPEEDS.items()} | {
    "parameters": "numbers that the model has learnt",
    "macs": "multiplications with addition for one image",
}
"""Of figures that the legend of a results file leaves out."""


def _add_figures(page: Page, comparison: Comparison) -> None:
    headings, rows = side_rows(comparison)
    page.heading("Figures")
    page.table(headings, rows, "The 95 % beside a mAP are what it would be on other images of the same kind.")


def _add_results(page: Page, comparison: Comparison) -> None:
    page.heading("All figures of the tests")
    letters = [side.letter + (str(n) if len(side.runs) > 1 else "") for side in comparison.sides
               for n, _ in enumerate(side.runs, start=1)]  # fmt: skip
    runs = [run for side in comparison.sides for run in side.runs]
    page.table(["figure", *letters, "what it is"], figure_rows(runs), "As the test phase wrote them.")
    places = [[letter, run.name, str(run.folder)] for letter, run in zip(letters, runs, strict=True)]
    page.table(["", "run", "folder"], places)


def _add_pair(page: Page, pair: Pair, comparison: Comparison, plots: dict) -> None:
    a, b = pair.first.letter, pair.second.letter
    page.heading(f"{b} against {a}")
    changed, without_effect = changed_keys(pair.first.runs[0], pair.second.runs[0])
    note = f"Also different, without effect on what is learnt or found: {', '.join(without_effect)}."
    rows = [[key, write_value(old), write_value(new)] for key, old, new in changed]
    if rows:
        page.table(["configuration", f"{a}: {pair.first.name}", f"{b}: {pair.second.name}"], rows)
    else:
        page.text("The configurations are the same.")
    if without_effect:
        page.text(note, soft=True)
    name = f"differences_{a}_{b}"
    plots[name] = render_figure(difference_figure(pair, comparison.key))
    page.picture(
        plots[name],
        f"Lines are 95 % intervals by images: blue where {b} is better beyond doubt, orange where {a} is, grey where "
        "it cannot be told.",
    )
    rows = [
        [name, objects, _three(first), _three(second), (points(each.value), each.value), (span(each), each.low), words]
        for name, objects, first, second, each, words in class_rows(pair)
    ]
    page.table(["class", "objects", f"AP {a}", f"AP {b}", f"{b} - {a} in points", "95 % interval", "verdict"], rows)


def _add_images(page: Page, pair: Pair, comparison: Comparison) -> None:
    a, b, threshold = pair.first.letter, pair.second.letter, comparison.runs[0].threshold
    order = np.argsort(pair.more_errors, kind="stable")
    better = [i for i in order[:MOST_PICTURES] if pair.more_errors[i] < 0]
    worse = [i for i in order[::-1][:MOST_PICTURES] if pair.more_errors[i] > 0]
    for title, indices in ((f"Images where {b} makes fewer errors", better), (f"Images where {b} makes more", worse)):
        page.heading(f"{title} than {a}")
        page.text(changes_in_words(pair, threshold))
        if indices:
            page.text("Solid: detections; dashed: the truth, with its class where nothing found it.", soft=True)
        else:
            page.text("There is none.")
        for index in indices:
            _add_image(page, pair, int(index), threshold)


def _add_image(page: Page, pair: Pair, index: int, threshold: float) -> None:
    """An image with what the first run of either side found in it, side by side."""
    runs = [side.runs[0] for side in (pair.first, pair.second)]
    image_id = written_id(runs[0].records.image_id(index))
    try:
        image = runs[0].records.read(index)
    except UnreadableImage as error:
        page.text(f"{image_id}: no picture ({error})", soft=True)
        return
    pictures, titles = [], []
    for side, run in zip((pair.first, pair.second), runs, strict=True):
        one, names = run.outcomes[index], run.class_names
        pictures.append(draw_truth_and_detections(image, run.records.target(index), run.found[index], names, threshold))
        titles.append(f"{side.letter}: {one.true_positives} right, {one.false_positives} wrong, {one.missed} missed")
    page.picture(image_grid(pictures, 2, titles, _cell(image)), str(image_id), lossless=False)


def _three(value: float) -> tuple[str, float]:
    return (f"{value:.3f}" if value == value else "–"), value


def _cell(image: np.ndarray) -> tuple[int, int]:
    scale = min(1.0, PICTURE_SIDE / max(image.shape[:2]))
    return tuple(max(1, round(side * scale)) for side in image.shape[:2])
