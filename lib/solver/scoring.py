"""Scoring a detector on the images of a phase, and where the figures, pictures and files of it go."""

import json
import logging
import math
from pathlib import Path
from typing import NamedTuple

from torch import nn

from ..dataset.dataset_factory import create_loader
from ..dataset.transforms import create_transforms
from ..evaluation import FlickerRate, ResultsWriter, VIDMeanAP, VOCMeanAP, format_table
from ..modeling.model_builder import create_criterion, create_postprocess
from ..structures import Detections
from ..utils.device import resolve_precision
from .evaluate import Evaluator
from .figures import ap_figure, pr_figure
from .gallery import Gallery
from .streaming import measure_streaming

logger = logging.getLogger(__name__)


class Metrics(NamedTuple):
    """What a data set is scored by: the metrics that are fed, the first of which ranks detections; the key of its
    headline figure, which is "mAP"; and names for other figures."""

    fed: list
    main: str
    others: dict[str, str]

    @classmethod
    def of(cls, records, class_names, threshold: float) -> "Metrics":
        """VOC's metric for stills; for videos that of ImageNet VID, and how steadily objects are seen at a score of
        `threshold`."""
        if not records.is_video:
            return cls([VOCMeanAP(class_names)], "voc07", {"mAP_area": "voc_area"})
        speeds = {f"mAP_{name}": name for name in ("slow", "medium", "fast")}
        steadiness = {name: name for name in ("flicker", "gaps", "seen")}
        return cls([VIDMeanAP(class_names), FlickerRate(class_names, threshold)], "map50",
                   {"mAP_vid": "vid", **speeds, **steadiness})  # fmt: skip

    def compute(self) -> dict[str, float]:
        """All figures under their own names."""
        return {key: float(value) for metric in self.fed for key, value in metric.compute().items()}

    def headlines(self, scores: dict[str, float]) -> dict[str, float]:
        """ "mAP" and the other figures that a run is compared by."""
        return {"mAP": scores[self.main]} | {name: scores[key] for name, key in self.others.items()}


