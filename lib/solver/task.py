"""What one training step computes: normalise, run the clip through the detector, average the losses."""

import logging
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..layers.normalize import Normalize
from ..layers.synced_norm import synchronise_norms
from ..modeling.nets.interleaved import InterleavedBackbone
from ..structures import Clip, Predictions
from ..utils.distributed import is_together
from ..utils.errors import UserError
from ..utils.state import detach_state

logger = logging.getLogger(__name__)


def state_for(clip: Clip, state):
    """The recurrent state that a clip goes on from: none where all its rows begin, since the maps of what is over may
    have had another size."""
    return None if clip[0].first.all() else state


class SharedTask:
    """A task whose gradients the processes share; in one process alone the task as it is.

    sync_norms: batch norms see the images of all processes, as far as all run the same parts of the model, which the
    extractors that take turns do not.
    """

    def __init__(self, task: "DetectionTask", sync_norms: bool):
        self.task, self._model = task, task
        self._learning = None
        takes_turns = isinstance(task.model.backbone, InterleavedBackbone)
        self._norms_are_shared = sync_norms and not takes_turns
        if is_together() and self._norms_are_shared:
            synchronise_norms(task.model)
        elif is_together() and sync_norms:
            logger.info("TRAIN.SYNC_NORMS: not done where two extractors take turns; the norms of process 0 count")

    def share(self) -> None:
        """To be called whenever other parameters may learn than before."""
        learning = [name for name, parameter in self.task.named_parameters() if parameter.requires_grad]
        if is_together() and learning != self._learning:
            self._learning = learning
            self._model = DistributedDataParallel(
                self.task,
                broadcast_buffers=False,  # those of the main process count where norms are not shared
                # A memory that is switched off, or an extractor whose turn it is not.
                find_unused_parameters=self.task.model.neck.has_memory,
                gradient_as_bucket_view=True,
            )

    def sharing(self, with_step: bool):
        """The context of forward and backward: gradients are shared where a step follows, else they add up here."""
        return nullcontext() if with_step or self._model is self.task else self._model.no_sync()

    def __call__(self, *args):
        return self._model(*args)


class DetectionTask(nn.Module):
    """Detector and criterion as one module: the unit that is distributed and compiled.

    forward(clip, state) -> (dict of scalar losses over all its frames as one batch; the state to carry on, detached).
    Truncated back-propagation through time lives here and nowhere else: gradients flow within the clip, and the
    state that leaves it is cut off.
    """

    def __init__(self, model: nn.Module, criterion: nn.Module, normalize: Normalize):
        super().__init__()
        self.model, self.criterion, self.normalize = model, criterion, normalize

    def forward(self, clip: Clip, state=None, autocast=nullcontext) -> tuple[dict[str, Tensor], object]:
        """`autocast` is a function that returns the context in which the network runs; the criterion runs outside."""
        images = torch.cat([batch.images for batch in clip]) if len(clip) > 1 else clip[0].images
        first = torch.stack([batch.first for batch in clip]) if self.model.is_recurrent else None
        with autocast():
            predictions = self._predict(images, state, first)
        targets = [target for batch in clip for target in batch.targets]
        return self.criterion(predictions, targets), detach_state(predictions.state)

    def _predict(self, images: Tensor, state, first: Tensor | None) -> Predictions:
        try:
            return self.model(self.normalize(images), state, first)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error) or (len(images) > 1 and not self.model.is_recurrent):
                raise
            if self.model.is_recurrent:
                raise UserError(
                    "MODEL.RNN.BATCH_SIZE: the frames of a clip leave batch norm a single value where a map has one "
                    "cell; give more videos, or more frames as MODEL.RNN.BACKPROP_STEPS"
                ) from error
            raise UserError(
                "TRAIN.BATCH_SIZE: a batch of one image leaves batch norm a single value where the map has one cell; "
                "train on at least 2 images, in batches of at least 2"
            ) from error
