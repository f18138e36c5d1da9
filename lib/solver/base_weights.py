"""Fills the base network of a fresh run from MODEL.PRETRAINED."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..config.effective import diff_configs, flatten_config
from ..config.schema import IMAGENET_COLORS, INPUT_KEYS
from ..config.weight_colors import DARKNET_COLORS, is_darknet_file, timm_colors
from ..modeling.darknet_weights import read_darknet_weights
from ..modeling.nets.darknet import DARKNETS
from ..modeling.nets.timm_backbone import fetch_timm_weights
from ..modeling.pretrained import IMAGENET_WEIGHTS, PREFIX, base_state, is_torchvision
from ..utils.download import fetch, is_url
from ..utils.errors import UserError
from ..utils.timm_models import is_timm
from . import checkpoint as ckpt

logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """Weights that MODEL.PRETRAINED means: where they are, in whose form, by names that hold the base's; and the values
    of INPUT_KEYS that they expect, as far as they are known (None: nothing is)."""

    place: str
    form: str
    state: dict[str, torch.Tensor]
    expected: dict | None


def load_base_weights(model: nn.Module, cfg) -> None:
    """Fill the base of the detector from MODEL.PRETRAINED, completely, and say so.

    Raises UserError where the file cannot be had or read, and where it lacks a tensor of the base, or holds one of
    another shape or with values that are no numbers; the model is unchanged then.
    """
    net = cfg.MODEL.NETS
    try:
        found = _find(model, cfg)
        num_tensors = _fill(model, found.state, found.place)
    except UserError as error:
        raise UserError(f"MODEL.PRETRAINED: {error}") from error
    logger.info("base %s: all of its %d tensors from %s (%s)", net, num_tensors, found.place, found.form)
    _check_inputs(found, cfg)


def _find(model: nn.Module, cfg) -> _Found:
    net, source = cfg.MODEL.NETS, cfg.MODEL.PRETRAINED
    if is_timm(net) and source == "imagenet":
        state = fetch_timm_weights(net, cfg.MODEL.IMAGE_SIZE)
        state = {PREFIX + name: tensor for name, tensor in state.items()}
        return _Found("timm's hub", "timm's names", state, timm_colors(net))
    path = _find_file(source, net)
    if is_darknet_file(path.name):
        return _from_darknet(path, net, model.backbone)
    content = ckpt.read_checkpoint(path)
    weights = ckpt.weights_of(content, path)
    state = base_state(net, weights)
    if ckpt.is_run_checkpoint(content):
        differences = diff_configs(content.get("config", {}), cfg)
        expected = {key: old for key, old, _ in differences if key in INPUT_KEYS}
        return _Found(str(path), "our names", state, expected)
    if is_timm(net):
        return _Found(str(path), "timm's names", state, timm_colors(net))
    if is_torchvision(weights):
        return _Found(str(path), "torchvision's names", state, IMAGENET_COLORS)
    system = ckpt.system_of(content)
    if system and system.inputs:
        return _Found(str(path), f"the names of {system.title}", state, dict(system.inputs))
    return _Found(str(path), "our names", state, None)


def _find_file(source: str, net: str) -> Path:
    if source == "imagenet":
        return fetch(IMAGENET_WEIGHTS[net].url)
    if is_url(source):
        return fetch(source)
    path = Path(os.path.expanduser(source))  # pathlib's raises an error for an unknown user
    if not path.exists() and path.suffix == "":
        kinds = "a .pth or .weights file" if net in DARKNETS else "a .pth file"
        raise UserError(f"'{source}' is no file; allowed: imagenet, {kinds}, or its http(s) address")
    return path


def _from_darknet(path: Path, net: str, backbone: nn.Module) -> _Found:
    if net not in DARKNETS:
        raise UserError(f"{path}: Darknet's files fit {', '.join(DARKNETS)}, not {net}")
    weights = read_darknet_weights(path, backbone)
    form = f"Darknet's, version {weights.version}; {weights.left_over} values behind those of the base are left"
    return _Found(str(path), form, {PREFIX + name: t for name, t in weights.state.items()}, DARKNET_COLORS)


def _fill(model: nn.Module, state: dict[str, torch.Tensor], path) -> int:
    """Copy the base's tensors; returns how many there are, not counting the batch counters of norms."""
    own = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(PREFIX) and not name.endswith("num_batches_tracked")
    }
    report = ckpt.LoadReport(str(path))
    for name, tensor in own.items():
        if name not in state:
            report.missing.append(name)
        elif state[name].shape != tensor.shape:
            report.mismatched.append((name, tuple(state[name].shape), tuple(tensor.shape)))
        elif not torch.isfinite(state[name]).all():
            raise UserError(f"{path}: {name} holds values that are no numbers")
    if not report.complete:
        raise UserError(f"the file does not fill the base: {report}")
    for name, tensor in own.items():
        tensor.copy_(state[name])
    return len(own)


def _check_inputs(found: _Found, cfg) -> None:
    """Warn where the run feeds its base other images than those that its weights know, as far as that can be told."""
    now = flatten_config(cfg)
    if found.expected is None and all(now[key] == value for key, value in IMAGENET_COLORS.items()):
        logger.warning(
            "%s does not say which images its weights expect; they get those of torchvision (%s), and "
            "MODEL.STEM_ACTIVATION is %s: if that is wrong, give these keys", found.place,
            ", ".join(f"{key} {now[key]}" for key in IMAGENET_COLORS), now["MODEL.STEM_ACTIVATION"],
        )  # fmt: skip
    for key, value in (found.expected or {}).items():
        if now[key] != value:
            logger.warning("%s is %s, but the weights of %s expect %s", key, now[key], found.place, value)
