"""Running a detector over a data set: detections, losses and speed, without touching the model."""

import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from ..modeling.inference import InferenceNetwork
from ..structures import Batch, Detections, Target
from ..utils.distributed import gather, is_main
from ..utils.meters import LossMeter, StopWatch
from ..utils.state import keep_rows
from .task import state_for

logger = logging.getLogger(__name__)


Consumer = Callable[[list[Detections], list[Target]], None]


class Speed(NamedTuple):
    """Images per second of the network alone, and end to end with loading, preprocessing and post-processing; of all
    processes together."""

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
    def run(
        self,
        network: InferenceNetwork,
        loader,
        consume: Consumer,
        title: str,
        criterion=None,
        between: Callable[[], None] = lambda: None,
    ):
        """Give `consume` the detections and targets of every batch; returns (Speed, mean losses, empty without
        criterion).  Compiling is not counted in the speed; between() is called before every batch.

        Of several processes each runs its share of the images; the main one consumes what all have found, in the order
        in which it alone would find it.
        """
        losses, clock, total = LossMeter(), StopWatch(self.device), StopWatch(self.device)
        with repeatable_draws(), _progress_bar(len(loader.records), title) as bar:
            total.start()
            state, clips = None, iter(loader)
            for _ in range(loader.num_rounds):
                between()
                rows, batch_losses = [], {}
                for batch in next(clips, ()):
                    first = batch.first[None].to(self.device) if network.is_recurrent else None
                    state = keep_rows(state_for([batch], state), len(batch.images))
                    total.stop(0)
                    network.warm_up(batch.images, state, first)
                    total.start()
                    predictions = self._predict(network, batch, state, first, clock)
                    state = predictions.state
                    if criterion is not None:
                        batch_losses = criterion(predictions, batch.targets)
                    rows += zip(self._detect(predictions, batch), batch.targets, strict=True)
                num_rows = self._take_in(rows, batch_losses, loader, consume, losses)
                total.stop(num_rows)
                total.start()
                bar.update(num_rows)
            next(clips, None)  # at its end the loader says what it left out
        rates = gather(clock.rate) or [clock.rate]
        return Speed(sum(rate for rate in rates if rate == rate), total.rate), losses.pop()

    def _predict(self, network: InferenceNetwork, batch: Batch, state, first, clock: StopWatch):
        pixels = batch.images.to(self.device, non_blocking=True)
        clock.start()
        predictions = network(pixels, state, first)
        clock.stop(len(batch.images))
        return predictions

    def _detect(self, predictions, batch: Batch) -> list[Detections]:
        sizes = torch.tensor([target.size for target in batch.targets], device=self.device)
        return [_to_cpu(found) for found in self.postprocess(predictions, sizes)]

    @staticmethod
    def _take_in(rows: list, batch_losses: dict, loader, consume: Consumer, losses: LossMeter) -> int:
        """Give away what all processes made of their batches; how many images those held, 0 but in the main one."""
        parts = gather((rows, {name: value.cpu() for name, value in batch_losses.items()}))
        if parts is None:
            return 0
        for _, of_batch in parts:
            if of_batch:
                losses.add(of_batch)
        rows = loader.merge([part for part, _ in parts])
        if rows:
            consume([found for found, _ in rows], [target for _, target in rows])
        return len(rows)


def _progress_bar(total: int, title: str) -> tqdm:
    return tqdm(total=total, desc=title, unit="img", disable=None if is_main() else True)


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
