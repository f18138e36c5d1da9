"""What holds for any objects and detections: perfect ones score one, order is nothing, wrong ones never help."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation import COCOMeanAP, VIDMeanAP, VOCMeanAP
from tests.evaluation.builders import found, frame

CLASSES = ("cat", "dog")
METRICS = pytest.mark.parametrize("create", [VOCMeanAP, COCOMeanAP, VIDMeanAP])
FIXED = settings(max_examples=20, deadline=None, derandomize=True)

CORNER, SIDE, LABEL = st.integers(0, 60), st.integers(8, 30), st.sampled_from([1, 2])
BOX = st.tuples(CORNER, CORNER, SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
OBJECT = st.tuples(LABEL, BOX)
ROW = st.tuples(LABEL, BOX, st.integers(10, 90))
IMAGE = st.tuples(st.lists(OBJECT, max_size=4), st.lists(ROW, max_size=6))
IMAGES = st.lists(IMAGE, min_size=1, max_size=4)
NOWHERE = (92.0, 92.0, 99.0, 99.0)
"""Beyond all objects."""


def separated(objects):
    """The objects in places of their own, so that no detection could be taken for that of another one."""
    sizes = [(min(x2 - x1, 22), y2 - y1) for _, (x1, y1, x2, y2) in objects]
    return [
        (label, (25 * n, 0, 25 * n + w, h)) for n, ((label, _), (w, h)) in enumerate(zip(objects, sizes, strict=True))
    ]


def scores_of(create, images, transform=lambda score: score, order=None, reverse=False, extra=()):
    """The figures of a metric.  Every score is unlike all others: the number of its row decides between equal ones."""
    metric, count = create(CLASSES), 0
    batches = []
    for number, (objects, rows) in enumerate(images):
        entries = []
        for label, box, score in rows:
            count += 1
            entries.append((label, transform(score / 100 + count * 1e-4), *map(float, box)))
        entries += [(label, score, *NOWHERE) for label, score in extra if number == 0]
        batches.append(
            (
                found(*(entries[::-1] if reverse else entries)),
                frame(*((lb, *box) for lb, box in objects), number=number),
            )
        )
    for number in order if order is not None else range(len(batches)):
        metric.update([batches[number][0]], [batches[number][1]])
    return metric.compute()


def main_figures(scores):
    return {name: value for name, value in scores.items() if not np.isnan(value)}


def assert_same(one, other):
    assert main_figures(one).keys() == main_figures(other).keys()
    for name, value in main_figures(one).items():
        assert other[name] == pytest.approx(value, abs=1e-9), name


@METRICS
@FIXED
@given(st.lists(st.lists(OBJECT, min_size=1, max_size=4), min_size=1, max_size=4))
def test_perfect_detections_score_one(create, objects):
    images = [(separated(each), [(*thing, 50) for thing in separated(each)]) for each in objects]
    figures = main_figures(scores_of(create, images))
    ap = {name: value for name, value in figures.items() if not name.startswith("AR1")}
    assert ap and all(value == pytest.approx(1) for value in ap.values())


@METRICS
@FIXED
@given(IMAGES, st.randoms(use_true_random=False))
def test_the_order_of_images_and_detections_counts_for_nothing(create, images, random):
    order = list(range(len(images)))
    random.shuffle(order)
    assert_same(scores_of(create, images), scores_of(create, images, order=order, reverse=True))


@METRICS
@FIXED
@given(IMAGES)
def test_only_the_order_of_the_scores_counts(create, images):
    assert_same(scores_of(create, images), scores_of(create, images, transform=lambda score: score**3 / 2))


@METRICS
@FIXED
@given(IMAGES, LABEL)
def test_a_wrong_detection_behind_all_others_never_helps(create, images, label):
    before, after = scores_of(create, images), scores_of(create, images, extra=[(label, 0.01)])
    for name, value in main_figures(before).items():
        assert after[name] <= value + 1e-9, name


@METRICS
@FIXED
@given(IMAGES, LABEL)
def test_a_wrong_detection_before_all_others_never_helps(create, images, label):
    before, after = scores_of(create, images), scores_of(create, images, extra=[(label, 0.999)])
    for name, value in main_figures(before).items():
        assert after[name] <= value + 1e-9, name
