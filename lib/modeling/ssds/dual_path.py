"""Dual path (BMVC 2019 small-object fork): one set of weights run on two resolutions, for bases that keep a map where
the plain network halves it.

Behind the layer that keeps the map, the base goes on from all of it, the fine path, and from every second row and
column, the coarse path, whose maps have the size of the plain network's.  The taps are those of the fine path, so that
small objects are seen in twice the detail; the extra levels start from the coarse path, so that large ones are seen in
their usual context.
"""

import re

from ...utils.errors import UserError
from ..nets.backbone import NETS, Backbone, layer_of
from .feature_layer import Level, build_levels, parse_pair, usual_levels
from .neck import SSDS, NeckSpec
from .ssd import LITE_TOKENS, TOKENS, SSDNeck, plain_extras, separable_extras

KEY = "MODEL.FEATURE_LAYER"


@SSDS.register("ssd_dual")
def build_ssd_dual(backbone: Backbone, spec: NeckSpec) -> SSDNeck:
    """The layers of `ssd` on two paths."""
    return _build(backbone, spec, TOKENS, plain_extras, 2)


@SSDS.register("ssd_lite_dual")
def build_ssd_lite_dual(backbone: Backbone, spec: NeckSpec) -> SSDNeck:
    """The layers of `ssd_lite` on two paths."""
    return _build(backbone, spec, LITE_TOKENS, separable_extras, 1)


def _build(backbone: Backbone, spec: NeckSpec, tokens, build_extras, layers_per_level: int) -> SSDNeck:
    split_at = _first_unstrided(backbone)
    if spec.feature_layer is not None:
        _check_concatenation(spec.feature_layer, backbone)
    levels = build_levels(spec, backbone, tokens, usual_dual)
    last = _last_layer(levels)
    if last < split_at:
        raise UserError(f"{KEY}: the paths part behind layer {split_at}, so the last tap cannot be layer {last}")
    extras = build_extras(levels, backbone, backbone.feature_info[last].channels)
    neck = SSDNeck(levels, extras, layers_per_level, spec)
    neck.split_at = split_at
    return neck


def _first_unstrided(backbone: Backbone) -> int:
    if backbone.unstrided:
        return backbone.unstrided[0]
    raise UserError(
        "MODEL.SSDS: the dual-path variants need a base that keeps a map where the plain network halves it: "
        f"{', '.join(dual_path_bases())}"
    )


def dual_path_bases() -> list[str]:
    """Names of the base networks that have a layer at which two paths can part."""
    return [name for name in NETS.names() if re.search(r"_S\d|_stride\d", name)]


def _last_layer(levels: list[Level]) -> int:
    return max(layer_of(level.tap) for level in levels if level.is_tap)


def _check_concatenation(feature_layer, backbone: Backbone) -> None:
    """Refuse the one shipped configuration that its own code could not run, with the reason."""
    names, channels = parse_pair(feature_layer)
    taps = [backbone.find_tap(token) if isinstance(token, int) else None for token in names[:2]]
    if len(taps) < 2 or None in taps or len(channels) < 2:
        return
    own = [backbone.info_at(tap).channels for tap in taps]
    if channels[1] == sum(own):
        raise UserError(
            f"{KEY}: entry 1 ({names[1]!r}): {channels[1]} channels are those of layers {names[0]} and {names[1]} "
            f"concatenated ({own[0]} + {own[1]}), which the fork this comes from had switched off; give {own[1]}"
        )


def usual_dual(backbone: Backbone, image_size) -> list:
    """The usual levels of the plain network, which is what the coarse path is where one stride was lost."""
    if len(backbone.unstrided) == 1 and tuple(image_size) == (300, 300) and backbone.usual_levels is not None:
        return backbone.usual_levels
    return usual_levels(backbone, [-(-side // 2) for side in image_size], ("S", "S"))
