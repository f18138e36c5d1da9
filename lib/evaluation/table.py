"""The per-class table of the test phase as plain text."""

import unicodedata

from .vid_map import SPEEDS

LONGEST_NAME = 24
COUNTS = ("objects", "difficult", "detections")
HEADINGS = {"voc07": "AP07", "voc_area": "AP area", "map50": "AP50", "vid": "VID"} | {speed: speed for speed in SPEEDS}
"""Figures of the metrics that have a column, and its heading."""

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

    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    title = f"VOC average precision at IoU {iou_threshold:g}; F1, precision and recall at the score of the best F1"
    if "vid" in results:
        title = (
            f"ImageNet VID average precision: AP50 at IoU 0.5; VID, {', '.join(SPEEDS)} at less for small objects\n"
            "F1, precision and recall at IoU 0.5 and the score of the best F1"
        )
    return "\n".join([title, lines[0], rule, *lines[1:-1], rule, lines[-1]])


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
