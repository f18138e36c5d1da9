"""Necks of FSSD (arXiv 1712.00960): maps of several depths fused into one, and a pyramid of levels grown from it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...utils.errors import UserError
from ..nets.backbone import Backbone
from .feature_layer import Level, cut_to_shortest, extra_channels, parse_levels, parse_pair
from .neck import SSDS, Neck, NeckSpec
from .ssd import LITE_TOKENS, TOKENS, plain_extras, separable_extras

KEY = "MODEL.FEATURE_LAYER"
FINEST_FUSED_STRIDE = 8  # of the usual choice
NUM_FUSED = 3

# Stride of a level of the pyramid; '' is unpadded but on the first level.
PYRAMID_TOKENS = {"S": 2, "": 1}
USUAL_PYRAMID = ["", "S", "S", "S", "", ""]


class ConvReLU(nn.Module):
    """Convolution with bias and ReLU."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class FSSDNeck(Neck):
    """Taps and extra levels are brought to equal channels (`transforms`) and to the map size of the first, joined and
    normalised (`norm`); the levels are a chain of convolutions from there (`pyramids`).

    fused: the maps to be fused.  pyramid: (token, channels) of each level.  `extras` make the fused maps behind the
    base, `layers_per_level` each, without activations.
    """

    def __init__(
        self, fused: list[Level], pyramid: list[tuple[str, int]], extras: list[nn.Module], layers_per_level: int,
        align_corners: bool,
    ):  # fmt: skip
        super().__init__()
        self.taps = [level.tap for level in fused if level.is_tap]
        self.channels = [channels for _, channels in pyramid]
        self.extras = nn.ModuleList(extras)
        self.layers_per_level = layers_per_level
        self.align_corners = align_corners
        width = max(fused[-1].channels // 2, 1)
        self.transforms = nn.ModuleList(ConvReLU(level.channels, width, 1) for level in fused)
        joined = width * len(fused)
        self.norm = nn.BatchNorm2d(joined)
        self.pyramids = nn.ModuleList()
        for index, (token, channels) in enumerate(pyramid):
            in_channels = pyramid[index - 1][1] if index else joined
            padding = 0 if token == "" and index else 1
            self.pyramids.append(ConvReLU(in_channels, channels, 3, PYRAMID_TOKENS[token], padding))

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (sources of the head, state)."""
        *maps, x = features
        for index, layer in enumerate(self.extras, start=1):
            x = layer(x)
            if index % self.layers_per_level == 0:
                maps.append(x)
        x, sources = self.norm(self.fuse(maps)), []
        for layer in self.pyramids:
            x = layer(x)
            sources.append(x)
        return sources, state

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """Maps [B, C_i, H_i, W_i] -> [B, sum of their new channels, H_0, W_0]."""
        first, *others = (transform(x) for transform, x in zip(self.transforms, maps, strict=True))
        size = first.shape[2:]
        resized = [F.interpolate(x, size, mode="bilinear", align_corners=self.align_corners) for x in others]
        return torch.cat([first, *resized], 1)


@SSDS.register("fssd")
def build_fssd(backbone: Backbone, spec: NeckSpec) -> FSSDNeck:
    """Fused maps behind the base come from two plain convolutions each, as the extra levels of `ssd`."""
    fused, pyramid = _parse(spec, backbone, TOKENS)
    return FSSDNeck(fused, pyramid, plain_extras(fused, backbone), 2, spec.align_corners)


@SSDS.register("fssd_lite")
def build_fssd_lite(backbone: Backbone, spec: NeckSpec) -> FSSDNeck:
    """Fused maps behind the base come from one separable block each, as the extra levels of `ssd_lite`."""
    fused, pyramid = _parse(spec, backbone, LITE_TOKENS)
    return FSSDNeck(fused, pyramid, separable_extras(fused, backbone), 1, spec.align_corners)


def _parse(spec: NeckSpec, backbone: Backbone, tokens) -> tuple[list[Level], list[tuple[str, int]]]:
    """(fused maps, levels of the pyramid) of FEATURE_LAYER or, where it is not given, the usual ones."""
    feature_layer = usual_fssd(backbone, spec.image_size) if spec.feature_layer is None else spec.feature_layer
    try:
        fusion, pyramid = map(parse_pair, _two(feature_layer))
    except UserError as error:
        raise UserError(
            f"{KEY}: fssd takes [[fused tokens, channels], [pyramid tokens, channels]], four lists, got "
            f"{feature_layer!r}"
        ) from error
    fused = parse_levels(fusion, None, backbone, tokens, f"{KEY}: fused maps")
    key = f"{KEY}: pyramid"
    levels = cut_to_shortest(*pyramid, spec.num_ratios, key)
    for position, (token, channels) in enumerate(levels):
        where = f"{key}: entry {position} ({token!r})"
        if not isinstance(token, str) or token not in PYRAMID_TOKENS:
            raise UserError(f"{where}: unknown token; allowed: {', '.join(map(repr, sorted(PYRAMID_TOKENS)))}")
        extra_channels(where, channels)
    if not levels:
        raise UserError(f"{key}: there must be a level at least")
    return fused, levels


def _two(value) -> list:
    """The two entries of a list of two; UserError for anything else."""
    return list(parse_pair(value))


def usual_fssd(backbone: Backbone, image_size) -> list:
    """FEATURE_LAYER for a base: the last layers of its strides from 8 up, two at least, strided levels until three
    maps are fused; a pyramid down to a map of one cell, on 300x300 with the two unpadded levels of the paper."""
    info = backbone.feature_info
    ends = backbone.last_layers_by_stride()
    count = sum(info[end].stride >= FINEST_FUSED_STRIDE for end in ends)
    taps = ends[-min(max(count, 2), NUM_FUSED) :]
    extra = NUM_FUSED - len(taps)
    channels = [info[tap].channels for tap in taps] + [512, 256][:extra]
    stride = info[taps[0]].stride
    names = list(USUAL_PYRAMID)
    if tuple(image_size) != (300, 300) or stride != FINEST_FUSED_STRIDE:
        side, names = -(-max(image_size) // stride), [""]
        while side > 1:
            side, names = -(-side // 2), [*names, "S"]
    wide = [512, 512, 256, 256] if channels[-1] >= 512 else [256, 256, 256, 256, 128]
    widths = [wide[min(level, len(wide) - 1)] for level in range(len(names))]
    return [[[*taps, *["S"] * extra], channels], [names, widths]]
