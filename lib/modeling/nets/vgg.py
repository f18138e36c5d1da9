"""VGG-16 with fc6 and fc7 as convolutions, the base of the original SSD (arXiv 1512.02325 section 3.1)."""

from torch import nn

from .backbone import NETS, Backbone, FeatureInfo

# Output channels of the 3x3 convolutions, M a 2x2 pool, C the same rounding up, E a pool that keeps the map
# (small-object variants): the layer order of the reference family.
CONV1_TO_5 = {
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512],
    "vgg16_S1L2": [64, 64, "E", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512],
    "vgg16_S2L2_5": [64, 64, "E", 128, 128, "E", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512],
}
POOLS = {
    "M": lambda: nn.MaxPool2d(2, 2),
    "C": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "E": lambda: nn.MaxPool2d(1, 1),
}
USUAL_LEVELS = [[22, 34, "S", "S", "", ""], [512, 1024, 512, 256, 256, 256]]


def build_vgg(layout, pool5_stride: int = 1) -> Backbone:
    """VGG-16 from a layout of CONV1_TO_5; pool5 is 3x3, with padding unless it has a stride."""
    layers, info, unstrided = [], [], []
    channels, stride = 3, 1
    for entry in layout:
        if entry in POOLS:
            unstrided += [len(layers)] if entry == "E" else []
            layers.append(POOLS[entry]())
            stride *= 1 if entry == "E" else 2
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU(inplace=True)]
            channels = entry
        info += [FeatureInfo(channels, stride)] * (len(layers) - len(info))
    layers.append(nn.MaxPool2d(3, pool5_stride, padding=1 if pool5_stride == 1 else 0))
    stride *= pool5_stride
    info.append(FeatureInfo(channels, stride))
    # fc6 subsampled to a dilated 3x3 and fc7 to a 1x1 convolution.
    layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]
    info += [FeatureInfo(1024, stride)] * 4
    return Backbone(layers, info, USUAL_LEVELS, unstrided)


@NETS.register("vgg16")
def vgg16() -> Backbone:
    """The usual stride-16 network."""
    return build_vgg(CONV1_TO_5["vgg16"])


@NETS.register("vgg16_S1L2")
def vgg16_s1l2() -> Backbone:
    """pool1 keeps the map: twice the resolution everywhere (BMVC 2019 small-object fork)."""
    return build_vgg(CONV1_TO_5["vgg16_S1L2"])


@NETS.register("vgg16_S2L2_5")
def vgg16_s2l2_5() -> Backbone:
    """pool1 and pool2 keep the map, pool5 shrinks it by 3 (BMVC 2019 small-object fork)."""
    return build_vgg(CONV1_TO_5["vgg16_S2L2_5"], pool5_stride=3)
