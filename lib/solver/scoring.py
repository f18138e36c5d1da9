"""Scoring a detector on the images of a phase, and where the figures, pictures and files of it go."""

import json
import logging
import math
from pathlib import Path

from torch import nn

from ..dataset.dataset_factory import create_loader
from ..evaluation import ResultsWriter, VOCMeanAP, format_table
from ..modeling.model_builder import create_criterion, create_postprocess
from ..structures import Detections
from ..utils.device import resolve_precision
from .evaluate import Evaluator
from .figures import ap_figure, pr_figure
from .gallery import Gallery

logger = logging.getLogger(__name__)


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

    def score(self, model: nn.Module, phase: str, step: int) -> dict:
        """mAP ("mAP" is the VOC07 one), AP per class, mean losses and speed of the model as it is."""
        metric, gallery = VOCMeanAP(self.class_names), self._gallery(phase)
        figures = self._run(model, phase, step, metric, gallery, None, create_criterion(self.cfg))
        gallery.write(self.writer, f"{phase.title()} images", step)
        return figures

    def score_and_keep(self, model: nn.Module, phase: str, step: int, suffix: str, about: dict) -> dict:
        """The same without losses; shows the table and keeps results, detections, plots and pictures in EXP_DIR.

        `suffix` goes into the names of the files, `about` into the results.
        """
        metric, gallery = VOCMeanAP(self.class_names), self._gallery(phase)
        detections, pictures = self.exp_dir / f"detections{suffix}.json", self.exp_dir / f"pictures{suffix}"
        with ResultsWriter(detections) as results:
            figures = self._run(model, phase, step, metric, gallery, results)
        gallery.write(self.writer, f"{phase.title()} images", step, pictures)
        left_out = self._loader(phase).num_left_out
        about = about | ({"images_left_out": left_out} if left_out else {})
        self._write_plots(metric, figures, step, suffix)
        self._write_results(f"results{suffix}.json", about | figures)
        logger.info(
            "%s\nspeed: %.1f images/s network alone, %.1f end to end; detections: %s; pictures: %s",
            format_table(figures, metric.counts(), metric.best_f1()), figures["fps_network"],
            figures["fps_end_to_end"], detections, pictures,
        )  # fmt: skip
        return figures

    def _run(self, model, phase: str, step: int, metric: VOCMeanAP, gallery: Gallery, results, criterion=None) -> dict:
        """Feed the detections of a phase to metric, gallery and results (or None), and log the figures."""
        names, tag = self.class_names, phase.title()

        def consume(found: list[Detections], batch) -> None:
            found = [Detections(d.boxes, d.scores, d.labels, tuple(names)) for d in found]
            metric.update(found, batch.targets)
            gallery.take(found, batch.targets)
            if results is not None:
                results.add(found, batch.targets)

        speed, losses = self.evaluator.run(model, self._loader(phase), consume, phase, criterion)
        scores = {key: float(value) for key, value in metric.compute().items()}
        figures = {"mAP": scores["voc07"], "mAP_area": scores["voc_area"], **losses}
        figures |= {"fps_network": speed.network, "fps_end_to_end": speed.end_to_end}
        self.writer.scalars({f"{tag}/{name}": value for name, value in figures.items()}, step)
        self.writer.scalars({f"{tag} AP/{name}": scores[f"voc07/{name}"] for name in names}, step)
        self.writer.pr_curves(metric.pr_curves(), step, f"{tag} PR curves")
        return figures | scores

    def _write_plots(self, metric: VOCMeanAP, scores: dict, step: int, suffix: str) -> None:
        """Precision and recall, and the AP of every class, as pictures of the run."""
        per_class = {name: scores[f"voc07/{name}"] for name in self.class_names}
        plots = {
            "precision_recall": pr_figure(metric.pr_curves(), self.class_names),
            "average_precision": ap_figure(per_class, scores["voc07"], self.class_names, "VOC07 average precision"),
        }
        for name, figure in plots.items():
            figure.savefig(self.exp_dir / f"{name}{suffix}.png")
            self.writer.figure(f"Test plots/{name.replace('_', ' ')}", figure, step)

    def _write_results(self, name: str, results: dict) -> None:
        """The figures of a test as JSON in EXP_DIR; what is not a number becomes null."""
        known = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in results.items()}
        text = json.dumps({"class_names": self.class_names, **known}, indent=1, ensure_ascii=False)
        (self.exp_dir / name).write_text(text + "\n", encoding="utf-8")

    def _gallery(self, phase: str) -> Gallery:
        return Gallery(self.records[phase], self.cfg.TEST, self.class_names)

    def _loader(self, phase: str):
        """The loader of a phase, made when first used and kept with its workers."""
        if phase not in self.loaders:
            self.loaders[phase] = create_loader(self.cfg, phase, self.records[phase])
        return self.loaders[phase]
