"""FEATURE_LAYER, the reference family's description of levels, parsed once into records."""

import logging
from collections.abc import Collection
from typing import NamedTuple

from ...utils.errors import UserError
from ..nets.backbone import Backbone, Tap, layer_of
from .neck import NeckSpec

logger = logging.getLogger(__name__)


class Level(NamedTuple):
    """One entry of FEATURE_LAYER: a layer of the base or a token, and the channels of the level.

    `tap` is the place in the base, None for extra layers; `hidden` the channels inside an extra layer, None where the
    variant decides.
    """

    token: int | str
    channels: int
    tap: Tap | None = None
    hidden: int | None = None

    @property
    def is_tap(self) -> bool:
        """Whether the level is an output of the base network."""
        return self.tap is not None


def build_levels(spec: NeckSpec, backbone: Backbone, tokens: Collection[str], usual=None) -> list[Level]:
    """The levels that a variant is asked for or, where the choice is its own, those of usual(backbone, image size), by
    default `usual_levels`.  Arguments and errors as `parse_levels`."""
    layers = spec.feature_layer
    if layers is None:
        layers = (usual or usual_levels)(backbone, spec.image_size)
    return parse_levels(layers, spec.num_ratios, backbone, tokens)


def parse_levels(
    feature_layer, num_ratios: int | None, backbone: Backbone, tokens: Collection[str], key: str = "MODEL.FEATURE_LAYER"
) -> list[Level]:
    """Levels of a [tokens, channels] pair, cut like the reference to the shortest of tokens, channels and ratio lists.

    `num_ratios` is the number of aspect-ratio lists (None: no limit), `tokens` the strings the variant knows.  Channels
    are a number, null for those of the tapped layer, or [hidden, channels] for an extra layer.  Raises UserError for
    unknown tokens, layers the base does not have, wrong channels and layers after tokens.
    """
    levels, previous = [], -1
    for position, (token, width) in enumerate(cut_to_shortest(*parse_pair(feature_layer, key), num_ratios, key)):
        where = f"{key}: entry {position} ({token!r})"
        tap = tap_of(where, token, backbone, tokens)
        if tap is None:
            levels.append(Level(token, *_extra_channels(where, width)))
            previous = len(backbone.layers)
            continue
        if layer_of(tap) <= previous:
            raise UserError(f"{where}: layers of the base come first, in ascending order")
        previous = layer_of(tap)
        levels.append(Level(token, tap_channels(where, tap, width, backbone), tap))
    if not levels or not levels[0].is_tap:
        raise UserError(f"{key}: the first entry must be a layer of the base network")
    return levels


def parse_pair(feature_layer, key: str = "MODEL.FEATURE_LAYER") -> tuple[list, list]:
    """The two lists of a [tokens, channels] pair; UserError for anything else."""
    pair = isinstance(feature_layer, (list, tuple)) and len(feature_layer) == 2
    if not pair or not all(isinstance(part, (list, tuple)) for part in feature_layer):
        raise UserError(f"{key}: expected [tokens, channels], two lists, got {feature_layer!r}")
    return list(feature_layer[0]), list(feature_layer[1])


def cut_to_shortest(names, channels, num_ratios: int | None, key: str, unit: str = "levels") -> list[tuple]:
    """(token, channels) pairs, as many as the shortest of the lists has; a warning says what is left out."""
    count = min(len(names), len(channels), *([] if num_ratios is None else [num_ratios]))
    if max(len(names), len(channels), num_ratios or 0) > count:
        cut = [f"tokens {names[count:]}"] if names[count:] else []
        cut += [f"channels {channels[count:]}"] if channels[count:] else []
        cut += [f"the last {num_ratios - count} lists of ASPECT_RATIOS"] if (num_ratios or 0) > count else []
        also = "" if num_ratios is None else " and ASPECT_RATIOS"
        logger.warning(
            "%s%s are of unequal length: the first %d %s are built, without %s",
            *(key, also, count, unit, " and ".join(cut)),
        )
    return list(zip(names[:count], channels[:count], strict=True))


def tap_of(where: str, token, backbone: Backbone, tokens) -> Tap | None:
    """The place in the base that an entry means, None for one of `tokens`; UserError for what is neither."""
    if isinstance(token, str) and token in tokens:
        return None
    tap = backbone.find_tap(token) if isinstance(token, (int, str)) else None
    if tap is not None:
        return tap
    if isinstance(token, int):
        raise UserError(f"{where}: the base network has {backbone.taps_in_words()}")
    raise UserError(
        f"{where}: unknown token; allowed: {', '.join(map(repr, sorted(tokens)))}, or one of the base's "
        f"{backbone.taps_in_words()}"
    )


def _positive(value) -> bool:
    return type(value) is int and value > 0


def _extra_channels(where: str, width) -> tuple[int, None, int | None]:
    """(channels, no tap, hidden channels) of an extra layer."""
    if isinstance(width, (list, tuple)) and len(width) == 2 and all(map(_positive, width)):
        return width[1], None, width[0]
    if not _positive(width):
        raise UserError(f"{where}: channels must be a positive number or [hidden, channels], not {width!r}")
    return width, None, None


def extra_channels(where: str, width) -> int:
    """The channels of an extra layer, which must be one positive number."""
    if not _positive(width):
        raise UserError(f"{where}: channels must be a positive number, not {width!r}")
    return width


def tap_channels(where: str, tap: Tap, width, backbone: Backbone) -> int:
    """The channels at a tap, which must be what is given for it unless that is null."""
    channels = backbone.info_at(tap).channels
    if width is not None and not _positive(width):
        raise UserError(f"{where}: channels must be a positive number or null, not {width!r}")
    if width not in (None, channels):
        raise UserError(f"{where}: layer {layer_of(tap)} of the base network has {channels} channels, not {width}")
    return channels


def usual_levels(backbone: Backbone, image_size, tokens=("S",)) -> list[list]:
    """[tokens, channels] for a base network whose FEATURE_LAYER is not given: the last layers of its two coarsest
    strides, then strided extra levels of 512, 256, 256, 128, 128, ... channels down to a map of one cell.

    `tokens` are those of the first extra levels, the last one serving for all that follow.
    """
    if backbone.usual_levels is not None and tuple(image_size) == (300, 300) and tokens == ("S",):
        return backbone.usual_levels
    names = backbone.last_layers_by_stride()[-2:]
    channels = [backbone.feature_info[i].channels for i in names]
    side = -(-max(image_size) // backbone.feature_info[-1].stride)
    extra, strided = iter([512, 256, 256]), iter(tokens)
    while side > 1:
        side = -(-side // 2)
        names, channels = [*names, next(strided, tokens[-1])], [*channels, next(extra, 128)]
    return [names, channels]
