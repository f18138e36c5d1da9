"""Receptive fields: which part of the image a cell of a feature map can depend on, found by a run on shapes alone."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
POOLS = (aten.max_pool2d_with_indices, aten.max_pool2d, aten.avg_pool2d)
BLENDS = {  # resizes: how many cells of the map a new one reads along an axis
    aten.upsample_nearest2d: 1,
    aten._upsample_nearest_exact2d: 1,
    aten.upsample_bilinear2d: 2,
    aten.upsample_bicubic2d: 4,
}


class Field(NamedTuple):
    """The receptive field of the cells of a map, each as (down, across) the image.

    size: the pixels of the image that a cell can depend on; pitch: pixels from one cell to the next; cells: the map.
    """

    size: tuple[float, float]
    pitch: tuple[float, float]
    cells: tuple[int, int]


class _Axis(NamedTuple):
    size: float
    pitch: float
    cells: int

    def window(self, kernel: int, stride: float, dilation: int, cells: int) -> "_Axis":
        """After a window of `kernel` cells that moves by `stride` cells."""
        return _Axis(self.size + (kernel - 1) * dilation * self.pitch, self.pitch * stride, cells)

    def resize(self, cells: int, read: int) -> "_Axis":
        """After a resize to `cells`, each new one a blend of `read` old ones."""
        if cells == self.cells:
            return self
        return _Axis(self.size + (read - 1) * self.pitch, self.pitch * self.cells / cells, cells)

    def rearrange(self, cells: int, all_kept: bool) -> "_Axis":
        """After an operation without a rule of its own that leaves `cells`.

        Where no number is lost (`all_kept`), neighbours have become channels (space to depth); where cells were added,
        they are padding; else every new cell may depend on the whole map.
        """
        ratio = self.cells / cells
        if cells >= self.cells and not (all_kept and cells > self.cells):
            return self._replace(cells=cells)
        if all_kept:
            return _Axis(self.size + (max(ratio, 1) - 1) * self.pitch, self.pitch * ratio, cells)
        return _Axis(self.size + (self.cells - 1) * self.pitch, self.pitch * ratio, cells)


_State = tuple[_Axis, _Axis]


def receptive_fields(function: Callable[[Tensor], list[Tensor]], image_size) -> list[Field]:
    """The receptive field of each map [1, C, H, W] that `function` returns for an image [1, 3, height, width].

    Sizes are the theoretical ones, as if the image had no border: convolutions and pools add what they read, a
    difference of paths is decided by the widest.  Operations that mix all cells of a map count as seeing all of it.
    """
    image = torch.empty(1, 3, *image_size, device="meta")
    with torch.no_grad(), _Propagation(image) as fields:
        maps = function(image)
    return [fields.of(feature) for feature in maps]


class _Propagation(TorchDispatchMode):
    """Carries the field of the image through every operation to its results."""

    def __init__(self, image: Tensor):
        super().__init__()
        self.states: dict[int, tuple[Tensor, _State]] = {}  # the tensor is held so that its id stays its own
        self._set(image, tuple(_Axis(1, 1, cells) for cells in image.shape[2:]))

    def of(self, feature: Tensor) -> Field:
        """The field of a map that was computed from the image."""
        return Field(*zip(*self.states[id(feature)][1], strict=True))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        sources = [self.states[id(t)] for t in _tensors(args) if id(t) in self.states]
        result = func(*args, **(kwargs or {}))
        if sources:
            for out in _tensors(result if isinstance(result, (list, tuple)) else [result]):
                if out.ndim > 1:  # not the statistics of a batch norm
                    self._set(out, _after(func.overloadpacket, args, out, sources))
        return result

    def _set(self, tensor: Tensor, state: _State) -> None:
        self.states[id(tensor)] = (tensor, state)


def _after(operation, args, out: Tensor, sources: list[tuple[Tensor, _State]]) -> _State:
    """The state of a result, by axis."""
    cells = out.shape[-2:] if out.ndim == 4 else None
    first, state = sources[0]
    if operation is aten.convolution:
        return _convolution(state, args, cells)
    if operation in POOLS:
        kernel, stride, dilation = args[1], (args[2:3] or [[]])[0] or args[1], 1
        if operation is not aten.avg_pool2d and len(args) > 4:
            dilation = args[4]
        windows = zip(state, _pair(kernel), _pair(stride), _pair(dilation), cells, strict=True)
        return tuple(axis.window(k, s, d, n) for axis, k, s, d, n in windows)
    if operation in BLENDS:
        return tuple(axis.resize(n, BLENDS[operation]) for axis, n in zip(state, cells, strict=True))
    if operation is aten.slice and first.ndim == 4:
        dim, step = (args[1] if len(args) > 1 else 0) % 4, args[4] if len(args) > 4 else 1
        pitches = [step if dim == place else 1 for place in (2, 3)]
        return tuple(axis.window(1, s, 1, n) for axis, s, n in zip(state, pitches, cells, strict=True))
    axes = zip(*(source for _, source in sources), strict=True)
    state = tuple(_widest(axis, n) for axis, n in zip(axes, cells or (None, None), strict=True))
    if cells is None:
        return state
    whole = out.numel() == max(tensor.numel() for tensor, _ in sources)
    return tuple(axis.rearrange(n, whole) for axis, n in zip(state, cells, strict=True))


def _convolution(state: _State, args, cells) -> _State:
    weight, stride, dilation, transposed = args[1], args[3], args[5], args[6]
    axes = zip(state, weight.shape[2:], _pair(stride), _pair(dilation), cells, strict=True)
    if not transposed:
        return tuple(axis.window(k, s, d, n) for axis, k, s, d, n in axes)
    # A cell of the finer map lies under ceil(extent / stride) places of the kernel.
    return tuple(axis.window(-(-((k - 1) * d + 1) // s), 1 / s, 1, n) for axis, k, s, d, n in axes)


def _widest(axes, cells: int | None) -> _Axis:
    """What a join of maps depends on; maps that are broadcast to `cells` add only what they see."""
    fitting = [axis for axis in axes if axis.cells == cells] or list(axes)
    # A resized map has nearly the pitch of the one that it meets: the one that is a whole number is true.
    pitch = min((axis.pitch for axis in fitting), key=lambda pitch: abs(pitch - round(pitch)))
    return _Axis(max(axis.size for axis in axes), pitch, fitting[0].cells)


def _tensors(values) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def _pair(value) -> tuple:
    """Both axes of a setting that may be one number or a list of one."""
    value = list(value) if isinstance(value, (list, tuple)) else [value]
    return (value[0], value[-1])
