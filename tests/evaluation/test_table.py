"""The per-class table: its figures, its alignment and what it does with long names."""

import math

import pytest

from lib.evaluation import VIDMeanAP, VOCMeanAP, format_table

from .builders import found, frame, truth

LONG = ("traffic light of the other side of the road", "traffic light of the other side of the rail")
A, B = (0, 0, 9, 9), (20, 0, 29, 9)


def table_of(class_names, detections, target):
    metric = VOCMeanAP(class_names)
    metric.update([detections], [target])
    return format_table(metric.compute(), metric.counts(), metric.best_f1())


def test_every_figure_stands_under_its_heading():
    rows = found((1, 0.75, *A), (1, 0.5, 50, 50, 59, 59), (2, 0.5, *A))
    lines = table_of(("cat", "dog", "cow"), rows, truth((1, *A), (1, *B), (3, *A), (3, *B, "difficult"))).split("\n")
    assert "IoU 0.5" in lines[0]
    cells = [" ".join(line.replace("AP area", "area").split()) for line in lines]
    header, cat, dog, cow, mean = cells[1], cells[3], cells[4], cells[5], cells[7]
    assert header == "class objects difficult detections AP07 area F1 score precision recall"
    assert cat == "cat 2 0 2 0.545 0.500 0.667 0.750 1.000 0.500"
    assert dog == "dog 0 0 1 - - - - - -"
    assert cow == "cow 1 1 0 0.000 0.000 0.000 - - 0.000"
    assert mean == "mAP 3 1 3 0.273 0.250"


def test_columns_are_aligned():
    lines = table_of(("cat", *LONG, "猫科动物"), found((1, 0.5, *A)), truth((1, *A), (2, *B), (4, *A))).split("\n")
    header, rows = lines[1], [*lines[3:-2], lines[-1]]
    end = header.index("objects") + len("objects")
    for row in rows:
        wide = sum(character in "猫科动物" for character in row)
        assert row[end - wide - 1].isdigit(), row
        assert row[end - wide : end - wide + 2] == "  ", row
    assert all(len(line) < 110 for line in lines)


def test_cut_names_keep_both_ends_and_stay_apart():
    lines = table_of(LONG, found(), truth()).split("\n")
    first, second = lines[3], lines[4]
    assert first.startswith("traffic ligh..")
    assert " the road  " in first
    assert " the rail  " in second


def test_nothing_scored_yet_gives_dashes():
    metric = VOCMeanAP(("cat",))
    assert math.isnan(metric.compute()["voc07"])
    lines = format_table(metric.compute(), metric.counts(), metric.best_f1()).split("\n")
    assert " ".join(lines[-1].split()) == "mAP 0 0 0 - -"


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_threshold_is_told(threshold):
    metric = VOCMeanAP(("cat",), threshold)
    table = format_table(metric.compute(), metric.counts(), metric.best_f1(), metric.iou_threshold)
    assert f"IoU {threshold}" in table.split("\n")[0]


def test_table_of_videos_has_the_columns_of_their_metric():
    metric = VIDMeanAP(("cat", "dog"))
    for number in (0, 1):
        metric.update([found((1, 0.75, *A), (1, 0.5, 6, 0, 15, 9))], [frame((1, *A), (2, *B), number=number)])
    lines = format_table(metric.compute(), metric.counts(), metric.best_f1(), metric.iou_threshold).split("\n")
    header, cat, dog, mean = (" ".join(lines[row].split()) for row in (2, 4, 5, 7))
    assert header == "class objects difficult detections AP50 VID slow medium fast F1 score precision recall"
    assert cat == "cat 2 0 4 1.000 1.000 1.000 - - 1.000 0.750 1.000 1.000"
    assert dog == "dog 2 0 0 0.000 0.000 0.000 - - 0.000 - - 0.000"
    assert mean == "mAP 4 0 4 0.500 0.500 0.500 - -"
