"""All protocols by which detections are scored, fed in one pass over the images."""

import numpy as np

from ..structures import Detections, Target
from .coco_map import COCOMeanAP
from .confusion import BACKGROUND, ConfusionMatrix
from .error_split import ErrorSplit
from .image_metric import MATCH_IOU, image_arrays
from .legend import legend
from .stability import FlickerRate
from .table import format_coco_table, format_confused, format_errors, format_table
from .vid_map import SPEEDS, VIDMeanAP
from .voc_map import VOCMeanAP

HEADLINES = {"voc07": "voc07", "voc_area": "voc_area", "coco": "AP", "vid": "map50"}
"""The figure that is called mAP, by the name of its protocol."""

CONFUSED_SHOWN = 5


class Protocols:
    """What a set of images is scored by; matching is done once for each image and shared.

    class_names: the classes without the background.
    headline: one of HEADLINES, whose figure is called mAP: vid or coco for videos, voc07, voc_area or coco for stills.
    score_threshold: the least score where a figure needs one.
    whole: every protocol is fed, with confusions and kinds of errors; else only what mAP, F1 and the curves need.
    """

    def __init__(self, class_names, headline: str, is_video: bool, score_threshold: float, whole: bool = True):
        self.class_names = tuple(class_names)
        self.headline, self.score_threshold = headline, score_threshold
        self.main = HEADLINES[headline]
        self.others = {"mAP_area": "voc_area"}
        self.ranked = VIDMeanAP(class_names) if is_video else VOCMeanAP(class_names)
        self._fed = [self.ranked]
        if is_video:
            self._fed.append(FlickerRate(class_names, score_threshold))
            self.others = {"mAP_vid": "vid"} | {f"mAP_{name}": name for name in SPEEDS}
            self.others |= {name: name for name in ("flicker", "gaps", "seen")}
        if whole or headline == "coco":
            self._fed.append(COCOMeanAP(class_names))
        if whole:
            self._fed.append(ErrorSplit(class_names))
        self.confusion = ConfusionMatrix(class_names, score_threshold) if whole else None

    def update(self, detections: list[Detections], targets: list[Target]) -> None:
        """Add images, as `ImageMetric.update` takes them."""
        metrics = [*self._fed, self.confusion] if self.confusion else self._fed
        for found, target in zip(detections, targets, strict=True):
            image = image_arrays(found, target, self.class_names)
            for metric in metrics:
                metric.add(image, target)

    def compute(self) -> dict[str, float]:
        """All figures under their own names, after "mAP" and the others that a run is compared by."""
        own = {key: value for metric in self._fed for key, value in metric.compute().items()}
        return {"mAP": own[self.main]} | {name: own[key] for name, key in self.others.items()} | own

    def headline_keys(self) -> tuple[str, ...]:
        """Those that a run is compared by."""
        return ("mAP", *self.others)

    def legend(self, figures) -> dict[str, str]:
        """What each of the figures is, with the overlap, the score and the number of detections it is about."""
        aliases = {"mAP": self.main} | self.others
        own = legend([*figures, "confusion"] if self.confusion else figures, self.score_threshold)
        return {name: own[key] for name, key in aliases.items() if key in own} | own

    def confusion_counts(self) -> dict:
        """The confusion matrix as JSON holds it: what it is about, the names of rows and columns, and the counts."""
        return {
            "score_threshold": self.score_threshold,
            "iou_threshold": MATCH_IOU,
            "rows": "truth",
            "columns": "prediction",
            "names": [*self.class_names, BACKGROUND],
            "counts": self.confusion.counts().tolist(),
        }

    def tables(self, figures: dict[str, float]) -> str:
        """What `compute` returned as text: a table for each protocol, each under a line that says what it counts."""
        ranked = self.ranked
        parts = [format_table(figures, ranked.counts(), ranked.best_f1(), ranked.iou_threshold)]
        if "AP" in figures:
            parts.append(format_coco_table(figures, self.class_names))
        if self.confusion is not None:
            parts.append(format_errors(figures))
            parts.append(format_confused(self.confusion.most_confused(CONFUSED_SHOWN), self.score_threshold))
        mean = figures["mAP"]
        shown = f"{mean:.3f}" if np.isfinite(mean) else "- (no class has objects)"
        parts.append(f"mAP {shown}: {self.legend(figures)['mAP']}; mean over classes")
        return "\n\n".join(parts)
