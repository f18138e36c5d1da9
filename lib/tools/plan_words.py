"""Layers of base networks and entries of FEATURE_LAYER in words, for the plan tool."""

from dataclasses import dataclass, field

from torch import nn

from ..modeling.nets.backbone import Backbone, ConvLayer

# What folds into the layer before it: it changes neither the map nor the channels.
PLAIN = {
    nn.BatchNorm2d: "batch norm", nn.ReLU: "ReLU", nn.ReLU6: "ReLU6", nn.LeakyReLU: "leaky ReLU", nn.SiLU: "SiLU",
    nn.Identity: "nothing",
}  # fmt: skip

# Convolutions of a block, D depthwise -> its name, and what the name means.
BLOCKS = {
    ("D3x3", "1x1"): ("depthwise separable", "a 3x3 convolution of every channel by itself, then a 1x1"),
    ("1x1", "D3x3", "1x1"): (
        "inverted residual",
        "1x1 to more channels, depthwise 3x3, 1x1 to few; the input is added where the shape stays",
    ),
    ("1x1", "3x3", "1x1"): ("bottleneck", "1x1 to few channels, 3x3, 1x1 to many; the input is added"),
    ("3x3", "3x3"): ("basic block", "two 3x3 convolutions; the input is added"),
    ("1x1", "3x3"): ("pair", "1x1 to half the channels, 3x3 back to all"),
}


def layer_in_words(module: nn.Module) -> str:
    """What a layer of a base is, such as 'conv 3x3, stride 2'."""
    if type(module) in PLAIN:
        return PLAIN[type(module)]
    if isinstance(module, nn.MaxPool2d):
        kernel, stride = _first(module.kernel_size), _first(module.stride)
        return "nothing (1x1 pool)" if kernel == stride == 1 else _with_stride(f"max pool {kernel}x{kernel}", stride)
    convolutions = main_convolutions(module)
    if not convolutions:
        return type(module).__name__
    stride = 1
    for convolution in convolutions:
        stride *= _first(convolution.stride)
    if len(convolutions) == 1:
        words = _convolution_in_words(convolutions[0])
    else:
        pattern = tuple(map(_short_name, convolutions))
        words = BLOCKS[pattern][0] if pattern in BLOCKS else ", ".join(pattern)
    if getattr(module, "residual", False) and words == "pair":
        words = "residual pair"
    return _with_stride(words, stride)


def block_meanings(words) -> list[str]:
    """One line for every name of BLOCKS that occurs in these descriptions."""
    return [f"{name}: {meaning}" for name, meaning in BLOCKS.values() if any(name in text for text in words)]


