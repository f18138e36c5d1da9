"""What a detector costs: parameters, multiply-adds and memory, counted in runs on shapes that compute nothing."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .nets.backbone import Backbone
from .receptive_field import Field, receptive_fields


def part_of(name: str) -> str:
    """The part that a parameter or module of a detector belongs to, in the words of the reference family where it has
    one: base, norm, extras, transforms, pyramids, loc, conf."""
    first, *rest = name.split(".")
    return "base" if first == "backbone" else rest[0] if rest else first


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Learnt numbers of each part of a detector, in the order of the network."""
    counts = Counter()
    for name, parameter in model.named_parameters():
        counts[part_of(name)] += parameter.numel()
    return dict(counts)


def count_macs(model: nn.Module, image_size, part_of: Callable[[str], str] = part_of) -> dict[str, int]:
    """Multiply-adds of each part of a detector for one image of (height, width); `part_of` says to which part a module
    belongs.

    Those of convolutions and matrix products, counted as often as they run; norms, activations, resizes, decoding and
    NMS are left out, as is usual.
    """
    counts, started = Counter(), []
    with FlopCounterMode(display=False) as counter:
        hooks = []
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                hooks += _count_between(module, part_of(name), counter.get_total_flops, counts, started)
        try:
            _run(model, image_size)
        finally:
            for hook in hooks:
                hook.remove()
        if rest := counter.get_total_flops() - counts.total():
            counts["other"] = rest
    order = [part_of(name.rpartition(".")[0]) for name, _ in model.named_parameters()]
    return {part: counts[part] // 2 for part in dict.fromkeys([*order, *counts]) if counts[part]}


def _count_between(module: nn.Module, part: str, total: Callable[[], int], counts: Counter, started: list) -> list:
    """Hooks that add to counts[part] by how much total() grows while the module runs."""

    def after(*_):
        counts[part] += total() - started.pop()

    return [
        module.register_forward_pre_hook(lambda *_: started.append(total())),
        module.register_forward_hook(after),
    ]


def source_fields(model: nn.Module, image_size) -> list[Field]:
    """The receptive field of every map that the head of a detector reads."""
    return receptive_fields(lambda images: _call(model, images, lambda m, x: m.sources(x)[0]), image_size)


def layer_fields(backbone: Backbone, image_size) -> list[Field]:
    """The receptive field behind each layer of a base, run as one chain."""
    taps, split_at = backbone.taps, backbone.split_at
    backbone.emit(range(len(backbone.layers)))
    try:
        return receptive_fields(lambda images: _call(backbone, images, lambda b, x: b(x)[0][:-1]), image_size)
    finally:
        backbone.emit(taps, split_at)


def unused_parameters(model: nn.Module, image_size) -> list[str]:
    """Names of the parameters that no prediction depends on."""
    shapes = _shapes_of(model)
    for name, _ in model.named_parameters():
        shapes[name].requires_grad_()
    with torch.enable_grad():
        outputs = _run(model, image_size, shapes=shapes)
    reached, pending = set(), [output.grad_fn for output in outputs]
    seen = set(pending)
    while pending:
        node = pending.pop()
        reached.add(id(getattr(node, "variable", None)))
        new = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= new
        pending += new
    return [name for name, _ in model.named_parameters() if id(shapes[name]) not in reached]


def trains_on_one_image(model: nn.Module, image_size) -> bool:
    """Whether a batch of one image can be trained on; a batch norm that would see a single value refuses it."""
    try:
        _run(model, image_size, training=True)
    except ValueError:
        return False
    return True


def saved_bytes(model: nn.Module, image_size, batch_size: int) -> int:
    """Bytes that a training step in fp32 keeps for the backward pass, besides the weights: activations, mostly.

    In the mode that `model` and its modules are in now, and for the parameters that learn now.
    """
    measured = max(batch_size, 2)  # batch norm refuses a single value
    shapes = _shapes_of(model)
    for name, parameter in model.named_parameters():
        shapes[name].requires_grad_(parameter.requires_grad)
    own = {StorageWeakRef(tensor.untyped_storage()) for tensor in shapes.values()}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[StorageWeakRef(storage)] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = _run(model, image_size, measured, shapes, training=None)
    total = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    del outputs
    return total * batch_size // measured


def peak_bytes(model: nn.Module, image_size) -> int:
    """Largest sum of the feature maps that are alive at one time while one image runs through in fp32 without
    gradients, the weights left out."""
    shapes = _shapes_of(model)
    with torch.no_grad(), _LiveBytes() as live:
        _run(model, image_size, shapes=shapes)
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Watches how much of what the operations return is alive."""

    def __init__(self):
        super().__init__()
        self.alive: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.alive = {key: size for key, size in self.alive.items() if not key.expired()}
        for out in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(out, Tensor):
                storage = out.untyped_storage()
                self.alive[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


class _Call(nn.Module):
    """A function of a module, as a module, so that it can be run functionally."""

    def __init__(self, model: nn.Module, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, images: Tensor):
        return self.function(self.model, images)


def _shapes_of(model: nn.Module) -> dict[str, Tensor]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: torch.empty(
            tensor.shape, dtype=torch.float32 if tensor.is_floating_point() else tensor.dtype, device="meta"
        )
        for name, tensor in tensors.items()
    }


def _call(model: nn.Module, images: Tensor, function, shapes: dict | None = None, training: bool | None = False):
    """function(model, images) with a shape in the place of every tensor of the model.

    In training mode or not, or with None in the modes that its modules have; they have the same ones afterwards.
    """
    shapes = _shapes_of(model) if shapes is None else shapes
    modes = {module: module.training for module in model.modules()}
    if training is not None:
        model.train(training)
    try:
        named = {f"model.{name}": tensor for name, tensor in shapes.items()}
        return torch.func.functional_call(_Call(model, function), named, (images,))
    finally:
        for module, mode in modes.items():
            module.training = mode


def _run(model: nn.Module, image_size, batch_size: int = 1, shapes=None, training: bool | None = False) -> list[Tensor]:
    """[loc, conf] as shapes, with a graph only behind those of `shapes` that ask for gradients."""
    images = torch.empty(batch_size, 3, *image_size, device="meta")
    return _call(model, images, lambda m, x: list(m.head(m.sources(x)[0])), shapes, training)
