"""Necks of SSD (arXiv 1512.02325) and SSD-Lite (arXiv 1801.04381 section 6.2): taps of the base, then extra layers."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.blocks import separable_conv
from ...layers.normalize import L2Norm
from ...utils.errors import UserError
from ..nets.backbone import Backbone, Tap
from .feature_layer import Level, build_levels
from .neck import SSDS, Neck, NeckSpec

# Kernel, stride and padding of the last convolution of an extra level.
TOKENS = {"S": (3, 2, 1), "": (3, 1, 0), "K4": (4, 1, 1)}
LITE_TOKENS = {"S": (3, 2, 1), "": (3, 1, 0), "P": (3, 2, 0), "E": (3, 2, 1)}

NORMS = {"l2": L2Norm, "batch": nn.BatchNorm2d, "none": lambda channels: nn.Identity()}


class SSDNeck(Neck):
    """The first tap through a norm, the other taps as they are, and a chain of extra layers behind the base.

    `extras` is flat, `layers_per_level` entries each level, with an activation after each; the last of a level is its
    source.
    """

    def __init__(self, levels: list[Level], extras: list[nn.Module], layers_per_level: int, spec: NeckSpec):
        super().__init__()
        self.taps = [level.tap for level in levels if level.is_tap]
        self.channels = [level.channels for level in levels]
        self.norm = NORMS[spec.source_norm](levels[0].channels)
        if spec.norm_in_trunk and not isinstance(self.taps[0], int):
            raise UserError(
                f"MODEL.NORM_IN_TRUNK: the first source, {levels[0].token!r}, lies inside a layer, where no norm can "
                "be put in; give a whole layer"
            )
        self.norm_in_trunk = spec.norm_in_trunk
        self.extras = nn.ModuleList(extras)
        self.layers_per_level = layers_per_level
        self.activation = F.relu if spec.extras_activation == "relu" else nn.Identity()

    def inserts(self) -> Mapping[Tap, nn.Module]:
        """The norm, where the base goes on from it."""
        return {self.taps[0]: self.norm} if self.norm_in_trunk else {}

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (sources of the head, state)."""
        return self.run(features, lambda layer, x: layer(x)), state

    def run(self, features: list[Tensor], apply: Callable[[nn.Module, Tensor], Tensor]) -> list[Tensor]:
        """The sources of the head; `apply` gives the output of an extra layer before its activation."""
        *taps, x = features
        sources = [taps[0] if self.norm_in_trunk else self.norm(taps[0]), *taps[1:]]
        for index, layer in enumerate(self.extras, start=1):
            x = self.activation(apply(layer, x))
            if index % self.layers_per_level == 0:
                sources.append(x)
        return sources


@SSDS.register("ssd")
def build_ssd(backbone: Backbone, spec: NeckSpec) -> SSDNeck:
    """Extra level: 1x1 to half the channels, then 3x3; plain convolutions with bias."""
    levels = build_levels(spec, backbone, TOKENS)
    return SSDNeck(levels, plain_extras(levels, backbone), 2, spec)


@SSDS.register("ssd_lite")
def build_ssd_lite(backbone: Backbone, spec: NeckSpec) -> SSDNeck:
    """Extra level: one separable block."""
    levels = build_levels(spec, backbone, LITE_TOKENS)
    return SSDNeck(levels, separable_extras(levels, backbone), 1, spec)


def plain_extras(levels: list[Level], backbone: Backbone, in_channels: int | None = None) -> list[nn.Module]:
    """Two convolutions with bias for each level behind the base: 1x1 to half the channels, and that of TOKENS."""
    extras = []
    for width, level in extra_levels(levels, backbone, in_channels):
        kernel, stride, padding = TOKENS[level.token]
        hidden = level.hidden or max(level.channels // 2, 1)
        extras += [nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, level.channels, kernel, stride, padding)]
    return extras


def separable_extras(levels: list[Level], backbone: Backbone, in_channels: int | None = None) -> list[nn.Module]:
    """One separable block for each level behind the base."""
    return [separable_extra(width, level) for width, level in extra_levels(levels, backbone, in_channels)]


def separable_extra(in_channels: int, level: Level) -> nn.Sequential:
    """The separable block of a level behind the base."""
    return separable_conv(in_channels, level.channels, *LITE_TOKENS[level.token][1:], hidden=level.hidden)


def extra_levels(levels: list[Level], backbone: Backbone, in_channels: int | None = None):
    """(input channels, level) of each level behind the base, whose end is what they begin with unless it is given."""
    in_channels = in_channels or backbone.feature_info[-1].channels
    for level in levels:
        if not level.is_tap:
            yield in_channels, level
            in_channels = level.channels
