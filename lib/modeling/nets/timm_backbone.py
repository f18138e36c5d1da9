"""Networks of timm that return feature maps, as base networks `timm/<name>`; the package timm is optional."""

import logging
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...utils.errors import UserError
from ...utils.timm_models import PREFIX, find_timm_settings, import_timm
from .backbone import Backbone, FeatureInfo, Tap

logger = logging.getLogger(__name__)


class Stages(nn.Module):
    """A network of timm, which stands for the layers of a base; its length is the number of its feature maps."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def __len__(self) -> int:
        return len(self.net.feature_info.channels())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> the feature maps [B, C, H / stride, W / stride], finest first."""
        maps = self.net(images)
        if getattr(self.net, "output_fmt", None) == "NHWC":
            return [x.permute(0, 3, 1, 2) for x in maps]
        return list(maps)


class TimmBackbone(Backbone):
    """A base whose layers are the feature maps of a network of timm.

    FEATURE_LAYER names them by number, by stride ('/16') or by timm's name of the module ('layer3').  Between them
    nothing can be inserted, and they cannot be run on two resolutions.
    """

    def __init__(self, name: str, net: nn.Module, feature_info: list[FeatureInfo]):
        super().__init__([], feature_info)
        self.name = name
        self.layers = Stages(net)
        self.modules_of_maps = list(net.feature_info.module_name())

    def emit(self, taps, split_at: int | None = None) -> None:
        """Make `forward` return these feature maps, in this order; UserError for a split."""
        if split_at is not None:
            raise UserError(f"MODEL.NETS: the networks of timm ({self.name}) cannot be split into two paths")
        super().emit(taps)

    def forward(
        self, images: Tensor, state=None, inserts: Mapping[Tap, nn.Module] | None = None, first=None
    ) -> tuple[list[Tensor], object]:
        """Images [B, 3, H, W] -> (the maps at the taps and, last, the coarsest one; the state untouched)."""
        if inserts:
            raise UserError(
                f"MODEL.NETS: nothing can be inserted into the networks of timm ({self.name}), as this variant or "
                "MODEL.NORM_IN_TRUNK would do"
            )
        maps = self.layers(images)
        return [maps[tap] for tap in self.taps] + [maps[-1]], state

    def cut_behind(self, layer: int) -> None:
        """Leave out what lies behind a feature map; UserError where that is not nothing."""
        if layer != len(self.feature_info) - 1:
            raise UserError(
                f"MODEL.FEATURE_LAYER: the networks of timm ({self.name}) are used to their end here; the last of the "
                f"base's levels must be its last feature map, {len(self.feature_info) - 1}"
            )

    def find_tap(self, token) -> Tap | None:
        """The number of the feature map that a token of FEATURE_LAYER means."""
        if isinstance(token, str) and token in self.modules_of_maps:
            return self.modules_of_maps.index(token)
        return super().find_tap(token) if isinstance(token, int) or re.fullmatch(r"/\d+", token) else None

    def taps_in_words(self) -> str:
        """The feature maps there are, for messages."""
        names = zip(self.modules_of_maps, self.feature_info, strict=True)
        listed = ", ".join(f"{i} = '{name}' ('/{info.stride}')" for i, (name, info) in enumerate(names))
        return f"feature maps {listed}"


def build_timm_backbone(net: str, image_size, other_sizes=()) -> TimmBackbone:
    """The base `timm/<name>` with fresh weights, for images of these (height, width).

    Raises UserError for a missing package, an unknown name, and a network that has no maps or not for these images.
    """
    settings = find_timm_settings(net)
    with torch.device("meta"):
        trial = _create(net, settings, image_size).eval()
        maps = [_run(net, trial, size) for size in (image_size, *other_sizes)][0]
    strides = trial.feature_info.reduction()
    info = [FeatureInfo(x.shape[1], stride) for x, stride in zip(maps, strides, strict=True)]
    return TimmBackbone(net, _create(net, settings, image_size), info)


def has_timm_weights(net: str) -> bool:
    """Whether timm knows where trained weights of this network are."""
    settings = find_timm_settings(net)
    return settings is not None and bool(settings.has_weights)


def fetch_timm_weights(net: str, image_size) -> dict[str, Tensor]:
    """timm's own trained weights, downloaded by timm, in the names of the base `timm/<name>` (without a prefix)."""
    logger.info("%s: timm fetches its weights", net)
    try:
        trained = _create(net, find_timm_settings(net), image_size, pretrained=True)
    except UserError as error:
        raise UserError(f"timm cannot fetch the weights of {net}: {error}") from error
    return {f"layers.{name}": tensor for name, tensor in Stages(trained).state_dict().items()}


def _create(net: str, settings, image_size, pretrained: bool = False) -> nn.Module:
    """timm's network in its form that returns feature maps."""
    arguments = {"features_only": True, "pretrained": pretrained}
    sized = {"img_size": tuple(image_size)} if getattr(settings, "fixed_input_size", False) else {}
    name = net.removeprefix(PREFIX)
    try:
        try:
            return import_timm().create_model(name, **arguments, **sized)
        except TypeError:
            if not sized:
                raise
        return import_timm().create_model(name, **arguments)  # of a fixed size that cannot be chosen
    except Exception as error:  # what timm's many authors and the libraries of its hubs raise has no common base
        if pretrained:
            raise UserError(_reason(error)) from error
        raise UserError(f"MODEL.NETS: {net} cannot be a base network: {_reason(error)}") from error


def _run(net: str, module: nn.Module, size) -> list[Tensor]:
    """The feature maps of a blank image of (height, width)."""
    try:
        maps = Stages(module)(torch.empty(1, 3, *size))
    except Exception as error:
        raise UserError(f"MODEL.NETS: {net} takes no images of {size[0]}x{size[1]} pixels: {_reason(error)}") from error
    if not all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
        raise UserError(f"MODEL.NETS: {net} cannot be a base network: what it returns are no feature maps")
    return maps


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