class Scorer:
    """Scores models on the records of the phases eval and test and logs the figures under "Eval" and "Test"."""

    def __init__(self, cfg, records: dict, class_names, normalize: nn.Module, device, writer):
        self.cfg = cfg
        self.exp_dir = Path(cfg.EXP_DIR)
        self.records = records
        self.class_names = list(class_names)
        self.writer = writer
        self.loaders = {}
        precision = resolve_precision(cfg.MODEL.PRECISION, device, training=False)
        self.evaluator = Evaluator(normalize, create_postprocess(cfg), device, precision)
        self.eval_transform = create_transforms(cfg, train=False)

    def score(self, model: nn.Module, phase: str, step: int) -> dict:
        """mAP ("mAP" is the VOC07 one, of videos the plain one at IoU 0.5), AP per class, mean losses and speed of the
        model as it is."""
        metrics, gallery = self._metrics(phase), self._gallery(phase)
        figures = self._run(model, phase, step, metrics, gallery, None, create_criterion(self.cfg))
        gallery.write(self.writer, f"{phase.title()} images", step)
        return figures

    def score_and_keep(self, model: nn.Module, phase: str, step: int, suffix: str, about: dict) -> dict:
        """The same without losses but, of videos, with the speed frame by frame; shows the table and keeps results,
        detections, plots and pictures in EXP_DIR.

        `suffix` goes into the names of the files, `about` into the results.
        """
        metrics, gallery = self._metrics(phase), self._gallery(phase)
        detections, pictures = self.exp_dir / f"detections{suffix}.json", self.exp_dir / f"pictures{suffix}"
        with ResultsWriter(detections) as results:
            figures = self._run(model, phase, step, metrics, gallery, results)
        gallery.write(self.writer, f"{phase.title()} images", step, pictures)
        left_out = self._loader(phase).num_left_out
        about = about | ({"images_left_out": left_out} if left_out else {})
        self._write_plots(metrics, figures, step, suffix)
        records, ranked = self.records[phase], metrics.fed[0]
        logger.info(
            "%s\nspeed: %.1f images/s network alone, %.1f end to end; detections: %s; pictures: %s",
            format_table(figures, ranked.counts(), ranked.best_f1()), figures["fps_network"],
            figures["fps_end_to_end"], detections, pictures,
        )  # fmt: skip
        if records.is_video:
            logger.info(
                "objects are seen in %.1f %% of their frames (score %.2f), %.1f %% are gaps between frames in which "
                "they are seen, and %.1f of 100 pairs of frames change between seen and unseen",
                100 * figures["seen"], self.cfg.TEST.PICTURE_THRESHOLD, 100 * figures["gaps"], figures["flicker"],
            )  # fmt: skip
            speed = measure_streaming(model, records, self.eval_transform, self.evaluator)
            self.writer.scalars({f"Test streaming/{name}": value for name, value in speed.items()}, step)
            figures |= {f"streaming_{name}": value for name, value in speed.items()}
        self._write_results(f"results{suffix}.json", about | figures)
        return figures

    def _run(self, model, phase: str, step: int, metrics: Metrics, gallery: Gallery, results, criterion=None) -> dict:
        """Feed the detections of a phase to metrics, gallery and results (or None), and log the figures."""
        names, tag = self.class_names, phase.title()

        def consume(found: list[Detections], batch) -> None:
            found = [Detections(d.boxes, d.scores, d.labels, tuple(names)) for d in found]
            for metric in metrics.fed:
                metric.update(found, batch.targets)
            gallery.take(found, batch.targets)
            if results is not None:
                results.add(found, batch.targets)

        speed, losses = self.evaluator.run(model, self._loader(phase), consume, phase, criterion)
        scores = metrics.compute()
        figures = metrics.headlines(scores) | losses
        figures |= {"fps_network": speed.network, "fps_end_to_end": speed.end_to_end}
        self.writer.scalars({f"{tag}/{name}": value for name, value in figures.items()}, step)
        self.writer.scalars({f"{tag} AP/{name}": scores[f"{metrics.main}/{name}"] for name in names}, step)
        self.writer.pr_curves(metrics.fed[0].pr_curves(), step, f"{tag} PR curves")
        return figures | scores

    def _write_plots(self, metrics: Metrics, scores: dict, step: int, suffix: str) -> None:
        """Precision and recall, and the AP of every class, as pictures of the run."""
        per_class = {name: scores[f"{metrics.main}/{name}"] for name in self.class_names}
        title = "VOC07 average precision" if metrics.main == "voc07" else "Average precision at IoU 0.5"
        plots = {
            "precision_recall": pr_figure(metrics.fed[0].pr_curves(), self.class_names),
            "average_precision": ap_figure(per_class, scores["mAP"], self.class_names, title),
        }
        for name, figure in plots.items():
            figure.savefig(self.exp_dir / f"{name}{suffix}.png")
            self.writer.figure(f"Test plots/{name.replace('_', ' ')}", figure, step)

    def _write_results(self, name: str, results: dict) -> None:
        """The figures of a test as JSON in EXP_DIR; what is not a number becomes null."""
        known = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in results.items()}
        text = json.dumps({"class_names": self.class_names, **known}, indent=1, ensure_ascii=False)
        (self.exp_dir / name).write_text(text + "\n", encoding="utf-8")

    def _metrics(self, phase: str) -> Metrics:
        return Metrics.of(self.records[phase], self.class_names, self.cfg.TEST.PICTURE_THRESHOLD)

    def _gallery(self, phase: str) -> Gallery:
        return Gallery(self.records[phase], self.cfg.TEST, self.class_names)

    def _loader(self, phase: str):
        """The loader of a phase, made when first used and kept with its workers."""
        if phase not in self.loaders:
            self.loaders[phase] = create_loader(self.cfg, phase, self.records[phase])
        return self.loaders[phase]
