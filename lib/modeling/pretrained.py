"""Weights of base networks from elsewhere, in the names and shapes of our base networks.

Everything here is a pure function of state dicts.  Names of the result are those of a detector's state dict:
`backbone.layers.<i>...`, the layers as FEATURE_LAYER counts them.
"""

import math
import re

import torch
from torch import Tensor
from torchvision.models import (
    MobileNet_V2_Weights,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    VGG16_Weights,
)

from ..utils.errors import UserError
from ..utils.timm_models import is_timm

# Where torchvision has two, those of the plain recipe: the others gain on ImageNet by label smoothing, mixup and
# averaging, which are fitted to that task; torchvision's own detectors start from plain weights.
IMAGENET_WEIGHTS = {
    "vgg16": VGG16_Weights.IMAGENET1K_V1,
    "vgg16_S1L2": VGG16_Weights.IMAGENET1K_V1,
    "vgg16_S2L2_5": VGG16_Weights.IMAGENET1K_V1,
    "resnet_18": ResNet18_Weights.IMAGENET1K_V1,
    "resnet_34": ResNet34_Weights.IMAGENET1K_V1,
    "resnet_50": ResNet50_Weights.IMAGENET1K_V1,
    "resnet_101": ResNet101_Weights.IMAGENET1K_V1,
    "mobilenet_v2_full": MobileNet_V2_Weights.IMAGENET1K_V1,
    "mobilenet_v2": MobileNet_V2_Weights.IMAGENET1K_V1,
}
"""torchvision's weights for the bases that they fit; `.url` is where they are."""

PREFIX = "backbone."
NORM_EPS = 1e-5  # of our batch norms, and of torchvision's
FC6_MAP = (512, 7, 7)  # what VGG flattens for its first fully connected layer
VGG_CLASSIFIER = {"classifier.0": 31, "classifier.3": 33}
# Places within a layer of mobilenet_v2, torchvision's and ours: the stem, the first block, which has no expansion
# there, and the others.
V2_STEM = {"0": 0, "1": 1}
V2_FIRST = {"conv.0.0": 3, "conv.0.1": 4, "conv.1": 6, "conv.2": 7}
V2_BLOCK = {"conv.0.0": 0, "conv.0.1": 1, "conv.1.0": 3, "conv.1.1": 4, "conv.2": 6, "conv.3": 7}
V2_LAST = {"0": 0, "1": 1}
V2_LAST_LAYER = 18
RESNET_STEM = {"conv1": 0, "bn1": 1}
RESNET_STEM_LAYERS = 4
RESNET_BLOCKS = {"resnet_18": (2, 2, 2), "resnet_34": (3, 4, 6), "resnet_50": (3, 4, 6), "resnet_101": (3, 4, 23)}


def is_torchvision(state: dict[str, Tensor]) -> bool:
    """Whether a state dict has the names of torchvision's classification models."""
    return any(name.startswith(("features.", "layer1.")) for name in state)


