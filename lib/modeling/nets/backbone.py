"""The contract of base networks: a chain of layers that publishes what each layer emits."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ...utils.registry import Registry

NETS = Registry("MODEL.NETS")
"""Base networks by name: functions of keyword arguments that return a `Backbone`."""

Tap = int | tuple[int, int]
"""A place in a base whose output can be had: the index of a layer, or (layer, place inside it)."""


class FeatureInfo(NamedTuple):
    """What a layer emits: its channels, and the pitch of its map in input pixels."""

    channels: int
    stride: int


class ConvLayer(nn.Module):
    """A chain of layers under the name `conv`, with a shortcut around it where `residual`."""

    def __init__(self, layers: list[nn.Module], residual: bool = False):
        super().__init__()
        self.conv = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)

    def forward_by_way_of(self, x: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """(output of `conv.<place>`, output of the layer)."""
        inner = self.conv[: place + 1](x)
        kept = _keep(inner, self.conv, place)
        out = self.conv[place + 1 :](inner)
        return kept, x + out if self.residual else out


class Backbone(nn.Module):
    """A chain of layers; `layers.<i>` is `base.<i>` of published checkpoints and index i of FEATURE_LAYER.

    `feature_info` has a FeatureInfo for each layer.  `emit` chooses the places whose outputs `forward` returns.
    `usual_levels` ([tokens, channels] of FEATURE_LAYER) overrides the variant's own choice where given.  `unstrided`
    are the layers that keep the map where those of the plain network halve it.  `memory_on` is for bases that depend on
    the frames before.
    """

    memory_on = True

    def __init__(self, layers: list[nn.Module], feature_info: list[FeatureInfo], usual_levels=None, unstrided=()):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.feature_info = feature_info
        self.usual_levels = usual_levels
        self.unstrided: tuple[int, ...] = tuple(unstrided)
        self.taps: tuple[Tap, ...] = ()
        self.split_at: int | None = None

    def emit(self, taps, split_at: int | None = None) -> None:
        """Make `forward` return the outputs at these taps, in this order.

        With `split_at` two paths run with the same weights behind that layer: the fine one goes on from the whole map,
        the coarse one from every second row and column (dual path, BMVC 2019 small-object fork).
        """
        self.taps, self.split_at = tuple(taps), split_at

    def forward(
        self, images: Tensor, state=None, inserts: Mapping[Tap, nn.Module] | None = None, first=None
    ) -> tuple[list[Tensor], object]:
        """Images [B, 3, H, W] -> (outputs at the taps and, last, of the whole chain; the state untouched).  Frames of a
        clip are images like others; only a base with a choice to make for each looks at `first`.

        `inserts` are modules that stand in the chain behind a tap: their output counts as that tap's, and the chain
        goes on from it.  After a split the taps are those of the fine path, and the last output is that of the coarse
        path at the last tap.
        """
        inserts, places = inserts or {}, {layer: (layer, place) for layer, place in filter(_is_inner, self.taps)}
        outputs, x, coarse = {}, images, None
        last = max(map(layer_of, self.taps)) if self.split_at is not None else len(self.layers) - 1
        for index, layer in enumerate(self.layers[: last + 1]):
            coarse = coarse if coarse is None else layer(coarse)
            if index in places:
                tap = places[index]
                outputs[tap], x = layer.forward_by_way_of(x, tap[1])
            else:
                x = layer(x)
            if index in inserts:
                x = inserts[index](x)
                coarse = coarse if coarse is None else inserts[index](coarse)
            if index in self.taps:
                outputs[index] = _keep(x, self.layers, index)
            if index == self.split_at:
                coarse = x[..., ::2, ::2]
        return [outputs[tap] for tap in self.taps] + [x if coarse is None else coarse], state

    def maps_of(self, features) -> list[Tensor]:
        """The maps in what `forward` gives to a neck."""
        return features

    def cut_behind(self, layer: int) -> None:
        """Leave out the layers behind one."""
        del self.layers[layer + 1 :]
        del self.feature_info[layer + 1 :]

    def last_layers_by_stride(self) -> list[int]:
        """Index of the last layer at each stride, finest first."""
        last = {info.stride: index for index, info in enumerate(self.feature_info)}
        return [last[stride] for stride in sorted(last)]

    def find_tap(self, token) -> Tap | None:
        """The tap that a token of FEATURE_LAYER means: a layer index, '/16' for the last layer of that stride, '14.2'
        for place 2 inside layer 14; None for a token that means no layer."""
        if isinstance(token, int):
            return token if 0 <= token < len(self.layers) else None
        if stride := re.fullmatch(r"/(\d+)", token):
            layers = [i for i, info in enumerate(self.feature_info) if info.stride == int(stride[1])]
            return layers[-1] if layers else None
        if inner := re.fullmatch(r"(\d+)\.(\d+)", token):
            layer, place = int(inner[1]), int(inner[2])
            if layer < len(self.layers) and isinstance(self.layers[layer], ConvLayer):
                return (layer, place) if place < len(self.layers[layer].conv) else None
        return None

    def taps_in_words(self) -> str:
        """The layers there are, for messages."""
        strides = ", ".join(f"'/{self.feature_info[i].stride}' = {i}" for i in self.last_layers_by_stride())
        return f"layers 0 to {len(self.layers) - 1} ({strides})"

    def info_at(self, tap: Tap) -> FeatureInfo:
        """What is emitted at a tap."""
        if not _is_inner(tap):
            return self.feature_info[tap]
        layer, place = tap
        convolutions = [m for m in self.layers[layer].conv[: place + 1] if isinstance(m, nn.Conv2d)]
        channels, stride = self.feature_info[layer - 1] if layer else (3, 1)
        for convolution in convolutions:
            channels, stride = convolution.out_channels, stride * convolution.stride[0]
        return FeatureInfo(channels, stride)


def layer_of(tap: Tap) -> int:
    """The index of the layer that a tap belongs to."""
    return tap[0] if _is_inner(tap) else tap


def tap_name(tap: Tap) -> str:
    """A tap as FEATURE_LAYER has it: '14', or '14.2' for a place inside a layer."""
    return ".".join(map(str, tap)) if _is_inner(tap) else str(tap)


def _keep(x: Tensor, layers, index: int) -> Tensor:
    """The output of layers[index], as a copy where the next one writes into it."""
    after = layers[index + 1] if index + 1 < len(layers) else None
    return x.clone() if getattr(after, "inplace", False) else x


def _is_inner(tap: Tap) -> bool:
    return isinstance(tap, tuple)
