"""Plots of a run as matplotlib figures, in the colours that the classes have on pictures; no screen is needed."""

import math
import sys
from functools import cache

import cv2
import numpy as np

from ..utils.draw import class_color

MOST_NUMBERED = 30
"""Rows of a confusion matrix whose counts can still be read."""


def render_figure(figure) -> np.ndarray:
    """A matplotlib figure as an image, uint8 BGR; needs no screen and closes the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    return image


def pr_figure(curves: dict[str, tuple], class_names=None, title: str = "Precision and recall"):
    """Precision over recall as a matplotlib figure: class -> (precision, recall, ...), as VOCMeanAP.pr_curves returns.

    class_names, all of them, give every class the colour that its boxes have.  Of more than ten classes the five best
    and the five worst stand out by colour and line style, the others are grey.
    """
    from matplotlib.figure import Figure

    class_names = list(curves if class_names is None else class_names)
    areas = {name: float(np.sum(np.diff(curve[1], prepend=0) * curve[0])) for name, curve in curves.items()}
    ranked = sorted(curves, key=areas.get, reverse=True)
    named = ranked if len(ranked) <= 10 else ranked[:5] + ranked[-5:]
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    for level in (0.2, 0.4, 0.6, 0.8):
        recall = np.linspace(level / (2 - level), 1, 50)
        axes.plot(recall, level * recall / (2 * recall - level), color="0.85", linewidth=0.8, zorder=0)
        axes.annotate(f"F1 = {level}", (0.995, level / (2 - level)), color="0.6", fontsize=7, ha="right", va="bottom")
    for name in set(ranked) - set(named):
        axes.plot(curves[name][1], curves[name][0], color="0.7", linewidth=0.8, zorder=1)
    for name in named:
        precision, recall = (np.asarray(part, np.float64) for part in curves[name][:2])
        label = class_names.index(name) + 1
        style = ("-", "--", "-.", ":")[(label - 1) % 4]
        shown = f" {plot_text(name, label)} (area {areas[name]:.2f})"
        axes.plot(recall, precision, style, color=plot_color(label), linewidth=2, label=shown)
    if named:
        axes.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, prop={"family": plot_fonts(), "size": 9}
        )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def ap_figure(per_class: dict[str, float], mean_ap: float, class_names=None, title: str = "Average precision"):
    """A bar for the average precision of every class, best first, and a line at their mean, as a matplotlib figure."""
    from matplotlib.figure import Figure

    class_names = list(per_class if class_names is None else class_names)
    names = sorted(per_class, key=lambda name: -per_class[name] if math.isfinite(per_class[name]) else math.inf)
    figure = Figure(figsize=(7, 1.4 + 0.28 * max(len(names), 1)), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), xlabel="average precision")
    axes.set_title(f"{title}: mean {mean_ap:.3f}", loc="left")
    for row, name in enumerate(names):
        value = per_class[name]
        known = math.isfinite(value)
        axes.barh(row, value if known else 0, 0.7, color=plot_color(class_names.index(name) + 1))
        inside = known and value > 0.85
        axes.annotate(
            f"{value:.3f}" if known else "no objects", (value if known else 0, row), (-4 if inside else 4, 0),
            textcoords="offset points", ha="right" if inside else "left", va="center", fontsize=9,
            color="black", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
    texts = [plot_text(name, class_names.index(name) + 1) for name in names]
    axes.set_yticks(range(len(names)), texts, fontfamily=plot_fonts())
    axes.set_ylim(len(names) - 0.4, -0.6)
    if math.isfinite(mean_ap):
        axes.axvline(mean_ap, color="0.2", linewidth=1, linestyle="--")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_figure(confusion: dict):
    """A confusion matrix, as `Protocols.confusion_counts` returns it, as a matplotlib figure: the colour is the share
    of the row, and the numbers are counts, where there is room for them."""
    from matplotlib.figure import Figure

    counts = np.asarray(confusion["counts"])
    names, last = confusion["names"], len(confusion["names"]) - 1
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.0, 0.42 * len(names)), 16.0)
    figure = Figure(figsize=(side + 2.2, side + 1.8), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="detected as (last: not detected)", ylabel="object (last: no object)")
    title = f"Confusions at IoU {confusion['iou_threshold']:g}, score {confusion['score_threshold']:g} or more"
    axes.set_title(f"{title}\ncolour: share of the row", fontsize=10)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if len(names) <= MOST_NUMBERED else max(72 * side / len(names) * 0.8, 3)
    texts = [*(plot_text(name, label) for label, name in enumerate(names[:last], 1)), names[last]]
    axes.set_xticks(range(len(names)), texts, rotation=90, fontsize=size, fontfamily=plot_fonts())
    axes.set_yticks(range(len(names)), texts, fontsize=size, fontfamily=plot_fonts())
    axes.axhline(last - 0.5, color="0.3", linewidth=0.8)
    axes.axvline(last - 0.5, color="0.3", linewidth=0.8)
    if len(names) <= MOST_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=color)
    return figure


def error_figure(costs: dict[str, tuple[int, float]], average_precision: float):
    """What each kind of errors costs, kind -> (number, AP that is gained without them), as a matplotlib figure of bars
    beside the AP at IoU 0.5 that they are about."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), dpi=100, layout="constrained")
    known = {kind: cost if math.isfinite(cost) else 0.0 for kind, (_, cost) in costs.items()}
    most = max(max(known.values()), 0.01)
    axes = figure.add_subplot(xlim=(0, most * 1.3), xlabel="gain in AP50 when errors of this kind alone are mended")
    axes.set_title(f"What errors cost at IoU 0.5: AP50 is {average_precision:.3f}", loc="left")
    axes.barh(range(len(costs)), list(known.values()), 0.7, color=plot_color(1))
    for row, (kind, (number, _)) in enumerate(costs.items()):
        axes.annotate(
            f"{known[kind]:+.3f}  ({number} errors)", (max(known[kind], 0), row), (4, 0),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axes.set_yticks(range(len(costs)), list(costs))
    axes.set_ylim(len(costs) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_color(label: int) -> tuple[float, float, float]:
    """The colour of a class for a white page: light ones are darkened."""
    blue, green, red = (value / 255 for value in class_color(label))
    factor = min(1.0, 0.72 / (0.3 * red + 0.59 * green + 0.11 * blue + 1e-6))
    return red * factor, green * factor, blue * factor


def plot_text(name: str, label: int) -> str:
    """A class name in letters that the fonts have, its number where none remain; no mathematics at dollar signs."""
    known = "".join(letter for letter in name if ord(letter) in _letters())
    return (known if known.strip() else f"#{label}").replace("$", r"\$")


@cache
def _letters() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset().union(*(font_manager.get_font(font_manager.findfont(f)).get_charmap() for f in plot_fonts()))


@cache
def plot_fonts() -> list[str]:
    """Matplotlib's own font, and those for East Asian scripts that are installed."""
    from matplotlib import font_manager

    wanted = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC",
              "Malgun Gothic", "Arial Unicode MS")  # fmt: skip
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in wanted if name in installed)]
