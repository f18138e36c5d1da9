"""The named types that cross every boundary of the package.

Boxes are corners (x1, y1, x2, y2).  Inside the package they live in the unit square of the image; outside (files,
metrics, drawings) in pixels of the original image, 0-based.  Shape letters: B batch, T frames, P priors, C classes
including background, N objects of an image, K detections of an image.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass
class Target:
    """What an image holds.

    boxes [N, 4] xyxy in the unit square; labels int64 [N], from 1 (0 is the background and never present); difficult
    bool [N] (not counted by the metrics); image_id names the image in results; size is its (height, width) in pixels;
    track_ids int64 [N] names an object through a video, -1 where unknown; crowd bool [N] marks boxes around many
    objects that nobody told apart, which are difficult, too: the losses leave out what lies in them; areas [N] are
    those of the objects themselves in pixels of the image, NaN or None where only boxes are known.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor = None
    image_id: Any = None
    size: tuple[int, int] | None = None
    track_ids: Tensor = None
    crowd: Tensor = None
    areas: Tensor = None

    def __post_init__(self):
        if self.difficult is None:
            self.difficult = torch.zeros(len(self.labels), dtype=torch.bool)
        if self.crowd is None:
            self.crowd = torch.zeros(len(self.labels), dtype=torch.bool)
        if self.track_ids is None:
            self.track_ids = torch.full((len(self.labels),), -1, dtype=torch.int64)

    def to(self, device) -> "Target":
        """The same target with the tensors that training needs on `device`."""
        boxes, labels = (t.to(device, non_blocking=True) for t in (self.boxes, self.labels))
        return Target(boxes, labels, self.difficult, self.image_id, self.size, self.track_ids, self.crowd)


@dataclass
class Batch:
    """B images of one size as uint8 [B, 3, H, W] in the colour order of the configuration, with their targets.

    `first` bool [B] marks the rows that start a new video; a still image starts one every time.
    """

    images: Tensor
    targets: list[Target]
    first: Tensor = None

    def __post_init__(self):
        if self.first is None:
            self.first = torch.ones(len(self.images), dtype=torch.bool)

    def to(self, device) -> "Batch":
        """The batch on `device`; the copies do not block when the memory is pinned."""
        targets = [target.to(device) for target in self.targets]
        return Batch(self.images.to(device, non_blocking=True), targets, self.first.to(device, non_blocking=True))


Clip = list[Batch]
"""T frames of B videos in order of time; a batch of stills is a clip of length one."""


class Predictions(NamedTuple):
    """Raw output of a detector: loc [B, P, 4] encoded offsets, conf [B, P, C] logits, priors [P, 4] as
    (cx, cy, w, h) in the unit square, and the recurrent state to pass on with the next frame (None without one)."""

    loc: Tensor
    conf: Tensor
    priors: Tensor
    state: Any = None


@dataclass
class Detections:
    """Objects found in one image, best first: boxes [K, 4] xyxy, scores [K], labels int64 [K] from 1.

    `class_names` (without the background) gives the labels their names; empty where nobody knows them.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of every detection; the label as text where the class has no known name."""
        known = self.class_names
        return [known[i - 1] if 0 < i <= len(known) else str(i) for i in self.labels.tolist()]

    def select(self, keep: Tensor) -> "Detections":
        """The detections that `keep` (a mask or indices) picks."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], self.class_names)
