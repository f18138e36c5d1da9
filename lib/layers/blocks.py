"""Convolution blocks shared by base networks and necks.

They return flat `nn.Sequential`s: the position of a layer is its name in published checkpoints.
"""

from torch import nn


def conv_bn(
    in_channels: int, channels: int, kernel=3, stride=1, padding=None, groups=1, activation=nn.ReLU, bias=False
) -> list[nn.Module]:
    """Convolution, by default without bias, batch norm and, unless `activation` is None, the activation."""
    padding = kernel // 2 if padding is None else padding
    layers = [
        nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=bias),
        nn.BatchNorm2d(channels),
    ]
    return layers + ([activation(inplace=True)] if activation else [])


def separable_conv(in_channels: int, channels: int, stride=1, padding=1, hidden: int | None = None) -> nn.Sequential:
    """The extra layer of SSD-Lite: 1x1 to `hidden` (default: `channels`), 3x3 depthwise with the stride, 1x1 linear;
    layers 0, 3, 6 are the convolutions, each followed by its batch norm, ReLU6 after the first two."""
    hidden = hidden or channels
    return nn.Sequential(
        *conv_bn(in_channels, hidden, 1, activation=nn.ReLU6),
        *conv_bn(hidden, hidden, 3, stride, padding, groups=hidden, activation=nn.ReLU6),
        *conv_bn(hidden, channels, 1, activation=None),
    )
