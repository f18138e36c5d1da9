"""The detector that an export begins with, and what it finds in torch: the reference of the ONNX files."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import update_derived
from ..dataset.transforms import reorder
from ..layers.postprocess import PostProcess
from ..layers.prior_box import level_ratios
from ..modeling.export_graph import ExportGraph, PriorRule
from ..modeling.folding import fold_norms
from ..modeling.model_builder import INTERLEAVED
from ..modeling.nets.interleaved import fresh_state
from ..modeling.ssds import SSD
from ..modeling.ssds.detector import source_map_sizes
from ..predictor import ObjectDetector
from ..solver import checkpoint as ckpt
from ..structures import Detections, Predictions
from ..utils.errors import UserError


@dataclass(frozen=True)
class Source:
    """A detector in fp32 on the CPU, its norms folded, with the weights of `checkpoint`; `cfg` is a configuration of
    its own with the colours of the weights and the number of classes."""

    cfg: object
    checkpoint: Path
    model: SSD
    detector: ObjectDetector

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.detector.class_names

    @property
    def rules(self) -> PostProcess:
        """What makes detections of raw outputs."""
        return self.detector.postprocess

    @property
    def extractors(self) -> tuple[str, ...]:
        """The extractors of an interleaved detector that inference calls; empty for others."""
        if self.cfg.MODEL.SSDS != INTERLEAVED:
            return ()
        policy = self.model.backbone.policy
        if policy.kind == "small":
            return ("small",)
        only_large = policy.kind == "large" or not self.model.is_recurrent or policy.interval == 0
        return ("large",) if only_large else ("large", "small")

    def graph(self, extractor: str | None = None, dynamic_size: bool = False) -> ExportGraph:
        """What is traced, of an interleaved detector with one of its extractors."""
        rule = self._prior_rule() if dynamic_size else None
        is_rgb = self.cfg.DATASET.COLOR_ORDER == "RGB"
        return ExportGraph(self.model, self.detector.normalize, is_rgb, extractor, rule).eval()

    @torch.no_grad()
    def run(self, pixels: np.ndarray, state=None) -> Predictions:
        """Raw outputs for images uint8 BGR [B, H, W, 3] of the network's size, and the state after them."""
        ordered = np.stack([reorder(image, self.cfg.DATASET.COLOR_ORDER) for image in pixels])
        return self.model(self.detector.normalize(torch.from_numpy(ordered).permute(0, 3, 1, 2)), state)

    def detect(self, images: list[np.ndarray], state=None, size=None) -> tuple[list[Detections], Predictions]:
        """Detections of images of any size, as the test phase has them, and the raw outputs behind them; `size` is
        another (height, width) than the network's own."""
        ordered = np.stack([self.detector.transform.resize(image, size) for image in images])
        with torch.no_grad():
            predictions = self.model(self.detector.normalize(torch.from_numpy(ordered).permute(0, 3, 1, 2)), state)
        sizes = torch.tensor([image.shape[:2] for image in images])
        return [self._named(found) for found in self.rules(predictions, sizes)], predictions

    def state_as_seen_by(self, extractor: str | None, state, count: int):
        """The state with which the next frame of `count` videos is one for this extractor."""
        if extractor is None or not self.model.is_recurrent:
            return state
        state = state or fresh_state(count, torch.zeros(()))
        age = torch.full((count,), int(extractor == "small" and len(self.extractors) > 1))
        return {**state, "age": age, "drift": torch.zeros(count)}

    def flat_state(self, state) -> list[Tensor]:
        """h and c of each memory in turn, as the graph names them, and the drift where there is one."""
        if not self.model.is_recurrent:
            return []
        if isinstance(state, dict):
            return [*state["memory"], state["drift"]]
        return [part for memory in state for part in memory]

    def _named(self, found: Detections) -> Detections:
        return Detections(found.boxes, found.scores, found.labels, self.class_names)

    def _prior_rule(self) -> PriorRule:
        if self.model.is_recurrent or self.extractors:
            raise UserError(
                f"--dynamic-size: {self.cfg.MODEL.SSDS} keeps maps of one size from frame to frame; export without it, "
                "with the MODEL.IMAGE_SIZE that is wanted"
            )
        model = self.cfg.MODEL
        maps = source_map_sizes(self.model.backbone, self.model.neck, model.IMAGE_SIZE)
        return PriorRule(maps, level_ratios(model.ASPECT_RATIOS, len(maps)), model.SIZES, model.STEPS, model.CLIP)


def load_source(cfg, checkpoint) -> Source:
    """The detector of a configuration with the weights of a file; UserErrors as of ObjectDetector, and for a policy
    that leaves the choice of extractors to chance."""
    cfg, checkpoint = copy.deepcopy(cfg), Path(checkpoint)
    cfg.DEVICE, cfg.MODEL.PRECISION, cfg.MODEL.COMPILE = "cpu", "fp32", "none"
    if cfg.MODEL.SSDS == INTERLEAVED and cfg.MODEL.RNN.POLICY == "random":
        raise UserError("MODEL.RNN.POLICY: random cannot be exported, no two runs of it agree; give fixed or adaptive")
    ckpt.adopt_inputs(cfg, ckpt.read_checkpoint(checkpoint), checkpoint)
    detector = ObjectDetector(cfg, checkpoint)
    cfg.MODEL.NUM_CLASSES = detector.model.head.num_classes
    update_derived(cfg)
    return Source(cfg, checkpoint, fold_norms(detector.model), detector)
