"""Plots of a comparison as matplotlib figures: differences with their intervals, curves of the runs, training."""

import math

import numpy as np

from ..solver.figures import plot_fonts, plot_text
from ..utils.draw import class_color
from .compare_runs import epochs_of
from .compare_sides import FIGURES, Comparison, Pair

COLORS = (5, 6, 3, 7, 1, 9, 2, 10, 11)
"""Numbers of the classes whose colours the sides take, those first that a white page shows best."""

MOST_CLASSES = 12
"""Classes that have curves, and half of those that have a line in a plot of differences."""

BETTER, WORSE, UNSURE = COLORS[0], COLORS[1], 0


def difference_figure(pair: Pair, key: str):
    """The difference of every class and of their mean, with the 95 % interval by images: right of 0 the second is
    better.  Of many classes those that differ most."""
    from matplotlib.figure import Figure

    known = {name: each for name, each in pair.per_class.items() if not math.isnan(each.value)}
    names = sorted(known, key=lambda name: known[name].value, reverse=True)
    names = names if len(names) <= 2 * MOST_CLASSES else names[:MOST_CLASSES] + names[-MOST_CLASSES:]
    rows = [("all classes", pair.overall), *((name, known[name]) for name in names)]
    figure = Figure(figsize=(8.5, 1.5 + 0.3 * len(rows)), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel=f"difference of AP in points, {pair.second.letter} - {pair.first.letter}")
    axes.axvline(0, color="0.3", linewidth=1)
    for row, (_, each) in enumerate(rows):
        low, high, value = (100 * part for part in (each.low, each.high, each.value))
        color = _color({1: BETTER, -1: WORSE, 0: UNSURE}[each.sign])
        axes.plot([low, high], [row, row], color=color, linewidth=4 if row == 0 else 2.5, solid_capstyle="butt")
        axes.plot(value, row, "D" if row == 0 else "o", color=color, markersize=7)
        axes.annotate(f"{value:+.1f}", (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    labels = list(pair.per_class)
    texts = ["all classes", *(plot_text(name, labels.index(name) + 1) for name in names)]
    axes.set_yticks(range(len(rows)), texts, fontfamily=plot_fonts())
    axes.set_ylim(len(rows) - 0.4, -0.8)
    axes.set_title(f"{FIGURES[key]}: right of 0 {pair.second.letter} is better", loc="left", fontsize=11)
    _finish(axes, "x")
    return figure


def curves_figure(comparison: Comparison):
    """Precision over recall of every class, a line for each run.  Of many classes those that differ most."""
    from matplotlib.figure import Figure

    names = _classes_with_curves(comparison)
    columns = min(3, max(len(names), 1))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 3.1 * lines + 0.5), dpi=100, layout="constrained")
    all_names = list(comparison.sides[0].per_class)
    for place, name in enumerate(names):
        title = plot_text(name, all_names.index(name) + 1)
        axes = figure.add_subplot(lines, columns, place + 1, xlim=(0, 1), ylim=(0, 1.03))
        axes.set_title(title, fontsize=10, fontfamily=plot_fonts())
        for number, side in enumerate(comparison.sides):
            for run in side.runs:
                precision, recall, _ = run.metric.pr_curves()[name]
                label = f"{side.letter} (AP {side.per_class[name]:.3f})" if run is side.runs[0] else None
                axes.plot(recall, precision, **_line(number, len(side.runs)), label=label)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
        axes.set_xlabel("recall", fontsize=8)
        axes.set_ylabel("precision", fontsize=8)
        axes.tick_params(labelsize=8)
        _finish(axes, "both")
    return figure


def training_figure(comparison: Comparison):
    """Loss and mAP over the epochs, a line for each run; None where no log holds either."""
    from matplotlib.figure import Figure

    panels = {"Train/loss": "training loss", "Eval/mAP": "mAP on the evaluation images"}
    panels = {tag: text for tag, text in panels.items() if any(epochs_of(run.log, tag) for run in comparison.runs)}
    if not panels:
        return None
    figure = Figure(figsize=(5.6 * len(panels), 3.6), dpi=100, layout="constrained")
    for place, (tag, text) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1, xlabel="epoch", ylabel=text)
        for number, side in enumerate(comparison.sides):
            for run in side.runs:
                points = np.array(epochs_of(run.log, tag)).reshape(-1, 2)
                label = side.letter if run is side.runs[0] else None
                mark = "." if len(points) < 30 else ""
                axes.plot(points[:, 0], points[:, 1], marker=mark, **_line(number, len(side.runs)), label=label)
        if tag == "Train/loss" and all(each[1] > 0 for run in comparison.runs for each in epochs_of(run.log, tag)):
            axes.set_yscale("log")
            for axis_labels in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                axis_labels("{x:g}")
        axes.legend(fontsize=9, frameon=False)
        _finish(axes, "both")
    return figure


def _classes_with_curves(comparison: Comparison) -> list[str]:
    """The classes with objects, at most MOST_CLASSES of them: those that differ most between any two sides."""
    per_class = [side.per_class for side in comparison.sides]
    known = [name for name, value in per_class[0].items() if not math.isnan(value)]
    spread = {name: max(side[name] for side in per_class) - min(side[name] for side in per_class) for name in known}
    kept = sorted(known, key=spread.get, reverse=True)[:MOST_CLASSES]
    return [name for name in known if name in kept]


def _line(number: int, num_runs: int) -> dict:
    """How the lines of a side are drawn: seeds are thinner."""
    style = ("-", "--", "-.", ":")[number // len(COLORS) % 4]
    width, alpha = (1.8, 1.0) if num_runs == 1 else (1.1, 0.7)
    return {"color": _color(COLORS[number % len(COLORS)]), "linestyle": style, "linewidth": width, "alpha": alpha}


def _color(label: int) -> tuple[float, float, float]:
    blue, green, red = (value / 255 for value in class_color(label))
    return red, green, blue


def _finish(axes, grid: str) -> None:
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
