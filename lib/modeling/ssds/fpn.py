"""The neck of a feature pyramid (FPN, arXiv 1612.03144) with the levels of RetinaNet (arXiv 1708.02002)."""

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.blocks import conv_bn
from ..nets.backbone import Backbone
from .feature_layer import Level, build_levels
from .neck import SSDS, Neck, NeckSpec

FINEST_STRIDE, COARSEST_STRIDE = 8, 128  # P3 and P7 of RetinaNet


class FPNNeck(Neck):
    """Taps by 1x1 convolutions to one width, each plus the coarser one enlarged, smoothed by a 3x3; then a chain of
    strided 3x3 from the end of the base.

    Unlike the paper's, convolutions have batch norms, without which they learn a small data set by heart and find
    less on other images, and the smoothed maps a ReLU: a head of one convolution would else be linear in the features
    of the base.
    """

    def __init__(self, levels: list[Level], backbone: Backbone, width: int):
        super().__init__()
        taps = [level for level in levels if level.is_tap]
        self.taps = [level.tap for level in taps]
        self.channels = [width] * len(levels)
        self.transforms = nn.ModuleList(nn.Sequential(*conv_bn(t.channels, width, 1, activation=None)) for t in taps)
        self.pyramids = nn.ModuleList(nn.Sequential(*conv_bn(width, width, 3)) for _ in taps)
        inputs = [backbone.feature_info[-1].channels] + [width] * len(levels)
        self.extras = nn.ModuleList(
            nn.Sequential(*conv_bn(inputs[i], width, 3, stride=2)) for i in range(len(levels) - len(taps))
        )

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (maps of `width` channels, finest first; state)."""
        *taps, x = features
        maps = [transform(tap) for transform, tap in zip(self.transforms, taps, strict=True)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], size=maps[i].shape[2:], mode="nearest")
        sources = [smooth(x) for smooth, x in zip(self.pyramids, maps, strict=True)]
        for layer in self.extras:
            x = layer(x)
            sources.append(x)
        return sources, state


@SSDS.register("fpn")
def build_fpn(backbone: Backbone, spec: NeckSpec) -> FPNNeck:
    """Every level has `spec.width` channels, so what FEATURE_LAYER gives for extra levels is not read."""
    return FPNNeck(pyramid_levels(backbone, spec), backbone, spec.width)


def pyramid_levels(backbone: Backbone, spec: NeckSpec) -> list[Level]:
    """The levels of a pyramid: layers of the base, then 'S'."""
    return build_levels(spec, backbone, ("S",), usual_pyramid)


def usual_pyramid(backbone: Backbone, image_size) -> list[list]:
    """[tokens, channels] where FEATURE_LAYER is not given: every stride of the base from 8 on, or its two coarsest if
    there are fewer, then strided levels up to stride 128 or a map of one cell."""
    names = backbone.last_layers_by_stride()
    names = [i for i in names if backbone.feature_info[i].stride >= FINEST_STRIDE]
    names = names if len(names) > 1 else backbone.last_layers_by_stride()[-2:]
    channels = [backbone.feature_info[i].channels for i in names]
    stride = backbone.feature_info[-1].stride
    side = -(-max(image_size) // stride)
    while side > 1 and stride * 2 <= COARSEST_STRIDE:
        side, stride = -(-side // 2), stride * 2
        names, channels = [*names, "S"], [*channels, channels[-1]]
    return [names, channels]
