"""Losses of the predicted boxes: smooth L1 on the encoded offsets, or one minus an overlap of the decoded boxes."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .box import decode_boxes, encode_boxes

LARGEST_SCALE = math.log(1000 / 16)  # beyond it a box is out of all proportion to its prior
LARGEST_SHIFT = 1e4  # in prior sizes


class BoxLoss:
    """Callable (loc, boxes, priors, positive) -> the loss summed over the positive priors, times `weight`.

    loc [B, P, 4] are predicted offsets, boxes [B, P, 4] xyxy those of the matched objects (anything where a prior is
    not positive), priors [P, 4] cxcywh.  `kind` is smooth_l1 or one of `overlap_loss`.
    """

    def __init__(self, kind: str = "smooth_l1", variance=(0.1, 0.2), weight: float = 1.0):
        self.kind, self.variance, self.weight = kind, tuple(variance), weight

    def __call__(self, loc: Tensor, boxes: Tensor, priors: Tensor, positive: Tensor) -> Tensor:
        if loc.is_cuda:  # dense: picking rows would make the host wait for their number
            loss = self._dense(loc, boxes, priors, positive)
        else:
            image, prior = positive.nonzero(as_tuple=True)
            loss = self._loss(loc[image, prior], boxes[image, prior], priors[prior])
        return loss if self.weight == 1 else loss * self.weight

    def _loss(self, loc: Tensor, boxes: Tensor, priors: Tensor) -> Tensor:
        if self.kind == "smooth_l1":
            return F.smooth_l1_loss(loc, encode_boxes(boxes, priors, self.variance), reduction="sum")
        return overlap_loss(self.kind, self._decode(loc, priors), boxes).sum()

    def _dense(self, loc: Tensor, boxes: Tensor, priors: Tensor, positive: Tensor) -> Tensor:
        """The same over all priors, of which those that are not positive get their own prediction as the target."""
        if self.kind == "smooth_l1":
            encoded = encode_boxes(boxes, priors, self.variance)
            encoded = torch.where(positive[..., None], encoded, loc.detach())
            return F.smooth_l1_loss(loc, encoded, reduction="sum")
        predicted = self._decode(loc, priors)
        loss = overlap_loss(self.kind, predicted, torch.where(positive[..., None], boxes, predicted.detach()))
        return torch.where(positive, loss, 0).sum()

    def _decode(self, loc: Tensor, priors: Tensor) -> Tensor:
        """Boxes xyxy, kept within what squares to a finite number, since nothing bounds offsets early in training."""
        shift, scale = LARGEST_SHIFT / self.variance[0], LARGEST_SCALE / self.variance[1]
        bounded = torch.cat([loc[..., :2].clamp(-shift, shift), loc[..., 2:].clamp(-scale, scale)], -1)
        return decode_boxes(bounded, priors, self.variance)


def overlap_loss(kind: str, boxes: Tensor, others: Tensor) -> Tensor:
    """One minus the overlap of each of boxes [..., 4] with its own of others [..., 4], both xyxy and with an area.

    giou (arXiv 1902.09630) takes off the part of the hull of both that neither covers, diou (arXiv 1911.08287) the
    squared distance of the centres by that of the hull's corners, ciou also the difference in aspect ratio.  Unlike
    those of torchvision.ops these never make the host wait for a GPU, and add no constant that would count beside the
    areas of small boxes in the unit square.
    """
    size, other_size = boxes[..., 2:] - boxes[..., :2], others[..., 2:] - others[..., :2]
    low = torch.maximum(boxes[..., :2], others[..., :2])
    intersection = (torch.minimum(boxes[..., 2:], others[..., 2:]) - low).clamp(min=0).prod(-1)
    union = size.prod(-1) + other_size.prod(-1) - intersection
    hull = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2])
    loss = 1 - intersection / union
    if kind == "giou":
        return loss + 1 - union / hull.prod(-1)
    between = (boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]) / 2
    distance = between.square().sum(-1) / hull.square().sum(-1)
    if kind == "diou":
        return loss + distance
    angles = torch.atan2(other_size[..., 0], other_size[..., 1]) - torch.atan2(size[..., 0], size[..., 1])
    aspect = 4 / math.pi**2 * angles.square()
    weight = (aspect / (loss + aspect).clamp(min=1e-7)).detach()
    return loss + distance + weight * aspect
