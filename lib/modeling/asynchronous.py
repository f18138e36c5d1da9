"""The interleaved detector with its large extractor beside the frames (arXiv 1903.10172, section 3.4)."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ..structures import Predictions
from .nets.interleaved import Shared, fresh_state
from .ssds import SSD


class AsyncDetector:
    """Called like the detector, frame by frame, but no frame waits for the large extractor.

    Every frame takes the small extractor, the memory as it is, and the head.  The large one works in a thread of its
    own: when it is done with a frame, an older one by then, its map goes into the memory, and it begins with the frame
    that is newest.  The first frames are seen by the small extractor alone, without memory.

    model: an interleaved detector in eval mode; context() is entered around the large extractor's work (autocast);
    the caller enters its own around the call.
    """

    def __init__(self, model: SSD, context: Callable):
        self.model, self._context = model, context
        self._worker = ThreadPoolExecutor(1, "large extractor")
        self._pending: Future | None = None
        self.num_large = 0

    def __call__(self, images: Tensor, state=None) -> Predictions:
        """Normalised images [B, 3, H, W] and the state after the frame before (None begins a video) -> Predictions."""
        if state is None:
            self._pending = None  # of another video
            state = fresh_state(len(images), images)
        state = self._take_in(state)
        if self._pending is None:
            self._pending = self._worker.submit(self._extract, images)
        none = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        backbone, neck = self.model.backbone, self.model.neck
        kept = backbone.policy.keeps(none)
        output, state = neck.remember(Shared(None, backbone.extract_small(images), none, kept), state)
        return self.model.predict_from(neck.grow(output), images, state)

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(cancel_futures=True)

    def _take_in(self, state: dict) -> dict:
        """The state with the map of the large extractor in its memory, if one is ready."""
        if self._pending is None or not self._pending.done():
            return state
        features, self._pending = self._pending.result(), None
        self.num_large += 1
        every = torch.ones(len(features), dtype=torch.bool, device=features.device)
        return self.model.neck.remember(Shared(features, None, every, every), state)[1]

    @torch.inference_mode()
    def _extract(self, images: Tensor) -> Tensor:
        with self._context():
            return self.model.backbone.extract(images)
