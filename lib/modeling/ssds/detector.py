"""The one detector of the family: base network, neck, head and priors."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ...structures import Predictions


class SSD(nn.Module):
    """Single-shot detector (arXiv 1512.02325); the variants differ only in their parts.

    backbone(images, state, neck.inserts(), first) -> (features, state); neck(features, state, first) -> (sources,
    state); head(sources) -> (loc, conf); priors [P, 4] as (cx, cy, w, h), in the order of the head's rows, are those of
    images of image_size (height, width).  Images of another size get priors of their own from
    priors_at(image size, map sizes).  `pruned` is what a checkpoint says of how it was pruned, empty for the network
    that its configuration describes (see modeling/pruned.py).
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module, priors: Tensor, image_size, priors_at):
        super().__init__()
        self.image_size, self._priors_at, self._other_priors = tuple(image_size), priors_at, {}
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.pruned: dict = {}
        self.register_buffer("priors", priors, persistent=False)

    def forward(self, images: Tensor, state=None, first: Tensor | None = None) -> Predictions:
        """Normalised images [B, 3, H, W] -> Predictions; pass the state on with the next frame of a video.

        A clip of T frames is images [T * B, 3, H, W] in order of time with first bool [T, B], which marks the rows that
        begin a video: they forget their state before that frame.  It gives what its frames give one after another.
        """
        return self.run_in_parts(images, state, lambda name: nullcontext(), first)

    def run_in_parts(self, images: Tensor, state, part: Callable, first: Tensor | None = None) -> Predictions:
        """The same with each of the parts "backbone", "neck" and "head" inside the context that part(name) gives."""
        with part("backbone"):
            features, state = self.backbone(images, state, self.neck.inserts(), first)
        with part("neck"):
            sources, state = self.neck(features, state, first)
        with part("head"):
            return self.predict_from(sources, images, state)

    def predict_from(self, sources: list[Tensor], images: Tensor, state) -> Predictions:
        """What the head makes of the sources of these images."""
        return Predictions(*self.head(sources), self._priors_of(images, sources), state)

    def sources(self, images: Tensor, state=None, first: Tensor | None = None) -> tuple[list[Tensor], object]:
        """The feature maps that the head reads, finest level first, and the new state."""
        return self.neck(*self.backbone(images, state, self.neck.inserts(), first), first)

    @property
    def is_recurrent(self) -> bool:
        """Whether what this detector finds in a frame depends on the frames before it."""
        return self.neck.has_memory and self.neck.memory_on

    def switch_memory(self, on: bool) -> None:
        """Let a recurrent detector remember, or take every frame as the first one of a video."""
        self.backbone.memory_on = self.neck.memory_on = on

    def _priors_of(self, images: Tensor, sources: list[Tensor]) -> Tensor:
        size = tuple(images.shape[2:])
        if size == self.image_size:
            return self.priors
        key = (size, self.priors.device)
        if key not in self._other_priors:
            maps = [tuple(source.shape[2:]) for source in sources]
            self._other_priors[key] = self._priors_at(size, maps).to(self.priors)
        return self._other_priors[key]


class _Sources(nn.Module):
    """Backbone and neck alone, so that they can be run functionally."""

    def __init__(self, backbone: nn.Module, neck: nn.Module):
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, images: Tensor):
        return self.neck(*self.backbone(images, None, self.neck.inserts()))[0]


def source_map_sizes(backbone: nn.Module, neck: nn.Module, image_size) -> list[tuple[int, int]]:
    """(rows, columns) of every level for images of (height, width), found by a run on shapes alone."""
    module = _Sources(backbone, neck)
    training = backbone.training
    module.eval()  # no statistics of this run may enter the batch norms
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    with torch.no_grad():
        images = torch.empty(1, 3, *image_size, device="meta", dtype=next(iter(shapes.values())).dtype)
        sources = torch.func.functional_call(module, shapes, (images,))
    module.train(training)
    return [tuple(source.shape[2:]) for source in sources]
