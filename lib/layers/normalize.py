"""Normalisation of images and of features."""

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 images [B, 3, H, W] -> float (images - means) / stds, channel by channel, on the device of the images."""

    def __init__(self, means, stds):
        super().__init__()
        self.register_buffer("means", torch.tensor(list(means), dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("stds", torch.tensor(list(stds), dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.means) / self.stds


class L2Norm(nn.Module):
    """Scales the channel vector of every cell to a learnt length (ParseNet, arXiv 1506.04579; SSD section 3.1).

    x [B, C, H, W] -> weight[c] * x / (|x| + 1e-10), the weight starting at `scale`.
    """

    def __init__(self, channels: int, scale: float = 20.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        # Under mixed precision the sum of squares would overflow fp16 and lose too much in bf16.
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        norm = wide.norm(dim=1, keepdim=True)
        return (self.weight[:, None, None] * (x / (norm + 1e-10))).to(x.dtype)
