"""Which channels go: those whose filters have the smallest norm (Li et al., arXiv 1608.08710), and the weights without
them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..layers.normalize import L2Norm
from ..modeling.complexity import count_macs
from ..modeling.ssds import SSD
from ..utils.errors import UserError
from .prune_groups import IN, OUT, Group

LARGEST_SHARE = 0.7
"""Of the channels of a layer; one that lost nearly all would be a bottleneck for everything behind it."""
STEPS = 20  # of the bisection for a number of multiply-adds


def group_norms(groups: list[Group], model: SSD, norm: str) -> list[Tensor]:
    """A number for each channel of each group: the norm of its filter, "l1" or "l2", relative to the mean over its
    layer, so that layers of other sizes can be ranked together; where several layers make the channel, as those that a
    residual sum adds up, the mean of theirs."""
    layers = dict(model.named_modules())
    return [_norms(group, layers, 1 if norm == "l1" else 2) for group in groups]


def _norms(group: Group, layers: Mapping[str, nn.Module], order: int) -> Tensor:
    total, times = torch.zeros(group.size), torch.zeros(group.size)
    for member in group.members:
        layer = layers[member.layer]
        if member.side == IN or isinstance(layer, (nn.BatchNorm2d, L2Norm)):
            continue
        weight = layer.weight.detach().float()
        filters = (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)
        norms = torch.linalg.vector_norm(filters, order, dim=1)
        total.index_add_(0, member.numbers, (norms / norms.mean().clamp(min=1e-12))[member.channels])
        times.index_add_(0, member.numbers, torch.ones(len(member.numbers)))
    return total / times.clamp(min=1)


def choose_by_ratio(norms: list[Tensor], ratio: float, scope: str, multiple: int = 1) -> list[Tensor]:
    """bool [size] for each group, true for the channels that go: of every layer (scope "layer") or of the whole network
    ("global") the share `ratio` of the smallest norms, or some fewer or more, so that a multiple of `multiple` stays.
    No group loses more than LARGEST_SHARE of its channels."""
    if scope == "layer":
        return [_smallest(each, round(ratio * len(each)), multiple) for each in norms]
    together = torch.cat(norms)
    count = round(ratio * len(together))
    threshold = together.sort().values[count - 1] if count else -1
    return [_smallest(each, int((each <= threshold).sum()), multiple) for each in norms]


def _smallest(norms: Tensor, count: int, multiple: int) -> Tensor:
    size = len(norms)
    least = max(1, size - int(LARGEST_SHARE * size))
    kept = max(least, round((size - count) / multiple) * multiple)
    kept = min(size, math.ceil(kept / multiple) * multiple)
    removed = torch.zeros(size, dtype=torch.bool)
    removed[norms.argsort(stable=True)[: size - kept]] = True
    return removed


def choose_by_macs(
    groups: list[Group], norms: list[Tensor], model: SSD, share: float, scope: str, multiple: int = 1
) -> list[Tensor]:
    """The same for the ratio that leaves the network the share `share` of its multiply-adds; UserError where it cannot
    be brought down to that.

    Where several layers would lose their next filters together and overshoot, some of them keep theirs.
    """
    costs = count_macs(model, model.image_size, lambda name: name)
    layers, total = dict(model.named_modules()), sum(costs.values())

    def left(removed: list[Tensor]) -> float:
        kept = kept_channels(groups, removed, layers)
        return sum(cost * _share(name, kept, layers) for name, cost in costs.items()) / total

    def choose(ratio: float) -> list[Tensor]:
        return choose_by_ratio(norms, ratio, scope, multiple)

    if (least := left(choose(1.0))) > share:
        raise UserError(
            f"--macs {share:g}: at least {100 * least:.0f} % of the multiply-adds stay, since no layer loses more than "
            f"{100 * LARGEST_SHARE:.0f} % of its filters or keeps less than {multiple}, and the predictors lose none"
        )
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if left(choose(middle)) > share else (low, middle)
    removed = choose(high)
    for number, fewer in enumerate(choose(low)):
        more, removed[number] = removed[number], fewer
        if left(removed) > share:
            removed[number] = more
    return removed


def _share(name: str, kept: Mapping[tuple[str, str], Tensor], layers: Mapping[str, nn.Module]) -> float:
    """The share of its multiply-adds that a layer keeps."""
    parts = [kept[name, side].float().mean().item() for side in (OUT, IN) if (name, side) in kept]
    layer = layers.get(name)
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
    return parts[0] if depthwise and parts else torch.tensor(parts).prod().item()


def kept_channels(groups: list[Group], removed: list[Tensor], layers) -> dict[tuple[str, str], Tensor]:
    """bool [channels] for each side of a layer that a group is part of, true for the channels that stay."""
    kept = {}
    for group, gone in zip(groups, removed, strict=True):
        for member in group.members:
            key = member.layer, member.side
            if key not in kept:
                kept[key] = torch.ones(_num_channels(layers[member.layer], member.side), dtype=torch.bool)
            kept[key][member.channels[gone[member.numbers]]] = False
    return kept


def _num_channels(layer: nn.Module, side: str) -> int:
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return layer.out_channels if side == OUT else layer.in_channels
    return len(layer.weight)


def remove_channels(model: SSD, kept: Mapping[tuple[str, str], Tensor]) -> dict[str, Tensor]:
    """The state dict of `model` with only the channels that stay."""
    state = {}
    layers = dict(model.named_modules())
    for name, tensor in model.state_dict().items():
        place, _, kind = name.rpartition(".")
        layer, out, read = layers[place], kept.get((place, OUT)), kept.get((place, IN))
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
            sides = [out, None if depthwise else read]
            sides = sides[::-1] if isinstance(layer, nn.ConvTranspose2d) and kind == "weight" else sides
        else:
            sides = [read if out is None else out]
        for axis, side in enumerate(sides[: tensor.dim()]):
            tensor = tensor if side is None else tensor.index_select(axis, side.nonzero().flatten())
        state[name] = tensor.clone()
    return state
