"""Receptive field blocks (RFB Net, arXiv 1711.07767 section 3.2): branches of growing kernels and dilations.

The parts have their names in published checkpoints.  Where the reference family and the paper's authors differ, a flag
of the block tells them apart.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOMENTUM = 0.01
"""Of the batch norms of these blocks, and of the extra layers beside them."""

MIN_CHANNELS = 16
"""Input channels below which a branch would be left without any."""


class BasicConv(nn.Module):
    """Convolution without bias, batch norm and, with `relu`, ReLU.

    kernel is a number or (height, width); unless it is given, the padding keeps the map where the stride is 1.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel=1, stride=1, dilation=1, padding=None, groups=1, relu=True
    ):
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (dilation * (height // 2), dilation * (width // 2)) if padding is None else padding
        self.conv = nn.Conv2d(in_channels, channels, (height, width), stride, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(channels, momentum=MOMENTUM)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class RFB(nn.Module):
    """relu(1x1 convolution of the concatenated branches + shortcut); `branches` by their names in checkpoints."""

    def __init__(self, branches: dict[str, nn.Sequential], channels: int, shortcut: nn.Module):
        super().__init__()
        self.branches = list(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)
        concatenated = sum(branch[-1].conv.out_channels for branch in branches.values())
        self.ConvLinear = BasicConv(concatenated, channels, relu=False)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, channels, H / stride, W / stride]."""
        joined = torch.cat([getattr(self, name)(x) for name in self.branches], 1)
        return F.relu(self.ConvLinear(joined) + self.shortcut(x))


def rfb_a(channels: int) -> RFB:
    """The block of the finest source, which keeps channels and map: four branches of small kernels."""
    return RFB(_small_kernel_branches(channels, depthwise=False), channels, BasicConv(channels, channels, relu=False))


def rfb_a_lite(channels: int, depthwise: bool) -> RFB:
    """`rfb_a` with the input itself as shortcut; `depthwise`: the last layers of the branches are, as published."""
    return RFB(_small_kernel_branches(channels, depthwise), channels, nn.Identity())


def rfb(in_channels: int, channels: int, stride: int, paper: bool) -> RFB:
    """The block of the coarser sources: branches of dilation 3 and 5, with `paper` another one before them.

    The paper's authors have smaller dilations where the input has 256 channels and the block a stride, as in RFB
    Net 512.
    """
    n = in_channels // 8
    visual = 1 if paper and in_channels == 256 and stride == 2 else 2
    branches = [
        _branch(in_channels, [(n, 1, 1), (2 * n, 3, stride)], visual + 1),
        _branch(in_channels, [(n, 1, 1), (n // 2 * 3, 3, 1), (2 * n, 3, stride)], 2 * visual + 1),
    ]
    if paper:
        branches.insert(0, _branch(in_channels, [(2 * n, 1, stride)], visual))
    named = {f"branch{number}": branch for number, branch in enumerate(branches)}
    return RFB(named, channels, BasicConv(in_channels, channels, 1, stride, relu=False))


def rfb_lite(in_channels: int, channels: int, stride: int, depthwise: bool) -> RFB:
    """`rfb` with fewer channels in two branches; `depthwise`: their last layers are, as published."""
    n = in_channels // 8
    m = n // 2 * 3
    branches = {
        "branch1": _branch(in_channels, [(n, 1, 1), (m, (1, 3), 1), (m, (3, 1), stride)], 3, depthwise),
        "branch2": _branch(in_channels, [(n, 1, 1), (m, 3, 1), (m, 3, stride)], 5, depthwise),
    }
    keeps = in_channels == channels and stride == 1
    return RFB(branches, channels, nn.Identity() if keeps else BasicConv(in_channels, channels, 1, stride, relu=False))


def _small_kernel_branches(channels: int, depthwise: bool) -> dict[str, nn.Sequential]:
    n = channels // 4
    return {
        "branch0": _branch(channels, [(n, 1, 1)], 1, depthwise),
        "branch1": _branch(channels, [(n, 1, 1), (n, (3, 1), 1)], 3, depthwise),
        "branch2": _branch(channels, [(n, 1, 1), (n, (1, 3), 1)], 3, depthwise),
        "branch3": _branch(channels, [(n // 2, 1, 1), (n // 4 * 3, (1, 3), 1), (n, (3, 1), 1)], 5, depthwise),
    }


def _branch(in_channels: int, layers, dilation: int, depthwise: bool = False) -> nn.Sequential:
    """Convolutions (channels, kernel, stride), then a dilated 3x3 without ReLU on the channels of the last."""
    chain = []
    for channels, kernel, stride in layers:
        chain.append(BasicConv(in_channels, channels, kernel, stride))
        in_channels = channels
    groups = in_channels if depthwise else 1
    chain.append(BasicConv(in_channels, in_channels, 3, dilation=dilation, groups=groups, relu=False))
    return nn.Sequential(*chain)
