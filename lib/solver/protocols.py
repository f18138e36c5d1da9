"""By which protocol a data set is scored: what the test phase and the score tool share."""

from ..dataset.detection import DetectionRecords
from ..evaluation import Protocols
from ..utils.errors import UserError


def create_protocols(cfg, records: DetectionRecords, whole: bool = True) -> Protocols:
    """The protocols for some records, with the headline that TEST.METRIC chooses; whole as Protocols takes it."""
    threshold = cfg.TEST.PICTURE_THRESHOLD
    return Protocols(records.class_names, choose_headline(cfg, records), records.is_video, threshold, whole)


def choose_headline(cfg, records: DetectionRecords) -> str:
    """The protocol whose figure is the mAP of these records; UserError for one of stills where they are videos."""
    metric = cfg.TEST.METRIC
    if metric != "auto":
        if records.is_video and metric != "coco":
            raise UserError(f"TEST.METRIC: {metric} is for stills and {records.name} holds videos; allowed: auto, coco")
        return metric
    if records.is_video:
        return "vid"
    of_coco = cfg.DATASET.DATASET == "coco" or records.category_ids or records.image_numbers is not None
    return "coco" if of_coco else "voc07"
