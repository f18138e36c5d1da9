"""ResNet (arXiv 1512.03385) without its last stage, in the layout of the reference family."""

from functools import partial

from torch import Tensor, nn

from .backbone import NETS, Backbone, FeatureInfo

WIDTHS = (64, 128, 256)
"""Channels inside the blocks of the stages there are."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which the input goes, by a 1x1 convolution where it changes its shape."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _convolution(in_channels, width, 3, stride)
        self.conv2, self.bn2 = _convolution(width, width, 3)
        self.downsample = _projection(in_channels, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, width, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride and 1x1 convolution to four times the width, around which the input goes."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _convolution(in_channels, width, 1)
        self.conv2, self.bn2 = _convolution(width, width, 3, stride)
        self.conv3, self.bn3 = _convolution(width, width * self.expansion, 1)
        self.downsample = _projection(in_channels, width * self.expansion, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, 4 * width, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def build_resnet(block, blocks_per_stage, last_stride: int = 16) -> Backbone:
    """The stem as four layers (convolution, norm, activation, pool), then one layer a block of the first three stages,
    or of as many as `blocks_per_stage` counts; stages keep the map once it has `last_stride`.

    The fourth stage, at stride 32, is left out: detectors put their extra levels in its place.
    """
    # The activation is not in place: the output of the norm, a layer of its own, can be tapped.
    layers = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    channels, total = 64, 4
    info, unstrided = [FeatureInfo(channels, 2)] * 3 + [FeatureInfo(channels, total)], []
    for stage, (width, blocks) in enumerate(zip(WIDTHS, blocks_per_stage, strict=False)):
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            if stride > 1 and total == last_stride:
                stride, unstrided = 1, [*unstrided, len(layers)]
            layers.append(block(channels, width, stride))
            channels, total = width * block.expansion, total * stride
            info.append(FeatureInfo(channels, total))
    return Backbone(layers, info, unstrided=unstrided)


def _convolution(in_channels: int, channels: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels)


def _projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Empty, which is the identity, where the shape stays."""
    return nn.Sequential(
        *([] if stride == 1 and in_channels == channels else _convolution(in_channels, channels, 1, stride))
    )


NETS.register("resnet_18")(partial(build_resnet, BasicBlock, (2, 2, 2)))
NETS.register("resnet_34")(partial(build_resnet, BasicBlock, (3, 4, 6)))
NETS.register("resnet_50")(partial(build_resnet, Bottleneck, (3, 4, 6)))
NETS.register("resnet_101")(partial(build_resnet, Bottleneck, (3, 4, 23)))
# For memories on fine maps: the whole of a base at stride 8, and as its counterpart for images of half the size the
# first stage alone, which ends at stride 4.
NETS.register("resnet_18_stride8")(partial(build_resnet, BasicBlock, (2, 2, 2), 8))
NETS.register("resnet_18_stage1")(partial(build_resnet, BasicBlock, (2,)))
