"""The search for priors that cover more of a set of objects at the same number.

A size is the root of an area as a part of the image, a shape (width, height) in the same parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..layers.box import pairwise_iou
from ..layers.prior_box import level_scales
from .prior_layout import Layout, Objects, ious_at, nearest_centres, nearest_ious

REACHES = (2.0, 2.5, 3.0)
"""Objects of so many strides are the smallest of a level; 3 gives the levels of SSD300 the ranges that its authors
chose."""

LARGEST_PART = 2 / 3
"""How much of a level's receptive field an object may fill along a side: its rim hardly counts (arXiv 1701.04128)."""

SLACK = 1.25
"""A prior may leave the range of its level by this factor, so that the borders of ranges are covered as well."""

FACTORS = (0.8, 0.94, 1.06, 1.25)
MAX_SWEEPS, LEAST_GAIN = 12, 3e-4
"""By what the search multiplies one number at a time; it goes through all of them so often at most, and ends when a
round has gained less."""

MARGIN = 0.005
"""Gain of the score on images that were held out, under which a change is not worth making."""

START_RATIOS = (1.5, 2, 3, 4, 5)
LEAST_RATIO, LARGEST_RATIO = 1.05, 6.0
"""Ratios besides 1 from which the search starts, and their limits."""

MAX_SAMPLE = 3000
"""Objects that the search looks at, of those before augmentation and of those after."""


@dataclass(frozen=True)
class Proposal:
    """The layout that was found, None if the given one is as good; scores of the kinds on the images held out."""

    layout: Layout | None
    kind: str
    scores: dict[str, float]


def kmeans_iou(shapes: Tensor, num_clusters: int, weights: Tensor | None = None, seed: int = 0) -> Tensor:
    """Centres [K, 2] of shapes [N, 2] by k-means with 1 - IoU as distance (YOLOv2, arXiv 1612.08242 section 2), the
    best of several seeded starts, smallest first; fewer than asked for if there are no more different shapes."""
    weights = torch.ones(len(shapes)) if weights is None else weights
    generator = torch.Generator().manual_seed(seed)
    best, best_mean = shapes[:0], -1.0
    for _ in range(8 if len(shapes) else 0):
        centres = _move_centres(shapes, weights, _spread_centres(shapes, weights, num_clusters, generator))
        mean = float((_shape_iou(shapes, centres).amax(1) * weights).sum())
        if mean > best_mean + 1e-6:
            best, best_mean = centres, mean
    return best[best.prod(1).argsort(stable=True)]


def _spread_centres(shapes: Tensor, weights: Tensor, num_clusters: int, generator) -> Tensor:
    """Starting centres, drawn with the distance to those before as probability (k-means++)."""
    centres = shapes[torch.multinomial(weights, 1, generator=generator)]
    while len(centres) < num_clusters:
        distance = (1 - _shape_iou(shapes, centres).amax(1)).clamp(min=0)
        chances = torch.where(distance > 1e-5, distance, 0) * weights
        if not chances.any():
            break
        centres = torch.cat([centres, shapes[torch.multinomial(chances, 1, generator=generator)]])
    return centres


def _move_centres(shapes: Tensor, weights: Tensor, centres: Tensor) -> Tensor:
    """Lloyd's algorithm, to its end or for 100 rounds."""
    owner = None
    for _ in range(100):
        previous, owner = owner, _shape_iou(shapes, centres).argmax(1)
        if previous is not None and torch.equal(owner, previous):
            break
        total = torch.zeros(len(centres), dtype=torch.float64).index_add_(0, owner, weights.double())
        summed = torch.zeros(len(centres), 2, dtype=torch.float64)
        summed.index_add_(0, owner, (shapes * weights[:, None]).double())
        mean = (summed / total.clamp(min=1e-12)[:, None]).to(shapes)
        centres = torch.where((total > 0)[:, None], mean, centres)
    return centres


def _shape_iou(shapes: Tensor, others: Tensor) -> Tensor:
    """IoU [N, M] of boxes that share their centre."""
    corners = [torch.cat([-wh / 2, wh / 2], -1) for wh in (shapes, others)]
    return pairwise_iou(*corners)


