"""Detectors without training whose post-processing has as much to do as that of trained ones."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..dataset.transforms import create_transforms
from ..layers.normalize import Normalize
from ..layers.postprocess import class_scores
from ..modeling.model_builder import create_model, has_sigmoid_scores
from ..solver.checkpoint import save_atomically
from ..solver.run import run_content
from ..utils.class_names import known_class_names

log = logging.getLogger(__name__)

CANDIDATES = 1000
"""Scores of an image above the threshold; of trained networks on images full of small objects there are about as
many."""
MOST_OF_ALL = 0.1
"""The part of all scores that may be above it: small networks have fewer."""
STEPS = 30  # of halving the interval of the background's advantage


@torch.no_grad()
def write_untrained(cfg, images: list[np.ndarray], path: Path) -> int:
    """Write a checkpoint of a fresh detector for which the background dominates; the scores of an image that are above
    POST_PROCESS.SCORE_THRESHOLD, the mean over the images (BGR uint8)."""
    torch.manual_seed(0)
    model = create_model(cfg).eval()
    transform, sigmoid = create_transforms(cfg, train=False), has_sigmoid_scores(cfg)
    pixels = torch.from_numpy(np.stack([transform.resize(image) for image in images])).permute(0, 3, 1, 2)
    inputs = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS)(pixels)
    _settle_norms(model, inputs[:1])
    conf = model(inputs).conf
    num_scores = conf[0, :, 1:].numel()
    wanted = min(CANDIDATES, int(MOST_OF_ALL * num_scores))
    low, high = -50.0, 50.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        count = _count(conf + _advantage(middle, conf.shape[-1], sigmoid), cfg.POST_PROCESS.SCORE_THRESHOLD, sigmoid)
        low, high = (middle, high) if count > wanted else (low, middle)
    advantage = _advantage(high, conf.shape[-1], sigmoid)
    for layer in model.head.conf_predictors():
        layer.bias.view(-1, len(advantage)).add_(advantage)
    names = known_class_names(cfg.DATASET.DATASET, cfg.DATASET.CLASSES)
    names = names if len(names) + 1 == cfg.MODEL.NUM_CLASSES else ()
    position = {"epoch": cfg.TRAIN.MAX_EPOCHS, "batch": 0}  # behind the epochs in which a memory is switched on
    save_atomically(run_content(cfg, names, model=model.state_dict(), position=position), path)
    return round(_count(conf + advantage, cfg.POST_PROCESS.SCORE_THRESHOLD, sigmoid))


def _settle_norms(model: nn.Module, image: Tensor) -> None:
    """Give the batch norms of a fresh model in evaluation mode the statistics of an image [1, 3, H, W], without which
    the activations would fade from layer to layer until all scores are equal."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    four = torch.cat([image, image.flip(2), image.flip(3), image.flip(2, 3)])  # of one, small maps have no variance
    state = None
    for _ in range(2):  # the second frame is for the other one of two extractors
        state = model(four, state).state
    model.eval()


def _advantage(value: float, num_classes: int, sigmoid: bool) -> Tensor:
    """What is added to the logits [C]: to that of the background or, where each class is scored alone, taken from the
    others."""
    logits = torch.zeros(num_classes)
    if sigmoid:
        logits[1:] = -value
    else:
        logits[0] = value
    return logits


def _count(conf: Tensor, threshold: float, sigmoid: bool) -> float:
    """Scores of an image above the threshold, the mean over the images."""
    return (class_scores(conf, sigmoid) > threshold).sum().item() / len(conf)
