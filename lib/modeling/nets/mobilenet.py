"""MobileNet V1 (arXiv 1704.04861) and V2 (arXiv 1801.04381) in the layout of the reference family."""

from functools import partial

from torch import nn

from ...layers.blocks import conv_bn
from .backbone import NETS, Backbone, ConvLayer, FeatureInfo

MULTIPLIERS = {"": 1.0, "_075": 0.75, "_050": 0.5, "_025": 0.25}

# Channels and stride of each layer; the first is a full convolution, the others depthwise separable.
V1_CHANNELS = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
V1_STRIDES = [2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
# Layers that lose their stride in the small-object variants (BMVC 2019 fork).
V1_UNSTRIDED = {"": (), "_S1L0": (0,), "_S1L4": (4,), "_S1L6": (6,), "_S2L0_6": (0, 6)}
V1_HALVING = [layer for layer, stride in enumerate(V1_STRIDES) if stride == 2]
LAST_STRIDES = (8, 16)  # of the variants for images of half the size

# Expansion, channels, stride of the first block of each stage; the blocks per stage are apart.
V2_STAGES = [(1, 16, 1), (6, 24, 2), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1)]
V2_BLOCKS = [1, 2, 3, 4, 3, 3, 1]
V2_LAST = 1280  # not made narrower by the multipliers


def inverted_residual(in_channels: int, channels: int, stride: int, expansion: int, expand: bool = True) -> ConvLayer:
    """The block of V2; like the published checkpoints it has an expansion convolution also for expansion 1, unless
    `expand` is off."""
    hidden = in_channels * expansion
    layers = conv_bn(in_channels, hidden, 1, activation=nn.ReLU6) if expand else []
    layers += conv_bn(hidden, hidden, 3, stride, groups=hidden, activation=nn.ReLU6)
    layers += conv_bn(hidden, channels, 1, activation=None)
    return ConvLayer(layers, residual=stride == 1 and in_channels == channels)


def scale_channels(channels: int, multiplier: float) -> int:
    """Channels times the multiplier, cut to a whole number, at least 8 (not rounded to multiples of 8)."""
    return max(int(channels * multiplier), 8)


def round_channels(channels: int, multiplier: float) -> int:
    """Channels times the multiplier, rounded to a multiple of 8, at least 16 and not a tenth below, as in TensorFlow's
    slim."""
    wanted = channels * multiplier
    rounded = max(16, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def build_mobilenet_v2_slim(multiplier: float, last_stride: int = 32) -> Backbone:
    """MobileNet V2 as TensorFlow's slim builds it: rounded channels, no expansion in the first block, ReLU6 in the
    stem.

    Where its maps have reached last_stride, further strides are left out: half an image can so give a map as large as a
    whole one does elsewhere (cheap extractor of arXiv 1903.10172).
    """
    channels, total = round_channels(32, multiplier), 2
    layers = [ConvLayer(conv_bn(3, channels, 3, 2, activation=nn.ReLU6))]
    info, unstrided = [FeatureInfo(channels, total)], []
    for (expansion, width, first_stride), blocks in zip(V2_STAGES, V2_BLOCKS, strict=True):
        width = round_channels(width, multiplier)
        if first_stride > 1 and total == last_stride:
            first_stride, unstrided = 1, [*unstrided, len(layers)]
        for stride in [first_stride] + [1] * (blocks - 1):
            layers.append(inverted_residual(channels, width, stride, expansion, expand=expansion > 1))
            channels, total = width, total * stride
            info.append(FeatureInfo(channels, total))
    return Backbone(layers, info, unstrided=unstrided)


def build_mobilenet_v1(multiplier: float = 1.0, unstrided=()) -> Backbone:
    """MobileNet V1, 14 layers; the layers in `unstrided` keep the map size."""
    layers, info = [], []
    channels, total = 3, 1
    for index, (width, stride) in enumerate(zip(V1_CHANNELS, V1_STRIDES, strict=True)):
        width, stride = scale_channels(width, multiplier), 1 if index in unstrided else stride
        if index == 0:
            layers.append(ConvLayer(conv_bn(3, width, 3, stride)))
        else:
            depthwise = conv_bn(channels, channels, 3, stride, groups=channels)
            layers.append(ConvLayer(depthwise + conv_bn(channels, width, 1)))
        channels, total = width, total * stride
        info.append(FeatureInfo(channels, total))
    return Backbone(layers, info, unstrided=unstrided)


def build_mobilenet_v2(multiplier: float = 1.0, blocks_per_stage=tuple(V2_BLOCKS), stem_activation=nn.ReLU) -> Backbone:
    """MobileNet V2 without its last 1x1 convolution: a stem and sum(blocks_per_stage) inverted residuals.

    The stem ends in a ReLU in the published checkpoints, in a ReLU6 in the paper and in torchvision.
    """
    channels, total = scale_channels(32, multiplier), 2
    stem = ConvLayer(conv_bn(3, channels, 3, 2, activation=stem_activation))
    layers, info = [stem], [FeatureInfo(channels, total)]
    for (expansion, width, first_stride), blocks in zip(V2_STAGES, blocks_per_stage, strict=True):
        width = scale_channels(width, multiplier)
        for stride in [first_stride] + [1] * (blocks - 1):
            layers.append(inverted_residual(channels, width, stride, expansion))
            channels, total = width, total * stride
            info.append(FeatureInfo(channels, total))
    return Backbone(layers, info)


def build_mobilenet_v2_full(multiplier: float = 1.0, stem_activation=nn.ReLU) -> Backbone:
    """MobileNet V2 with its last 1x1 convolution to 1280 channels as layer 18."""
    net = build_mobilenet_v2(multiplier, stem_activation=stem_activation)
    channels, stride = net.feature_info[-1]
    last = ConvLayer(conv_bn(channels, V2_LAST, 1, activation=nn.ReLU6))
    return Backbone([*net.layers, last], [*net.feature_info, FeatureInfo(V2_LAST, stride)])


for _suffix, _multiplier in MULTIPLIERS.items():
    NETS.register(f"mobilenet_v1{_suffix}")(partial(build_mobilenet_v1, _multiplier))
    NETS.register(f"mobilenet_v2{_suffix}")(partial(build_mobilenet_v2, _multiplier))
    NETS.register(f"mobilenet_v2_full{_suffix}")(partial(build_mobilenet_v2_full, _multiplier))
for _suffix, _unstrided in V1_UNSTRIDED.items():
    if _suffix:
        NETS.register(f"mobilenet_v1{_suffix}")(partial(build_mobilenet_v1, unstrided=_unstrided))
for _suffix, _multiplier in {"_140": 1.4, "_100": 1.0, "_035": 0.35}.items():
    NETS.register(f"slim_mobilenet_v2{_suffix}")(partial(build_mobilenet_v2_slim, _multiplier))
for _stride in LAST_STRIDES:
    NETS.register(f"slim_mobilenet_v2_035_stride{_stride}")(partial(build_mobilenet_v2_slim, 0.35, _stride))
    _unstrided = tuple(layer for layer in V1_HALVING if 2 ** (V1_HALVING.index(layer) + 1) > _stride)
    NETS.register(f"mobilenet_v1_025_stride{_stride}")(partial(build_mobilenet_v1, 0.25, _unstrided))
NETS.register("mobilenet_v2_cut")(build_mobilenet_v2)
