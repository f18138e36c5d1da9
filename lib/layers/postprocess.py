"""From raw predictions to detections: scores, decoding, per-class selection and NMS over the whole batch."""

import math

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from ..structures import Detections, Predictions
from .box import clip_boxes, decode_boxes


def class_scores(conf: Tensor, sigmoid: bool = False) -> Tensor:
    """Scores [..., C - 1] of the classes from 1, from logits conf [..., C]: a softmax over all, or with `sigmoid` each
    logit alone, where that of the background means nothing."""
    return conf[..., 1:].sigmoid() if sigmoid else conf.softmax(-1)[..., 1:]


def log_odds(logits: Tensor, background: Tensor, sigmoid: bool = False) -> Tensor:
    """The logarithm of the odds of classes against the background, from their logits and its logit; a class's score is
    less than exp of it."""
    return logits if sigmoid else logits - background


class PostProcess:
    """Callable (Predictions, sizes [B, 2] as height and width, or None) -> list of B Detections, best first.

    For each class but the background: scores above `score_threshold`, of these the best `max_detections`, of these
    what NMS at `iou_threshold` leaves; over all classes the best `max_per_image` (0: all).  Boxes are in pixels of
    `sizes`, in the unit square without; they are cut to the image only with `clip`.  `sigmoid` is as in `class_scores`.
    """

    def __init__(
        self,
        variance=(0.1, 0.2),
        score_threshold: float = 0.01,
        iou_threshold: float = 0.6,
        max_detections: int = 100,
        max_per_image: int = 0,
        clip: bool = False,
        sigmoid: bool = False,
    ):
        self.variance = tuple(variance)
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.max_per_image = max_per_image
        self.clip = clip
        self.sigmoid = sigmoid

    @torch.no_grad()
    def __call__(self, predictions: Predictions, sizes: Tensor | None = None) -> list[Detections]:
        loc, conf, priors = predictions.loc.float(), predictions.conf.float(), predictions.priors
        wanted = self._wanted(conf)
        scores = class_scores(conf[:, wanted], self.sigmoid).transpose(1, 2)  # [B, C - 1, wanted priors]
        scores, rank = scores.topk(min(self.max_detections, len(wanted)), dim=2)
        prior = wanted[rank]
        image, label, rank = (scores > self.score_threshold).nonzero(as_tuple=True)
        scores, prior = scores[image, label, rank], prior[image, label, rank]
        boxes = decode_boxes(loc[image, prior], priors[prior], self.variance)
        keep = self._nms(boxes, scores, image * predictions.conf.shape[2] + label)
        image, label, boxes, scores = image[keep], label[keep], boxes[keep], scores[keep]
        if sizes is not None:
            boxes = boxes * sizes.to(boxes).flip(1).repeat(1, 2)[image]
        return self._split(image, boxes, scores, label + 1, len(loc), sizes)

    def _wanted(self, conf: Tensor) -> Tensor:
        """Indices of the priors that may have a score above the threshold in some image.

        A trained network is sure of the background almost everywhere, and a score is less than exp(its odds against
        the background): most priors are out before anything is exponentiated.
        """
        if self.score_threshold <= 0:
            return torch.arange(conf.shape[1], device=conf.device)
        planes = conf.transpose(1, 2).contiguous()  # comparing planes is many times faster than comparing neighbours
        odds = log_odds(planes[:, 1:].amax(1), planes[:, 0], self.sigmoid)
        return (odds > math.log(self.score_threshold)).any(0).nonzero()[:, 0]

    def _nms(self, boxes: Tensor, scores: Tensor, group: Tensor) -> Tensor:
        """Indices that survive NMS within each group; `group` is ascending and scores descend within it."""
        if boxes.is_cuda:
            return batched_nms(boxes.double(), scores, group, self.iou_threshold)
        # On the CPU NMS is quadratic in its input: many small calls beat one over shifted boxes.
        _, counts = group.unique_consecutive(return_counts=True)
        kept, start = [], 0
        for count in counts.tolist():
            stop = start + count
            kept.append(nms(boxes[start:stop], scores[start:stop], self.iou_threshold) + start)
            start = stop
        return torch.cat(kept) if kept else group

    def _split(self, image, boxes, scores, labels, num_images: int, sizes) -> list[Detections]:
        """One Detections for each image, best scores first (equal ones by label)."""
        order = scores.argsort(descending=True, stable=True)
        order = order[image[order].argsort(stable=True)]
        counts = torch.bincount(image, minlength=num_images).tolist()
        found = []
        for i, rows in enumerate(order.split(counts)):
            rows = rows[: self.max_per_image] if self.max_per_image else rows
            kept = boxes[rows]
            if self.clip:
                height, width = (1.0, 1.0) if sizes is None else sizes[i].tolist()
                kept = clip_boxes(kept, height, width)
            found.append(Detections(kept, scores[rows], labels[rows]))
        return found
