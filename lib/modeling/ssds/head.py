"""Prediction heads: box offsets and class logits of every prior, from the maps of the levels."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...layers.blocks import conv_bn
from ...utils.errors import UserError

TOWER_DEPTH = 4  # RetinaNet, arXiv 1708.02002, section 4


class Head(nn.Module):
    """Box offsets and class logits of every prior, by layers of its own for each level.

    in_channels and boxes_per_cell have an entry for each level.  Output channels are box-major: box * 4 + coordinate,
    box * num_classes + class.
    """

    def __init__(self, in_channels, boxes_per_cell, num_classes: int, kernel: int = 3):
        super().__init__()
        self.num_classes = num_classes
        levels = list(zip(in_channels, boxes_per_cell, strict=True))
        self.loc = nn.ModuleList(nn.Conv2d(c, n * 4, kernel, padding=kernel // 2) for c, n in levels)
        self.conf = nn.ModuleList(nn.Conv2d(c, n * num_classes, kernel, padding=kernel // 2) for c, n in levels)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Features [B, C_l, H_l, W_l] of the levels -> loc [B, P, 4] and conf logits [B, P, num_classes]."""
        loc = [_rows(layer(x), 4) for layer, x in zip(self.loc, features, strict=True)]
        conf = [_rows(layer(x), self.num_classes) for layer, x in zip(self.conf, features, strict=True)]
        return torch.cat(loc, 1), torch.cat(conf, 1)

    def loc_predictors(self) -> Iterator[nn.Conv2d]:
        """The convolutions that emit the offsets."""
        return map(_last_convolution, self.loc)

    def conf_predictors(self) -> Iterator[nn.Conv2d]:
        """The convolutions that emit the logits."""
        return map(_last_convolution, self.conf)


class SeparableHead(Head):
    """A depthwise 3x3 convolution, batch norm and ReLU6 before the 1x1 convolution that predicts, on every level but
    the last, whose map is of a cell or few (SSD-Lite as qfgaohao/pytorch-ssd builds it).  `on_all` levels the depthwise
    convolution has no bias (LSTM-SSD as tensorflow/models builds it)."""

    def __init__(self, in_channels, boxes_per_cell, num_classes: int, on_all: bool = False):
        super().__init__(in_channels, boxes_per_cell, num_classes, kernel=1)
        for layers in (self.loc, self.conf):
            for level, predictor in enumerate(layers if on_all else layers[:-1]):
                channels = predictor.in_channels
                depthwise = conv_bn(channels, channels, 3, groups=channels, activation=nn.ReLU6, bias=not on_all)
                layers[level] = nn.Sequential(*depthwise, predictor)


class TowerHead(nn.Module):
    """Four 3x3 convolutions with ReLU and one that predicts, for the offsets and for the classes, shared by all levels
    (RetinaNet, arXiv 1708.02002, section 4).  Every level must have the same channels and boxes per cell."""

    def __init__(self, in_channels, boxes_per_cell, num_classes: int):
        super().__init__()
        if len(set(in_channels)) > 1 or len(set(boxes_per_cell)) > 1:
            raise UserError(
                "MODEL.HEAD: tower is shared by all levels, so all must have the same channels and as many boxes a "
                f"cell; they have {list(in_channels)} and {list(boxes_per_cell)}"
            )
        self.num_classes = num_classes
        channels, boxes = in_channels[0], boxes_per_cell[0]
        self.loc = nn.Sequential(*_tower(channels), nn.Conv2d(channels, boxes * 4, 3, padding=1))
        self.conf = nn.Sequential(*_tower(channels), nn.Conv2d(channels, boxes * num_classes, 3, padding=1))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Features [B, C, H_l, W_l] of the levels -> loc [B, P, 4] and conf logits [B, P, num_classes]."""
        loc = torch.cat([_rows(self.loc(x), 4) for x in features], 1)
        return loc, torch.cat([_rows(self.conf(x), self.num_classes) for x in features], 1)

    def loc_predictors(self) -> Iterator[nn.Conv2d]:
        """The convolution that emits the offsets."""
        yield self.loc[-1]

    def conf_predictors(self) -> Iterator[nn.Conv2d]:
        """The convolution that emits the logits."""
        yield self.conf[-1]


def build_head(kind: str, in_channels, boxes_per_cell, num_classes: int) -> nn.Module:
    """The head that MODEL.HEAD names."""
    if kind == "tower":
        return TowerHead(in_channels, boxes_per_cell, num_classes)
    if kind.startswith("separable"):
        return SeparableHead(in_channels, boxes_per_cell, num_classes, on_all=kind == "separable_all")
    return Head(in_channels, boxes_per_cell, num_classes, kernel={"conv1": 1, "conv3": 3}[kind])


def _tower(channels: int) -> Iterator[nn.Module]:
    for _ in range(TOWER_DEPTH):
        yield nn.Conv2d(channels, channels, 3, padding=1)
        yield nn.ReLU(inplace=True)


def _last_convolution(layer: nn.Module) -> nn.Conv2d:
    return layer[-1] if isinstance(layer, nn.Sequential) else layer


def _rows(x: Tensor, width: int) -> Tensor:
    """[B, boxes * width, H, W] -> [B, H * W * boxes, width]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)
