"""Scoring a detector on the images of a phase, and where the figures, pictures and files of it go."""

import json
import logging
import math
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
from torch import nn

from ..dataset.dataset_factory import create_loader
from ..dataset.transforms import create_transforms
from ..evaluation import COCO_FIGURES, ERRORS, Protocols, ResultsWriter, to_coco_results
from ..modeling.inference import InferenceNetwork, resolve_compile
from ..modeling.model_builder import create_criterion, create_postprocess
from ..structures import Detections, Target
from ..utils.device import resolve_precision
from ..utils.distributed import gather, is_main
from ..utils.files import about_file, write_whole
from .evaluate import Evaluator
from .figures import ap_figure, confusion_figure, error_figure, pr_figure, render_figure
from .film_strip import FilmStrip
from .gallery import Gallery
from .outcome_page import Scored, write_outcome_page
from .outcomes import OutcomeKeeper
from .protocols import choose_headline, create_protocols
from .streaming import measure_streaming

logger = logging.getLogger(__name__)

TITLES = {
    "voc07": "VOC07 average precision at IoU 0.5",
    "voc_area": "VOC average precision (area) at IoU 0.5",
    "coco": "COCO average precision, IoU 0.50:0.95",
    "vid": "Average precision at IoU 0.5",
}
"""Of the plot of the AP of every class, by protocol."""
PR_TITLE = "Precision and recall at IoU 0.5"


