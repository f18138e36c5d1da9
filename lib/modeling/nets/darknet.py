"""Darknet-19 (arXiv 1612.08242) and Darknet-53 (arXiv 1804.02767) in the layout of the reference family."""

from functools import partial

from torch import nn

from ...layers.blocks import conv_bn
from .backbone import NETS, Backbone, ConvLayer, FeatureInfo

LEAKY = partial(nn.LeakyReLU, 0.1)

# Output channels of the 3x3 convolutions, M a 2x2 pool; one that keeps the channels has a 1x1 convolution before it.
DARKNET_19 = [32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, 512, "M", 1024, 1024, 1024]
# Channels and blocks of each stage; its first layer is a 3x3 convolution of stride 2.
DARKNET_53 = [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]


@NETS.register("darknet_19")
def build_darknet_19() -> Backbone:
    """Darknet-19 up to its classifier, 17 layers: convolutions, pools, and pairs of a 1x1 and a 3x3 convolution."""
    layers, info = [], []
    channels, total = 3, 1
    for entry in DARKNET_19:
        if entry == "M":
            layers.append(nn.MaxPool2d(2, 2))
            total *= 2
        elif entry == channels:
            layers.append(_pair(channels, residual=False))
        else:
            layers.append(_convolution(channels, entry))
            channels = entry
        info.append(FeatureInfo(channels, total))
    return Backbone(layers, info)


@NETS.register("darknet_53")
def build_darknet_53() -> Backbone:
    """Darknet-53 up to its classifier, 29 layers: in each stage a convolution with stride, then residual pairs."""
    layers, info = [_convolution(3, 32)], [FeatureInfo(32, 1)]
    total = 1
    for channels, blocks in DARKNET_53:
        layers.append(_convolution(channels // 2, channels, stride=2))
        layers += [_pair(channels, residual=True) for _ in range(blocks)]
        total *= 2
        info += [FeatureInfo(channels, total)] * (1 + blocks)
    return Backbone(layers, info)


def _convolution(in_channels: int, channels: int, stride: int = 1) -> ConvLayer:
    return ConvLayer(conv_bn(in_channels, channels, 3, stride, activation=LEAKY))


def _pair(channels: int, residual: bool) -> ConvLayer:
    """1x1 to half the channels and 3x3 back to all of them."""
    narrow = conv_bn(channels, channels // 2, 1, activation=LEAKY)
    return ConvLayer(narrow + conv_bn(channels // 2, channels, 3, activation=LEAKY), residual)


DARKNETS = ("darknet_19", "darknet_53")
"""The bases here, which Darknet's files of weights fit."""
