"""The focal loss (RetinaNet, arXiv 1708.02002): every prior counts, the easy ones next to nothing."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import Predictions, Target
from ..utils.distributed import sum_over_processes
from .box_loss import BoxLoss
from .matcher import Matcher


class FocalLoss(nn.Module):
    """Callable (Predictions, list of B Targets) -> {"loc_loss", "conf_loss"}, both divided by the number of positives
    of the batch, in training of the batches of all processes together, whose losses add up to that of the whole.

    Priors that the matcher ignores are left out.  With `sigmoid` every class but the background is a question of its
    own, as in the paper, and the background's logit stays unused; else the classes share one softmax.
    """

    def __init__(
        self,
        matcher: Matcher,
        box_loss: BoxLoss | None = None,
        alpha: float = 0.25,
        gamma: float = 2.0,
        sigmoid: bool = False,
    ):
        super().__init__()
        self.matcher = matcher
        self.box_loss = box_loss or BoxLoss()
        self.alpha, self.gamma = alpha, gamma
        self.focal = sigmoid_focal if sigmoid else softmax_focal

    def forward(self, predictions: Predictions, targets: list[Target]) -> dict[str, Tensor]:
        loc, conf, priors = predictions.loc.float(), predictions.conf.float(), predictions.priors
        boxes, labels, ignored = self.matcher(targets, priors)
        positive = labels > 0
        normaliser = positive.sum()
        if self.training:
            normaliser = sum_over_processes(normaliser)
        normaliser = normaliser.clamp(min=1)
        conf_loss = self.focal(conf, labels, self.alpha, self.gamma)
        return {
            "loc_loss": self.box_loss(loc, boxes, priors, positive) / normaliser,
            "conf_loss": conf_loss.masked_fill(ignored, 0).sum() / normaliser,
        }


def softmax_focal(conf: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss [B, P] of softmax logits [B, P, C] against labels [B, P]; alpha weighs the objects, 1 - alpha the
    background."""
    cross_entropy = F.cross_entropy(conf.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    # From below, because the gradient of a fractional power is infinite at 0.
    doubt = (-torch.expm1(-cross_entropy)).clamp(min=1e-12)
    return torch.where(labels > 0, alpha, 1 - alpha) * doubt**gamma * cross_entropy


def sigmoid_focal(conf: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss [B, P] of logits [B, P, C] against labels [B, P], summed over the classes from 1: alpha weighs the
    one that is there, 1 - alpha those that are not."""
    classes = torch.arange(1, conf.shape[2], device=conf.device)
    present = labels[..., None] == classes
    wrong = torch.where(present, -conf[..., 1:], conf[..., 1:])  # the logit of being wrong
    cross_entropy = F.softplus(wrong)
    doubt = torch.exp(gamma * (wrong - cross_entropy))  # wrong - softplus(wrong) is the logarithm of sigmoid(wrong)
    return (torch.where(present, alpha, 1 - alpha) * doubt * cross_entropy).sum(2)
