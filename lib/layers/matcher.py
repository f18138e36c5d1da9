"""Assignment of ground truth to priors, vectorised over the batch (SSD, arXiv 1512.02325 section 2.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..structures import Target
from .box import cxcywh_to_xyxy, pairwise_iou, pairwise_share

CROWD_SHARE = 0.5
"""Share of a prior that lies on a crowd, from which on nobody knows whether it shows an object."""


class Matches(NamedTuple):
    """For each prior of each image: the object it answers for and that object's label.

    boxes [B, P, 4] xyxy of the matched object (of any object where the label is 0); labels int64 [B, P], 0 for
    background; ignored bool [B, P] marks priors too close to an object, or too far in a crowd, to be background.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor


class Matcher:
    """Matches each prior to the object it overlaps most, if the IoU reaches `threshold`; and each object to its best
    prior whatever the IoU, so that none goes unlearnt (a later object wins a prior that two want).

    Priors whose IoU lies between `background_threshold` and `threshold` are neither object nor background; by default
    there are none.  Crowds (Target.crowd) are matched to nothing, and priors of whose area CROWD_SHARE lies on one are
    no background, as COCO's evaluation counts no detection there as wrong.  Like there, the intersection is over the
    prior's own area, since a crowd is far larger than the objects in it.
    """

    def __init__(self, threshold: float = 0.5, background_threshold: float | None = None):
        self.threshold = threshold
        self.background_threshold = threshold if background_threshold is None else background_threshold

    @torch.no_grad()
    def __call__(self, targets: list[Target], priors: Tensor) -> Matches:
        """Matches of the targets of B images with priors [P, 4] cxcywh, on the device of the priors."""
        if not any(target.crowd.any() for target in targets):
            return self._match(targets, priors)
        matches = self._match([_part(target, ~target.crowd) for target in targets], priors)
        crowds = pad_targets([_part(target, target.crowd) for target in targets], priors)[0]
        inside = (pairwise_share(cxcywh_to_xyxy(priors), crowds) >= CROWD_SHARE).any(2)
        return matches._replace(ignored=matches.ignored | inside & (matches.labels == 0))

    def _match(self, targets: list[Target], priors: Tensor) -> Matches:
        boxes, labels, num_objects = pad_targets(targets, priors)
        if boxes.shape[1] == 0:
            shape = (len(targets), len(priors))
            return Matches(boxes.new_zeros(*shape, 4), labels.new_zeros(shape), labels.new_zeros(shape).bool())
        present = torch.arange(boxes.shape[1], device=boxes.device) < num_objects[:, None]
        iou = pairwise_iou(boxes, cxcywh_to_xyxy(priors))  # [B, N, P]; padding has no area and so IoU 0
        best_iou, matched = iou.max(1)
        own_iou, own_prior = iou.max(2)
        forced = self._forced(own_prior, present & (own_iou > 0), len(priors))
        positive = (best_iou >= self.threshold) | (forced >= 0)
        matched = torch.where(forced >= 0, forced, matched)
        matched_boxes = boxes.gather(1, matched[..., None].expand(-1, -1, 4))
        matched_labels = labels.gather(1, matched).masked_fill_(~positive, 0)
        return Matches(matched_boxes, matched_labels, ~positive & (best_iou >= self.background_threshold))

    @staticmethod
    def _forced(own_prior: Tensor, valid: Tensor, num_priors: int) -> Tensor:
        """Index of the object that claims each prior as its best one, -1 for none [B, P]."""
        num_images, num_objects = own_prior.shape
        order = torch.arange(num_objects, device=own_prior.device).expand(num_images, -1)
        order = torch.where(valid, order, -1)
        forced = torch.full((num_images, num_priors), -1, device=own_prior.device)
        # amax instead of plain scatter: with two claims on a prior the later object wins on every device.
        return forced.scatter_reduce_(1, own_prior, order, "amax")


def _part(target: Target, chosen: Tensor) -> Target:
    """The objects that the mask `chosen` picks, without making the host wait: crowd stays where it was loaded."""
    if chosen.all():
        return target
    rows = chosen.nonzero().flatten().to(target.boxes.device, non_blocking=True)
    return Target(target.boxes[rows], target.labels[rows])


def pad_targets(targets: list[Target], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [B, N, 4], labels [B, N] and counts [B] of B targets on the device of `like`, padded with zeros to the
    largest count N."""
    counts = [len(target.labels) for target in targets]
    boxes = torch.nn.utils.rnn.pad_sequence([t.boxes.to(like) for t in targets], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence([t.labels.to(like.device) for t in targets], batch_first=True)
    return boxes, labels, torch.tensor(counts, device=like.device)
