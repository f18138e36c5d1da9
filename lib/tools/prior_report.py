"""How well priors cover objects, by class, size and level: the figures, and the same as text."""

import math

import torch
from torch import Tensor

from .prior_layout import Layout, Objects, count_matches, nearest_ious

SIZES = (0, 16, 32, 64, 128, math.inf)
"""Edges of the size classes, roots of areas in pixels of the network's input."""

LONGEST_NAME = 24


def coverage(best: Tensor, threshold: float) -> dict:
    """What the best IoU [N] of objects says: how many are covered (it reaches the threshold) and which share that is,
    matched by force only (it does not) or overlapped by no prior at all; the mean, None like the share without objects.
    """
    number, covered = len(best), int((best >= threshold).sum())
    missed = int(((best <= 0) & (best < threshold)).sum())
    share, mean = (round(covered / number, 4), round(float(best.mean()), 4)) if number else (None, None)
    return {"covered": covered, "share": share, "forced": number - covered - missed, "missed": missed, "mean_iou": mean}


def coverage_rows(layouts: dict[str, Layout], plain: Objects, drawn: Objects, lost: Objects, names, threshold) -> list:
    """A dictionary for each class and size class that has objects, and for their totals: the `coverage` by each of the
    layouts before augmentation ("plain") and after ("augmented")."""
    kinds = {"plain": plain, "augmented": drawn, "lost": lost}
    image_size = next(iter(layouts.values())).image_size
    bins = {kind: _size_class(objects.shapes(), image_size) for kind, objects in kinds.items()}
    best = {
        kind: {name: nearest_ious(kinds[kind].boxes, layout).amax(1) for name, layout in layouts.items()}
        for kind in ("plain", "augmented")
    }
    rows = []
    for label in [*range(1, len(names) + 1), 0] if len(names) > 1 else [1]:
        own = {k: (objects.labels == label) if label else objects.labels > 0 for k, objects in kinds.items()}
        sizes = [size for size in range(len(SIZES) - 1) if any((bins[k][own[k]] == size).any() for k in kinds)]
        for size in [*sizes, None]:
            at = {k: own[k] & (bins[k] == size) if size is not None else own[k] for k in kinds}
            row = {"class": names[label - 1] if label else "all", "size": "all" if size is None else _size_name(size)}
            for kind, ious in best.items():
                figures = {name: coverage(values[at[kind]], threshold) for name, values in ious.items()}
                row[kind] = {"objects": int(at[kind].sum()), **figures}
            row["augmented"]["lost"] = int(at["lost"].sum())
            rows.append(row)
    return rows


def _size_class(shapes: Tensor, image_size) -> Tensor:
    pixels = (shapes.prod(1) * math.prod(image_size)).sqrt()
    return torch.bucketize(pixels, torch.tensor(SIZES[1:-1], dtype=pixels.dtype), right=True)


def _size_name(size: int) -> str:
    low, high = SIZES[size : size + 2]
    return f"<{high}" if low == 0 else f">={low}" if high == math.inf else f"{low}-{high}"


def level_rows(layout: Layout, drawn: Objects, threshold: float) -> list[dict]:
    """A dictionary for each level: its priors (boxes as [width, height] in pixels), how many of them no object reaches,
    how many an object reaches on average, and for which share of the objects the level has the best prior."""
    ious = nearest_ious(drawn.boxes, layout)
    best_level = layout.level_of_shape()[ious.argmax(1)]
    rows = []
    counts = count_matches(drawn.boxes, layout, ious, threshold)
    for level, (boxes, (unmatched, matches)) in enumerate(zip(cell_boxes(layout), counts, strict=True)):
        rows.append(
            {
                "level": level,
                "map": list(layout.map_sizes[level]),
                "step": list(layout.steps[level]) if layout.steps else layout.even_step(level),
                "boxes": boxes,
                "priors": math.prod(layout.map_sizes[level]) * layout.counts[level],
                "never_matched": unmatched,
                "matches_per_object": round(matches, 3),
                "best_for": round(float((best_level == level).float().mean()), 4) if len(ious) else None,
            }
        )
    return rows


def cell_boxes(layout: Layout) -> list[list[list[float]]]:
    """For each level the boxes of a cell, [width, height] in pixels."""
    pixels = layout.shapes() * torch.tensor(layout.image_size[::-1])
    return [[[round(side, 1) for side in box] for box in level.tolist()] for level in pixels.split(layout.counts)]


def _images(figures: dict) -> str:
    videos = figures["videos"]
    return f"{figures['images']} {f'frames in {videos} videos' if videos else 'images'}"


