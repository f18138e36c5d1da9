"""Which protocol's figure is the mAP of a data set."""

from dataclasses import replace

import pytest

from lib.config import load_config
from lib.dataset.detection import DetectionRecords, with_videos
from lib.solver.protocols import choose_headline, create_protocols
from lib.utils.errors import UserError

STILLS = DetectionRecords.build(("cat",), ["a.jpg"], ["a"], [(80, 100)], [(0, 0, 9, 9)], [1], [False], [1], "pets")
VIDEOS = with_videos(STILLS, [0, 1], ["park"], [7])
COCO = replace(STILLS, category_ids=(17,))


@pytest.mark.parametrize(
    ("words", "records", "headline"),
    [
        ([], STILLS, "voc07"),
        (["DATASET.DATASET=custom"], STILLS, "voc07"),
        (["DATASET.DATASET=coco"], STILLS, "coco"),
        (["DATASET.DATASET=custom"], COCO, "coco"),
        ([], VIDEOS, "vid"),
        ([], replace(VIDEOS, category_ids=(17,)), "vid"),
        (["TEST.METRIC=coco"], STILLS, "coco"),
        (["TEST.METRIC=coco"], VIDEOS, "coco"),
        (["TEST.METRIC=voc_area"], COCO, "voc_area"),
        (["TEST.METRIC=voc07", "DATASET.DATASET=coco"], COCO, "voc07"),
    ],
)
def test_headline(words, records, headline):
    cfg = load_config(None, words)
    assert choose_headline(cfg, records) == headline
    assert create_protocols(cfg, records).headline == headline


def test_protocols_of_stills_are_none_of_videos():
    with pytest.raises(UserError, match=r"TEST\.METRIC: voc07 is for stills and pets holds videos; allowed: auto"):
        choose_headline(load_config(None, ["TEST.METRIC=voc07"]), VIDEOS)


def test_the_threshold_is_that_of_pictures():
    protocols = create_protocols(load_config(None, ["TEST.PICTURE_THRESHOLD=0.25"]), STILLS)
    assert protocols.confusion_counts()["score_threshold"] == 0.25
