"""Fills the base network of a fresh run from MODEL.PRETRAINED."""

import logging
from pathlib import Path

import torch
from torch import nn

from ..config.effective import diff_configs, flatten_config
from ..config.schema import IMAGENET_COLORS, INPUT_KEYS
from ..modeling.pretrained import IMAGENET_WEIGHTS, PREFIX, base_state, is_torchvision
from ..utils.download import fetch, is_url
from ..utils.errors import UserError
from . import checkpoint as ckpt

logger = logging.getLogger(__name__)


def load_base_weights(model: nn.Module, cfg) -> None:
    """Fill the base of the detector from MODEL.PRETRAINED, completely, and say so.

    Raises UserError where the file cannot be had or read, and where it lacks a tensor of the base, or holds one of
    another shape or with values that are no numbers; the model is unchanged then.
    """
    try:
        path = _find_file(cfg.MODEL.PRETRAINED, cfg.MODEL.NETS)
        content = ckpt.read_checkpoint(path)
        state = ckpt.weights_of(content, path)
        num_tensors = _fill(model, base_state(cfg.MODEL.NETS, state), path)
    except UserError as error:
        raise UserError(f"MODEL.PRETRAINED: {error}") from error
    named = "torchvision's names" if is_torchvision(state) else "our names"
    logger.info("base %s: all of its %d tensors from %s (%s)", cfg.MODEL.NETS, num_tensors, path, named)
    _check_inputs(content, is_torchvision(state), path, cfg)


def _find_file(source: str, net: str) -> Path:
    if source == "imagenet":
        return fetch(IMAGENET_WEIGHTS[net].url)
    if is_url(source):
        return fetch(source)
    path = Path(source).expanduser()
    if not path.exists() and path.suffix == "":
        raise UserError(f"'{source}' is no file; allowed: imagenet, a .pth file, or its http(s) address")
    return path


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


def _check_inputs(content: dict, from_torchvision: bool, path, cfg) -> None:
    """Warn where the run feeds its base other images than those that its weights know, as far as that can be told."""
    now = flatten_config(cfg)
    if from_torchvision:
        expected = IMAGENET_COLORS
    elif ckpt.is_run_checkpoint(content):
        expected = {key: old for key, old, _ in diff_configs(content.get("config", {}), cfg) if key in INPUT_KEYS}
    else:
        expected = {}
        if all(now[key] == value for key, value in IMAGENET_COLORS.items()):
            logger.warning(
                "%s does not say which images its weights expect; they get those of torchvision (%s), and "
                "MODEL.STEM_ACTIVATION is %s: if that is wrong, give these keys", path,
                ", ".join(f"{key} {now[key]}" for key in IMAGENET_COLORS), now["MODEL.STEM_ACTIVATION"],
            )  # fmt: skip
    for key, value in expected.items():
        if now[key] != value:
            logger.warning("%s is %s, but the weights of %s expect %s", key, now[key], path, value)
