"""Metrics, results files and tables: what turns detections and ground truth into figures."""

from .results import ResultsWriter, load_results, save_results, to_results, written_id
from .stability import FlickerRate
from .table import format_table
from .vid_map import VIDMeanAP
from .voc_map import VOCMeanAP

__all__ = [
    "FlickerRate",
    "ResultsWriter",
    "VIDMeanAP",
    "VOCMeanAP",
    "format_table",
    "load_results",
    "save_results",
    "to_results",
    "written_id",
]
