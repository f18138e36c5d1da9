"""Fresh weights for training from scratch."""

from torch import nn

from .ssds.head import Head, TowerHead


def initialize_weights(model: nn.Module) -> None:
    """He initialisation (arXiv 1502.01852) for convolutions, identity for norms, small values for the head.

    The head starts near equal scores for all classes (RetinaNet, arXiv 1708.02002, section 4.1); with larger values
    the first hard negatives, chosen among thousands of priors, dominate everything.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for head in (m for m in model.modules() if isinstance(m, (Head, TowerHead))):
        for layer in [*head.loc_predictors(), *head.conf_predictors()]:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
