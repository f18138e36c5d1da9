"""The neck of top-down modulation (TDM, arXiv 1612.06851) on the levels of SSD."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.blocks import conv_bn
from ..nets.backbone import Backbone
from .feature_layer import Level, build_levels
from .neck import SSDS, NeckSpec
from .ssd import TOKENS, SSDNeck, plain_extras


class ModulationModule(nn.Module):
    """One step down: a 3x3 convolution of the level (L), one of the coarser output, enlarged (T), and a 1x1 of the two
    side by side (T out), with batch norms.  Each of the two gives half of the width."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        half = max(1, width // 2)
        self.lateral = nn.Sequential(*conv_bn(channels, half, 3))
        self.top_down = nn.Sequential(*conv_bn(width, half, 3))
        self.out = nn.Sequential(*conv_bn(2 * half, width, 1))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """fine [B, channels, H, W], coarse [B, width, h, w] -> [B, width, H, W]."""
        lateral = self.lateral(fine)
        top_down = F.interpolate(self.top_down(coarse), size=lateral.shape[2:], mode="nearest")
        return self.out(torch.cat([lateral, top_down], 1))


class TDMNeck(SSDNeck):
    """Sources of SSD; the coarsest goes through a 3x3 convolution and from there down, every step a map for the head.
    Base, norm and extras have the names that they have in SSD, so that its checkpoints fill them."""

    def __init__(self, levels: list[Level], extras: list[nn.Module], spec: NeckSpec):
        super().__init__(levels, extras, 2, spec)
        self.transforms = nn.Sequential(*conv_bn(self.channels[-1], spec.width, 3))
        self.pyramids = nn.ModuleList(ModulationModule(channels, spec.width) for channels in self.channels[:-1])
        self.channels = [spec.width] * len(levels)

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (maps of `width` channels, finest first; state)."""
        maps, state = super().forward(features, state)
        maps[-1] = self.transforms(maps[-1])
        for i in reversed(range(len(self.pyramids))):
            maps[i] = self.pyramids[i](maps[i], maps[i + 1])
        return maps, state


@SSDS.register("tdm")
def build_tdm(backbone: Backbone, spec: NeckSpec) -> TDMNeck:
    """FEATURE_LAYER describes the levels of the SSD beneath; every level ends with `spec.width` channels."""
    levels = build_levels(spec, backbone, TOKENS)
    return TDMNeck(levels, plain_extras(levels, backbone), spec)
