"""Metrics, results files and tables: what turns detections and ground truth into figures."""

from .results import ResultsWriter, load_results, save_results, to_results
from .table import format_table
from .voc_map import VOCMeanAP

__all__ = ["ResultsWriter", "VOCMeanAP", "format_table", "load_results", "save_results", "to_results"]
