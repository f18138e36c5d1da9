"""Necks in the shape of YOLO v2 (arXiv 1612.08242) and v3 (arXiv 1804.02767); head and losses are those of SSD."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.blocks import conv_bn
from ...utils.errors import UserError
from ..nets.backbone import Backbone, ConvLayer, Tap, layer_of
from .feature_layer import cut_to_shortest, extra_channels, parse_pair, tap_of
from .neck import SSDS, Neck, NeckSpec

KEY = "MODEL.FEATURE_LAYER"
TOKENS = ("", "B")
LEAKY = partial(nn.LeakyReLU, 0.1)


class Layer(NamedTuple):
    """An entry of FEATURE_LAYER: a token, or a router to the place `tap` in the base, and its channels."""

    token: int | str
    channels: int
    tap: Tap | None


class Router(nn.Module):
    """Joins the chain with a map of the base whose cells are `ratio` times finer in each direction."""

    def __init__(self, conv: list[nn.Module], ratio: int):
        super().__init__()
        self.conv = nn.Sequential(*conv)
        self.ratio = ratio


class SpaceToDepth(Router):
    """YOLO v2: the map of the base through `conv`, its cells stacked into channels, behind those of the chain."""

    def forward(self, x: Tensor, tap: Tensor) -> Tensor:
        """x [B, C, H, W], tap [B, D, r H, r W] -> [B, C + r * r * channels of conv, H, W].

        A tap of other sides, as strided layers leave odd maps, is cut or padded with zeros at its end.
        """
        rows, columns = (side * self.ratio for side in x.shape[2:])
        tap = F.pad(self.conv(tap), (0, columns - tap.shape[3], 0, rows - tap.shape[2]))
        return torch.cat([x, space_to_depth(tap, self.ratio)], 1)


class Upsample(Router):
    """YOLO v3: the chain through `conv`, resized to the finer cells, before the channels of the map of the base."""

    def __init__(self, conv: list[nn.Module], ratio: int, align_corners: bool):
        super().__init__(conv, ratio)
        self.align_corners = align_corners

    def forward(self, x: Tensor, tap: Tensor) -> Tensor:
        """x [B, C, H, W], tap [B, D, r H, r W] -> [B, channels of conv + D, r H, r W].

        A tap of other sides is cut or padded with zeros evenly, an odd difference being cut before, padded behind.
        """
        x = F.interpolate(self.conv(x), scale_factor=self.ratio, mode="bilinear", align_corners=self.align_corners)
        rows, columns = (x.shape[axis] - tap.shape[axis] for axis in (2, 3))
        tap = F.pad(tap, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return torch.cat([x, tap], 1)


def space_to_depth(x: Tensor, ratio: int) -> Tensor:
    """[B, C, r H, r W] -> [B, r * r * C, H, W]; channel (row * r + column) * C + c is c at that row and column."""
    return F.pixel_unshuffle(x, ratio).unflatten(1, (-1, ratio * ratio)).transpose(1, 2).flatten(1, 2)


class YOLONeck(Neck):
    """A chain of layers behind the base, routers joining it with maps from inside the base; coarse to fine in v3.

    taps: for each layer of `extras` the tap that it takes, None for those that are no routers.  ends: the places in
    `extras` at which a level ends, and its channels there.
    """

    head = "conv1"

    def __init__(self, extras: list[nn.Module], taps: list[Tap | None], ends: dict[int, int]):
        super().__init__()
        self.taps = sorted({tap for tap in taps if tap is not None}, key=layer_of)
        self.channels = list(ends.values())
        self.extras = nn.ModuleList(extras)
        self.routes = [None if tap is None else self.taps.index(tap) for tap in taps]
        self.ends = set(ends)

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state) -> (sources of the head, state)."""
        x, sources = features[-1], []
        for index, (layer, route) in enumerate(zip(self.extras, self.routes, strict=True)):
            x = layer(x) if route is None else layer(x, features[route])
            if index in self.ends:
                sources.append(x)
        return sources, state


@SSDS.register("yolo_v2")
def build_yolo_v2(backbone: Backbone, spec: NeckSpec) -> YOLONeck:
    """Routers keep the map of the chain and stack the finer cells into its channels."""

    def route(layer: Layer, channels: int, ratio: int, tap_channels: int) -> tuple[Router, int]:
        router = SpaceToDepth(conv_bn(tap_channels, layer.channels, 1, activation=LEAKY), ratio)
        return router, channels + ratio * ratio * layer.channels

    return _build(backbone, _levels(spec, backbone, usual_yolo_v2), route, keeps_stride=True)


@SSDS.register("yolo_v3")
def build_yolo_v3(backbone: Backbone, spec: NeckSpec) -> YOLONeck:
    """Routers resize the chain to the map of the base, from which the next level is made."""

    def route(layer: Layer, channels: int, ratio: int, tap_channels: int) -> tuple[Router, int]:
        conv = conv_bn(channels, layer.channels, 1, activation=LEAKY)
        return Upsample(conv, ratio, spec.align_corners), layer.channels + tap_channels

    return _build(backbone, _levels(spec, backbone, usual_yolo_v3), route, keeps_stride=False)


