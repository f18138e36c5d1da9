"""The prediction head: one convolution for offsets and one for class scores on every level."""

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Box offsets and class logits of every prior.

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


def _rows(x: Tensor, width: int) -> Tensor:
    """[B, boxes * width, H, W] -> [B, H * W * boxes, width]."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, width)
