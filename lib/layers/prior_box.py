"""Prior boxes (the default boxes of SSD, arXiv 1512.02325 section 2.2) by the reference family's rule."""

import itertools
import math

import torch
from torch import Tensor

USUAL_RATIOS = (1, 2, 3)


def level_ratios(aspect_ratios, num_levels: int) -> list[list]:
    """The aspect ratios of each of so many levels: USUAL_RATIOS on all of them where `aspect_ratios` is None."""
    return [list(USUAL_RATIOS)] * num_levels if aspect_ratios is None else list(aspect_ratios[:num_levels])


def num_boxes_per_cell(ratios) -> int:
    """Priors that a level with these aspect ratios puts on every cell of its map.

    A list of numbers gives two boxes each (1: the two squares; r: r and 1/r), a list of [w, h] pairs one each.
    """
    return len(ratios) if isinstance(ratios[0], (list, tuple)) else 2 * len(ratios)


def build_priors(image_size, map_sizes, aspect_ratios, sizes, steps=(), clip=True) -> Tensor:
    """All priors [P, 4] as (cx, cy, w, h) in the unit square, float32.

    Order: level, row, column, then for ratio 1 the squares s and sqrt(s * next s), for a ratio r the wide box
    before the tall one.  image_size is (height, width) in pixels; map_sizes has (rows, columns) for each level.
    `sizes` are [h, w] pixels for each level and one more at the end, or two fractions of the image (see
    `level_scales`); `steps` are [h, w] pixels for each level, empty for 1 / map size.  With `clip`, centre and size
    are clamped to [0, 1].
    """
    cells = build_cells(image_size, map_sizes, aspect_ratios, sizes)
    levels = []
    for k, (rows, columns) in enumerate(map_sizes):
        step_y, step_x = _pair(steps[k], image_size) if len(steps) else (1 / rows, 1 / columns)
        y = torch.arange(rows, dtype=torch.float64) * step_y + step_y / 2
        x = torch.arange(columns, dtype=torch.float64) * step_x + step_x / 2
        boxes = torch.tensor(cells[k], dtype=torch.float64)
        centres = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], -1)
        shape = (rows, columns, len(boxes), 2)
        level = torch.cat([centres[:, :, None].expand(shape), boxes.expand(shape)], -1)
        levels.append(level.reshape(-1, 4))
    priors = torch.cat(levels)
    return (priors.clamp(0, 1) if clip else priors).float()


def build_cells(image_size, map_sizes, aspect_ratios, sizes) -> list[list[tuple[float, float]]]:
    """(width, height) of the priors of one cell of each level, as parts of the image; arguments as `build_priors`."""
    scales = level_scales(sizes, map_sizes, image_size)
    return [
        list(itertools.chain.from_iterable(ratio_boxes(scale, next_scale, ratio) for ratio in ratios))
        for (scale, next_scale), ratios in zip(scales, aspect_ratios, strict=True)
    ]


def level_scales(sizes, map_sizes, image_size) -> list[tuple[float, float]]:
    """For each level the side of its square prior as a part of the image, and that of the next level, which gives the
    larger square.

    [a, b] spreads the fractions a to b evenly over the levels, from the finest map to the coarsest, and ends with 1; a
    list of [h, w] pixels is divided by the image size, the smaller of the two quotients counting, and ends with its
    last if there is none for the end.
    """
    count = len(map_sizes)
    if isinstance(sizes[0], (list, tuple)):
        scales = [min(_pair(size, image_size)) for size in sizes[: count + 1]]
        scales = scales if len(scales) > count else [*scales, scales[-1]]
        return list(itertools.pairwise(scales))
    low, high = sizes
    scales = [low + (high - low) * k / max(count - 1, 1) for k in range(count)] + [1.0]
    finest_first = sorted(range(count), key=lambda level: -math.prod(map_sizes[level]))
    of_level = dict(zip(finest_first, itertools.pairwise(scales), strict=True))
    return [of_level[level] for level in range(count)]


def _pair(value, image_size) -> tuple[float, float]:
    """(height, width) in pixels as parts of the image."""
    return value[0] / image_size[0], value[1] / image_size[1]


def ratio_boxes(scale: float, next_scale: float, ratio) -> list[tuple[float, float]]:
    """(width, height) of the boxes of one entry of a level's aspect ratios; of ratio 1 the larger square is second."""
    if isinstance(ratio, (list, tuple)):
        return [(scale * ratio[0], scale * ratio[1])]
    if ratio == 1:
        between = math.sqrt(scale * next_scale)
        return [(scale, scale), (between, between)]
    root = math.sqrt(ratio)
    return [(scale * root, scale / root), (scale / root, scale * root)]
