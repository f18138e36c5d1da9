"""Necks of RFB Net (arXiv 1711.07767): receptive field blocks on the taps of the base and among the extra levels."""

from collections.abc import Mapping

from torch import Tensor, nn

from ...layers.rfb_blocks import MIN_CHANNELS, BasicConv, rfb, rfb_a, rfb_a_lite, rfb_lite
from ...utils.errors import UserError
from ..nets.backbone import Backbone, Tap
from .feature_layer import Level, build_levels, usual_levels
from .neck import SSDS, Neck, NeckSpec
from .ssd import TOKENS, extra_levels

RFB_TOKENS = {"RBF", *TOKENS}


class RFBNeck(Neck):
    """The first tap through a block of its own and a chain of extra levels behind the base.

    norm: the block of the first tap, or a list of those of all taps.  In a list the blocks after the first stand in
    the chain of the base, which goes on from them.  `ends` are the places in `extras` at which a level ends.
    """

    def __init__(self, levels: list[Level], norm: nn.Module, extra_layers: list[list[nn.Module]]):
        super().__init__()
        self.taps = [level.tap for level in levels if level.is_tap]
        self.channels = [level.channels for level in levels]
        self.norm = norm
        self.extras = nn.ModuleList(layer for layers in extra_layers for layer in layers)
        self.ends = {sum(map(len, extra_layers[: n + 1])) - 1 for n in range(len(extra_layers))}

    def inserts(self) -> Mapping[Tap, nn.Module]:
        """The blocks of the taps after the first."""
        if not isinstance(self.norm, nn.ModuleList):
            return {}
        return dict(zip(self.taps[1:], self.norm[1:], strict=True))

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (sources of the head, state)."""
        *taps, x = features
        first = self.norm[0] if isinstance(self.norm, nn.ModuleList) else self.norm
        sources = [first(taps[0]), *taps[1:]]
        for index, layer in enumerate(self.extras):
            x = layer(x)
            if index in self.ends:
                sources.append(x)
        return sources, state


@SSDS.register("rfb")
def build_rfb(backbone: Backbone, spec: NeckSpec) -> RFBNeck:
    """A block on every tap; extra level: a block of stride 2 ('RBF'), or a 1x1 and the convolution of its token."""
    levels = build_levels(spec, backbone, RFB_TOKENS, usual_rfb)
    _check_block_inputs(levels, backbone)
    paper = spec.rfb_block == "paper"
    first, *later = (level for level in levels if level.is_tap)
    for level in later:
        if not isinstance(level.tap, int):
            raise UserError(
                f"MODEL.FEATURE_LAYER: {level.token!r}: rfb goes on from a block behind every layer but the first, "
                "which cannot stand inside a layer; give a whole one"
            )
    norm = [rfb_a(first.channels), *(rfb(level.channels, level.channels, 1, paper) for level in later)]
    extras = _extra_layers(levels, backbone, lambda width, channels: rfb(width, channels, 2, paper))
    return RFBNeck(levels, nn.ModuleList(norm), extras)


@SSDS.register("rfb_lite")
def build_rfb_lite(backbone: Backbone, spec: NeckSpec) -> RFBNeck:
    """A block on the first tap alone; extra levels as in `rfb`, with lighter blocks."""
    levels = build_levels(spec, backbone, RFB_TOKENS, usual_rfb_lite)
    _check_block_inputs(levels, backbone)
    depthwise = spec.rfb_block == "paper"
    extras = _extra_layers(levels, backbone, lambda width, channels: rfb_lite(width, channels, 2, depthwise))
    return RFBNeck(levels, rfb_a_lite(levels[0].channels, depthwise), extras)


def usual_rfb(backbone: Backbone, image_size) -> list[list]:
    """FEATURE_LAYER of `rfb` for a base: the usual levels, the first two behind the base by blocks."""
    return _with_blocks(backbone, image_size, 2)


def usual_rfb_lite(backbone: Backbone, image_size) -> list[list]:
    """The same for `rfb_lite`, which has one such level."""
    return _with_blocks(backbone, image_size, 1)


def _with_blocks(backbone: Backbone, image_size, num_blocks: int) -> list[list]:
    tokens, channels = usual_levels(backbone, image_size)
    first = sum(isinstance(token, int) for token in tokens)
    blocks = range(first, first + num_blocks)
    return [["RBF" if i in blocks and token == "S" else token for i, token in enumerate(tokens)], channels]


def _check_block_inputs(levels: list[Level], backbone: Backbone) -> None:
    inputs = [(level.channels, level) for level in levels if level.is_tap]
    inputs += [(channels, level) for channels, level in extra_levels(levels, backbone) if level.token == "RBF"]
    for channels, level in inputs:
        if channels < MIN_CHANNELS:
            raise UserError(
                f"MODEL.FEATURE_LAYER: {level.token!r}: a block needs an input of at least {MIN_CHANNELS} channels, "
                f"this one has {channels}"
            )
        if level.token == "RBF" and level.hidden:
            raise UserError(
                f"MODEL.FEATURE_LAYER: 'RBF': channels must be one number, not {[level.hidden, level.channels]}; those "
                "inside a block follow from its input"
            )


def _extra_layers(levels: list[Level], backbone: Backbone, build_block) -> list[list[nn.Module]]:
    """The layers of each level behind the base."""
    extras = []
    for in_channels, level in extra_levels(levels, backbone):
        if level.token == "RBF":
            extras.append([build_block(in_channels, level.channels)])
            continue
        kernel, stride, padding = TOKENS[level.token]
        hidden = level.hidden or max(level.channels // 2, 1)
        last = BasicConv(hidden, level.channels, kernel, stride, padding=padding)
        extras.append([BasicConv(in_channels, hidden), last])
    return extras
