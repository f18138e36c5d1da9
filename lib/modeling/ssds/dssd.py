"""The neck of DSSD (arXiv 1701.06659): the levels of SSD, and a way back up by deconvolution modules."""

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.blocks import conv_bn
from ..nets.backbone import Backbone
from .feature_layer import Level, build_levels
from .neck import SSDS, NeckSpec
from .ssd import TOKENS, SSDNeck, plain_extras


class DeconvolutionModule(nn.Module):
    """A level of SSD times the coarser level enlarged by a learnt transposed convolution (figure 3, with the product,
    which the paper found better than the sum)."""

    def __init__(self, channels: int, coarse_channels: int, width: int):
        super().__init__()
        self.fine = nn.Sequential(*conv_bn(channels, width, 3), *conv_bn(width, width, 3, activation=None))
        self.enlarge = nn.ConvTranspose2d(coarse_channels, width, 2, 2)
        self.coarse = nn.Sequential(*conv_bn(width, width, 3, activation=None))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """fine [B, channels, H, W], coarse [B, coarse_channels, h, w] -> [B, width, H, W]."""
        return F.relu(self.fine(fine) * self.coarse(_fit(self.enlarge(coarse), fine)))


class PredictionModule(nn.Module):
    """The residual block before the predictors (figure 2 c), with batch norms."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        hidden = max(1, width // 4)
        self.conv = nn.Sequential(
            *conv_bn(channels, hidden, 1), *conv_bn(hidden, hidden, 1), *conv_bn(hidden, width, 1, activation=None)
        )
        self.shortcut = nn.Sequential(*conv_bn(channels, width, 1, activation=None))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + self.shortcut(x))


class DSSDNeck(SSDNeck):
    """Sources of SSD, from the coarsest to the finest one through deconvolution modules, each then through a block of
    its own.  Base, norm and extras have the names that they have in SSD, so that its checkpoints fill them: the paper
    trains SSD first."""

    def __init__(self, levels: list[Level], extras: list[nn.Module], spec: NeckSpec):
        super().__init__(levels, extras, 2, spec)
        width, channels = spec.width, self.channels
        enriched = [width] * (len(levels) - 1) + channels[-1:]
        self.pyramids = nn.ModuleList(
            DeconvolutionModule(c, coarse, width) for c, coarse in zip(channels[:-1], enriched[1:], strict=True)
        )
        self.transforms = nn.ModuleList(PredictionModule(c, width) for c in enriched)
        self.channels = [width] * len(levels)

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (maps of `width` channels, finest first; state)."""
        maps, state = super().forward(features, state)
        for i in reversed(range(len(self.pyramids))):
            maps[i] = self.pyramids[i](maps[i], maps[i + 1])
        return [transform(x) for transform, x in zip(self.transforms, maps, strict=True)], state


@SSDS.register("dssd")
def build_dssd(backbone: Backbone, spec: NeckSpec) -> DSSDNeck:
    """FEATURE_LAYER describes the levels of the SSD beneath; every level ends with `spec.width` channels."""
    levels = build_levels(spec, backbone, TOKENS)
    return DSSDNeck(levels, plain_extras(levels, backbone), spec)


def _fit(x: Tensor, like: Tensor) -> Tensor:
    """`x` without the row and column that an odd map has less, or resized where the levels do not lie a factor of 2
    apart."""
    height, width = like.shape[2:]
    if x.shape[2] - height in (0, 1) and x.shape[3] - width in (0, 1):
        return x[..., :height, :width]
    return F.interpolate(x, size=(height, width), mode="nearest")