def propose(given: Layout, counts: list[int], objects: Objects, threshold: float, seed: int = 0) -> Proposal:
    """Priors for these objects with `counts` boxes per cell: as ratios, or as pairs if these cover more, whichever
    holds on scenes that the search has not seen; none if the given ones do as well there.

    Deterministic: the seed decides the sample, the half of the scenes held out and the starts of k-means.
    """
    generator = torch.Generator().manual_seed(seed)
    present, scene = objects.scenes.unique(return_inverse=True)
    held_out = (torch.randperm(len(present), generator=generator) % 2 == 1)[scene]
    seen, unseen = (_sample(objects[half], MAX_SAMPLE, generator) for half in (~held_out, held_out))
    everything = _sample(objects, MAX_SAMPLE, generator)
    kinds, most = ["pairs"], 2 + 2 * len(START_RATIOS)
    if all(n % 2 == 0 and n <= most for n in counts) and given.strides() == sorted(given.strides()):
        kinds.insert(0, "ratios")
    scores = {"given": score(given, unseen, threshold)} if counts == given.counts else {}
    scores |= {kind: score(_fit(kind, given, counts, seen, threshold, seed), unseen, threshold) for kind in kinds}
    chosen = next(iter(scores))
    for kind in scores:
        chosen = kind if scores[kind] > scores[chosen] + MARGIN else chosen
    if chosen == "given":
        return Proposal(None, chosen, scores)
    return Proposal(_fit(chosen, given, counts, everything, threshold, seed), chosen, scores)


def _sample(objects: Objects, number: int, generator) -> Objects:
    """At most so many of the objects before and of those after augmentation."""
    order = torch.randperm(len(objects), generator=generator)
    after = objects.augmented[order]
    return objects[torch.cat([order[after][:number], order[~after][:number]])]


def score(layout: Layout, objects: Objects, threshold: float) -> float:
    """How well the objects are covered, 0 to 1: the weighted mean of the best IoU and, counting twice, of whether it
    reaches the threshold."""
    return _score(nearest_ious(objects.boxes, layout), objects.weights(), threshold)


def _score(ious: Tensor, weights: Tensor, threshold: float) -> float:
    best = ious.amax(1)
    return float(((best + 2 * (best >= threshold)) / 3 * weights).sum())


def _fit(kind: str, given: Layout, counts, objects: Objects, threshold: float, seed: int) -> Layout:
    """The best layout of a kind that the search finds, from the most promising of the REACHES."""
    start = {"pairs": _start_pairs, "ratios": _start_ratios}[kind]
    ranges = [level_ranges(given, reach) for reach in REACHES]
    starts = [start(given, counts, objects, spans, seed) for spans in ranges]
    scores = [score(layout, objects, threshold) for layout in starts]
    best = scores.index(max(scores))
    return _climb(starts[best], objects, threshold, ranges[best])


def level_ranges(layout: Layout, reach: float) -> list[tuple[float, float]]:
    """The sizes (from, to) of the objects that each level is for.

    A level begins at `reach` strides, which are taken the shorter the nearer they come to the whole image, or earlier
    where the finer level does not see more, and ends where the next coarser one begins.  The finest level begins at 0,
    the coarsest has no end.
    """
    strides = layout.strides()
    order = sorted(range(len(strides)), key=strides.__getitem__)
    starts = [0.0]
    for finer, level in zip(order, order[1:], strict=False):
        start = reach * strides[level] / (1 + (reach * strides[level]) ** 2) ** 0.5
        visible = LARGEST_PART * layout.fields[finer] if layout.fields else start
        starts.append(max(min(start, visible), starts[-1]))
    spans = dict(zip(order, zip(starts, [*starts[1:], float("inf")], strict=True), strict=True))
    return [spans[k] for k in range(len(strides))]


def _start_pairs(given: Layout, counts, objects: Objects, ranges, seed: int) -> Layout:
    """k-means in the range of each level; a range with too few different objects gets squares spread over it."""
    objects = objects[objects.augmented]
    weights, shapes = objects.weights(), objects.shapes()
    levels = []
    for n, (low, high) in zip(counts, ranges, strict=True):
        own = (shapes.prod(1).sqrt() >= low) & (shapes.prod(1).sqrt() < high)
        centres = kmeans_iou(shapes[own], n, weights[own], seed)
        squares = _middle(low, high, torch.arange(1, n + 1) / (n + 1))[:, None] * _square(given)
        levels.append(torch.cat([centres, squares[: n - len(centres)]]))
    scales = [float(level.prod(1).sqrt().log().mean().exp()) for level in levels]
    sizes = [*(_as_pixels(scale, given) for scale in scales), list(given.image_size)]
    exact = level_scales(sizes, given.map_sizes, given.image_size)
    pairs = [[_rounded(shape / scale) for shape in level] for level, (scale, _) in zip(levels, exact, strict=True)]
    return replace(given, ratios=pairs, sizes=sizes)