def base_state(net: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in `state` by the names of the base network `net`; other entries may remain.

    Known are torchvision's classification models for vgg16, mobilenet_v2 and the resnets, those of timm for timm's
    bases, state dicts of our detectors, and those of a base alone, whose names begin with `layers.` or with the number
    of the layer.
    """
    if is_timm(net) and not any(name.startswith((PREFIX, "layers.net.")) for name in state):
        return {f"{PREFIX}layers.net.{name}": tensor for key, tensor in state.items() for name in _names_in_timm(key)}
    if is_torchvision(state):
        if net in RESNET_BLOCKS:
            return resnet_from_torchvision(state, RESNET_BLOCKS[net])
        for family, convert in (("vgg16", vgg16_from_torchvision), ("mobilenet_v2", mobilenet_v2_from_torchvision)):
            if net.startswith(family):
                return convert(state)
        return dict(state)
    return {re.sub(r"^(layers\.)?(?=\d+\.)", f"{PREFIX}layers.", name): tensor for name, tensor in state.items()}


def vgg16_from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's vgg16: its layers up to conv5_3, and the first two fully connected ones as fc6 and fc7."""
    result = {}
    for name, tensor in state.items():
        place, _, leaf = name.rpartition(".")
        if place in VGG_CLASSIFIER:
            result[f"{PREFIX}layers.{VGG_CLASSIFIER[place]}.{leaf}"] = decimate(tensor)
        elif place.startswith("features."):
            result[f"{PREFIX}layers.{place.removeprefix('features.')}.{leaf}"] = tensor
    return result


def decimate(tensor: Tensor) -> Tensor:
    """Every 4th output of a fully connected layer of VGG, as weights of a convolution or as its bias.

    [N, 25088] over a map of 7x7 -> [N / 4, 512, 3, 3] with every 3rd cell in each direction; [N, K] over the outputs of
    such a layer -> [N / 4, K / 4, 1, 1]; biases [N] -> [N / 4].  (SSD section 3; DeepLab, arXiv 1412.7062.)
    """
    if tensor.dim() == 1:
        return tensor[::4]
    if tensor.dim() == 2 and tensor.shape[1] == math.prod(FC6_MAP):
        return tensor.unflatten(1, FC6_MAP)[::4, :, ::3, ::3]
    return tensor[::4, ::4, None, None] if tensor.dim() == 2 else tensor


def mobilenet_v2_from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's mobilenet_v2, with an expansion in its first block as well."""
    result = {}
    for name, tensor in state.items():
        parts = re.fullmatch(r"features\.(\d+)\.(.+)\.(\w+)", name)
        index, place, leaf = (int(parts[1]), parts[2], parts[3]) if parts else (0, "", "")
        places = {0: V2_STEM, 1: V2_FIRST, V2_LAST_LAYER: V2_LAST}.get(index, V2_BLOCK)
        if place in places:
            result[f"{PREFIX}layers.{index}.conv.{places[place]}.{leaf}"] = tensor
    stem = [result.get(f"{PREFIX}layers.0.conv.1.{leaf}") for leaf in ("weight", "bias")]
    if all(tensor is not None for tensor in stem):
        result |= {f"{PREFIX}layers.1.conv.{name}": tensor for name, tensor in identity_expansion(*stem).items()}
    return result


def resnet_from_torchvision(state: dict[str, Tensor], blocks_per_stage) -> dict[str, Tensor]:
    """torchvision's resnets without layer4 and the classifier; UserError for one with other numbers of blocks."""
    stages = range(1, len(blocks_per_stage) + 1)
    found = tuple(len({name.split(".")[1] for name in state if name.startswith(f"layer{s}.")}) for s in stages)
    if found != tuple(blocks_per_stage):
        raise UserError(f"the file holds a ResNet of {list(found)} blocks, the base has {list(blocks_per_stage)}")
    starts = {f"layer{s}": RESNET_STEM_LAYERS + sum(blocks_per_stage[: s - 1]) for s in stages}
    result = {}
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        if head in RESNET_STEM:
            result[f"{PREFIX}layers.{RESNET_STEM[head]}.{rest}"] = tensor
        elif head in starts:
            block, _, leaf = rest.partition(".")
            result[f"{PREFIX}layers.{starts[head] + int(block)}.{leaf}"] = tensor
    return result


def _names_in_timm(name: str) -> list[str]:
    """A name of timm's classification model in the forms that it can have in the one that returns feature maps: as it
    is, below the whole network, and with the first two parts in one."""
    return [name, f"body.{name}", f"model.{name}", name.replace(".", "_", 1)]


def identity_expansion(stem_weight: Tensor, stem_bias: Tensor) -> dict[str, Tensor]:
    """A 1x1 convolution and batch norm that return what comes out of a stem's batch norm [C] and ReLU6, unchanged.

    A norm whose weight and bias restore the variance and the mean that it takes away is the identity, whatever these
    are; but in training it takes away those of the batch.  So they are the ones to be expected there: the stem's norm
    emits values with mean `stem_bias` and deviation `stem_weight`, taken as normally distributed, and ReLU6 clips them.
    """
    quantiles = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    values = (stem_bias.double()[:, None] + stem_weight.double()[:, None] * quantiles).clamp(0, 6)
    mean, variance = values.mean(1), values.var(1, correction=0)
    return {
        "0.weight": torch.eye(len(stem_weight), dtype=stem_weight.dtype)[:, :, None, None],
        "1.weight": (variance + NORM_EPS).sqrt(),
        "1.bias": mean,
        "1.running_mean": mean,
        "1.running_var": variance,
    }
