"""The kinds of errors and what they cost, by hand."""

import math

import pytest

from lib.evaluation import ERRORS, ErrorSplit

from .builders import found, truth

NAMES = ("cat", "dog")
A, B, C = (0, 0, 20, 20), (40, 0, 60, 20), (0, 40, 20, 60)
NEAR_A = (12, 0, 32, 20)  # IoU 8 / 32 with A, none with B
FAR = (70, 70, 90, 90)


def split(*images, class_names=NAMES):
    metric = ErrorSplit(class_names)
    for detections, target in images:
        metric.update([detections], [target])
    return metric


def errors(*images):
    """The numbers of errors that are not 0."""
    figures = split(*images).compute()
    return {kind: figures[f"errors/{kind}"] for kind in ERRORS if figures[f"errors/{kind}"]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((1, 0.5, *NEAR_A), {"localisation": 1}),
        ((2, 0.5, *A), {"classification": 1}),
        ((2, 0.5, *NEAR_A), {"both": 1, "missed": 1}),
        ((1, 0.5, *FAR), {"background": 1, "missed": 1}),
        ((2, 0.5, 18.5, 0, 38.5, 20), {"background": 1, "missed": 1}),
        ((1, 0.5, *A), {}),
    ],
)
def test_kind_of_a_single_detection(row, expected):
    assert errors((found(row), truth((1, *A)))) == expected


def test_duplicate():
    assert errors((found((1, 0.9, *A), (1, 0.8, *A)), truth((1, *A)))) == {"duplicate": 1}


def test_the_place_is_the_error_before_the_class():
    # A bad box of its class that fits a dog well.
    target = truth((1, *A), (2, *NEAR_A))
    assert errors((found((1, 0.5, *NEAR_A)), target)) == {"localisation": 1, "missed": 1}


def test_detections_on_difficult_objects_are_no_errors():
    assert errors((found((1, 0.9, *A), (1, 0.8, *A)), truth((1, *A, "difficult")))) == {}


def test_image_without_objects():
    assert errors((found((1, 0.9, *A)), truth()), (found(), truth((1, *A)))) == {"background": 1, "missed": 1}


def costs(*images):
    figures = split(*images).compute()
    return {kind: figures[f"cost/{kind}"] for kind in ERRORS}


def test_cost_of_false_positives():
    # Two objects, ranked: background, right, duplicate, right.  Precision 1/2 at recall 1/2 and at 1.
    rows = found((1, 0.9, *FAR), (1, 0.8, *A), (1, 0.7, *A), (1, 0.6, *B))
    images = (rows, truth((1, *A), (1, *B)))
    assert split(images).average_precision() == pytest.approx(1 / 2)
    found_costs = costs(images)
    # Without the background: 51 points at 1, 50 at 2/3; without the duplicate: 2/3 at both.
    assert found_costs["background"] == pytest.approx((51 + 50 * 2 / 3) / 101 - 1 / 2)
    assert found_costs["duplicate"] == pytest.approx(2 / 3 - 1 / 2)
    assert found_costs["classification"] == found_costs["localisation"] == found_costs["missed"] == 0


def test_cost_of_a_wrong_place():
    images = (found((1, 0.9, *NEAR_A), (1, 0.8, *B)), truth((1, *A), (1, *B)))
    assert split(images).average_precision() == pytest.approx(51 / 101 / 2)
    assert costs(images)["localisation"] == pytest.approx(1 - 51 / 101 / 2)


def test_cost_of_a_wrong_class_is_that_of_both_classes():
    # The cat's detection is called dog, above the dog's own: cat has 0, dog 1/2.
    images = (found((2, 0.9, *A), (2, 0.8, *B)), truth((1, *A), (2, *B)))
    assert split(images).average_precision() == pytest.approx(1 / 4)
    assert costs(images)["classification"] == pytest.approx(3 / 4)


def test_of_mended_detections_of_one_object_the_best_stays():
    # Both bad boxes would be right at A: the better one then is, the other is not an error more.
    rows = found((1, 0.9, *NEAR_A), (1, 0.8, 0, 12, 20, 32), (1, 0.7, *B))
    images = (rows, truth((1, *A), (1, *B)))
    assert costs(images)["localisation"] == pytest.approx(1 - 51 / 101 / 3)
    # The bad box beats the good one of the same object, which then is left out.
    better = (found((1, 0.9, *NEAR_A), (1, 0.8, *A)), truth((1, *A)))
    assert split(better).average_precision() == pytest.approx(1 / 2)
    assert costs(better)["localisation"] == pytest.approx(1 / 2)


def test_cost_of_missed_objects():
    images = (found((1, 0.9, *A)), truth((1, *A), (1, *B), (1, *C)))
    # Recall ends at 1/3, at which there are 34 of 101 points.
    assert split(images).average_precision() == pytest.approx(34 / 101)
    assert costs(images)["missed"] == pytest.approx(1 - 34 / 101)


def test_nothing_to_find():
    figures = split((found((1, 0.9, *A)), truth())).compute()
    assert figures["errors/background"] == 1
    assert all(math.isnan(figures[f"cost/{kind}"]) for kind in ERRORS)
    assert math.isnan(split().average_precision())
