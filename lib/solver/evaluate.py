"""Running a detector over a data set: detections, losses and speed, without touching the model."""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from ..structures import Batch, Detections
from ..utils.device import autocast
from ..utils.meters import LossMeter, StopWatch
from ..utils.state import keep_rows
from .task import state_for

logger = logging.getLogger(__name__)


Consumer = Callable[[list[Detections], Batch], None]


class Speed(NamedTuple):
    """Images per second of the network alone, and end to end with loading, preprocessing and post-processing."""

    network: float
    end_to_end: float


class Evaluator:
    """Everything about evaluation that does not change between runs over a data set.

    `normalize` turns uint8 images into network input, `postprocess` predictions into detections; the network runs in
    `dtype` (None: fp32) on `device`.
    """

    def __init__(self, normalize: nn.Module, postprocess, device: torch.device, dtype=None):
        self.normalize = normalize
        self.postprocess = postprocess
        self.device = device
        self.dtype = dtype

    @torch.no_grad()
    def run(self, model: nn.Module, loader, consume: Consumer, title: str, criterion=None):
        """Give `consume` the detections of every batch; returns (Speed, mean losses, empty without criterion)."""
        losses, network, total = LossMeter(), StopWatch(self.device), StopWatch(self.device)
        with evaluating(model), tqdm(total=len(loader.records), desc=title, unit="img", disable=None) as bar:
            total.start()
            state = None
            for clip in loader:
                for batch in clip:
                    batch_size = len(batch.images)
                    images = self.normalize(batch.images.to(self.device, non_blocking=True))
                    first = batch.first[None].to(self.device) if model.is_recurrent else None
                    network.start()
                    state = keep_rows(state_for([batch], state), batch_size)
                    with autocast(self.device, self.dtype):
                        predictions = model(images, state, first)
                    network.stop(batch_size)
                    state = predictions.state
                    if criterion is not None:
                        losses.add(criterion(predictions, batch.targets))
                    sizes = torch.tensor([target.size for target in batch.targets], device=self.device)
                    consume([_to_cpu(d) for d in self.postprocess(predictions, sizes)], batch)
                    total.stop(batch_size)
                    total.start()
                    bar.update(batch_size)
        return Speed(network.rate, total.rate), losses.pop()


@contextmanager
def evaluating(model: nn.Module):
    """The model in eval mode, and afterwards every part of it in the mode it was in.  What the CPU draws inside, such
    as the extractors of a random policy, is the same every time, and training does not notice."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


def _to_cpu(found: Detections) -> Detections:
    return Detections(found.boxes.cpu(), found.scores.cpu(), found.labels.cpu(), found.class_names)
