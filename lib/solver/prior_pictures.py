"""Prior boxes on an image, and which objects of a data set they match, in pictures and figures."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..layers.box import cxcywh_to_xyxy, pairwise_iou
from ..layers.matcher import Matcher
from ..structures import Target
from ..utils.draw import PALETTE, WHITE, draw_boxes, image_grid
from .scene import OVERVIEW, LevelInfo, Scene, line_width, titled

COVERED, FORCED, UNMATCHED = (tuple(value / 255 for value in PALETTE[index]) for index in (4, 0, 6))


def prior_pictures(scene: Scene, priors: Tensor, levels: list[LevelInfo]) -> dict[str, np.ndarray]:
    """For every level, and for all in one: the priors of the middle cell and the centres of the others.

    priors [P, 4] as (cx, cy, w, h) in the unit square.
    """
    priors = priors.detach().cpu()
    height, width = scene.input_size
    large, small, titles = {}, [], []
    for number, level in enumerate(levels, start=1):
        cells = priors[level.priors].view(level.rows, level.columns, level.boxes_per_cell, 4)
        cell = cells[level.rows // 2, level.columns // 2]
        sides = (cell[:, 2:] * torch.tensor([width, height])).round().int()
        title = f"level {number} ({level.name})"
        titles.append(f"{title}: sides {sides.min()} to {sides.max()} px")
        full = f"{title}: a cell every {width / level.columns:.3g}x{height / level.rows:.3g} of {width}x{height} px"
        captions = [f"{w}x{h}" for w, h in sides.tolist()]
        large[title] = titled(_draw_priors(scene, scene.picture, cells, cell, captions), full)
        small.append(_draw_priors(scene, scene.tile(), cells, cell, None))
    return {OVERVIEW: image_grid(small, 3, titles), **large}


def _draw_priors(scene: Scene, picture, cells: Tensor, cell: Tensor, captions: list[str] | None) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = np.array([width, height, width, height])
    picture = draw_boxes(picture, scene.boxes * scale, colors=WHITE, thickness=1, dashed=True)
    pitch = min(width / cells.shape[1], height / cells.shape[0])
    radius = int(np.clip(pitch / 12, 1, 3))
    for x, y in (cells[:, :, 0, :2].reshape(-1, 2) * torch.tensor([width, height])).round().int().tolist():
        cv2.circle(picture, (x, y), radius + 1, (0, 0, 0), -1)
        cv2.circle(picture, (x, y), radius, WHITE, -1)
    boxes = cxcywh_to_xyxy(cell).numpy() * scale
    return draw_boxes(picture, boxes, captions, range(1, len(cell) + 1), thickness=line_width(picture))


class MatchStatistics(NamedTuple):
    """What the priors do for N objects: width and height [N, 2] in pixels of the network's input, labels [N], the IoU
    with the best prior [N], the number of priors of each of L levels that answer for the object [N, L], and the IoU
    `threshold` from which they do."""

    sides: np.ndarray
    labels: np.ndarray
    best_iou: np.ndarray
    positives: np.ndarray
    threshold: float

    @property
    def covered(self) -> np.ndarray:
        """bool [N]: some prior overlaps the object by the threshold."""
        return self.best_iou >= self.threshold

    @property
    def measures(self) -> dict[str, np.ndarray]:
        """What objects are told apart by, by title: [N] each, with the unit in the title."""
        width, height = self.sides.T
        return {
            "height": height,
            "width": width,
            "size": np.sqrt(width * height),
            "aspect ratio": width / height,
        }


def match_statistics(
    targets: Iterable[Target], priors: Tensor, levels: list[LevelInfo], input_size, threshold: float
) -> MatchStatistics:
    """How the priors [P, 4] (cx, cy, w, h) match the objects of these targets as training would match them, had it no
    augmentation; crowds and objects without area are left out.

    input_size: height and width of the network's input; threshold: MATCHER.MATCHED_THRESHOLD.
    """
    matcher, corners, scale = Matcher(threshold), cxcywh_to_xyxy(priors), torch.tensor(input_size).flip(0)
    level_of = torch.cat([torch.full((part.stop - part.start,), i) for i, part in enumerate(x.priors for x in levels)])
    sides, labels, best = [np.empty((0, 2))], [np.empty(0, int)], [np.empty(0)]
    positives = [np.empty((0, len(levels)), int)]
    for target in targets:
        number = len(target.labels)
        if not number:
            continue
        # Numbers in the place of classes, so that the matcher says whose each prior is.
        numbered = replace(target, labels=torch.arange(1, number + 1)).to(priors.device)
        owner = matcher([numbered], priors).labels[0].cpu()
        counts = torch.bincount(owner * len(levels) + level_of, minlength=(number + 1) * len(levels))
        shape = target.boxes[:, 2:] - target.boxes[:, :2]
        real = ((shape > 0).all(1) & ~target.crowd).numpy()
        sides.append((shape * scale).numpy()[real])
        labels.append(target.labels.numpy()[real])
        best.append(pairwise_iou(numbered.boxes.to(priors), corners).amax(1).cpu().numpy()[real])
        positives.append(counts.view(-1, len(levels))[1:].numpy()[real])
    parts = (np.concatenate(part) for part in (sides, labels, best, positives))
    return MatchStatistics(*parts, threshold)


def match_rows(statistics: MatchStatistics, class_names) -> list[tuple]:
    """Rows for a table with the headings MATCH_COLUMNS: one for each class that has objects, and one for all."""
    groups = {name: statistics.labels == label for label, name in enumerate(class_names, start=1)}
    groups["all"] = np.ones(len(statistics.labels), bool)
    rows, counts = [], statistics.positives.sum(1)
    for name, own in groups.items():
        if own.any():
            covered, matched = statistics.covered[own], counts[own]
            share = covered.mean()
            rows.append(
                (name, int(own.sum()), (f"{100 * share:.1f} %", share), float(statistics.best_iou[own].mean()),
                 int((~covered & (matched > 0)).sum()), int((matched == 0).sum()), float(np.median(matched)),
                 int(matched.max()))
            )  # fmt: skip
    return rows


MATCH_COLUMNS = ("class", "objects", "covered", "mean IoU of the best prior", "by force only", "without a prior",
                 "priors per object (median)", "most")  # fmt: skip


def level_rows(statistics: MatchStatistics, levels: list[LevelInfo]) -> list[tuple]:
    """Rows for a table with the headings LEVEL_COLUMNS: what each level has to do with the objects."""
    totals, rows = statistics.positives.sum(0), []
    for number, (level, positives) in enumerate(zip(levels, statistics.positives.T, strict=True), start=1):
        share = positives.sum() / max(totals.sum(), 1)
        served = (positives > 0).mean() if len(positives) else 0.0
        size = level.priors.stop - level.priors.start
        rows.append((f"{number} ({level.name})", size, (f"{100 * served:.1f} %", served),
                     (f"{100 * share:.1f} %", share)))  # fmt: skip
    return rows


LEVEL_COLUMNS = ("level", "priors", "objects with a positive prior here", "share of all positive priors")


def match_figures(statistics: MatchStatistics) -> dict:
    """For each measure a matplotlib figure by title: the objects of each bin by how they are matched, and below how
    many priors answer for one of them."""
    units = {"height": "height in pixels of the network's input", "width": "width in pixels of the network's input",
             "size": "size, the root of the area, in pixels of the network's input",
             "aspect ratio": "aspect ratio, width / height"}  # fmt: skip
    return {f"by {name}": _match_figure(statistics, values, units[name])
            for name, values in statistics.measures.items()}  # fmt: skip


def _match_figure(statistics: MatchStatistics, values: np.ndarray, label: str):
    from matplotlib.figure import Figure

    edges = half_octaves(values)
    which = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    bins = len(edges) - 1
    counts = statistics.positives.sum(1)
    kinds = {
        f"covered: the best prior has IoU {statistics.threshold:g} or more": (statistics.covered, COVERED),
        "by force only: its best prior has less": (~statistics.covered & (counts > 0), FORCED),
        "without a prior": (~statistics.covered & (counts == 0), UNMATCHED),
    }
    figure = Figure(figsize=(8, 5.4), dpi=100, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    bottom, places = np.zeros(bins), np.arange(bins)
    for name, (mask, color) in kinds.items():
        heights = np.bincount(which[mask], minlength=bins)
        above.bar(places, heights, 0.85, bottom=bottom, color=color, label=f"{name} ({mask.sum()})")
        bottom += heights
    for place in np.flatnonzero(bottom):
        share = statistics.covered[which == place].mean()
        above.annotate(f"{100 * share:.0f} %\nof {bottom[place]:.0f}", (place, bottom[place]), (0, 2),
                       textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
        low, middle, high = np.percentile(counts[which == place], (10, 50, 90))
        below.plot([place, place], [low, high], color="0.6", linewidth=6, solid_capstyle="butt", zorder=1)
        below.plot(place, middle, "o", color=COVERED, zorder=2)
    above.set(ylabel="objects", ylim=(0, max(bottom.max(), 1) * 1.2))
    above.set_title("objects; above each bar the share that is covered", loc="left", fontsize=10)
    above.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.32), ncols=3, frameon=False)
    below.set(ylabel="priors per object", xlabel=label, ylim=(0, None))
    below.set_title("priors that answer for an object: median, and the middle 80 %", loc="left", fontsize=10)
    below.set_xticks(np.arange(len(edges)) - 0.5, [f"{edge:.2g}" if edge < 10 else f"{edge:.0f}" for edge in edges])
    for axes in (above, below):
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def half_octaves(values: np.ndarray) -> np.ndarray:
    """Edges of bins that hold all of some positive values: powers of the root of 2, one bin at least."""
    steps = 2 * np.log2(values) if len(values) else np.zeros(1)
    first, last = np.floor(steps.min() + 1e-9), np.floor(steps.max() + 1e-9) + 1
    return 2 ** (np.arange(first, last + 1) / 2)
