"""What one training step computes: normalise, run the clip through the detector, average the losses."""

from contextlib import nullcontext

from torch import Tensor, nn

from ..layers.normalize import Normalize
from ..structures import Clip, Predictions
from ..utils.errors import UserError


class DetectionTask(nn.Module):
    """Detector and criterion as one module: the unit that is distributed and compiled.

    forward(clip, state) -> (dict of scalar losses, averaged over the frames; the state to carry on, detached).
    Truncated back-propagation through time lives here and nowhere else: gradients flow within the clip, and the
    state that leaves it is cut off.
    """

    def __init__(self, model: nn.Module, criterion: nn.Module, normalize: Normalize):
        super().__init__()
        self.model, self.criterion, self.normalize = model, criterion, normalize

    def forward(self, clip: Clip, state=None, autocast=nullcontext) -> tuple[dict[str, Tensor], object]:
        """`autocast` is a function that returns the context in which the network runs; the criterion runs outside."""
        totals: dict[str, Tensor] = {}
        for batch in clip:
            with autocast():
                predictions = self._predict(batch.images, state)
            state = predictions.state
            for name, loss in self.criterion(predictions, batch.targets).items():
                totals[name] = totals[name] + loss / len(clip) if name in totals else loss / len(clip)
        return totals, _detach(state)

    def _predict(self, images: Tensor, state) -> Predictions:
        try:
            return self.model(self.normalize(images), state)
        except ValueError as error:
            if len(images) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "TRAIN.BATCH_SIZE: a batch of one image leaves batch norm a single value where the map has one cell; "
                "train on at least 2 images, in batches of at least 2"
            ) from error


def _detach(state):
    """The recurrent state without its history; nested tuples, lists and dicts are followed."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, (tuple, list)):
        detached = [_detach(part) for part in state]
        return type(state)(*detached) if hasattr(state, "_fields") else type(state)(detached)
    if isinstance(state, dict):
        return {name: _detach(part) for name, part in state.items()}
    return state
