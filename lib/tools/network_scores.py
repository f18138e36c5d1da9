"""What a network scores on the test set, whichever way it is run: for tools that compare ways of running one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..dataset.dataset_factory import create_loader
from ..modeling.model_builder import create_postprocess
from ..solver.evaluate import Evaluator
from ..solver.protocols import create_protocols
from ..solver.run import checkpoints_to_test
from ..solver.solver import Solver
from ..structures import Detections, Target
from ..utils.errors import UserError

POINT = 0.01
"""Differences of average precision are told in points, hundredths of it."""


@dataclass
class NetworkScores:
    """mAP of the headline protocol, average precision by class (NaN where a class has no objects), and images per
    second of the network alone and end to end."""

    mean_ap: float
    per_class: dict[str, float]
    network: float
    end_to_end: float

    def points_above(self, other: "NetworkScores") -> float:
        """By how many points of mAP this network is better."""
        return (self.mean_ap - other.mean_ap) / POINT


class NetworkTest:
    """The test set of a configuration and the detector with the weights that its test phase takes, of several
    checkpoints the last.

    `solver` owns the model, its device and the logs.  UserErrors are those of the test phase.
    """

    def __init__(self, cfg):
        cfg.PHASE = ["test"]
        self.cfg, self.solver = cfg, Solver(cfg)
        self.checkpoint: Path = checkpoints_to_test(cfg)[-1][1]
        self.solver.load_for_test(self.checkpoint)
        self.records = self.solver.records["test"]
        self._loader = create_loader(cfg, "test", self.records)
        self._evaluator = Evaluator(create_postprocess(cfg), self.solver.device)
        protocols = create_protocols(cfg, self.records, whole=False)
        self.legend = protocols.legend([protocols.main])["mAP"]

    def score(self, network: Callable, title: str) -> NetworkScores:
        """Run a network over all images; it is called, and asked, as the Evaluator does with an InferenceNetwork.
        UserError for a set without any object that counts.

        A blank batch goes before them, so that no clock counts what a network does once.
        """
        names, protocols = tuple(self.records.class_names), create_protocols(self.cfg, self.records, whole=False)

        def consume(found: list[Detections], targets: list[Target]) -> None:
            found = [Detections(d.boxes, d.scores, d.labels, names) for d in found]
            protocols.update(found, targets)

        count = min(self.cfg.TEST.BATCH_SIZE, len(self.records))
        blank = torch.zeros(count, 3, *self.cfg.MODEL.IMAGE_SIZE, dtype=torch.uint8, device=self.solver.device)
        network(blank, None, torch.ones(1, count, dtype=torch.bool, device=blank.device))
        speed, _ = self._evaluator.run(network, self._loader, consume, title)
        figures = protocols.compute()
        if math.isnan(figures["mAP"]):
            raise UserError(f"{self.records.name} holds no object that counts, so there is no mAP to compare")
        per_class = {name: figures[f"{protocols.main}/{name}"] for name in names}
        return NetworkScores(figures["mAP"], per_class, speed.network, speed.end_to_end)


def figure_or_null(value: float) -> float | None:
    """A number as JSON holds it, null for NaN."""
    return None if math.isnan(value) else value
