"""The image that the visualize phase looks at, the levels of the detector that looks, and how pictures are scaled."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..utils.draw import image_grid

PICTURE_SIDE = 600  # pixels of the longer side of a picture, at least about that
OVERVIEW = "all levels"  # title of the picture that shows all others of its kind small
TILE_SIDE = 240  # the same for a picture that is one of many


class LevelInfo(NamedTuple):
    """A level of a detector: its map and where its priors lie in the list of all."""

    rows: int
    columns: int
    boxes_per_cell: int
    first: int

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.columns}"

    @property
    def priors(self) -> slice:
        """The priors of this level."""
        return slice(self.first, self.first + self.rows * self.columns * self.boxes_per_cell)


class Scene(NamedTuple):
    """The image that is looked at: as uint8 BGR in the shape that the network sees, large enough to draw on; the boxes
    [N, 4] of its objects in the unit square and their labels; and the input of the network [1, 3, H, W]."""

    picture: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    images: Tensor

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return tuple(self.images.shape[2:])

    def tile(self) -> np.ndarray:
        """A small copy of the picture."""
        return resize(self.picture, display_size(self.input_size, TILE_SIDE))


def look_at(image, target, eval_transform, normalize, device) -> Scene:
    """The scene of an image, uint8 BGR, with its Target."""
    resized = np.ascontiguousarray(eval_transform.resize(image))
    images = torch.from_numpy(resized).permute(2, 0, 1)[None].to(device)
    picture = resize(image, display_size(resized.shape[:2], PICTURE_SIDE))
    return Scene(picture, target.boxes.numpy(), target.labels.numpy(), normalize(images))


@torch.no_grad()
def detector_levels(model: nn.Module, images: Tensor) -> list[LevelInfo]:
    """The levels of a detector in the order of its priors, as a run on `images` shows them."""
    maps = [source.shape[2:] for source in model.sources(images)[0]]
    boxes = [predictor.out_channels // 4 for predictor in model.head.loc_predictors()]
    boxes = boxes * len(maps) if len(boxes) == 1 else boxes  # one predictor may serve all levels
    levels, first = [], 0
    for (rows, columns), boxes_per_cell in zip(maps, boxes, strict=True):
        levels.append(LevelInfo(rows, columns, boxes_per_cell, first))
        first = levels[-1].priors.stop
    if first != len(model.priors):
        raise ValueError(f"the head's maps make {first} predictions, the model has {len(model.priors)} priors")
    return levels


def titled(picture, title: str) -> np.ndarray:
    """The picture under a line of text."""
    return image_grid([picture], 1, [title])


def line_width(picture) -> int:
    """Thickness of an outline: thin in tiles."""
    return max(1, max(picture.shape) // 300)


def display_size(size, side: int) -> tuple[int, int]:
    """Height and width, enlarged or shrunk to `side` on the longer side."""
    return tuple(max(1, round(part * side / max(size))) for part in size)


def resize(image, size) -> np.ndarray:
    """The image at another (height, width)."""
    height, width = size
    shrink = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
