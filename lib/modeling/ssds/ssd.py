"""Necks of SSD (arXiv 1512.02325) and SSD-Lite (arXiv 1801.04381 section 6.2): taps of the base, then extra layers."""

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.blocks import separable_conv
from ...layers.normalize import L2Norm
from ..nets.backbone import Backbone
from .feature_layer import Level, parse_levels, usual_levels
from .neck import SSDS

# Stride and padding of the 3x3 convolution of an extra level.
TOKENS = {"S": (2, 1), "": (1, 0)}
LITE_TOKENS = {**TOKENS, "P": (2, 0), "E": (2, 1)}


class SSDNeck(nn.Module):
    """The first tap through L2Norm, the other taps as they are, and a chain of extra layers behind the base.

    `extras` is flat, `layers_per_level` entries each level, with a ReLU after each; the last of a level is its source.
    """

    def __init__(self, levels: list[Level], extras: list[nn.Module], layers_per_level: int):
        super().__init__()
        self.taps = [level.token for level in levels if level.is_tap]
        self.channels = [level.channels for level in levels]
        self.norm = L2Norm(levels[0].channels)
        self.extras = nn.ModuleList(extras)
        self.layers_per_level = layers_per_level

    def forward(self, features: list[Tensor], state=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (sources of the head, state)."""
        *taps, x = features
        sources = [self.norm(taps[0]), *taps[1:]]
        for index, layer in enumerate(self.extras, start=1):
            x = F.relu(layer(x))
            if index % self.layers_per_level == 0:
                sources.append(x)
        return sources, state


@SSDS.register("ssd")
def build_ssd(backbone: Backbone, feature_layer, image_size, num_ratios) -> SSDNeck:
    """Extra level: 1x1 to half the channels, then 3x3; plain convolutions with bias."""
    levels = parse_levels(feature_layer or usual_levels(backbone, image_size), num_ratios, backbone, TOKENS)
    extras = []
    for in_channels, level in _extra_levels(levels, backbone):
        stride, padding = TOKENS[level.token]
        half = level.channels // 2
        extras += [nn.Conv2d(in_channels, half, 1), nn.Conv2d(half, level.channels, 3, stride, padding)]
    return SSDNeck(levels, extras, layers_per_level=2)


@SSDS.register("ssd_lite")
def build_ssd_lite(backbone: Backbone, feature_layer, image_size, num_ratios) -> SSDNeck:
    """Extra level: one separable block."""
    levels = parse_levels(feature_layer or usual_levels(backbone, image_size), num_ratios, backbone, LITE_TOKENS)
    extras = [
        separable_conv(in_channels, level.channels, *LITE_TOKENS[level.token])
        for in_channels, level in _extra_levels(levels, backbone)
    ]
    return SSDNeck(levels, extras, layers_per_level=1)


# Without 'L' tokens the recurrent variant of the LSTM fork is this network.
SSDS.register("ssd_lite_RNN")(build_ssd_lite)


def _extra_levels(levels: list[Level], backbone: Backbone):
    """(input channels, level) of each level behind the base."""
    in_channels = backbone.feature_info[-1].channels
    for level in levels:
        if not level.is_tap:
            yield in_channels, level
            in_channels = level.channels
