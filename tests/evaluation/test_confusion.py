"""The confusion matrix, by hand."""

import numpy as np

from lib.evaluation import ConfusionMatrix

from .builders import found, truth

NAMES = ("cat", "dog")
A, B, C = (0, 0, 20, 20), (40, 0, 60, 20), (0, 40, 20, 60)


def matrix(*images, threshold=0.4):
    metric = ConfusionMatrix(NAMES, threshold)
    for detections, target in images:
        metric.update([detections], [target])
    return metric


def test_rows_are_truth_and_columns_prediction():
    # A cat that is seen, one that is taken for a dog, one that is missed; and a dog where nothing is.
    rows = found((1, 0.9, *A), (2, 0.8, *B), (2, 0.7, 70, 70, 90, 90), (1, 0.3, *C))
    metric = matrix((rows, truth((1, *A), (1, *B), (1, *C))))
    assert metric.counts().tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 0]]
    assert metric.most_confused(5) == [("cat", "dog", 1)]


def test_the_better_score_takes_the_object():
    # The dog comes first and is the confusion; the cat finds the object gone.
    rows = found((1, 0.8, *A), (2, 0.9, *A))
    assert matrix((rows, truth((1, *A)))).counts().tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_of_two_objects_in_one_place_the_own_class_is_taken():
    for order in ((1, 2), (2, 1)):
        counts = matrix((found((2, 0.9, *A)), truth(*((label, *A) for label in order)))).counts()
        assert counts.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_difficult_objects_do_not_count():
    target = truth((1, *A, "difficult"))
    assert matrix((found((1, 0.9, *A), (1, 0.8, *A)), target)).counts().sum() == 0
    assert matrix((found((2, 0.9, *A)), target)).counts().tolist() == [[0] * 3, [0] * 3, [0, 1, 0]]


def test_every_object_and_every_detection_is_counted_once():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(20):
        boxes = [(x, y, x + 12, y + 12) for x, y in rng.integers(0, 30, (12, 2)).tolist()]
        labels = rng.integers(1, 3, 12).tolist()
        objects = [(label, *box) for label, box in zip(labels[:5], boxes[:5], strict=True)]
        rows = [(label, rng.random(), *box) for label, box in zip(labels[5:], boxes[5:], strict=True)]
        images.append((found(*rows), truth(*objects)))
    counts = matrix(*images).counts()
    objects = [(target.labels == label).sum() for _, target in images for label in (1, 2)]
    shown = [((d.scores >= 0.4) & (d.labels == label)).sum() for d, _ in images for label in (1, 2)]
    assert counts[:2].sum(axis=1).tolist() == [sum(objects[0::2]), sum(objects[1::2])]
    assert counts[:, :2].sum(axis=0).tolist() == [sum(shown[0::2]), sum(shown[1::2])]
    assert counts[2, 2] == 0


def test_the_most_confused_come_first():
    metric = ConfusionMatrix(("cat", "dog", "cow"), 0.4)
    for seen, times in ((2, 1), (3, 2)):
        for _ in range(times):
            metric.update([found((seen, 0.9, *A))], [truth((1, *A))])
    assert metric.most_confused(5) == [("cat", "cow", 2), ("cat", "dog", 1)]
    assert metric.most_confused(1) == [("cat", "cow", 2)]
