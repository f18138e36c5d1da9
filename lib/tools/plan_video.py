"""What the plan tool says of a detector for video: the cells of its memory, and its two extractors if it has them."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn

from ..layers.bottleneck_lstm import BottleneckLSTM, SeparableLSTM
from ..modeling.complexity import count_macs, unused_parameters
from ..modeling.nets.backbone import Backbone
from ..modeling.nets.interleaved import InterleavedBackbone, Policy, usual_small_net
from ..modeling.ssds.detector import SSD
from ..modeling.ssds.interleaved import InterleavedNeck
from ..modeling.ssds.lstm import LSTMLiteNeck, LSTMNeck

FLOAT = 4  # bytes
BOTTLENECK = "Bottleneck-LSTM"
SMALL = "backbone.small"  # one of the parts of an interleaved detector; the other extractor is "base"


@dataclass
class CellFacts:
    """A recurrent layer: the level that it makes, the channels that it reads (one number for each extractor) and
    remembers, the groups of its memory, its map (rows, columns), its parameters, and the bytes that it carries from one
    frame of a video to the next."""

    level: int
    what: str
    inputs: list[int]
    channels: int
    groups: int
    map: tuple[int, int]
    parameters: int
    state_bytes: int


@dataclass
class FrameFacts:
    """A frame that one of two extractors sees: the parameters that it takes, and its multiply-adds by part."""

    net: str
    image_size: tuple[int, int]
    parameters: int
    macs: dict[str, int]


@dataclass
class InterleavingFacts:
    """Two extractors that take turns.  heavy_share is the part of the frames that the large one sees in inference: what
    it comes to in the long run or, where `share_is_least`, at least.  small_layers is filled by collect_facts."""

    small_net: str
    small_net_given: bool
    policy: str
    training_policy: str
    interval: int
    threshold: float
    heavy: FrameFacts
    light: FrameFacts
    heavy_share: float
    share_is_least: bool
    mean_macs: int
    small_layers: list = field(default_factory=list)


def cells_of(model: SSD) -> list[tuple[int, nn.Module]]:
    """(level, recurrent layer) of the necks that the package has, in the order of the levels."""
    neck = model.neck
    if isinstance(neck, LSTMNeck):
        return [(int(number), cell) for number, cell in neck.cells.items()]
    if isinstance(neck, InterleavedNeck):
        return [(0, neck.cell)]
    if isinstance(neck, LSTMLiteNeck):
        extras = enumerate(neck.extras, start=len(neck.taps))
        return [(number, layer) for number, layer in extras if isinstance(layer, SeparableLSTM)]
    return []


def remembers(model: SSD) -> bool:
    """Whether there is anything in a detector that could remember."""
    own = not isinstance(model.neck, LSTMNeck)  # of which CELL_LEVELS may take every memory
    return model.neck.has_memory and (own or bool(cells_of(model)))


def collect_cells(model: SSD, maps: list[tuple[int, int]]) -> list[CellFacts]:
    """The recurrent layers of a detector whose levels have these maps."""
    return [_cell_facts(level, cell, maps[level]) for level, cell in cells_of(model)]


def _cell_facts(level: int, cell: nn.Module, cells: tuple[int, int]) -> CellFacts:
    parameters = sum(parameter.numel() for parameter in cell.parameters())
    state = 2 * cell.channels * math.prod(cells) * FLOAT
    if isinstance(cell, BottleneckLSTM):
        inputs, groups = [bottleneck.x_depthwise.in_channels for bottleneck in cell.bottlenecks], cell.groups
        return CellFacts(level, BOTTLENECK, inputs, cell.channels, groups, cells, parameters, state)
    first = next(layer for layer in cell.modules() if isinstance(layer, nn.Conv2d))
    return CellFacts(level, "'S' and LSTM", [first.in_channels], cell.channels, 1, cells, parameters, state)


def cell_in_words(cell: CellFacts) -> str:
    """What to say of the memory of a level behind where it comes from; nothing where its token says it."""
    if cell.what != BOTTLENECK:
        return ""
    words = f"; behind it a {BOTTLENECK} of {cell.channels} channels"
    return words if cell.groups == 1 else f"{words} in {cell.groups} groups, followed by those of its bottleneck"


# ------------------------------------------------------------------------------------------------- extractors


@contextmanager
def seen_by(model: SSD, extractor: str):
    """Let every frame of a run on shapes go through one extractor, large or small; of other detectors nothing
    changes."""
    backbone = model.backbone
    if not isinstance(backbone, InterleavedBackbone):
        yield
        return
    before, backbone.policy = backbone.policy, Policy(extractor)
    try:
        yield
    finally:
        backbone.policy = before


@contextmanager
def memory_switched(model: SSD, on: bool):
    """Let a detector remember meanwhile, or not."""
    before = model.neck.memory_on
    model.switch_memory(on)
    try:
        yield
    finally:
        model.switch_memory(before)


def large_extractor(backbone: Backbone) -> Backbone:
    """The large one of two extractors as a base by itself; any other base as it is."""
    if not isinstance(backbone, InterleavedBackbone):
        return backbone
    return Backbone(list(backbone.layers), backbone.feature_info, backbone.usual_levels, backbone.unstrided)


def collect_interleaving(cfg, model: SSD) -> InterleavingFacts | None:
    """The two extractors of an interleaved detector and when they run; None for any other."""
    backbone, rnn = model.backbone, cfg.MODEL.RNN
    if not isinstance(backbone, InterleavedBackbone):
        return None
    given = rnn.SMALL_NETS != "auto"
    small_net = rnn.SMALL_NETS if given else usual_small_net(backbone)
    size = tuple(cfg.MODEL.IMAGE_SIZE)
    half = tuple(-(-side // 2) for side in size)
    heavy, light = _frame(model, "large", cfg.MODEL.NETS, size, size), _frame(model, "small", small_net, size, half)
    light.macs = {SMALL if part == "base" else part: macs for part, macs in light.macs.items()}
    share = heavy_share(rnn.POLICY, rnn.INTERVAL, rnn.IN_USE)
    mean = share * sum(heavy.macs.values()) + (1 - share) * sum(light.macs.values())
    return InterleavingFacts(
        small_net, given, rnn.POLICY, rnn.TRAIN_POLICY, rnn.INTERVAL, rnn.ADAPT_THRESHOLD, heavy, light, share,
        rnn.POLICY == "adaptive" and share < 1, round(mean),
    )  # fmt: skip


def _frame(model: SSD, extractor: str, net: str, size, seen_size) -> FrameFacts:
    with seen_by(model, extractor):
        unused = set(unused_parameters(model, size))
        macs = count_macs(model, size)
    taken = sum(parameter.numel() for name, parameter in model.named_parameters() if name not in unused)
    return FrameFacts(net, seen_size, taken, macs)


def heavy_share(policy: str, interval: int, remembering: bool) -> float:
    """The part of the frames that the large extractor sees in the long run; of `adaptive` the least.

    Without memory every frame is the first one of a video.
    """
    if policy in ("large", "small", "random"):
        return {"large": 1.0, "small": 0.0, "random": 0.5}[policy]
    return 1 / (interval + 1) if remembering else 1.0