def _start_ratios(given: Layout, counts, objects: Objects, ranges, seed: int) -> Layout:
    """The square of each level at the middle of the objects in its range."""
    objects = objects[objects.augmented]
    of_object = objects.shapes().prod(1).sqrt()
    scales = []
    for low, high in ranges:
        own = of_object[(of_object >= low) & (of_object < high)]
        scales.append(float(own.median()) if len(own) else float(_middle(low, high, torch.tensor(0.5))))
    scales.append(min(1.05, scales[-1] * 1.3))
    ratios = [[1, *START_RATIOS[: n // 2 - 1]] for n in counts]
    return replace(given, ratios=ratios, sizes=[_as_pixels(scale, given) for scale in scales])


def _middle(low: float, high: float, part: Tensor) -> Tensor:
    """Sizes inside a range that may be open, evenly spread as logarithms."""
    low, high = low or high / 2, min(high, 1.0)
    return low ** (1 - part) * high**part


def _square(layout: Layout) -> Tensor:
    """The shape of size 1 that is square in pixels."""
    height, width = layout.image_size
    return torch.tensor([(height / width) ** 0.5, (width / height) ** 0.5])


def _as_pixels(scale: float, layout: Layout) -> list[float]:
    """A part of the image as [h, w] pixels, to a tenth."""
    return [_short(scale * side, 1) for side in layout.image_size]


def _rounded(pair) -> list[float]:
    return [_short(float(side), 3) for side in pair]


def _short(value: float, digits: int) -> float | int:
    """Rounded, above 0, and without a needless point."""
    value = max(round(value, digits), 10**-digits)
    return int(value) if value == int(value) else value


def _climb(layout: Layout, objects: Objects, threshold: float, ranges) -> Layout:
    """Change one number of the layout at a time as long as the score grows."""
    boxes, weights = objects.boxes, objects.weights()
    levels = layout.level_of_shape()
    centres = nearest_centres(boxes, layout)
    low, high = (torch.tensor(ends)[levels] for ends in zip(*ranges, strict=True))
    shapes, ious = layout.shapes(), nearest_ious(boxes, layout)
    best = _score(ious, weights, threshold)
    for _ in range(MAX_SWEEPS):
        before = best
        for knob in _knobs(layout):
            for turned in [_turn(layout, knob, factor) for factor in FACTORS]:
                new_shapes = turned.shapes()
                changed = (new_shapes != shapes).any(1)
                size = new_shapes[changed].prod(1).sqrt()
                if (size * SLACK < low[changed]).any() or (size > high[changed] * SLACK).any():
                    continue
                new_ious = ious.clone()
                new_ious[:, changed] = ious_at(boxes, centres[:, levels[changed]], new_shapes[changed])
                found = _score(new_ious, weights, threshold)
                if found > best + 1e-6:
                    layout, shapes, ious, best = turned, new_shapes, new_ious, found
        if best < before + LEAST_GAIN:
            break
    return layout


def _knobs(layout: Layout) -> Iterator[tuple[int, ...]]:
    """The numbers that may change: (level,) a size, (level, i) a ratio, (level, i, axis) one side of a pair."""
    pairs = isinstance(layout.ratios[0][0], list)
    for level in range(0 if pairs else len(layout.sizes)):
        yield (level,)
    for level, ratios in enumerate(layout.ratios):
        for i, ratio in enumerate(ratios):
            if pairs:
                yield from ((level, i, 0), (level, i, 1))
            elif ratio != 1:
                yield (level, i)


def _turn(layout: Layout, knob: tuple[int, ...], factor: float) -> Layout:
    """The layout with one of its numbers multiplied by a factor."""
    level, *place = knob
    if not place:
        size = [_short(side * factor, 1) for side in layout.sizes[level]]
        return replace(layout, sizes=[*layout.sizes[:level], size, *layout.sizes[level + 1 :]])
    ratios = [list(entries) for entries in layout.ratios]
    old = ratios[level][place[0]]
    if len(place) == 1:
        ratios[level][place[0]] = min(max(_short(old * factor, 2), LEAST_RATIO), LARGEST_RATIO)
    else:
        pair = list(old)
        pair[place[1]] = _short(pair[place[1]] * factor, 3)
        ratios[level][place[0]] = pair
    return replace(layout, ratios=ratios)
