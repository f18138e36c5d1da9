"""The stages of a training as the Solver runs them: their loaders, their steps and what learns in them."""

import logging
import math

import torch
from torch import nn

from ..config.stages import Stage, num_still_epochs, stage_of
from ..dataset.dataset_factory import ClipLoader, create_loader, keep_images
from ..utils.errors import UserError
from .optim import EpochLengths

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
    records = keep_images(cfg, records)
    return {clips: create_loader(cfg, "train", records, clips=clips) for clips in needed}


def epoch_lengths(cfg, loaders: dict[bool, ClipLoader]) -> EpochLengths:
    """The optimizer steps of the epochs."""
    steps = {clips: math.ceil(len(loader) / cfg.TRAIN.ACCUMULATE) for clips, loader in loaders.items()}
    return EpochLengths(steps.get(False, 1), num_still_epochs(cfg), steps.get(True, 1))


def check_held_base(cfg, model: nn.Module, learning: list[nn.Parameter]) -> None:
    """UserError if nothing that could learn is left while the base is held; a warning if it is held before it has."""
    rnn, base = cfg.MODEL.RNN, set(model.backbone.parameters())
    if stage_of(cfg, 1).base_held and not cfg.MODEL.PRETRAINED and not cfg.RESUME_CHECKPOINT:
        logger.warning("MODEL.RNN.FREEZE_BASE_EPOCHS: the base is held from the first epoch on, with fresh weights")
    if rnn.FREEZE_BASE_EPOCHS and num_still_epochs(cfg) < cfg.TRAIN.MAX_EPOCHS and base.issuperset(learning):
        raise UserError(
            f"MODEL.RNN.FREEZE_BASE_EPOCHS: {rnn.FREEZE_BASE_EPOCHS} given, but TRAIN.TRAINABLE_SCOPE "
            f"'{cfg.TRAIN.TRAINABLE_SCOPE}' lets nothing but the base learn; give 0, or a wider scope"
        )


def enter_stage(model: nn.Module, stage: Stage, learning: list[nn.Parameter]) -> None:
    """Switch the memory, and let learn what the stage lets of the parameters that TRAINABLE_SCOPE names."""
    model.switch_memory(stage.clips)
    for parameter in learning:
        parameter.requires_grad_(True)
    if stage.base_held:
        model.backbone.requires_grad_(False)


def loader_of(stage: Stage, loaders: dict[bool, ClipLoader]) -> ClipLoader:
    """The loader of a stage; the worker processes of the other one end."""
    for clips, loader in loaders.items():
        if clips != stage.clips:
            loader.close()
    return loaders[stage.clips]


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
        loader, stills, num_videos = loaders[True], num_still_epochs(cfg), len(loaders[True].records.videos)
        held = min(stills + rnn.FREEZE_BASE_EPOCHS, cfg.TRAIN.MAX_EPOCHS)
        logger.info(
            "%s on %d videos, %d clips of %d frames of %d videos an epoch%s, arithmetic %s",
            f"then, from epoch {stills + 1}," if stills else "training", num_videos, len(loader),
            rnn.BACKPROP_STEPS, rnn.BATCH_SIZE, f", the base held up to epoch {held}" if held > stills else "",
            arithmetic,
        )  # fmt: skip
        if num_videos < rnn.BATCH_SIZE:
            logger.warning(
                "MODEL.RNN.BATCH_SIZE: %d rows for %d videos show some of them side by side with themselves",
                rnn.BATCH_SIZE, num_videos,
            )  # fmt: skip
