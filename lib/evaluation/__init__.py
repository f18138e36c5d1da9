"""Metrics, results files and tables: what turns detections and ground truth into figures."""

from .coco_map import COCO_FIGURES, COCOMeanAP
from .coco_results import to_coco_results
from .confusion import ConfusionMatrix
from .error_split import ERRORS, ErrorSplit
from .per_image import ImageOutcome, ImageOutcomes
from .protocols import HEADLINES, Protocols
from .results import ResultsWriter, load_results, save_results, to_results, written_id
from .stability import FlickerRate
from .table import format_table
from .vid_map import VIDMeanAP
from .voc_map import VOCMeanAP

__all__ = [
    "COCO_FIGURES",
    "ERRORS",
    "COCOMeanAP",
    "ConfusionMatrix",
    "ErrorSplit",
    "FlickerRate",
    "HEADLINES",
    "ImageOutcome",
    "ImageOutcomes",
    "Protocols",
    "ResultsWriter",
    "VIDMeanAP",
    "VOCMeanAP",
    "format_table",
    "load_results",
    "save_results",
    "to_coco_results",
    "to_results",
    "written_id",
]
