"""The tables of the test phase as plain text."""

import unicodedata

from .coco_map import COCO_FIGURES
from .error_split import ERRORS
from .vid_map import SPEEDS

LONGEST_NAME = 24
COUNTS = ("objects", "difficult", "detections")
HEADINGS = {"voc07": "AP07", "voc_area": "AP area", "map50": "AP50", "vid": "VID"} | {speed: speed for speed in SPEEDS}
"""Figures of the metrics that have a column, and its heading."""

SIZES = {"small": "below 32^2 pixels", "medium": "32^2 to 96^2 pixels", "large": "above 96^2 pixels"}
"""Sizes of objects as COCO names them, by their area in the original image."""
COCO_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AP50s", "AP50m", "AP50l")
OPERATING_POINT = ("F1", "score", "precision", "recall")


def format_table(results: dict, counts: dict, best: dict, iou_threshold: float = 0.5) -> str:
    """The table of a VOCMeanAP or a VIDMeanAP: one row a class, a last one with the mAP, no line break at the end.

    results, counts, best: from `compute()`, `counts()` and `best_f1()`; other figures among the results are left out.
    F1, precision and recall are those of the score threshold that maximises F1.  NaN, of a class without objects that
    count, is shown as '-'.
    """
    keys = [key for key in HEADINGS if key in results]
    rows = [("class", *COUNTS, *(HEADINGS[key] for key in keys), *OPERATING_POINT)]
    for name, count in counts.items():
        point = best[name]
        figures = (*(results[f"{key}/{name}"] for key in keys), point.f1, point.score, point.precision, point.recall)
        rows.append((_shortened(name), *(str(count[key]) for key in COUNTS), *map(_figure, figures)))
    totals = [str(sum(count[key] for count in counts.values())) for key in COUNTS]
    rows.append(("mAP", *totals, *(_figure(results[key]) for key in keys), *[""] * len(OPERATING_POINT)))

    about = "F1, precision and recall at the score of the best F1"
    title = f"VOC average precision at IoU {iou_threshold:g}, all detections; {about}"
    if "vid" in results:
        title = (
            "ImageNet VID average precision, all detections: AP50 at IoU 0.5; "
            f"VID, {', '.join(SPEEDS)} at less for small objects\n"
            "F1, precision and recall at IoU 0.5 and the score of the best F1"
        )
    return "\n".join([title, *_ruled(rows)])


def format_coco_table(results: dict, class_names) -> str:
    """The table of a COCOMeanAP, from its `compute()`: one row a class, a last one with the means, and the recalls."""
    rows = [("class", *COCO_COLUMNS)]
    rows += [(_shortened(name), *(_figure(results[f"{key}/{name}"]) for key in COCO_COLUMNS)) for name in class_names]
    rows.append(("mean", *(_figure(results[key]) for key in COCO_COLUMNS)))
    title = (
        "COCO average precision, at most 100 detections of a class in an image\n"
        "AP: mean over IoU 0.50:0.95; AP50, AP75: at IoU 0.50, 0.75; s, m, l: small, medium and large objects\n"
        f"by area (of the outline, else the box) in the original image, {', '.join(SIZES.values())}"
    )
    recalls = ", ".join(f"{key} {_figure(results[key])}" for key in COCO_FIGURES if key.startswith("AR"))
    about = "COCO average recall, mean over IoU 0.50:0.95, at most 1, 10, 100 detections, by size at most 100:"
    return "\n".join([title, *_ruled(rows), about, recalls])


def format_errors(results: dict) -> str:
    """The table of an ErrorSplit, from its `compute()`."""
    rows = [("errors", "number", "cost in AP50")]
    rows += [(kind, str(int(results[f"errors/{kind}"])), _figure(results[f"cost/{kind}"])) for kind in ERRORS]
    title = (
        "Errors at IoU 0.5, all scores, at most 100 detections of a class in an image\n"
        "cost: what AP50 gains when the errors of this kind alone are mended"
    )
    return "\n".join([title, *_ruled(rows, last_apart=False)])


def format_confused(pairs, score_threshold: float) -> str:
    """The pairs of a ConfusionMatrix, from its `most_confused()`, in a line."""
    title = f"Most confused (IoU 0.5, score {score_threshold:g} or more): "
    shown = (f"{_shortened(name)} taken for {_shortened(other)} {number} times" for name, other, number in pairs)
    return title + (", ".join(shown).replace(" 1 times", " once") or "no class was taken for another")


def _ruled(rows, last_apart: bool = True) -> list[str]:
    """The rows as lines with a rule under the headings, and above the last one."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [lines[0], rule, *lines[1:-1], *([rule] if last_apart else []), lines[-1]]


def _line(row, widths) -> str:
    name = row[0] + " " * (widths[0] - _width(row[0]))
    cells = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
    return "  ".join([name, *cells]).rstrip()


def _figure(value: float) -> str:
    return f"{value:.3f}" if value == value else "-"


def _shortened(name: str) -> str:
    """The name without its middle where it is long: names that share a beginning often differ at the end."""
    if _width(name) <= LONGEST_NAME:
        return name
    head, tail = name, ""
    while _width(head) > LONGEST_NAME // 2:
        head = head[:-1]
    while _width(head + ".." + name[-len(tail) - 1 :]) <= LONGEST_NAME:
        tail = name[-len(tail) - 1 :]
    return f"{head}..{tail}"


def _width(text: str) -> int:
    """Columns that a terminal gives a text: Chinese and its like take two for each character."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
