"""Darknet's files of weights (.weights, .conv.N), in the names and shapes of our base networks."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..utils.errors import UserError

NORM_PARTS = ("bias", "weight", "running_mean", "running_var")
"""Tensors of a batch norm in the order of the file; the weights of its convolution follow."""

LARGEST_VERSION = 2000  # 0.1 and 0.2 are known, and 1000 added to mark transposed matrices


class DarknetWeights(NamedTuple):
    """What a file holds for a base: tensors by their names in the base, the version of the format, and the number of
    values behind them."""

    state: dict[str, Tensor]
    version: str
    left_over: int


def read_darknet_weights(path, net: nn.Module) -> DarknetWeights:
    """The weights of all convolutions of a base and of their norms, from the beginning of a file.

    The base has the layers of the Darknet network in the order of its cfg, each convolution with a batch norm.  What
    comes after them (a classifier, or the heads of a YOLO) is counted and left.  Darknet adds 1e-6 to the deviation
    and our norms 1e-5 to the variance: all but constant channels do not notice.  Raises UserError for a file that
    cannot be read, is none of Darknet's, ends too early, or belongs to another network.
    """
    wanted = _tensors_in_order(net)
    needed = sum(tensor.numel() for _, tensor in wanted)
    version, values, count = _read(Path(path), needed)
    if count < needed:
        raise UserError(
            f"{path}: too short: it holds {count} values, the base takes {needed}; it is cut off, or of another network"
        )
    state, start = {}, 0
    for name, tensor in wanted:
        part = values[start : start + tensor.numel()]
        if name.endswith("running_var") and (part < 0).any():
            raise UserError(f"{path}: of another network: what it has in the place of {name} holds negative values")
        state[name] = torch.from_numpy(part.copy()).view(tensor.shape)
        start += tensor.numel()
    return DarknetWeights(state, version, count - needed)


def _tensors_in_order(net: nn.Module) -> list[tuple[str, Tensor]]:
    """(name, tensor of that shape) in the order of the file."""
    convolutions = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    norms = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    found = []
    for (conv_name, conv), (norm_name, norm) in zip(convolutions, norms, strict=True):
        found += [(f"{norm_name}.{part}", getattr(norm, part)) for part in NORM_PARTS]
        found.append((f"{conv_name}.weight", conv.weight))
    return found


def _read(path: Path, needed: int) -> tuple[str, np.ndarray, int]:
    """(version, as many values behind the header as are needed, how many there are)."""
    if not path.is_file():
        raise UserError(f"{path}: is a folder, not a file of weights" if path.is_dir() else f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            header = np.fromfile(file, "<i4", 3)
            if len(header) < 3 or header.min() < 0 or header.max() > LARGEST_VERSION:
                raise UserError(f"{path}: none of Darknet's files of weights: it does not begin with their version")
            major, minor, revision = map(int, header)
            # The number of images seen in training grew to 64 bits with version 0.2.
            wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
            np.fromfile(file, "<i8" if wide else "<i4", 1)
            count = (path.stat().st_size - file.tell()) // 4
            return f"{major}.{minor}.{revision}", np.fromfile(file, "<f4", needed), count
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
