"""Map sizes, priors and parameters of the published models, by the stems of their files, and how they are measured."""

import json
from typing import NamedTuple
from unittest import mock

import torch

from lib.modeling import model_builder


class Figures(NamedTuple):
    """Sides of the square maps, number of priors, number of parameters (None where none is known)."""

    maps: tuple[int, ...]
    priors: int
    parameters: int | None


FINE, COARSE, YOLO3 = (38, 19, 10, 5, 3, 1), (19, 10, 5, 3, 2, 1), (13, 26, 52)

# For each model: maps, priors, parameters with the 21 classes of VOC and with the 81 of COCO.
FAMILY = {
    "ssd_vgg16": (FINE, 11620, 26_515_936, 35_088_736),
    "ssd_resnet50": (FINE, 11620, 14_575_328, 23_148_128),
    "ssd_resnet101": (FINE, 11620, 33_567_456, 42_140_256),
    "ssd_darknet19": ((18, 9, 5, 3, 2, 1), 2654, 25_849_408, 34_422_208),
    "ssd_darknet53": (COARSE, 2990, 46_616_960, 55_189_760),
    "ssd_lite_mobilenetv1": (COARSE, 2990, 7_844_832, 16_141_152),
    "ssd_lite_mobilenetv2": (COARSE, 2990, 4_577_792, 9_245_312),
    "rfb_vgg16": (FINE, 11620, 34_185_824, 42_758_624),
    "rfb_resnet50": (FINE, 11620, 22_245_216, 30_818_016),
    "rfb_darknet19": ((18, 9, 5, 3, 2, 1), 2654, 33_519_296, 42_092_096),
    "rfb_darknet53": (COARSE, 2990, 54_286_848, 62_859_648),
    "rfb_lite_mobilenetv1": (COARSE, 2990, 11_071_520, 19_367_840),
    "rfb_lite_mobilenetv2": (COARSE, 2990, 4_972_516, 9_640_036),
    "fssd_vgg16": (FINE, 11620, 33_837_664, 39_922_144),
    "fssd_resnet50": (FINE, 11620, 21_897_056, 27_981_536),
    "fssd_darknet19": ((37, 19, 10, 5, 3, 1), 11170, 35_663_040, 41_747_520),
    "fssd_darknet53": (FINE, 11620, 56_430_592, 62_515_072),
    "fssd_lite_mobilenetv1": (FINE, 11620, 19_052_640, 25_137_120),
    "fssd_lite_mobilenetv2": (FINE, 11620, 6_818_560, 10_691_200),
    "yolo_v2_darknet19": ((13,), 845, 50_655_389, 50_962_889),
    "yolo_v2_mobilenetv1": ((13,), 845, 34_044_989, 34_352_489),
    "yolo_v2_mobilenetv2": ((13,), 845, 26_136_125, 26_443_625),
    "yolo_v3_darknet53": (YOLO3, 10647, 61_789_889, 62_112_989),
    "yolo_v3_mobilenetv1": (YOLO3, 10647, 24_411_937, 24_735_037),
    "yolo_v3_mobilenetv2": (YOLO3, 10647, 22_522_145, 22_845_245),
}

SMALL_OBJECTS = {
    "ssd_lite_mobilenetv1_coco_S1L0": Figures(FINE, 11638, 16_533_002),
    "ssd_lite_mobilenetv1_coco_S1L4": Figures(FINE, 11638, 16_533_002),
    "ssd_lite_mobilenetv1_coco_S1L6": Figures((38, 19, 10, 5, 3, 2), 11650, 16_533_002),
    "ssd_lite_mobilenetv1_coco_S2L0_6": Figures((75, 38, 19, 10, 5, 3), 45366, 16_533_002),
    "ssd_lite_mobilenetv1_coco_f6": Figures((38, 19, 10, 5, 3, 2, 1), 11654, 17_316_446),
    "ssd_lite_mobilenetv1_coco_anchor10": Figures(COARSE, 2990, 16_141_152),
    "ssd_lite_mobilenetv1_coco_size512": Figures((32, 16, 8, 4, 2, 1), 8180, 16_141_152),
    "ssd_lite_dual_mobilenetv1_coco_S1L0_split": Figures((38, 19, 5, 3, 2, 1), 11062, 16_533_002),
    "ssd_vgg16_coco_S1L2": Figures((75, 37, 19, 10, 5, 3), 44866, 35_088_736),
    "ssd_dual_vgg16_coco_S1L2": Figures((75, 37, 10, 5, 3, 1), 42754, 35_088_736),
    "ssd_vgg16_coco_S2L2_5": Figures((75, 25, 13, 7, 5, 3), 38944, 35_088_736),
}

