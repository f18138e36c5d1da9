"""What every figure of an evaluation is: its rule, the overlap it asks for and how many detections it counts."""

from .error_split import ERRORS
from .table import SIZES
from .vid_map import SPEEDS

_OF_COCO = "at most {most} detection{s} of a class in an image"
_SIZED = {"": "", "s": ", of small objects ({small})", "m": ", of medium objects ({medium})",
          "l": ", of large objects ({large})"}  # fmt: skip
_THRESHOLDS = {"AP": "mean over IoU 0.50:0.95", "AP50": "IoU 0.50", "AP75": "IoU 0.75"}


def _coco_legend() -> dict[str, str]:
    texts = {}
    for size, words in _SIZED.items():
        words = words.format(**SIZES)
        for key, overlap in _THRESHOLDS.items():
            texts[key + size] = f"COCO average precision, {overlap}, {_OF_COCO.format(most=100, s='s')}{words}"
        if size:
            most = _OF_COCO.format(most=100, s="s")
            texts[f"AR{size}"] = f"COCO average recall, mean over IoU 0.50:0.95, {most}{words}"
    for most in (1, 10, 100):
        few = _OF_COCO.format(most=most, s="s" * (most > 1))
        texts[f"AR{most}"] = f"COCO average recall, mean over IoU 0.50:0.95, {few}"
    return texts


_TEXTS = {
    "voc07": "VOC2007 average precision at 11 recalls, IoU above 0.5, all detections",
    "voc_area": "VOC average precision as the area under the curve, IoU above 0.5, all detections",
    "map50": "ImageNet VID average precision, IoU 0.5, all detections",
    "vid": "ImageNet VID average precision, IoU 0.5 and less for small objects, all detections",
    **{speed: f"ImageNet VID average precision of {speed} objects, as vid" for speed in SPEEDS},
    "flicker": "changes between seen and unseen in 100 pairs of frames of a track, IoU 0.5, score {score:g} or more",
    "gaps": "share of the frames of tracks unseen between seen ones, IoU 0.5, score {score:g} or more",
    "seen": "share of the frames of tracks that are seen, IoU 0.5, score {score:g} or more",
    "confusion": "objects (rows) by the class they were detected as (columns), IoU 0.5, score {score:g} or more",
    **{f"errors/{kind}": f"errors of the kind '{kind}' at IoU 0.5, all scores, at most 100 detections of a class in an "
       "image" for kind in ERRORS},
    **{f"cost/{kind}": f"what AP50 gains when the errors of the kind '{kind}' alone are mended" for kind in ERRORS},
    **_coco_legend(),
}  # fmt: skip


def legend(keys, score_threshold: float) -> dict[str, str]:
    """What each of the figures is, in one line; those of single classes, "<key>/<class>", and unknown ones have none.

    score_threshold: the least score where a figure needs one.
    """
    return {key: _TEXTS[key].format(score=score_threshold) for key in keys if key in _TEXTS}
