"""Detectors that have fewer channels than their configuration asks for, as pruning leaves them.

The shapes of such a network no longer follow from the configuration.  They follow from its weights: a checkpoint with
the entry "pruned" says of itself that the layers shall have the shapes of its tensors, and a fresh model is shrunk to
them before they are loaded.  So there is one source of the shapes, which cannot get lost, go stale or disagree with the
weights as a second file or a key of the configuration could; the configuration stays the same for the whole network and
every pruned one.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from ..layers.normalize import L2Norm
from ..utils.errors import UserError
from .complexity import count_macs
from .ssds import SSD

SHRINKABLE = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, L2Norm)
"""Layers that may lose channels; all others have the shapes that the configuration gives them."""


def shrink_to(model: SSD, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Cut the layers of `model` to `shapes`, those of the tensors of a pruned network by name; `where` names it.

    What stays of a layer are its first channels, for weights to be loaded into.  The predictors keep their outputs,
    boxes times classes, which are not the network's to lose.  Feature_info of the base and channels of the neck go on
    to say what the whole network emits.  UserError, with `model` spoilt, for shapes that it cannot take: those of
    another network, larger ones, and such as do not fit together.
    """
    predictors = {*model.head.loc_predictors(), *model.head.conf_predictors()}
    shrunk = set()
    for name, layer in model.named_modules():
        tensors = {key: tensor for key, tensor in _own_tensors(layer).items() if tensor.dim()}
        missing = [f"{name}.{key}" for key in tensors if f"{name}.{key}" not in shapes]
        if missing:
            raise UserError(f"{where}: is pruned, but not from this network: it has no {missing[0]}")
        wanted = {key: tuple(shapes[f"{name}.{key}"]) for key in tensors}
        if layer in predictors:
            wanted = {key: tuple(tensors[key].shape[:1]) + shape[1:] for key, shape in wanted.items()}
        changed = [key for key, tensor in tensors.items() if wanted[key] != tuple(tensor.shape)]
        if changed and not (isinstance(layer, SHRINKABLE) and _fits(tensors, wanted)):
            raise UserError(
                f"{where}: is pruned, but not from this network: {name}.{changed[0]} is {list(wanted[changed[0]])}, "
                f"here {list(tensors[changed[0]].shape)}"
            )
        if changed and layer not in shrunk:
            _cut(layer, tensors, wanted)
            shrunk.add(layer)
    try:
        count_macs(model, model.image_size)  # a run on shapes
    except RuntimeError as error:
        raise UserError(f"{where}: its layers do not fit together: {str(error).splitlines()[0]}") from error


def _own_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers of a layer, without those of its parts."""
    saved = {key: t for key, t in layer._buffers.items() if key not in layer._non_persistent_buffers_set}
    return {key: tensor for key, tensor in (layer._parameters | saved).items() if tensor is not None}


def _fits(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether each of `wanted` is the shape of a part of its tensor."""
    return all(
        len(shape) == tensors[key].dim()
        and all(0 < new <= old for new, old in zip(shape, tensors[key].shape, strict=True))
        for key, shape in wanted.items()
    )


def _cut(layer: nn.Module, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    for key, shape in wanted.items():
        tensors[key].data = tensors[key].data[tuple(slice(length) for length in shape)].clone()
    rows, columns = (*wanted["weight"], 1)[:2]
    if isinstance(layer, nn.BatchNorm2d):
        layer.num_features = rows
    elif isinstance(layer, nn.Conv2d):
        layer.groups = rows if _is_depthwise(layer) else layer.groups
        layer.out_channels, layer.in_channels = rows, columns * layer.groups
    elif isinstance(layer, nn.ConvTranspose2d):
        layer.in_channels, layer.out_channels = rows, columns * layer.groups


def _is_depthwise(layer: nn.Conv2d) -> bool:
    """Whether every channel has one filter of its own, so that there are as many groups as channels."""
    return layer.groups == layer.in_channels == layer.out_channels > 1