LSTM_STEM = "ssd_lite_RNN_mobilenetv2_customRNN_"
LSTM = {
    f"{LSTM_STEM}baseline": Figures(COARSE, 2990, 3_333_120),
    f"{LSTM_STEM}expand": Figures(COARSE, 2990, 3_333_120),
    f"{LSTM_STEM}prune": Figures(COARSE[:5], 2986, 3_240_540),
    f"{LSTM_STEM}prune2": Figures(COARSE[:4], 2970, 3_022_648),
    f"{LSTM_STEM}prune3": Figures(COARSE[:3], 2916, 2_697_730),
    f"{LSTM_STEM}075_prune3": Figures(COARSE[:3], 2916, 1_831_234),
    f"{LSTM_STEM}cut1_prune3": Figures(COARSE[:3], 2916, 2_057_730),
    f"{LSTM_STEM}cut2_prune3": Figures(COARSE[:3], 2916, 1_821_186),
    f"{LSTM_STEM}cut3_prune3": Figures(COARSE[:3], 2916, 1_712_642),
    f"{LSTM_STEM}lstm": Figures(COARSE, 2990, 5_796_480),
    f"{LSTM_STEM}lstm_prune": Figures(COARSE[:3], 2916, 2_697_730 + 6 * 512**2 + 5 * 512),
    "ssd_lite_mobilenetv2_custom": Figures(COARSE, 2990, 3_333_120),
}

LARGE = (64, 32, 16, 8, 4, 2, 1)
PAPERS = {
    "ssd_vgg16_voc_300": Figures(FINE, 8732, 26_285_486),
    "ssd_vgg16_coco_300": Figures(FINE, 8732, None),
    "ssd_vgg16_voc_512": Figures(LARGE, 24564, None),
    "ssd_vgg16_coco_512": Figures(LARGE, 24564, None),
    "rfb_vgg16_voc_300": Figures(FINE, 11620, None),
    "rfb_vgg16_coco_300": Figures(FINE, 11620, None),
    "rfb_vgg16_voc_512": Figures(LARGE, 32756, None),
    "rfb_vgg16_coco_512": Figures(LARGE, 32756, None),
}

WITHOUT_VOC = {"ssd_resnet101"}
FIGURES = {f"{stem}_voc": Figures(*row[:3]) for stem, row in FAMILY.items() if stem not in WITHOUT_VOC}
FIGURES |= {f"{stem}_coco": Figures(*row[:2], row[3]) for stem, row in FAMILY.items()}
FIGURES |= {**SMALL_OBJECTS, **LSTM, **PAPERS}

_measured = {}


def build_shapes(cfg):
    """(the model of cfg.MODEL as shapes without values, the map sizes of its levels)."""
    maps = []

    def recorded(*args):
        maps[:] = source_map_sizes(*args)
        return maps

    source_map_sizes = model_builder.source_map_sizes
    with (
        torch.device("meta"),
        mock.patch.object(model_builder, "source_map_sizes", recorded),
        mock.patch.object(model_builder, "initialize_weights"),  # there is nothing to set
    ):
        return model_builder.create_model(cfg), maps


def measure(cfg) -> Figures:
    """The figures of the model that cfg.MODEL describes; kept, since building it takes a moment."""
    key = json.dumps(cfg.MODEL)
    if key not in _measured:
        model, maps = build_shapes(cfg)
        sides = tuple(rows if rows == columns else (rows, columns) for rows, columns in maps)
        _measured[key] = Figures(sides, len(model.priors), sum(p.numel() for p in model.parameters()))
    return _measured[key]
