"""Plots of classes and boxes for the page of the check tool, as matplotlib figures."""

import numpy as np

from ..solver.figures import plot_fonts, plot_text
from ..utils.draw import PALETTE
from .check_boxes import EDGES, input_sides
from .check_sets import ImageSet

COLORS = {name: [value / 255 for value in PALETTE[i]] for name, i in (("train", 4), ("eval", 2), ("test", 0))}
"""Of the sets."""

MAX_CLASSES = 40
RATIOS = (0.1, 0.2, 0.5, 1, 2, 5, 10)


def class_figure(rows: list[dict]):
    """For every class the share of a set's images that hold it, a bar for each set; of very many classes the most
    frequent ones."""
    shown = sorted(rows, key=lambda row: -sum(part["objects"] for part in row["sets"].values()))[:MAX_CLASSES]
    sets = list(shown[0]["sets"])
    figure, axes = _axes((8, 1.2 + 0.26 * len(shown) * max(2, len(sets))), "Images that hold a class")
    height = 0.8 / len(sets)
    for number, name in enumerate(sets):
        shares = [100 * row["sets"][name]["share"] for row in shown]
        places = np.arange(len(shown)) + (number - (len(sets) - 1) / 2) * height
        axes.barh(places, shares, height * 0.9, color=COLORS[name], label=name)
        for place, share, row in zip(places, shares, shown, strict=True):
            note = f"{row['sets'][name]['objects']:,} objects"
            axes.annotate(note, (share, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    names = [plot_text(row["class"], rows.index(row) + 1) for row in shown]
    axes.set_yticks(range(len(shown)), names, fontfamily=plot_fonts())
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 125)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("% of the images of the set")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    return figure


def size_figure(sets: list[ImageSet], image_size):
    """How large the objects are at the network's input, as a share of a set's objects."""
    sizes = {each.name: np.sqrt(input_sides(each, image_size).prod(axis=1)) for each in sets}
    low, high = 2.0, max(image_size)
    bins = np.geomspace(low, high, 41)
    figure, axes = _axes((8, 3.6), f"Size of objects at the network's input, {image_size[0]} x {image_size[1]} pixels")
    _histograms(axes, {name: np.clip(values, low, high) for name, values in sizes.items()}, bins)
    _logarithmic(axes, [edge for edge in (*EDGES, 256, 512) if edge < high], "root of the area in pixels")
    axes.axvspan(low, EDGES[0], color="0.5", alpha=0.15)
    axes.annotate("hardly found", (low * 1.05, 0.93), xycoords=("data", "axes fraction"), fontsize=8, color="0.35")
    return figure


def ratio_figure(sets: list[ImageSet]):
    """How wide the objects are for their height, as a share of a set's objects."""
    ratios = {each.name: each.sides()[:, 0] / each.sides()[:, 1] for each in sets}
    figure, axes = _axes((8, 3.2), "Shape of objects")
    low, high = RATIOS[0], RATIOS[-1]
    _histograms(axes, {name: np.clip(r, low, high) for name, r in ratios.items()}, np.geomspace(low, high, 41))
    _logarithmic(axes, RATIOS, "width / height in the file (those beyond the ends stand at the ends)")
    return figure


def count_figure(sets: list[ImageSet]):
    """How many objects the images hold, as a share of a set's images."""
    counts = {each.name: np.diff(each.records.offsets) for each in sets}
    most = max(int(np.quantile(np.concatenate(list(counts.values())), 0.995)), 5)
    figure, axes = _axes((8, 3.2), "Objects in an image")
    _histograms(axes, {name: np.clip(c, 0, most) for name, c in counts.items()}, np.arange(most + 2) - 0.5, "images")
    axes.set_xlabel(f"objects (more than {most} count as {most})")
    return figure


def _axes(size, title: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _histograms(axes, values: dict, bins, unit: str = "objects") -> None:
    for name, each in values.items():
        if len(each):
            weights = np.full(len(each), 100 / len(each))
            axes.hist(each, bins, weights=weights, histtype="step", linewidth=2, color=COLORS[name], label=name)
    axes.set_ylabel(f"% of the {unit} of the set")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _logarithmic(axes, ticks, label: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
