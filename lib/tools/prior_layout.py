"""Where the priors of a layout lie, and which of them objects overlap.

Boxes are xyxy in the unit square; a shape is (width, height) as parts of the image.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..layers.box import cxcywh_to_xyxy, pairwise_iou, xyxy_to_cxcywh
from ..layers.prior_box import build_cells, build_priors, num_boxes_per_cell

CHUNK = 10_000
"""Objects whose overlaps are computed at a time."""

MAX_PAIRS = 2_000_000
"""Pairs of an object and a prior that are compared at a time."""


@dataclass(frozen=True)
class Layout:
    """What decides the priors of a model, in the words of the configuration (see `build_priors`)."""

    image_size: tuple[int, int]
    map_sizes: tuple[tuple[int, int], ...]
    ratios: list
    sizes: list
    steps: list
    clip: bool
    fields: tuple[float, ...] = ()
    """Side of the receptive field of each level as a part of the image; empty where it is not known."""

    @property
    def counts(self) -> list[int]:
        """Boxes per cell of each level."""
        return [num_boxes_per_cell(ratios) for ratios in self.ratios]

    @property
    def num_priors(self) -> int:
        """Priors of all levels."""
        return sum(n * rows * columns for n, (rows, columns) in zip(self.counts, self.map_sizes, strict=True))

    def priors(self) -> list[Tensor]:
        """The priors of each level [rows, columns, boxes per cell, 4] as cxcywh."""
        priors = build_priors(self.image_size, self.map_sizes, self.ratios, self.sizes, self.steps, self.clip)
        shapes = [(*cells, n, 4) for cells, n in zip(self.map_sizes, self.counts, strict=True)]
        parts = priors.split([rows * columns * n for rows, columns, n, _ in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def shapes(self) -> Tensor:
        """The boxes of one cell of every level, one after another [S, 2]."""
        cells = build_cells(self.image_size, self.map_sizes, self.ratios, self.sizes)
        shapes = torch.tensor([shape for boxes in cells for shape in boxes])
        return shapes.clamp(0, 1) if self.clip else shapes

    def even_step(self, level: int) -> list[float]:
        """[h, w] pixels that spread the centres of a level evenly over the image."""
        pitches = [round(side / cells, 2) for side, cells in zip(self.image_size, self.map_sizes[level], strict=True)]
        return [int(pitch) if pitch == int(pitch) else pitch for pitch in pitches]

    def strides(self) -> list[float]:
        """Pitch of the cells of each level as a part of the image."""
        return [(rows * columns) ** -0.5 for rows, columns in self.map_sizes]

    def level_of_shape(self) -> Tensor:
        """The level of each row of `shapes` [S]."""
        return torch.repeat_interleave(torch.tensor(self.counts))


@dataclass(frozen=True)
class Objects:
    """Objects to be covered: boxes [N, 4], labels [N], the scene that each lies in [N] (an image, or a whole video),
    whether it went through the augmentation [N]."""

    boxes: Tensor
    labels: Tensor
    scenes: Tensor
    augmented: Tensor

    def __getitem__(self, rows) -> "Objects":
        return Objects(self.boxes[rows], self.labels[rows], self.scenes[rows], self.augmented[rows])

    @classmethod
    def concat(cls, parts) -> "Objects":
        """All objects of some parts."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.labels)

    def shapes(self) -> Tensor:
        """(width, height) [N, 2]."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    def weights(self) -> Tensor:
        """What each object counts in the search [N], adding up to 1: objects with and without augmentation count half
        each, and a class counts by the root of its number there, so that a rare one is heard."""
        weights = torch.zeros(len(self))
        for part in (self.augmented, ~self.augmented):
            number = torch.bincount(self.labels[part]).clamp(min=1)
            weights[part] = number[self.labels[part]].rsqrt()
            weights[part] /= weights[part].sum().clamp(min=1e-9)
        return weights / weights.sum().clamp(min=1e-9)


def nearest_ious(boxes: Tensor, layout: Layout) -> Tensor:
    """The best IoU [N, S] of each box [N, 4] with each of the S boxes of a cell, over all cells of its level.

    Of boxes of one shape the one whose centre is nearest, on each axis, has the largest overlap: the other cells need
    not be looked at.
    """
    shapes, levels = layout.shapes(), layout.level_of_shape()
    centres = nearest_centres(boxes, layout)
    return torch.cat(
        [boxes.new_zeros(0, len(shapes))]
        + [ious_at(b, c[:, levels], shapes) for b, c in zip(boxes.split(CHUNK), centres.split(CHUNK), strict=True)]
    )


def nearest_centres(boxes: Tensor, layout: Layout) -> Tensor:
    """The centre of the cell nearest to the centre of each box, on every level [N, L, 2]."""
    middle = xyxy_to_cxcywh(boxes)[:, :2]
    centres = []
    for priors in layout.priors():
        axes = priors[0, :, 0, 0].contiguous(), priors[:, 0, 0, 1].contiguous()
        found = [
            axis[torch.searchsorted((axis[1:] + axis[:-1]) / 2, middle[:, i].contiguous())]
            for i, axis in enumerate(axes)
        ]
        centres.append(torch.stack(found, 1))
    return torch.stack(centres, 1)


def ious_at(boxes: Tensor, centres: Tensor, shapes: Tensor) -> Tensor:
    """IoU [N, S] of boxes [N, 4] with boxes of the shapes [S, 2] about centres [N, S, 2]."""
    others = cxcywh_to_xyxy(torch.cat([centres, shapes.expand(len(boxes), -1, 2)], -1))
    return pairwise_iou(boxes[:, None], others)[:, 0]


def count_matches(boxes: Tensor, layout: Layout, ious: Tensor, threshold: float) -> list[tuple[int, float]]:
    """For each level: the priors that none of the boxes [N, 4] overlaps by `threshold`, and how many a box overlaps on
    average; `ious` from `nearest_ious`."""
    columns = iter(ious.T)
    counts = []
    for priors in layout.priors():
        unmatched = pairs = 0
        for shape in range(priors.shape[2]):
            near = boxes[next(columns) >= threshold]  # the others reach no prior of this shape
            cells = cxcywh_to_xyxy(priors[:, :, shape].reshape(-1, 4))
            matches = torch.zeros(len(cells), dtype=torch.int64)
            for part in near.split(max(1, MAX_PAIRS // len(cells))):
                matches += (pairwise_iou(part, cells) >= threshold).sum(0)
            unmatched += int((matches == 0).sum())
            pairs += int(matches.sum())
        counts.append((unmatched, pairs / max(len(boxes), 1)))
    return counts
