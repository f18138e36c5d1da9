"""Running a detector over a data set: detections, losses and speed, without touching the model."""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from ..modeling.inference import InferenceNetwork
from ..structures import Batch, Detections
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

    `postprocess` turns predictions into detections.
    """

    def __init__(self, postprocess, device: torch.device):
        self.postprocess = postprocess
        self.device = device

    @torch.no_grad()
    def run(self, network: InferenceNetwork, loader, consume: Consumer, title: str, criterion=None):
        """Give `consume` the detections of every batch; returns (Speed, mean losses, empty without criterion).
        Compiling is not counted in the speed."""
        losses, clock, total = LossMeter(), StopWatch(self.device), StopWatch(self.device)
        with repeatable_draws(), tqdm(total=len(loader.records), desc=title, unit="img", disable=None) as bar:
            total.start()
            state = None
            for clip in loader:
                for batch in clip:
                    batch_size = len(batch.images)
                    first = batch.first[None].to(self.device) if network.is_recurrent else None
                    state = keep_rows(state_for([batch], state), batch_size)
                    total.stop(0)
                    network.warm_up(batch.images, state, first)
                    total.start()
                    pixels = batch.images.to(self.device, non_blocking=True)
                    clock.start()
                    predictions = network(pixels, state, first)
                    clock.stop(batch_size)
                    state = predictions.state
                    if criterion is not None:
                        losses.add(criterion(predictions, batch.targets))
                    sizes = torch.tensor([target.size for target in batch.targets], device=self.device)
                    consume([_to_cpu(d) for d in self.postprocess(predictions, sizes)], batch)
                    total.stop(batch_size)
                    total.start()
                    bar.update(batch_size)
        return Speed(clock.rate, total.rate), losses.pop()


@contextmanager
def repeatable_draws():
    """What the CPU draws inside, such as the extractors of a random policy, is the same every time, and training does
    not notice."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@contextmanager
def evaluating(model: nn.Module):
    """The model in eval mode with repeatable draws, and afterwards every part of it in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with repeatable_draws():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


def _to_cpu(found: Detections) -> Detections:
    return Detections(found.boxes.cpu(), found.scores.cpu(), found.labels.cpu(), found.class_names)
