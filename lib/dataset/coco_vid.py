"""COCO-VID: videos, or stills, with one JSON file for each set; the kind coco_vid of DATASET.DATASET."""

from .coco import read_coco_files
from .detection import DATASETS
from .inspection import Checks
from .split import NO_PLAN

_WHERE = "DATASET.TRAIN_SETS"
_CHECKS = Checks()


@DATASETS.register("coco_vid")
def read_coco_vid(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """Videos with COCO-VID annotations as DetectionRecords; arguments and sets as coco.read_coco_stills.

    A file without 'videos' gives stills.
    """
    return read_coco_files(roots, sets, role, class_names, where, checks, videos=True)
