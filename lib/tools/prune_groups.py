"""Which channels of a detector can only be removed together: those that a sum, a depthwise convolution or a norm binds,
with the weights that read them."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers.bottleneck_lstm import BottleneckLSTM, SeparableLSTM
from ..layers.normalize import L2Norm
from ..modeling.nets.interleaved import InterleavedBackbone
from ..modeling.nets.timm_backbone import TimmBackbone
from ..modeling.pruned import SHRINKABLE
from ..modeling.ssds import SSD
from ..modeling.ssds.bifpn import FusionNode
from ..modeling.ssds.yolo import SpaceToDepth
from ..utils.errors import UserError

OUT, IN = "out", "in"


class Member(NamedTuple):
    """A layer that loses its channel channels[i] when the group loses number numbers[i]: on the side OUT the filter
    that makes it, on the side IN the weights that read it."""

    layer: str
    side: str
    channels: Tensor
    numbers: Tensor


class Group(NamedTuple):
    """`size` channels, of which each can be removed with what `members` have of it and no other."""

    size: int
    members: tuple[Member, ...]


def find_groups(model: SSD) -> list[Group]:
    """The groups of a detector, in the order of the network, found by a run on a blank image (DepGraph, arXiv
    2301.12900).

    The outputs of the predictors are in none, nor is what `kept_layers` names.  UserError for a detector of two
    extractors, and without the package torch-pruning.
    """
    if isinstance(model.backbone, InterleavedBackbone):
        raise UserError(
            "MODEL.SSDS: lstm_ssd_interleaved cannot be pruned: of its two extractors only one runs on a frame, and "
            "both must fit one memory"
        )
    model = copy.deepcopy(model).cpu()
    graph = _trace(model)
    names = {module: name for name, module in model.named_modules()}
    kept = [module for layer in kept_layers(model).values() for module in layer.modules()]
    kept += [*model.head.loc_predictors(), *model.head.conf_predictors()]
    memories = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BottleneckLSTM))
    groups = []
    for items in graph.get_all_groups(ignored_layers=kept, root_module_types=[nn.Conv2d, nn.ConvTranspose2d]):
        members = []
        for item in items:
            layer = item.dep.target.module
            if isinstance(layer, SHRINKABLE):
                side = OUT if graph.is_out_channel_pruning_fn(item.dep.handler) else IN
                members.append(Member(names[layer], side, torch.tensor(item.idxs), torch.tensor(item.root_idxs)))
        # A memory takes its weights apart, so that the graph does not show all that reads its input.
        if not any(member.layer.startswith(memories) for member in members):
            groups.append(Group(len(items[0].idxs), tuple(members)))
    return groups


def kept_layers(model: SSD) -> dict[str, nn.Module]:
    """The parts of a detector that keep all of their channels, by name: memories, whose gates share them; bases of
    other libraries; and what reads or makes the stacked cells of YOLO v2."""
    kept = {}
    for name, module in model.named_modules():
        if isinstance(module, (BottleneckLSTM, SeparableLSTM, TimmBackbone)):
            kept[name] = module
    extras = getattr(model.neck, "extras", [])
    for index, layer in enumerate(extras):
        if isinstance(layer, SpaceToDepth):
            if index == 0:
                raise UserError(
                    "MODEL.FEATURE_LAYER: a network whose base leads into a router of yolo_v2 cannot be pruned; let a "
                    "layer stand before it"
                )
            kept |= {f"neck.extras.{i}": extras[i] for i in (index - 1, index)}
    return kept


def _trace(model: SSD):
    """The dependencies between the layers of a detector, which is left with other gradients asked for."""
    try:
        import torch_pruning
    except ImportError as error:
        raise UserError("pruning needs the package torch-pruning: pip install 'torch-pruning>=1.6,<2'") from error

    class L2NormPruner(torch_pruning.pruner.function.BasePruningFunc):
        """Says how many channels the norm has, which is all that is asked here."""

        def get_out_channels(self, layer: L2Norm) -> int:
            return len(layer.weight)

        get_in_channels = get_out_channels

        def prune_out_channels(self, layer, idxs):
            raise NotImplementedError

        prune_in_channels = prune_out_channels

    # The graph is found along gradients; these weights, one for each map that is summed, are not of channels.
    for module in model.modules():
        if isinstance(module, FusionNode):
            module.weight.requires_grad_(False)
    images = torch.zeros(1, 3, *model.image_size)
    with torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(
            model,
            images,
            forward_fn=lambda network, pixels: list(network.head(network.sources(pixels)[0])),
            customized_pruners={L2Norm: L2NormPruner()},
            verbose=False,
        )
