"""Inference without batch norms: each becomes part of the convolution before it."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..layers.synced_norm import BATCH_NORMS
from .nets.backbone import Backbone

PAIRS = (("conv", "bn"), ("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
"""Names under which modules hold a convolution and the norm that alone reads it."""


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of a detector for inference that computes the same, up to rounding, in fewer steps.

    In evaluation a batch norm is a factor and a summand for each channel, which the convolution before it can take on.
    The copy is in evaluation mode and of no use for training; places of the base that a neck taps stay as they are, and
    so do bases of other libraries.
    """
    model = copy.deepcopy(model).eval()
    foreign = set()  # what other libraries built: in which order it runs its parts is not known
    for module in list(model.modules()):
        if isinstance(module, Backbone) and isinstance(module.layers, nn.ModuleList):
            _fold_chain(module.layers, {tap for tap in module.taps if isinstance(tap, int)} | {module.split_at})
            for layer, place in (tap for tap in module.taps if isinstance(tap, tuple)):
                module.layers[layer].conv[place].tapped = True
        elif isinstance(module, Backbone):
            foreign.update(module.layers.modules())
    for module in [module for module in model.modules() if module not in foreign]:
        if isinstance(module, nn.Sequential):
            _fold_chain(module, {i for i, layer in enumerate(module) if getattr(layer, "tapped", False)})
        for conv, norm in PAIRS:
            if _are_pair(getattr(module, conv, None), getattr(module, norm, None)):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return model


def _fold_chain(layers, kept: set) -> None:
    """Fold the norms of a chain, but for those behind the places whose output is needed as it is."""
    for index in range(len(layers) - 1):
        if index not in kept and _are_pair(layers[index], layers[index + 1]):
            layers[index] = fuse_conv_bn_eval(layers[index], layers[index + 1])
            layers[index + 1] = nn.Identity()


def _are_pair(layer, norm) -> bool:
    return type(layer) is nn.Conv2d and type(norm) in BATCH_NORMS
