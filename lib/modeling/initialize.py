"""Fresh weights for training from scratch."""

import math

import torch
from torch import nn

from ..layers.bottleneck_lstm import BottleneckLSTM
from .ssds.head import Head, TowerHead


def initialize_weights(model: nn.Module, prior_probability: float | None = None, sigmoid: bool = False) -> None:
    """He initialisation (arXiv 1502.01852) for convolutions, identity for norms, small values for the head; memories
    have a rule of their own.

    The head starts near equal scores for all classes; with larger values the first hard negatives, chosen among
    thousands of priors, dominate everything.  With `prior_probability` every prior starts with that much belief in an
    object, so that the many that see none do not dominate (RetinaNet, arXiv 1708.02002, section 4.1): each class with
    `sigmoid` scores, all together under a softmax, where the logit of the background carries it.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for cell in (m for m in model.modules() if isinstance(m, BottleneckLSTM)):
        cell.reset_parameters()
    for head in (m for m in model.modules() if isinstance(m, (Head, TowerHead))):
        for layer in [*head.loc_predictors(), *head.conf_predictors()]:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        if prior_probability is not None:
            for layer in head.conf_predictors():
                _set_class_bias(layer.bias, head.num_classes, prior_probability, sigmoid)


@torch.no_grad()
def _set_class_bias(bias: torch.Tensor, num_classes: int, prior_probability: float, sigmoid: bool) -> None:
    by_class = bias.view(-1, num_classes)
    odds = (1 - prior_probability) / prior_probability
    if sigmoid:
        by_class[:, 1:] = -math.log(odds)
    else:
        by_class[:, 0] = math.log((num_classes - 1) * odds)
