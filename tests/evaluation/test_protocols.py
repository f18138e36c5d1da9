"""All protocols in one pass: the same figures as of the single metrics, one of which is mAP, and what they are."""

import numpy as np
import pytest

from lib.evaluation import (
    COCO_FIGURES,
    ERRORS,
    HEADLINES,
    COCOMeanAP,
    ConfusionMatrix,
    ErrorSplit,
    FlickerRate,
    Protocols,
    VIDMeanAP,
    VOCMeanAP,
)

from .builders import found, frame, truth
from .test_coco_map import random_images

NAMES = ("cat", "dog", "cow")
A, B = (0, 0, 20, 20), (40, 0, 60, 20)


def fed(headline, pairs, is_video=False, whole=True):
    protocols = Protocols(NAMES, headline, is_video, 0.5, whole)
    for start in range(0, len(pairs), 3):
        protocols.update(*map(list, zip(*pairs[start : start + 3], strict=True)))
    return protocols


def still_pairs(seed=0):
    images = random_images(np.random.default_rng(seed), len(NAMES))
    return [(found(*rows), truth(*objects, size=(400, 400))) for rows, objects in images]


def video_pairs():
    shifted = [(1, 0.9, 4, 0, 24, 20), (2, 0.5, *B)]
    return [(found(*shifted[: 1 + n % 2]), frame((1, *A), (2, *B), number=n)) for n in range(6)]


@pytest.mark.parametrize("headline", ["voc07", "voc_area", "coco"])
def test_one_pass_gives_the_figures_of_every_metric(headline):
    pairs = still_pairs()
    protocols = fed(headline, pairs)
    figures = protocols.compute()
    for metric in (VOCMeanAP(NAMES), COCOMeanAP(NAMES), ErrorSplit(NAMES)):
        metric.update(*map(list, zip(*pairs, strict=True)))
        for key, value in metric.compute().items():
            assert figures[key] == pytest.approx(value, nan_ok=True), key
    confusion = ConfusionMatrix(NAMES, 0.5)
    confusion.update(*map(list, zip(*pairs, strict=True)))
    assert protocols.confusion_counts()["counts"] == confusion.counts().tolist()
    assert figures["mAP"] == figures[HEADLINES[headline]] and figures["mAP_area"] == figures["voc_area"]


def test_videos():
    figures = fed("vid", video_pairs(), is_video=True).compute()
    for metric in (VIDMeanAP(NAMES), FlickerRate(NAMES, 0.5)):
        metric.update(*map(list, zip(*video_pairs(), strict=True)))
        for key, value in metric.compute().items():
            assert figures[key] == pytest.approx(value, nan_ok=True), key
    assert figures["mAP"] == figures["map50"] and figures["mAP_vid"] == figures["vid"]
    assert fed("coco", video_pairs(), is_video=True).compute()["mAP"] == figures["AP"]


@pytest.mark.parametrize(("headline", "has_coco"), [("voc07", False), ("coco", True)])
def test_during_training_only_what_the_headline_needs(headline, has_coco):
    protocols = fed(headline, still_pairs(), whole=False)
    figures = protocols.compute()
    assert ("AP" in figures) == has_coco and "errors/missed" not in figures
    assert figures["mAP"] == fed(headline, still_pairs()).compute()["mAP"]


@pytest.mark.parametrize("headline", ["voc07", "coco", "vid"])
def test_every_figure_says_what_it_is(headline):
    is_video = headline == "vid"
    protocols = fed(headline, video_pairs() if is_video else still_pairs(), is_video)
    figures = protocols.compute()
    legend = protocols.legend(figures)
    assert {key for key in figures if "/" not in key} <= legend.keys()
    assert {f"cost/{kind}" for kind in ERRORS} | set(COCO_FIGURES) | {"confusion"} <= legend.keys()
    assert legend["mAP"] == legend[HEADLINES[headline]]
    # An overlap or, of costs, the figure that has one; and a score wherever one is needed.
    assert all("IoU" in text or "AP50" in text or "as vid" in text for text in legend.values())
    assert "score 0.5" in legend["confusion"] and "{" not in "".join(legend.values())


@pytest.mark.parametrize("headline", ["voc07", "coco"])
def test_tables_hold_every_protocol_and_name_the_headline(headline):
    protocols = fed(headline, still_pairs())
    figures = protocols.compute()
    text = protocols.tables(figures)
    last = text.splitlines()[-1]
    assert last.startswith(f"mAP {figures['mAP']:.3f}: ") and protocols.legend(figures)["mAP"] in last
    cells = [" ".join(line.split()) for line in text.splitlines()]
    mean = " ".join(f"{figures[key]:.3f}" for key in ("AP", "AP50", "AP75"))
    assert any(line.startswith(f"mean {mean}") for line in cells)
    recalls = ", ".join(f"{key} {figures[key]:.3f}" for key in COCO_FIGURES[6:])
    assert recalls.replace("nan", "-") in cells
    for kind in ERRORS:
        assert f"{kind} {figures[f'errors/{kind}']} {figures[f'cost/{kind}']:.3f}" in cells
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith(("Most", "mAP")))
    assert "IoU 0.50:0.95" in text and "at most 100 detections" in text and "below 32^2 pixels" in text
    assert "all detections" in text and "score 0.5 or more" in text


def test_tables_without_any_image():
    protocols = Protocols(NAMES, "voc07", False, 0.5)
    assert protocols.tables(protocols.compute()).splitlines()[-1].startswith("mAP - (no class has objects): VOC2007")
