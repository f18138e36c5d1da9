"""The MultiBox loss of SSD (arXiv 1512.02325 section 2.2): a box loss on matched priors, softmax cross entropy with
hard negative mining on the classes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import Predictions, Target
from ..utils.distributed import sum_over_processes
from .box_loss import BoxLoss
from .matcher import Matcher


class MultiBoxLoss(nn.Module):
    """Callable (Predictions, list of B Targets) -> {"loc_loss", "conf_loss"}, both divided by the number of positives.

    `negatives_per_positive` hardest background priors of each image enter the classification loss; an image in which
    nothing matched gives its `negatives_if_empty` hardest ones and counts as one positive, so that a batch without
    objects still teaches the background and never divides by zero.  Each negative counts `negative_weight`.  In
    training the positives are those of all processes together, whose losses add up to that of the whole batch.
    """

    def __init__(
        self,
        matcher: Matcher,
        box_loss: BoxLoss | None = None,
        negatives_per_positive: int = 3,
        negatives_if_empty: int = 10,
        negative_weight: float = 1.0,
    ):
        super().__init__()
        self.matcher = matcher
        self.box_loss = box_loss or BoxLoss()
        self.negatives_per_positive = negatives_per_positive
        self.negatives_if_empty = negatives_if_empty
        self.negative_weight = negative_weight

    def forward(self, predictions: Predictions, targets: list[Target]) -> dict[str, Tensor]:
        loc, conf, priors = predictions.loc.float(), predictions.conf.float(), predictions.priors
        boxes, labels, ignored = self.matcher(targets, priors)
        positive = labels > 0
        num_positives = positive.sum(1)
        normaliser = num_positives.clamp(min=1).sum()
        if self.training:
            normaliser = sum_over_processes(normaliser)
        negative = self._hard_negatives(conf, positive | ignored, num_positives)
        return {
            "loc_loss": self.box_loss(loc, boxes, priors, positive) / normaliser,
            "conf_loss": self._conf_loss(conf, labels, positive, negative) / normaliser,
        }

    def _conf_loss(self, conf: Tensor, labels: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.negative_weight == 1:
            return _cross_entropy_sum(conf, labels, positive | negative)
        negatives = _cross_entropy_sum(conf, labels, negative)
        return _cross_entropy_sum(conf, labels, positive) + self.negative_weight * negatives

    @torch.no_grad()
    def _hard_negatives(self, conf: Tensor, excluded: Tensor, num_positives: Tensor) -> Tensor:
        """Mask [B, P] of the priors with the largest background loss outside `excluded`, as many for each image as its
        positives ask."""
        num_priors = conf.shape[1]
        wanted = (self.negatives_per_positive * num_positives).clamp(max=num_priors - 1)
        wanted = torch.where(num_positives > 0, wanted, min(self.negatives_if_empty, num_priors))
        # Cross entropy of the background class, which is the target of every negative.  log_softmax is one kernel and
        # takes half the time of logsumexp, which is five.
        loss = (-conf.log_softmax(2)[..., 0]).masked_fill(excluded, -1)
        # The largest possible number on a GPU, where asking for the real one would make the host wait.
        depth = num_priors if conf.is_cuda else int(wanted.max())
        values, order = loss.topk(depth, dim=1)
        taken = (torch.arange(depth, device=conf.device) < wanted[:, None]) & (values >= 0)
        return torch.zeros_like(excluded).scatter_(1, order, taken)


def _cross_entropy_sum(conf: Tensor, labels: Tensor, selected: Tensor) -> Tensor:
    """Cross entropy of logits conf [B, P, C] against labels [B, P], summed over the selected priors."""
    if conf.is_cuda:  # dense: picking rows would make the host wait for their number
        labels = labels.masked_fill(~selected, -100)
        return F.cross_entropy(conf.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    return F.cross_entropy(conf[selected], labels[selected], reduction="sum")