def main_convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions on the main path of a layer, in order."""
    found = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]
    return [part for name, part in found if "downsample" not in name.split(".")]


def places_in_words(backbone: Backbone) -> tuple[int, list[str]] | None:
    """(the first layer of the coarsest stride, its places) as an example of taps inside a layer; None where the base
    has no layers with places."""
    if not isinstance(backbone.layers, nn.ModuleList):
        return None
    for index in reversed(range(1, len(backbone.layers))):
        layer = backbone.layers[index]
        coarser = backbone.feature_info[index].stride > backbone.feature_info[index - 1].stride
        if coarser and isinstance(layer, ConvLayer):
            return index, [layer_in_words(part) for part in layer.conv]
    return None


def _convolution_in_words(convolution: nn.Conv2d) -> str:
    rows, columns = convolution.kernel_size
    kind = "depthwise" if convolution.groups == convolution.in_channels > 1 else "conv"
    dilation = _first(convolution.dilation)
    return f"{kind} {rows}x{columns}" + (f", dilation {dilation}" if dilation > 1 else "")


def _short_name(convolution: nn.Conv2d) -> str:
    rows, columns = convolution.kernel_size
    return f"{'D' if convolution.groups == convolution.in_channels > 1 else ''}{rows}x{columns}"


def _with_stride(words: str, stride: int) -> str:
    return words if stride == 1 else f"{words}, stride {stride}"


def _first(value) -> int:
    return value[0] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Variant:
    """How a variant reads FEATURE_LAYER.

    form: how the key is written.  tap: what becomes of a layer of the base.  tokens: the strings there are.  remark:
    what else makes its levels.  levels: what has an entry for each level: tokens, the pyramid (the second pair), or
    chains (lists of tokens).  inner_taps: whether places inside a layer may be given.  first_through and later_through:
    what the first layer of the base and the others go through on their way to a level.
    """

    form: str = "[tokens, channels], an entry for each level"
    tap: str = "its map is a level"
    tokens: dict[str, str] = field(default_factory=dict)
    remark: str = ""
    levels: str = "tokens"
    inner_taps: bool = True
    first_through: str = ""
    later_through: str = ""


PLAIN_TOKENS = {
    "S": "extra level behind the base: 1x1 to half the channels, 3x3 with stride 2; halves the map",
    "": "extra level: 1x1 to half the channels, unpadded 3x3; the map loses 2 rows and columns",
    "K4": "extra level: 1x1 to half the channels, 4x4; the map loses 1 row and column",
}
LITE_TOKENS = {
    "S": "extra level behind the base: 1x1, depthwise 3x3 with stride 2, 1x1; halves the map",
    "": "extra level: 1x1, unpadded depthwise 3x3, 1x1; the map loses 2 rows and columns",
    "P": "extra level: 'S' without padding; n rows become (n - 1) / 2, rounded down",
    "E": "the same as 'S'",
}
HALVED_TOKENS = {
    token: meaning.replace(": 1x1,", ": 1x1 to half the channels,") for token, meaning in LITE_TOKENS.items()
}
LSTM_TOKENS = {
    **LITE_TOKENS,
    "L": "'S' and behind it an LSTM of 1x1 convolutions, by which every cell of the halved map remembers by itself",
}
MEMORY = "a Bottleneck-LSTM, whose separable 3x3 convolutions carry what is remembered to neighbouring cells"
BLOCK = "a receptive field block"
BLOCK_TOKENS = {"RBF": f"extra level behind the base: {BLOCK} with stride 2; halves the map"}
NORM = "MODEL.SOURCE_NORM"
NORMED = f"its map is a level, the first one through {NORM}"
DUAL = f"its map on the fine path is a level, the first one through {NORM}"
DUAL_REMARK = "behind the split the base also runs on every second row and column; extra levels go on from there"
FUSED = "[[tokens, channels], [pyramid tokens, channels]]: maps that are fused, then an entry a level"
FUSED_TAP = "its map is resized to that of the first one and joined with the others"
PYRAMID = {
    "pyramid 'S'": "level of the pyramid: 3x3 with stride 2; halves the map",
    "pyramid ''": "level of the pyramid: 3x3, padded on the first level only; later the map loses 2 rows and columns",
}
TOP_DOWN = "levels pass features down from coarse to fine; every level ends with MODEL.NECK_WIDTH channels"
YOLO_FORM = "[[entries of level 0, entries of level 1, ...], [their channels]]: a chain through all levels"
YOLO_TOKENS = {
    "": "3x3 convolution",
    "B": "1x1 to half the channels, then 3x3",
}

VARIANTS = {
    "ssd": Variant(tap=NORMED, first_through=NORM, tokens=PLAIN_TOKENS),
    "ssd_lite": Variant(tap=NORMED, first_through=NORM, tokens=LITE_TOKENS),
    **dict.fromkeys(
        ("ssd_lite_RNN", "lstm_ssd_lite"),
        Variant(
            tap=NORMED,
            first_through=NORM,
            tokens=LSTM_TOKENS,
            remark="only 'L' remembers; in epochs on stills, and with MODEL.RNN.IN_USE False, it is the same as 'S'",
        ),
    ),
    "lstm_ssd": Variant(
        tokens=HALVED_TOKENS,
        remark=f"behind each level of MODEL.RNN.CELL_LEVELS, by default the last layer of the base that is given, "
        f"stands {MEMORY}; the next extra level goes on from its output. The base ends at that last layer, which must "
        "be a whole one: what comes behind is not built",
    ),
    "lstm_ssd_interleaved": Variant(
        tap="only its last one may be given, as level 0, which comes from whichever extractor saw the frame",
        tokens=HALVED_TOKENS,
        remark=f"behind level 0 stands {MEMORY}, in four groups, one for both extractors: MODEL.NETS and, on images of "
        "half the size, MODEL.RNN.SMALL_NETS. Frames of the latter read the memory and do not change it, unless POLICY "
        "is small. An extra level of as many channels as the one before also adds that one's map, pooled to half the "
        "size",
        inner_taps=False,
    ),
    "ssd_dual": Variant(tap=DUAL, first_through=NORM, tokens=PLAIN_TOKENS, remark=DUAL_REMARK),
    "ssd_lite_dual": Variant(tap=DUAL, first_through=NORM, tokens=LITE_TOKENS, remark=DUAL_REMARK),
    "rfb": Variant(
        tap=f"its map is a level, through {BLOCK}",
        tokens={**BLOCK_TOKENS, **PLAIN_TOKENS},
        first_through=BLOCK,
        later_through=BLOCK,
    ),
    "rfb_lite": Variant(
        tap=f"its map is a level, the first one through {BLOCK}",
        tokens={**BLOCK_TOKENS, **PLAIN_TOKENS},
        first_through=BLOCK,
    ),
    "fssd": Variant(FUSED, FUSED_TAP, {**PLAIN_TOKENS, **PYRAMID}, levels="pyramid"),
    "fssd_lite": Variant(FUSED, FUSED_TAP, {**LITE_TOKENS, **PYRAMID}, levels="pyramid"),
    "yolo_v2": Variant(
        YOLO_FORM,
        "its map, each 2x2 cells as one of four times the channels, is joined with the chain",
        YOLO_TOKENS,
        levels="chains",
    ),
    "yolo_v3": Variant(YOLO_FORM, "the chain is enlarged to its map and joined with it", YOLO_TOKENS, levels="chains"),
    "fpn": Variant(
        tokens={"S": "extra level behind the base: 3x3 with stride 2; halves the map"},
        remark=f"{TOP_DOWN}, and the channels of extra levels are not read",
    ),
    "bifpn": Variant(
        tokens={"S": "extra level behind the base: max pool with stride 2; halves the map"},
        remark="levels pass features down and up MODEL.NECK_REPEATS times; every level ends with MODEL.NECK_WIDTH "
        "channels, and the channels of extra levels are not read",
    ),
    "dssd": Variant(tap=NORMED, first_through=NORM, tokens=PLAIN_TOKENS, remark=TOP_DOWN),
    "tdm": Variant(tap=NORMED, first_through=NORM, tokens=PLAIN_TOKENS, remark=TOP_DOWN),
}
"""What entries of FEATURE_LAYER mean, by variant."""


def variant_in_words(name: str) -> Variant:
    """The entry of VARIANTS, or one without tokens for a variant that nobody has described."""
    return VARIANTS.get(name, Variant())


def levels_of(feature_layer, variant: Variant) -> list:
    """The entry of FEATURE_LAYER that each level comes from: a token, or the list of tokens of a chain."""
    return list(feature_layer[1][0] if variant.levels == "pyramid" else feature_layer[0])


def token_in_words(token, variant: Variant, backbone: Backbone, through: str) -> str:
    """Where a level comes from; `through` is what a layer of the base goes through on its way, if anything."""
    if isinstance(token, (list, tuple)):
        return f"the end of the chain {' '.join(map(repr, token))}"
    if f"pyramid {token!r}" in variant.tokens:
        return variant.tokens[f"pyramid {token!r}"]
    if isinstance(token, str) and token in variant.tokens:
        return variant.tokens[token]
    tap = backbone.find_tap(token)
    if tap is None:
        return "extra level"
    place = f"layer {tap}" if isinstance(tap, int) else f"place {tap[1]} inside layer {tap[0]}"
    last = f", the last one of stride {str(token)[1:]}" if str(token).startswith("/") else ""
    return f"{place} of the base{last}" + (f", through {through}" if through else "")