class Scorer:
    """Scores models on the records of the phases eval and test and logs the figures under "Eval" and "Test"."""

    def __init__(self, cfg, records: dict, class_names, normalize: nn.Module, device, writer):
        self.cfg = cfg
        self.exp_dir = Path(cfg.EXP_DIR)
        self.records = records
        self.class_names = list(class_names)
        self.writer = writer
        self.loaders = {}
        self._num_left_out = 0
        self.normalize, self.device = normalize, device
        self.evaluator = Evaluator(create_postprocess(cfg), device)
        self.eval_transform = create_transforms(cfg, train=False)
        for phase in {"eval", "test"} & set(records):
            choose_headline(cfg, records[phase])  # a mistake is told before the training, not after

    def score(
        self,
        model: nn.Module,
        phase: str,
        step: int,
        epoch: int | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> dict:
        """mAP (of the protocol that TEST.METRIC chooses), AP per class, mean losses and speed of the model as it is;
        after an `epoch` of training also the next pictures of the film strip.  {} but in the main process; between() is
        called before every batch."""
        network = self.network(model)
        metrics, gallery = create_protocols(self.cfg, self.records[phase], whole=False), self._gallery(phase)
        criterion = create_criterion(self.cfg).eval()
        figures = self._run(network, phase, step, metrics, [gallery.take], criterion, between)
        if not figures:
            return {}
        gallery.write(self.writer, f"{phase.title()} images", step)
        if epoch is not None:
            FilmStrip(self.exp_dir).add(gallery.strip(), epoch, figures["mAP"])
        return figures

    def score_and_keep(
        self, model: nn.Module, phase: str, step: int, suffix: str, about: dict, between: Callable[[], None]
    ) -> dict:
        """The same by all protocols, without losses but, of videos, with the speed frame by frame; shows the tables and
        keeps results, detections, plots and pictures in EXP_DIR.

        `suffix` goes into the names of the files, `about` into the results.
        """
        network = self.network(model, len(self.records[phase]))
        metrics, gallery = create_protocols(self.cfg, self.records[phase]), self._gallery(phase)
        if not is_main():
            return self._run(network, phase, step, metrics, [], None, between)
        detections, pictures = self.exp_dir / f"detections{suffix}.json", self.exp_dir / f"pictures{suffix}"
        keeper = OutcomeKeeper(self.records[phase], self.class_names, self.cfg.TEST.PICTURE_THRESHOLD)
        with _results_file(detections) as add, self._coco_results(self.records[phase], suffix) as more:
            takers = [gallery.take, keeper.take, add, *more]
            figures = self._run(network, phase, step, metrics, takers, None, between)
        about = about | ({"images_left_out": self._num_left_out} if self._num_left_out else {})
        records = self.records[phase]
        logger.info(
            "%s\nspeed: %.1f images/s network alone, %.1f end to end (%s); detections: %s; pictures: %s; worst and "
            "best images: %s",
            metrics.tables(figures), figures["fps_network"], figures["fps_end_to_end"], network.describe(),
            detections, pictures, self.exp_dir / f"gallery{suffix}.html",
        )  # fmt: skip
        gallery.write(self.writer, f"{phase.title()} images", step, pictures)  # after the tables: the disk may be full
        plots = self._write_plots(metrics, figures, step, suffix)
        if records.is_video:
            logger.info(
                "objects are seen in %.1f %% of their frames (score %.2f), %.1f %% are gaps between frames in which "
                "they are seen, and %.1f of 100 pairs of frames change between seen and unseen",
                100 * figures["seen"], self.cfg.TEST.PICTURE_THRESHOLD, 100 * figures["gaps"], figures["flicker"],
            )  # fmt: skip
            speed = measure_streaming(network, records, self.eval_transform, self.evaluator)
            self.writer.scalars({f"Test streaming/{name}": value for name, value in speed.items()}, step)
            figures |= {f"streaming_{name}": value for name, value in speed.items()}
        texts = {"confusion": metrics.confusion_counts(), "legend": metrics.legend(figures)}
        self._write_results(f"results{suffix}.json", about | figures | texts)
        self._write_page(keeper, metrics, about | figures, plots, suffix)
        return figures

    def network(self, model: nn.Module, num_images: int = 0) -> InferenceNetwork:
        """The model as it is now, ready to run on so many images."""
        dtype = resolve_precision(self.cfg.MODEL.PRECISION, self.device, training=False)
        mode = resolve_compile(self.cfg.MODEL.COMPILE, num_images, self.device) if num_images else "none"
        return InferenceNetwork(model, self.normalize, self.device, dtype, mode)

    def _run(
        self, network: InferenceNetwork, phase: str, step: int, metrics: Protocols, takers: list, criterion, between
    ) -> dict:
        """Feed the detections of a phase to the metrics and to `takers`, functions of detections and targets, and log
        the figures; {} but in the main process."""
        names, tag = self.class_names, phase.title()

        def consume(found: list[Detections], targets: list[Target]) -> None:
            found = [Detections(d.boxes, d.scores, d.labels, tuple(names)) for d in found]
            metrics.update(found, targets)
            for take in takers:
                take(found, targets)

        loader = self._loader(phase)
        speed, losses = self.evaluator.run(network, loader, consume, phase, criterion, between)
        self._num_left_out = sum(gather(loader.num_left_out) or [0])
        if not is_main():
            return {}
        scores = metrics.compute()
        figures = {name: scores[name] for name in metrics.headline_keys()} | losses
        figures |= {"fps_network": speed.network, "fps_end_to_end": speed.end_to_end}
        self._log_figures(metrics, figures, scores, tag, step)
        about_curves = f"IoU {metrics.ranked.iou_threshold:g}, all detections"
        self.writer.pr_curves(metrics.ranked.pr_curves(), step, f"{tag} PR curves", about_curves)
        return figures | scores

    def _log_figures(self, metrics: Protocols, figures: dict, scores: dict, tag: str, step: int) -> None:
        """The main figures, those of COCO, the costs of errors and the AP of every class, each with its meaning."""
        legend = metrics.legend(figures | scores)
        groups = {
            tag: {name: (value, legend.get(name)) for name, value in figures.items()},
            f"{tag} COCO": {name: (scores[name], legend[name]) for name in COCO_FIGURES if name in scores},
            f"{tag} errors": {
                name: (scores[f"cost/{name}"], legend[f"cost/{name}"]) for name in ERRORS if f"cost/{name}" in scores
            },
            f"{tag} AP": {name: (scores[f"{metrics.main}/{name}"], legend["mAP"]) for name in self.class_names},
        }
        for group, entries in groups.items():
            values = {f"{group}/{name}": value for name, (value, _) in entries.items()}
            about = {f"{group}/{name}": text for name, (_, text) in entries.items() if text}
            if values:
                self.writer.scalars(values, step, about)

    def _write_plots(self, metrics: Protocols, scores: dict, step: int, suffix: str) -> dict:
        """Precision and recall, the AP of every class, confusions and errors as pictures of the run; the pictures by
        title."""
        per_class = {name: scores[f"{metrics.main}/{name}"] for name in self.class_names}
        costs = {name: (scores[f"errors/{name}"], scores[f"cost/{name}"]) for name in ERRORS}
        plots = {
            "precision_recall": pr_figure(metrics.ranked.pr_curves(), self.class_names, PR_TITLE),
            "average_precision": ap_figure(per_class, scores["mAP"], self.class_names, TITLES[metrics.headline]),
            "confusion": confusion_figure(metrics.confusion_counts()),
            "errors": error_figure(costs, scores["AP50"]),
        }
        pictures = {name.replace("_", " "): render_figure(figure) for name, figure in plots.items()}
        for name, picture in zip(plots, pictures.values(), strict=True):
            write_whole(self.exp_dir / f"{name}{suffix}.png", cv2.imencode(".png", picture)[1].tobytes())
            self.writer.image(f"Test plots/{name.replace('_', ' ')}", picture, step)
        return pictures

    def _write_page(self, keeper: OutcomeKeeper, metrics: Protocols, figures: dict, plots: dict, suffix: str) -> None:
        """The figures, plots and the worst and best images of a test on one page."""
        model, records, post = self.cfg.MODEL, keeper.records, self.cfg.POST_PROCESS
        about = (
            f"{len(records)} images of {records.name}, {figures['checkpoint']}, epoch {figures['epoch']}. Detections "
            f"with scores above {post.SCORE_THRESHOLD:g} count, at most {post.MAX_DETECTIONS} of a class and image."
        )
        scored = Scored(f"Test of {model.SSDS} on {model.NETS}", about, figures, metrics, plots)
        path = self.exp_dir / f"gallery{suffix}.html"
        write_outcome_page(path, scored, keeper, self.cfg.TEST.NUM_PICTURES)

    def _write_results(self, name: str, results: dict) -> None:
        """The figures of a test as JSON in EXP_DIR; what is not a number becomes null."""
        known = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in results.items()}
        # A line for each figure, and not one for each number of the confusion matrix.
        lines = (
            f" {json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in ({"class_names": self.class_names} | known).items()
        )
        write_whole(self.exp_dir / name, "{\n" + ",\n".join(lines) + "\n}\n")

    @contextmanager
    def _coco_results(self, records, suffix: str):
        """Inside, what takes detections for the file that COCO's evaluation server reads; nothing where images or
        classes have no numbers of COCO."""
        if records.image_numbers is None or not records.category_ids:
            yield []
            return
        numbers = {records.image_id(index): number for index, number in enumerate(records.image_numbers.tolist())}
        to_entries = partial(to_coco_results, image_numbers=numbers, category_ids=records.category_ids)
        path = self.exp_dir / f"coco_results{suffix}.json"
        with _results_file(path, to_entries) as add:
            yield [add]
        logger.info("detections by the numbers of COCO: %s", path)

    def _gallery(self, phase: str) -> Gallery:
        return Gallery(self.records[phase], self.cfg.TEST, self.class_names)

    def _loader(self, phase: str):
        """The loader of a phase, made when first used and kept with its workers."""
        if phase not in self.loaders:
            self.loaders[phase] = create_loader(self.cfg, phase, self.records[phase])
        return self.loaders[phase]


@contextmanager
def _results_file(path: Path, *to_entries):
    """Inside, what takes detections for a results file; an error of the disk names it."""
    try:
        with ResultsWriter(path, *to_entries) as results:
            yield results.add
    except OSError as error:
        raise about_file(error, path) from None
