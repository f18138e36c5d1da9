"""FEATURE_LAYER, the reference family's description of levels, parsed once into records."""

import logging
from typing import NamedTuple

from ...utils.errors import UserError
from ..nets.backbone import Backbone

logger = logging.getLogger(__name__)


class Level(NamedTuple):
    """One entry of FEATURE_LAYER: a layer index of the base or a token, and the channels of the level."""

    token: int | str
    channels: int

    @property
    def is_tap(self) -> bool:
        """Whether the level is an output of the base network."""
        return isinstance(self.token, int)


def parse_levels(feature_layer, num_ratios: int | None, backbone: Backbone, tokens: dict | set) -> list[Level]:
    """Levels of a [tokens, channels] pair, cut like the reference to the shortest of tokens, channels and ratio lists.

    `num_ratios` is the number of aspect-ratio lists (None: no limit), `tokens` the strings the variant knows.
    Raises UserError for unknown tokens, layers the base does not have, wrong channels and layers after tokens.
    """
    names, channels = _pair(feature_layer)
    count = min(len(names), len(channels), *([] if num_ratios is None else [num_ratios]))
    if max(len(names), len(channels), num_ratios or 0) > count:
        cut = [f"tokens {names[count:]}"] if names[count:] else []
        cut += [f"channels {channels[count:]}"] if channels[count:] else []
        cut += [f"the last {num_ratios - count} lists of ASPECT_RATIOS"] if (num_ratios or 0) > count else []
        logger.warning(
            "MODEL.FEATURE_LAYER and ASPECT_RATIOS are of unequal length: the first %d levels are built, without %s",
            count,
            " and ".join(cut),
        )
    levels = [Level(*pair) for pair in zip(names[:count], channels[:count], strict=True)]
    previous = -1
    for position, level in enumerate(levels):
        where = f"MODEL.FEATURE_LAYER: entry {position} ({level.token!r})"
        if not isinstance(level.channels, int) or level.channels < 1:
            raise UserError(f"{where}: channels must be a positive number, not {level.channels!r}")
        if level.is_tap:
            _check_tap(where, level, previous, backbone)
            previous = level.token
        elif level.token not in tokens:
            raise UserError(f"{where}: unknown token; allowed: a layer index, {', '.join(map(repr, sorted(tokens)))}")
        else:
            previous = len(backbone.layers)
    if not levels or not levels[0].is_tap:
        raise UserError("MODEL.FEATURE_LAYER: the first entry must be a layer index of the base network")
    return levels


def _pair(feature_layer):
    pair = isinstance(feature_layer, (list, tuple)) and len(feature_layer) == 2
    if not pair or not all(isinstance(part, (list, tuple)) for part in feature_layer):
        raise UserError(f"MODEL.FEATURE_LAYER: expected [tokens, channels], two lists, got {feature_layer!r}")
    return [list(part) for part in feature_layer]


def _check_tap(where: str, level: Level, previous: int, backbone: Backbone) -> None:
    last = len(backbone.layers) - 1
    if not 0 <= level.token <= last:
        raise UserError(f"{where}: the base network has layers 0 to {last}")
    if level.token <= previous:
        raise UserError(f"{where}: layer indices come first, in ascending order")
    channels = backbone.feature_info[level.token].channels
    if level.channels != channels:
        raise UserError(
            f"{where}: layer {level.token} of the base network has {channels} channels, not {level.channels}"
        )


def usual_levels(backbone: Backbone, image_size) -> list[list]:
    """[tokens, channels] for a base network whose FEATURE_LAYER is not given: the last layers of its two coarsest
    strides, then strided extra levels of 512, 256, 256, 128, 128, ... channels down to a map of one cell."""
    if backbone.usual_levels is not None and tuple(image_size) == (300, 300):
        return backbone.usual_levels
    tokens = backbone.last_layers_by_stride()[-2:]
    channels = [backbone.feature_info[i].channels for i in tokens]
    side = -(-max(image_size) // backbone.feature_info[-1].stride)
    extra = iter([512, 256, 256])
    while side > 1:
        side = -(-side // 2)
        tokens, channels = [*tokens, "S"], [*channels, next(extra, 128)]
    return [tokens, channels]
