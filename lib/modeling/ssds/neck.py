"""The contract of detector variants: a variant is a neck."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ...utils.registry import Registry
from ..nets.backbone import Backbone, Tap

SSDS = Registry("MODEL.SSDS")
"""Builders of necks by variant name: (backbone, NeckSpec) -> Neck."""


@dataclass(frozen=True)
class NeckSpec:
    """What a variant is asked for; the meaning of each entry is that of the key of its name.

    feature_layer and num_ratios (the number of lists in ASPECT_RATIOS) are None where the configuration leaves the
    choice to the variant; image_size is (height, width).
    """

    image_size: tuple[int, int]
    feature_layer: list | None = None
    num_ratios: int | None = None
    source_norm: str = "l2"
    norm_in_trunk: bool = False
    extras_activation: str = "relu"
    rfb_block: str = "family"
    align_corners: bool = False
    width: int = 256
    repeats: int = 3
    cell_levels: list[int] | None = None
    cell_channels: tuple[int, ...] = ()
    cell_bound: str = "clip"
    cell_skip: bool = False


class Neck(nn.Module):
    """From feature maps of the base to the maps that the head reads.

    taps: the places of the base it wants, in their order along the base.  channels: of each map it returns.
    split_at: the layer behind which the base runs on two resolutions, if it shall (see `Backbone.emit`).
    head: the kind of head that MODEL.HEAD auto means.  has_memory: whether its state matters; memory_on: whether it is
    used, since the state of a neck whose memory is switched off stays None.
    """

    taps: list[Tap]
    channels: list[int]
    split_at: int | None = None
    head = "conv3"
    has_memory = False
    memory_on = True

    def inserts(self) -> Mapping[Tap, nn.Module]:
        """Modules of this neck that stand in the chain of the base, by the tap behind which they stand."""
        return {}

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(the tapped maps and, last, the end of the base; state; first as in SSD.forward) -> (maps for the head,
        finest first in most variants; the new state)."""
        raise NotImplementedError


__all__ = ["SSDS", "Backbone", "Neck", "NeckSpec"]
