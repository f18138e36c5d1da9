"""The stages of a training as the Solver runs them: their loaders, their steps and what learns in them."""

import logging
import math

import torch
from torch import nn

from ..config.stages import Stage, num_still_epochs
from ..dataset.dataset_factory import ClipLoader, create_loader
from ..utils.errors import UserError
from .optim import EpochLengths, freeze_outside_scope

logger = logging.getLogger(__name__)


def create_stage_loaders(cfg, records) -> dict[bool, ClipLoader]:
    """The training loaders that the epochs need: stills under False, clips under True."""
    stills = num_still_epochs(cfg)
    needed = [clips for clips, some in ((False, stills > 0), (True, stills < cfg.TRAIN.MAX_EPOCHS)) if some]
    if True in needed and not records.is_video:
        raise UserError(
            f"MODEL.RNN.IN_USE: {records.name} holds no videos to make clips of; a data set of stills is trained with "
            "IN_USE False, or with USE_LSTM_AFTER_EPOCH not below TRAIN.MAX_EPOCHS"
        )
    return {clips: create_loader(cfg, "train", records, clips=clips) for clips in needed}


def epoch_lengths(cfg, loaders: dict[bool, ClipLoader]) -> EpochLengths:
    """The optimizer steps of the epochs."""
    steps = {clips: math.ceil(len(loader) / cfg.TRAIN.ACCUMULATE) for clips, loader in loaders.items()}
    return EpochLengths(steps.get(False, 1), num_still_epochs(cfg), steps.get(True, 1))


def enter_stage(model: nn.Module, stage: Stage, scope: str) -> None:
    """Switch the memory, and let learn what the stage and TRAINABLE_SCOPE let."""
    model.switch_memory(stage.clips)
    freeze_outside_scope(model, scope)
    if stage.base_held:
        model.backbone.requires_grad_(False)


def tell_stages(cfg, loaders: dict[bool, ClipLoader], dtype: torch.dtype | None) -> None:
    """Log what the epochs train on."""
    rnn, arithmetic = cfg.MODEL.RNN, str(dtype or torch.float32).removeprefix("torch.")
    if False in loaders:
        loader = loaders[False]
        logger.info(
            "training on %d images, %d batches of up to %d an epoch, arithmetic %s",
            len(loader.records), len(loader), cfg.TRAIN.BATCH_SIZE, arithmetic,
        )  # fmt: skip
    if True in loaders:
        loader, stills = loaders[True], num_still_epochs(cfg)
        logger.info(
            "%s on %d videos, %d clips of %d frames of %d videos an epoch%s, arithmetic %s",
            f"from epoch {stills + 1} on" if stills else "training", len(loader.records.videos), len(loader),
            rnn.BACKPROP_STEPS, rnn.BATCH_SIZE,
            f", the base held for {rnn.FREEZE_BASE_EPOCHS} epochs" if rnn.FREEZE_BASE_EPOCHS else "", arithmetic,
        )  # fmt: skip