def usual_yolo_v2(backbone: Backbone, image_size) -> list:
    """FEATURE_LAYER of `yolo_v2` for a base: one level, which its second coarsest stride joins."""
    (fine,) = _usual_routes(backbone, 1)
    return [[["", "", fine, ""]], [[1024, 1024, 64, 1024]]]


def usual_yolo_v3(backbone: Backbone, image_size) -> list:
    """FEATURE_LAYER of `yolo_v3` for a base: a level for each of its three coarsest strides."""
    middle, fine = _usual_routes(backbone, 2)
    tokens = [["B", "B", "B"], [middle, "B", "B", "B"], [fine, "B", "B", "B"]]
    return [tokens, [[1024, 1024, 1024], [256, 512, 512, 512], [128, 256, 256, 256]]]


def _usual_routes(backbone: Backbone, count: int) -> list[int]:
    """The last layers of so many strides below the coarsest, coarsest first."""
    ends = backbone.last_layers_by_stride()
    if len(ends) <= count:
        raise UserError(
            f"{KEY}: the usual levels need a base of {count + 1} strides or more, this one has {len(ends)}; give them"
        )
    return ends[-2 : -2 - count : -1]


def _build(backbone: Backbone, levels: list[list[Layer]], route, keeps_stride: bool) -> YOLONeck:
    """route: (layer, channels of the chain, ratio of the strides, channels at the tap) -> (router, channels behind
    it); keeps_stride: whether the chain keeps its map there or gets that of the base."""
    channels, stride = backbone.feature_info[-1]
    extras, taps, ends = [], [], {}
    for number, level in enumerate(levels):
        for layer in level:
            taps.append(layer.tap)
            if layer.tap is None:
                extras.append(_convolutions(channels, layer))
                channels = layer.channels
                continue
            info = backbone.info_at(layer.tap)
            ratio = _ratio(f"{KEY}: level {number}: {layer.token!r}", stride, info.stride, backbone)
            router, channels = route(layer, channels, ratio, info.channels)
            extras.append(router)
            stride = stride if keeps_stride else info.stride
        ends[len(extras) - 1] = channels
    return YOLONeck(extras, taps, ends)


def _convolutions(in_channels: int, layer: Layer) -> ConvLayer:
    """'': a 3x3 convolution; 'B': a 1x1 to half the channels before it."""
    narrow = max(layer.channels // 2, 1) if layer.token == "B" else in_channels
    first = conv_bn(in_channels, narrow, 1, activation=LEAKY) if layer.token == "B" else []
    return ConvLayer(first + conv_bn(narrow, layer.channels, 3, activation=LEAKY))


def _levels(spec: NeckSpec, backbone: Backbone, usual) -> list[list[Layer]]:
    """The layers of each level; every list is cut to the shortest that belongs to it, as the reference does."""
    feature_layer = usual(backbone, spec.image_size) if spec.feature_layer is None else spec.feature_layer
    names, widths = parse_pair(feature_layer, KEY)
    if not all(isinstance(part, (list, tuple)) and part for part in [*names, *widths]):
        raise UserError(
            f"{KEY}: yolo takes a list of tokens and one of channels for each level, [[tokens, ...], [channels, ...]], "
            f"got {feature_layer!r}"
        )
    levels = [
        list(_parse_level(f"{KEY}: level {number}", tokens, channels, backbone))
        for number, (tokens, channels) in enumerate(cut_to_shortest(names, widths, spec.num_ratios, KEY))
    ]
    if not levels:
        raise UserError(f"{KEY}: there must be a level at least")
    places = {layer.tap for level in levels for layer in level if layer.tap is not None}
    if len({layer_of(tap) for tap in places}) < len(places):
        raise UserError(f"{KEY}: a layer of the base can be tapped at one place only")
    return levels


def _parse_level(key: str, tokens, channels, backbone: Backbone) -> Iterator[Layer]:
    for position, (token, width) in enumerate(cut_to_shortest(tokens, channels, None, key, unit="layers")):
        where = f"{key}: entry {position} ({token!r})"
        yield Layer(token, extra_channels(where, width), tap_of(where, token, backbone, TOKENS))


def _ratio(where: str, stride: int, tap_stride: int, backbone: Backbone) -> int:
    """How many cells of the tap stand in one of the chain in each direction."""
    if stride % tap_stride or stride == tap_stride:
        strides = sorted({info.stride for info in backbone.feature_info})
        allowed = [str(s) for s in strides if s < stride and stride % s == 0]
        raise UserError(
            f"{where}: a router joins the chain, of stride {stride} here, with a finer map; this layer has stride "
            f"{tap_stride}; allowed: {', '.join(allowed) or 'none'}"
        )
    return stride // tap_stride
