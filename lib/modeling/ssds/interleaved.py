"""Neck of the interleaved LSTM-SSD (Looking Fast and Slow, arXiv 1903.10172): one memory for two extractors."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.bottleneck_lstm import BottleneckLSTM, zero_state
from ...utils.errors import UserError
from ..nets.backbone import Backbone
from ..nets.interleaved import InterleavedBackbone, Shared
from .feature_layer import build_levels
from .lstm import halved_extras
from .neck import SSDS, Neck, NeckSpec
from .ssd import LITE_TOKENS
from .unroll import unroll

GROUPS = 4
CHANNELS = 320
EXTRAS = [["S"] * 4, [256] * 4]
LARGE, SMALL = 0, 1


class InterleavedNeck(Neck):
    """A grouped Bottleneck-LSTM on the map of whichever extractor ran, then extra levels.

    Frames of the small extractor read the memory but leave no trace in it, unless the policy lets them.  The state is
    that of InterleavedBackbone; its "memory" is (h, c), its "drift" how far this frame would move or did move h,
    relative to the norm of h, counted for frames of the small extractor.
    """

    head = "separable_all"
    has_memory = True

    def __init__(self, taps, channels: list[int], extras: list[nn.Module], cell: BottleneckLSTM):
        super().__init__()
        self.taps, self.channels = taps, channels
        self.cell = cell
        self.extras = nn.ModuleList(extras)

    def forward(self, features: Shared, state=None, first=None) -> tuple[list[Tensor], object]:
        """(maps of the extractors, state, first) -> (sources of the head, new state)."""
        if self.memory_on and state is not None:
            x, state = self.remember(features, state, first)
        else:
            x = self._output_of_single_frames(features)
        return self.grow(x), state if self.memory_on else None

    def grow(self, x: Tensor) -> list[Tensor]:
        """The sources of the head from the output of the memory."""
        sources = [x]
        for extra in self.extras:
            below, x = x, F.relu6(extra(x))
            x = x + pool(below) if below.shape[1] == x.shape[1] else x
            sources.append(x)
        return sources

    def remember(self, features: Shared, state: dict, first=None) -> tuple[Tensor, dict]:
        """(maps of the extractors, state, first) -> (output of the memory [T * B, 2N, H, W], new state)."""
        prepared, chosen = self._prepare(features), features.chosen
        num_rows = len(state["age"])
        memory = state["memory"] or zero_state(prepared[:num_rows], self.cell.channels)
        frames, before = (prepared, chosen, features.kept), (memory, state["drift"])
        x, (memory, drift) = unroll(partial(self._step, _sole_source(features)), frames, before, first)
        return x, {**state, "memory": memory, "drift": drift}

    def _step(self, source: int | None, frame, state) -> tuple[Tensor, object]:
        """((prepared input, rows of the large extractor, rows to keep) of one frame, (memory, drift)) -> (output,
        ...)."""
        (prepared, chosen, kept), (memory, _) = frame, state
        output, new = self.cell.remember(prepared + self._of_memory(source, memory[0], chosen), memory)
        drift = torch.where(chosen, 0, relative_change(memory[0], new[0]))
        rows = kept.reshape(-1, 1, 1, 1)
        carried = tuple(torch.where(rows, after, before) for before, after in zip(memory, new, strict=True))
        return output, (carried, drift)

    def _prepare(self, features: Shared) -> Tensor:
        """The inputs' part of the bottleneck for all frames, [T * B, N, H, W]."""
        large, small, chosen, _ = features
        if small is None:
            return self.cell.prepare(large, LARGE)
        if large is None:
            return self.cell.prepare(small, SMALL)
        parts = self.cell.prepare(large, LARGE), self.cell.prepare(small, SMALL)
        # Row i of the frames is row order[i] of the two parts one after the other.
        order = torch.where(chosen, chosen.cumsum(0) - 1, len(large) + (~chosen).cumsum(0) - 1)
        return torch.cat(parts)[order]

    def _of_memory(self, source: int | None, h: Tensor, chosen: Tensor) -> Tensor:
        """The memory's part of the bottleneck of one frame [B, N, H, W], by the weights that belong to each row;
        `source` is that of all rows, if it is one."""
        if source is not None:
            return self.cell.bottlenecks[source].of_memory(h)
        large, small = (bottleneck.of_memory(h) for bottleneck in self.cell.bottlenecks)
        return torch.where(chosen.reshape(-1, 1, 1, 1), large, small)

    def _output_of_single_frames(self, features: Shared) -> Tensor:
        """What the cell makes of frames without a past."""
        prepared = self._prepare(features)
        return self.cell.remember(prepared, zero_state(prepared, self.cell.channels))[0]


def _sole_source(features: Shared) -> int | None:
    """The extractor that ran for all frames; None where both did."""
    if features.small is None:
        return LARGE
    return SMALL if features.large is None else None


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    """Norm of the difference over the norm of what was before, [B]."""
    change = torch.linalg.vector_norm((after - before).detach(), dim=(1, 2, 3))
    return change / torch.linalg.vector_norm(before.detach(), dim=(1, 2, 3)).clamp(min=1e-6)


def pool(x: Tensor) -> Tensor:
    """The map of half the size that the residual of an extra level adds."""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


@SSDS.register("lstm_ssd_interleaved")
def build_interleaved(backbone: Backbone, spec: NeckSpec) -> InterleavedNeck:
    """Level 0 is the memory behind the last layer of the base; extra levels go through half their channels."""
    if not isinstance(backbone, InterleavedBackbone):
        raise TypeError("the interleaved neck stands on an InterleavedBackbone")
    last = len(backbone.feature_info) - 1
    channels = backbone.feature_info[last].channels
    levels = build_levels(spec, backbone, LITE_TOKENS, lambda *_: [[last, *EXTRAS[0]], [channels, *EXTRAS[1]]])
    if levels[0].tap != last or any(level.is_tap for level in levels[1:]):
        raise UserError(
            f"MODEL.FEATURE_LAYER: lstm_ssd_interleaved has one level of the base, its last layer {last}, where the "
            "memory stands; extra levels follow"
        )
    if len(spec.cell_channels) > 1 or any(width % GROUPS for width in spec.cell_channels):
        raise UserError(
            f"MODEL.RNN.CELL_CHANNELS: {list(spec.cell_channels)} given; lstm_ssd_interleaved has one memory in "
            f"{GROUPS} groups: give one number that {GROUPS} divides, or none"
        )
    widths = [channels, backbone.small.feature_info[-1].channels]
    memory = spec.cell_channels[0] if spec.cell_channels else CHANNELS
    cell = BottleneckLSTM(widths, memory, GROUPS, spec.cell_bound, output_bottleneck=True)
    channels = [cell.out_channels, *(level.channels for level in levels[1:])]
    return InterleavedNeck([last], channels, halved_extras(levels[1:], channels), cell)
