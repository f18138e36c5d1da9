"""A detector as one function of plain tensors, which exporters can trace: pixels and states in, raw outputs and new
states out."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers.prior_box import level_scales, ratio_boxes
from .nets.interleaved import InterleavedBackbone, Shared
from .ssds import SSD

EXTRACTORS = ("large", "small")


class PriorRule(NamedTuple):
    """How priors follow the size of an image, as `build_priors` takes it: aspect ratios, sizes and steps of each level,
    and whether they are clipped; map_sizes are those of images of MODEL.IMAGE_SIZE, to which the steps belong."""

    map_sizes: list
    aspect_ratios: list
    sizes: list
    steps: list
    clip: bool


class ExportGraph(nn.Module):
    """forward(pixels, *states) -> (loc [B, P, 4], conf [B, P, C], priors [P, 4], *new states, drift [B]).

    pixels: uint8 [B, H, W, 3], BGR; colour order and normalisation are inside.  states: h and c of each memory in turn,
    each [B, N, H', W'] (see `state_shapes`); zeros begin a video.  Without states every frame is one.

    model: in evaluation mode and on the CPU.  extractor: of an interleaved detector, the one that sees the frames; its
    drift, of which the adaptive policy makes its choice, ends the outputs where there are states.  prior_rule: with it
    priors follow the size of the pixels as those of the model do; without it that is the model's own size.
    """

    def __init__(
        self,
        model: SSD,
        normalize: nn.Module,
        is_rgb: bool,
        extractor: str | None = None,
        prior_rule: PriorRule | None = None,
    ):
        super().__init__()
        if (extractor is not None) != isinstance(model.backbone, InterleavedBackbone):
            raise ValueError(f"extractor {extractor} of a {type(model.backbone).__name__}")
        self.model, self.normalize, self.is_rgb = model, normalize, is_rgb
        self.extractor, self.prior_rule = extractor, prior_rule

    def forward(self, pixels: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        images = pixels.flip(3) if self.is_rgb else pixels
        images = self.normalize(images.permute(0, 3, 1, 2))
        memories = tuple(zip(states[::2], states[1::2], strict=True))
        sources, after = self._interleaved(images, memories) if self.extractor else self._sources(images, memories)
        loc, conf = self.model.head(sources)
        return loc, conf, self._priors(images, sources), *after

    def state_shapes(self) -> list[tuple[int, ...]]:
        """[N, H', W'] of h and c of each memory, for images of the model's size; empty where nothing is remembered."""
        if not self.model.is_recurrent:
            return []
        with torch.no_grad():
            state = self.model(self.normalize(torch.zeros(1, 3, *self.model.image_size, dtype=torch.uint8))).state
        memories = [state["memory"]] if self.extractor else state
        return [tuple(part.shape[1:]) for part in itertools.chain.from_iterable(memories)]

    def _sources(self, images: Tensor, memories: tuple) -> tuple[list[Tensor], tuple]:
        model = self.model
        features, state = model.backbone(images, memories or None, model.neck.inserts())
        sources, state = model.neck(features, state)
        return sources, tuple(itertools.chain.from_iterable(state)) if memories else ()

    def _interleaved(self, images: Tensor, memories: tuple) -> tuple[list[Tensor], tuple]:
        backbone, neck, is_large = self.model.backbone, self.model.neck, self.extractor == "large"
        maps = (backbone.extract(images), None) if is_large else (None, backbone.extract_small(images))
        chosen = torch.full((images.shape[0],), is_large)
        features = Shared(*maps, chosen, backbone.policy.keeps(chosen))
        if not memories:
            return neck(features)[0], ()
        # The ages, which say how many rows there are, are the business of whoever chooses the extractor.
        output, state = neck.remember(features, {"age": (), "drift": None, "memory": memories[0]})
        return neck.grow(output), (*state["memory"], state["drift"])

    def _priors(self, images: Tensor, sources: list[Tensor]) -> Tensor:
        if self.prior_rule is None:
            return self.model.priors
        return priors_by_size(images.shape[2:], [x.shape[2:] for x in sources], self.prior_rule, self.model.image_size)


def priors_by_size(image_size, map_sizes, rule: PriorRule, usual_size) -> Tensor:
    """The priors [P, 4] of `build_priors` for sizes that are known when the graph runs; the steps hold for usual_size
    alone, and images of other sizes have priors in the middle of their cells."""
    size = torch.stack([torch.full((), side, dtype=torch.float32) for side in image_size])
    is_usual = (size == torch.tensor(usual_size, dtype=torch.float32)).all()
    levels = []
    for number, (cells, map_size) in enumerate(zip(_cells(size, rule), map_sizes, strict=True)):
        step = 1 / torch.stack([torch.full((), side, dtype=torch.float32) for side in map_size])
        if rule.steps:
            step = torch.where(is_usual, torch.tensor(rule.steps[number]) / torch.tensor(usual_size), step)
        y, x = ((torch.arange(side, dtype=torch.float32) + 0.5) * step[axis] for axis, side in enumerate(map_size))
        shape = (*map_size, len(cells), 1)
        centres = x[None, :, None, None].expand(shape), y[:, None, None, None].expand(shape)
        levels.append(torch.cat([*centres, cells.expand(*map_size, len(cells), 2)], -1).reshape(-1, 4))
    priors = torch.cat(levels)
    return priors.clamp(0, 1) if rule.clip else priors


def _cells(size: Tensor, rule: PriorRule) -> list[Tensor]:
    """(width, height) of the priors of one cell of each level, each [boxes, 2], as parts of an image of `size` [2]."""
    if isinstance(rule.sizes[0], (list, tuple)):
        sides = [(torch.tensor(pair, dtype=torch.float32) / size).min() for pair in rule.sizes]
        scales = list(itertools.pairwise([*sides, sides[-1]]))
    else:
        scales = [tuple(map(torch.tensor, pair)) for pair in level_scales(rule.sizes, rule.map_sizes, ())]
    levels = []
    for (scale, next_scale), ratios in zip(scales, rule.aspect_ratios, strict=False):
        between = (scale * next_scale).sqrt()
        boxes = []
        for ratio in ratios:
            for place, box in enumerate(ratio_boxes(1.0, 1.0, ratio)):
                boxes.append(torch.tensor(box) * (between if ratio == 1 and place else scale))
        levels.append(torch.stack(boxes))
    return levels
