"""The contract of base networks: a chain of layers that publishes what each layer emits."""

from typing import NamedTuple

from torch import Tensor, nn

from ...utils.registry import Registry

NETS = Registry("MODEL.NETS")
"""Base networks by name: functions of keyword arguments that return a `Backbone`."""


class FeatureInfo(NamedTuple):
    """What a layer emits: its channels, and the pitch of its map in input pixels."""

    channels: int
    stride: int


class Backbone(nn.Module):
    """A chain of layers; `layers.<i>` is `base.<i>` of published checkpoints and index i of FEATURE_LAYER.

    `feature_info` has a FeatureInfo for each layer.  `emit` chooses the layers whose outputs `forward` returns.
    `usual_levels` ([tokens, channels] of FEATURE_LAYER) overrides the variant's own choice where given.
    """

    def __init__(self, layers: list[nn.Module], feature_info: list[FeatureInfo], usual_levels=None):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.feature_info = feature_info
        self.usual_levels = usual_levels
        self.taps: tuple[int, ...] = ()

    def emit(self, taps) -> None:
        """Make `forward` return the outputs of these layers, in this order."""
        self.taps = tuple(taps)

    def forward(self, images: Tensor, state=None) -> tuple[list[Tensor], object]:
        """Images [B, 3, H, W] -> (outputs of the emitted layers and, last, of the whole chain; the state untouched)."""
        outputs, x = {}, images
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taps:
                outputs[index] = x
        return [outputs[tap] for tap in self.taps] + [x], state

    def last_layers_by_stride(self) -> list[int]:
        """Index of the last layer at each stride, finest first."""
        last = {info.stride: index for index, info in enumerate(self.feature_info)}
        return [last[stride] for stride in sorted(last)]
