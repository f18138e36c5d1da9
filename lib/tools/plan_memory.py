"""Estimates of the memory that training and inference take, for the plan tool."""

import math
from dataclasses import dataclass

from ..modeling.complexity import peak_bytes, saved_bytes
from ..modeling.nets.interleaved import InterleavedBackbone
from ..modeling.ssds.detector import SSD
from ..solver.optim import hold_frozen_norms
from .plan_rate import StageFacts
from .plan_video import FLOAT, CellFacts, memory_switched, seen_by

OPTIMIZER_COPIES = {"adam": 2, "adamw": 2, "rmsprop": 1, "sgd": 0}  # besides the momentum of the last two
LOSS_COPIES = 3  # of the logits: themselves, their logarithmic softmax, its gradient


@dataclass
class Memory:
    """Estimated bytes of one kind of work, by what they are for; `images` are in a batch of `image_size`, `frames` of
    each of the videos that it shows."""

    images: int
    frames: int
    image_size: tuple[int, int]
    fp32: dict[str, int]
    mixed: dict[str, int]


def training_memory(cfg, model: SSD, stages: list[StageFacts], clips: bool) -> Memory | None:
    """Of a step with the largest images in the stages of clips or of stills, with the whole of TRAINABLE_SCOPE
    learning; None where there is no such stage."""
    stage = next((stage for stage in stages if stage.clips == clips), None)
    if stage is None:
        return None
    size = tuple(max([cfg.MODEL.IMAGE_SIZE, *cfg.TRAIN.IMAGE_SIZES], key=math.prod))
    images, settings = stage.frames * stage.rows, cfg.TRAIN.OPTIMIZER
    weights = sum(parameter.numel() for parameter in model.parameters()) * FLOAT
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) * FLOAT
    copies = OPTIMIZER_COPIES[settings.OPTIMIZER]
    copies += settings.OPTIMIZER in ("sgd", "rmsprop") and settings.MOMENTUM > 0
    model.train()
    hold_frozen_norms(model)
    with memory_switched(model, clips):
        kept = _kept(cfg, model, size, images, stage)
    model.eval()
    num_priors = len(model.priors) * math.prod(size) / math.prod(cfg.MODEL.IMAGE_SIZE)
    fp32 = {
        "weights": weights,
        "gradients": learnt,
        "optimizer state": learnt * copies,
        "averaged weights": weights if cfg.TRAIN.EMA_DECAY else 0,
        "activations": kept,
        "loss": int(LOSS_COPIES * images * num_priors * cfg.MODEL.NUM_CLASSES * FLOAT),
    }
    mixed = {**fp32, "weights": weights * 3 // 2, "activations": kept // 2}
    return Memory(images, stage.frames, size, fp32, mixed)


def _kept(cfg, model: SSD, size, images: int, stage: StageFacts) -> int:
    """Bytes of the activations of a batch; of two extractors, by the frames that each of them sees."""
    if not isinstance(model.backbone, InterleavedBackbone):
        return saved_bytes(model, size, images)
    share, total = training_share(cfg.MODEL.RNN, stage), 0.0
    for extractor, part in (("large", share), ("small", 1 - share)):
        with seen_by(model, extractor):
            total += part * saved_bytes(model, size, images) if part else 0
    return int(total)


def training_share(rnn, stage: StageFacts) -> float:
    """The part of a batch that the large one of two extractors sees in training: the mean where chance decides, else
    that of clips that begin a video."""
    shares = {"large": 1.0, "small": 0.0, "random": 0.5}
    if rnn.TRAIN_POLICY in shares:
        return shares[rnn.TRAIN_POLICY]
    if not stage.clips and rnn.INTERVAL > 0:
        return shares["random"]
    return math.ceil(stage.frames / (rnn.INTERVAL + 1)) / stage.frames


def inference_memory(cfg, model: SSD, cells: list[CellFacts]) -> Memory:
    """Of a batch of the test phase; of videos it has a frame each."""
    size, images = tuple(cfg.MODEL.IMAGE_SIZE), cfg.TEST.BATCH_SIZE
    weights = sum(parameter.numel() for parameter in model.parameters()) * FLOAT
    carried = sum(cell.state_bytes for cell in cells) * images if cfg.MODEL.RNN.IN_USE else 0
    maps = peak_bytes(model, size) * images
    fp32 = {"weights": weights, "feature maps": maps, "state of the videos": carried}
    mixed = {**fp32, "weights": weights * 3 // 2, "feature maps": maps // 2}
    return Memory(images, 1, size, fp32, mixed)