def format_report(figures: dict) -> str:
    """All figures as text for a terminal."""
    height, width = figures["image_size"]
    sections = [
        f"{figures['model']}, images of {height} x {width} pixels\n"
        f"{figures['objects']} objects in {_images(figures)} of {figures['data']};\n"
        f"{figures['augmented_objects']} in {figures['augmented_images']} images as training shows them"
    ]
    for name, title in (("given", "Priors as given"), ("proposed", "Priors proposed")):
        if name in figures["priors"]:
            sections.append(f"{title}: {figures['priors'][name]}\n{format_levels(figures['levels'][name])}")
    both = ", as given and as proposed" if len(figures["priors"]) > 1 else ""
    sections.append(f"Coverage at IoU {figures['iou_threshold']:g}{both}\n{format_coverage(figures['coverage'])}")
    return "\n\n".join(sections)


def summary(figures: dict) -> list[str]:
    """What the proposal is worth, in a few lines."""
    total, (given, proposed) = figures["coverage"][-1], figures["priors"].values()
    lines = [f"For {figures['objects']} objects in {_images(figures)} of {figures['data']}, {proposed} priors."]
    for kind, words in (("plain", "without augmentation"), ("augmented", "with augmentation")):
        now, then = (_in_words(total[kind][name]) for name in ("given", "proposed"))
        lines.append(f"Covered at IoU {figures['iou_threshold']:g} {words}: {then}; by the {given} of _BASE_: {now}.")
    return lines


def _in_words(figures: dict) -> str:
    if figures["share"] is None:
        return "no object"
    return f"{100 * figures['share']:.1f} % (mean best IoU {figures['mean_iou']:.3f})"


def format_levels(rows: list[dict]) -> str:
    """The rows of `level_rows` as a table."""
    head = ("level", "map", "step", "priors", "never matched", "matches", "best for", "boxes of a cell (w x h, pixels)")
    cells = [head]
    for row in rows:
        unmatched = f"{row['never_matched']} ({100 * row['never_matched'] / row['priors']:.0f} %)"
        best = "-" if row["best_for"] is None else f"{100 * row['best_for']:.0f} %"
        where = [" x ".join(f"{n:g}" for n in row[key]) for key in ("map", "step")]
        matches = f"{row['matches_per_object']:.2f}"
        cells.append(
            (str(row["level"]), *where, str(row["priors"]), unmatched, matches, best, boxes_in_words(row["boxes"]))
        )
    return _align(cells, left=(0, 7))


def boxes_in_words(boxes) -> str:
    """[width, height] of some boxes in whole pixels."""
    return "  ".join(f"{width:.0f}x{height:.0f}" for width, height in boxes)


def format_coverage(rows: list[dict]) -> str:
    """The rows of `coverage_rows` as a table, two numbers in a column where there are two layouts: before and after."""
    head = ("class", "size", "objects", "covered", "mean IoU", "objects", "covered", "mean IoU", "forced", "lost")
    cells = [head]
    for row in rows:
        plain, drawn = row["plain"], row["augmented"]
        figures = [str(plain["objects"]), *_figures(plain), str(drawn["objects"]), *_figures(drawn)]
        forced = " ".join(f"{part['forced'] + part['missed']:5}" for part in _layouts(drawn))
        cells.append((_shortened(row["class"]), row["size"], *figures, forced.strip(), str(drawn["lost"])))
    lines = _align(cells, left=(0, 1)).splitlines()
    before = lines[0].index("mean IoU") + len("mean IoU")
    groups = " " * (len(_align([row[:2] for row in cells], left=(0, 1)).splitlines()[0]) + 2) + "without augmentation"
    return "\n".join([groups.ljust(before + 2) + "| with augmentation", *lines])


def _layouts(part: dict) -> list[dict]:
    return [figures for figures in part.values() if isinstance(figures, dict)]


def _figures(part: dict) -> list[str]:
    """Share covered and mean IoU of each layout."""
    return [
        " ".join("    -" if figures[key] is None else f"{figures[key]:.3f}" for figures in _layouts(part))
        for key in ("share", "mean_iou")
    ]


def _align(cells, left) -> str:
    """Rows of words as lines; the columns of `left` begin at the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(w.ljust(n) if i in left else w.rjust(n) for i, (w, n) in enumerate(zip(row, widths, strict=True)))
        .rstrip()
        for row in cells
    )  # fmt: skip


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2 - 1]}..{name[1 - LONGEST_NAME // 2 :]}"
