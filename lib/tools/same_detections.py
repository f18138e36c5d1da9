"""Whether two ways of running one detector find the same in an image, up to rounding."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..layers.box import clip_boxes, decode_boxes, pairwise_iou
from ..layers.postprocess import PostProcess, class_scores
from ..structures import Detections, Predictions

IOU_MARGIN = 1e-3
"""How near the threshold of NMS rounding may decide."""


@dataclass(frozen=True)
class Limits:
    """What counts as rounding.

    raw: largest difference of raw outputs and states, in parts of the largest value, or of 1 where that is less;
    priors: of priors, in parts of the image; box: of corners, in pixels of the network's input; score: of scores; map:
    of mAP; borderline: largest part of the detections that one side alone may have.
    """

    raw: float = 1e-4
    priors: float = 1e-5
    box: float = 0.02
    score: float = 5e-5
    map: float = 1e-3
    borderline: float = 0.03


@dataclass
class Comparison:
    """Sums over images: detections of the reference; those at a threshold, where rounding decides, that one side has
    alone; the largest differences of boxes in pixels of the network's input and of scores between partners; and the
    differences that are none of rounding."""

    detections: int = 0
    borderline: int = 0
    box: float = 0.0
    score: float = 0.0
    faults: list[str] = field(default_factory=list)


class SameDetections:
    """Compares image by image, under the rules by which both sides choose among the priors; `input_size` (height,
    width) is that of the network."""

    def __init__(self, rules: PostProcess, input_size, limits: Limits):
        self.rules, self.limits, self.total = rules, limits, Comparison()
        self._input = torch.tensor([*input_size[::-1]] * 2)

    def add(self, image: str, size, ours: Detections, theirs: Detections, raw: Predictions) -> None:
        """Take in an image of `size` (height, width): the detections of the reference and the others, boxes in pixels,
        and the reference's raw outputs loc [P, 4], conf [P, C] and priors [P, 4]."""
        self.total.detections += len(ours)
        if (theirs.scores.diff() > 0).any():
            self.total.faults.append(f"{image}: detections are not in the order of their scores")
        scale = self._input / torch.tensor([*size[::-1]] * 2)
        ours, theirs = (Detections(d.boxes * scale, d.scores, d.labels, d.class_names) for d in (ours, theirs))
        least = self._least_scores(ours, raw.conf)
        for label in sorted({*ours.labels.tolist(), *theirs.labels.tolist()}):
            sides = [found.select(found.labels == label) for found in (ours, theirs)]
            singles = self._singles(*sides)
            kept = (
                self._not_borderline(sides, singles, float(least[label - 1]), raw, label) if any(singles) else singles
            )
            self.total.borderline += sum(map(len, singles)) - sum(map(len, kept))
            for found, rest, whose in zip(sides, kept, ("torch", "the file"), strict=True):
                names, scores = found.names, found.scores.tolist()
                self.total.faults += [f"{image}: {whose} alone finds {names[i]} {scores[i]:.4f}" for i in rest]

    def _least_scores(self, ours: Detections, conf: Tensor) -> Tensor:
        """[C - 1]: for each class the score at which the number of detections ends."""
        rules = self.rules
        least = torch.full((conf.shape[1] - 1,), float(rules.score_threshold))
        if len(conf) > rules.max_detections:
            ranked = class_scores(conf, rules.sigmoid).topk(rules.max_detections, dim=0).values
            least = least.maximum(ranked[-1])
        if rules.max_per_image and len(ours) == rules.max_per_image:
            least = least.clamp(min=float(ours.scores.min()))
        return least

    def _singles(self, ours: Detections, theirs: Detections) -> list[list[int]]:
        """Indices of the detections of one class on either side that have no partner on the other."""
        boxes = (ours.boxes[:, None] - theirs.boxes[None]).abs().amax(2).numpy()
        scores = (ours.scores[:, None] - theirs.scores[None]).abs().numpy()
        fits, alone, taken = (boxes <= self.limits.box) & (scores <= self.limits.score), [], set()
        for row in range(len(ours)):
            partners = [column for column in np.flatnonzero(fits[row]).tolist() if column not in taken]
            if not partners:
                alone.append(row)
                continue
            best = min(partners, key=lambda column: boxes[row, column])
            taken.add(best)
            self.total.box = max(self.total.box, float(boxes[row, best]))
            self.total.score = max(self.total.score, float(scores[row, best]))
        return [alone, [column for column in range(len(theirs)) if column not in taken]]

    def _not_borderline(self, sides: list[Detections], singles, least: float, raw: Predictions, label: int):
        """Those of the singles that no threshold explains: their score is not at the end of what is kept, no box
        overlaps them by just the threshold of NMS, and they do not hang on one that is so explained."""
        threshold, margin, first = self.rules.iou_threshold, IOU_MARGIN, len(sides[0])
        boxes = torch.cat([found.boxes for found in sides])
        overlaps = pairwise_iou(boxes, boxes).fill_diagonal_(0)
        alone = torch.tensor([*singles[0], *(first + index for index in singles[1])])
        scores = torch.cat([found.scores for found in sides])[alone]
        known = (alone < first) | self._are_candidates(boxes[alone], scores, raw, label)
        explained = (scores <= least + self.limits.score) | ((overlaps[alone] - threshold).abs() <= margin).any(1)
        between = overlaps[alone][:, alone] >= threshold - margin
        # Of two that suppress each other and score the same, rounding chooses one.
        explained |= (between & known & ((scores[:, None] - scores).abs() <= self.limits.score)).any(1)
        explained &= known
        for _ in alone:
            explained |= (between & explained).any(1) & known
        rest = alone[~explained].tolist()
        return [[index for index in rest if index < first], [index - first for index in rest if index >= first]]

    def _are_candidates(self, boxes: Tensor, scores: Tensor, raw: Predictions, label: int) -> Tensor:
        """Which of these boxes [N, 4] and scores [N] the reference has, too, whatever became of them."""
        candidates = decode_boxes(raw.loc, raw.priors, self.rules.variance)
        candidates = (clip_boxes(candidates) if self.rules.clip else candidates) * self._input
        near = (boxes[:, None] - candidates).abs().amax(2) <= self.limits.box
        difference = scores[:, None] - class_scores(raw.conf, self.rules.sigmoid)[:, label - 1]
        return (near & (difference.abs() <= self.limits.score)).any(1)
