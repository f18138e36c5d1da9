"""The neck of EfficientDet (arXiv 1911.09070): a bidirectional feature pyramid with weighted fusion."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.blocks import conv_bn
from ...utils.errors import UserError
from ..nets.backbone import Backbone
from .feature_layer import Level
from .fpn import pyramid_levels
from .neck import SSDS, Neck, NeckSpec

EPS = 1e-4  # section 3.3


class FusionNode(nn.Module):
    """Fast normalised fusion of maps of one size (section 3.3), then a separable convolution, batch norm and SiLU."""

    def __init__(self, num_inputs: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_inputs))
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            *conv_bn(width, width, 1, activation=nn.SiLU),
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        weight = self.weight.relu()
        weight = weight / (weight.sum() + EPS)
        return self.conv(sum(w * x for w, x in zip(weight.unbind(), maps, strict=True)))


class BiFPNLayer(nn.Module):
    """A pass down the pyramid and one up again (figure 2 d): on the way up every level but the two ends sees its input,
    what the way down made of it, and the finer level."""

    def __init__(self, num_levels: int, width: int):
        super().__init__()
        inner = num_levels - 2
        self.down = nn.ModuleList(FusionNode(2, width) for _ in range(num_levels - 1))
        self.up = nn.ModuleList(FusionNode(n, width) for n in [3] * inner + [2])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, width, H_l, W_l] of the levels, finest first -> as many of the same sizes."""
        down = list(maps)
        for i in reversed(range(len(self.down))):
            down[i] = self.down[i]([maps[i], _enlarge(down[i + 1], maps[i])])
        out = down[:1]
        for i, node in enumerate(self.up, start=1):
            own = [maps[i], down[i]] if i < len(self.up) else [maps[i]]
            out.append(node([*own, _shrink(out[-1], maps[i])]))
        return out


class BiFPNNeck(Neck):
    """Taps by 1x1 convolutions to one width, coarser levels by pooling, then BiFPN layers over all of them."""

    def __init__(self, levels: list[Level], backbone: Backbone, width: int, repeats: int):
        super().__init__()
        taps = [level for level in levels if level.is_tap]
        self.taps = [level.tap for level in taps]
        self.channels = [width] * len(levels)
        self.transforms = nn.ModuleList(nn.Sequential(*conv_bn(t.channels, width, 1, activation=None)) for t in taps)
        self.extras = nn.ModuleList(nn.MaxPool2d(3, 2, 1) for _ in levels[len(taps) :])
        if self.extras:
            end = conv_bn(backbone.feature_info[-1].channels, width, 1, activation=None)
            self.extras[0] = nn.Sequential(*end, self.extras[0])
        self.pyramids = nn.Sequential(*(BiFPNLayer(len(levels), width) for _ in range(repeats)))

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (maps of `width` channels, finest first; state)."""
        *taps, x = features
        maps = [transform(tap) for transform, tap in zip(self.transforms, taps, strict=True)]
        for layer in self.extras:
            x = layer(x)
            maps.append(x)
        return self.pyramids(maps), state


@SSDS.register("bifpn")
def build_bifpn(backbone: Backbone, spec: NeckSpec) -> BiFPNNeck:
    """Every level has `spec.width` channels, so what FEATURE_LAYER gives for extra levels is not read."""
    levels = pyramid_levels(backbone, spec)
    if len(levels) < 2:
        raise UserError(
            "MODEL.FEATURE_LAYER: bifpn passes features between levels, so it needs at least 2 of them; it has 1"
        )
    return BiFPNNeck(levels, backbone, spec.width, spec.repeats)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def _shrink(x: Tensor, like: Tensor) -> Tensor:
    """Max pooling by 2, as in the paper, and nearest cells where the levels do not lie a factor of 2 apart."""
    x = F.max_pool2d(x, 3, 2, 1)
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size=like.shape[2:], mode="nearest")
