"""Necks with memory for video: SSD-Lite with LSTM layers of the LSTM fork, and LSTM-SSD of Liu and Zhu."""

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.bottleneck_lstm import BottleneckLSTM, SeparableLSTM
from ...utils.errors import UserError
from ..nets.backbone import Backbone
from .feature_layer import Level, build_levels
from .neck import SSDS, Neck, NeckSpec
from .ssd import LITE_TOKENS, SSDNeck, extra_levels, separable_extra
from .unroll import unroll

TOKENS = {**LITE_TOKENS, "L": (3, 2, 1)}


class LSTMLiteNeck(SSDNeck):
    """SSD-Lite whose extra layers 'L' have an LSTM behind their separable block (LSTM fork of ssds.pytorch).

    The state has a (h, c) for each of these layers, or is None.  With the memory switched off they are ordinary extra
    layers, as in the epochs that the fork trains without them.
    """

    def __init__(self, levels: list[Level], extras: list[nn.Module], spec: NeckSpec):
        super().__init__(levels, extras, 1, spec)
        self.has_memory = any(isinstance(layer, SeparableLSTM) for layer in self.extras)

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state, first) -> (sources of the head, new state)."""
        before = iter(state or [None] * len(self.extras))
        states = []

        def apply(layer: nn.Module, x: Tensor) -> Tensor:
            if not isinstance(layer, SeparableLSTM):
                return layer(x)
            if not self.memory_on:
                return layer.prepare(x)
            x, after = unroll(layer.step, layer.prepare(x), next(before), first)
            states.append(after)
            return x

        return self.run(features, apply), tuple(states) or None


@SSDS.register("ssd_lite_RNN")
@SSDS.register("lstm_ssd_lite")
def build_lstm_ssd_lite(backbone: Backbone, spec: NeckSpec) -> LSTMLiteNeck:
    """Extra level: one separable block, for 'L' with an LSTM behind it."""
    levels = build_levels(spec, backbone, TOKENS)
    extras = [_lite_extra(width, level) for width, level in extra_levels(levels, backbone)]
    return LSTMLiteNeck(levels, extras, spec)


def _lite_extra(in_channels: int, level: Level) -> nn.Module:
    if level.token == "L":
        return SeparableLSTM(in_channels, level.channels, *TOKENS["L"][1:], level.hidden)
    return separable_extra(in_channels, level)


class LSTMNeck(Neck):
    """Levels behind some of which stands a Bottleneck-LSTM (arXiv 1711.06368).

    The base ends at its last level.  A memory behind that or behind an extra level stands in the chain, which goes on
    from its output; one behind an earlier level of the base stands aside.  `cells` has the memories by level as a text;
    the state has a (h, c) for each, in the order of the levels, or is None.
    """

    head = "separable_all"

    def __init__(self, taps, channels: list[int], extras: list[nn.Module], cells: dict[int, BottleneckLSTM]):
        super().__init__()
        self.taps, self.channels = taps, channels
        self.extras = nn.ModuleList(extras)
        self.cells = nn.ModuleDict({str(number): cell for number, cell in cells.items()})
        self.has_memory = bool(cells)

    def forward(self, features: list[Tensor], state=None, first=None) -> tuple[list[Tensor], object]:
        """(taps and end of the base, state, first) -> (sources of the head, new state)."""
        before = iter(state or [None] * len(self.cells))
        sources, states = [], []
        maps = list(features[:-1])
        for number in range(len(self.channels)):
            x = maps[number] if number < len(maps) else F.relu6(self.extras[number - len(maps)](sources[-1]))
            if str(number) in self.cells:
                cell = self.cells[str(number)]
                if self.memory_on:
                    x, after = unroll(cell.step, cell.prepare(x), next(before), first)
                    states.append(after)
                else:
                    x = cell(x)[0]
            sources.append(x)
        return sources, tuple(states) if self.memory_on else None


@SSDS.register("lstm_ssd")
def build_lstm_ssd(backbone: Backbone, spec: NeckSpec) -> LSTMNeck:
    """Extra level: one separable block, through half its channels unless FEATURE_LAYER says otherwise."""
    levels = build_levels(spec, backbone, LITE_TOKENS)
    taps = [level.tap for level in levels if level.is_tap]
    end = taps[-1]
    if not isinstance(end, int):
        raise UserError(
            f"MODEL.FEATURE_LAYER: the base of lstm_ssd ends at its last level, which must be a whole layer, not "
            f"{levels[len(taps) - 1].token!r}"
        )
    backbone.cut_behind(end)
    wanted = [len(taps) - 1] if spec.cell_levels is None else list(spec.cell_levels)
    widths = _cell_channels(wanted, levels, spec.cell_channels)
    cells = {
        number: BottleneckLSTM(levels[number].channels, widths[number], 1, spec.cell_bound, spec.cell_skip)
        for number in wanted
    }
    channels = [cells[n].out_channels if n in cells else level.channels for n, level in enumerate(levels)]
    extras = halved_extras(levels[len(taps) :], channels[len(taps) - 1 :])
    return LSTMNeck(taps, channels, extras, cells)


def _cell_channels(wanted: list[int], levels: list[Level], given) -> dict[int, int]:
    """The channels of the memory at each level that has one."""
    if sorted(set(wanted)) != wanted or not all(0 <= number < len(levels) for number in wanted):
        raise UserError(
            f"MODEL.RNN.CELL_LEVELS: {wanted} given; allowed are numbers from 0 to {len(levels) - 1}, ascending, one "
            "for each level that shall have a memory"
        )
    if given and len(given) != len(wanted):
        raise UserError(
            f"MODEL.RNN.CELL_CHANNELS: {list(given)} given for {len(wanted)} memories; give one number for each, or "
            "none"
        )
    return dict(zip(wanted, given or [max(levels[number].channels // 4, 1) for number in wanted], strict=True))


def halved_extras(levels: list[Level], in_channels: list[int]) -> list[nn.Module]:
    """A separable block for each extra level, through half its channels unless FEATURE_LAYER says otherwise;
    in_channels begins with those that each of them reads."""
    return [
        separable_extra(width, level._replace(hidden=level.hidden or max(level.channels // 2, 1)))
        for width, level in zip(in_channels, levels, strict=False)
    ]
