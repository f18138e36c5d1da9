"""What became of every single image."""

from lib.evaluation import ImageOutcomes

from .builders import found, truth

A, B = (0, 0, 10, 10), (20, 20, 40, 40)


def outcomes(*images, threshold=0.4):
    metric = ImageOutcomes(("cat", "dog"), threshold)
    for detections, target in images:
        metric.update([detections], [target])
    return metric.rows()


def test_counts_of_each_image():
    rows = found((1, 0.9, *A), (1, 0.8, *A), (2, 0.7, *B), (1, 0.3, *B))
    first, second = outcomes((rows, truth((1, *A), (1, *B), image_id="a")), (found(), truth((2, *A), image_id="b")))
    assert first == ("a", 1, 2, 1) and first.f1 == 2 / 5
    assert second == ("b", 0, 0, 1) and second.f1 == 0


def test_the_threshold_is_included():
    rows, target = found((1, 0.5, *A)), truth((1, *A))
    assert outcomes((rows, target), threshold=0.5)[0][1:] == (1, 0, 0)
    assert outcomes((rows, target), threshold=0.75)[0][1:] == (0, 0, 1)


def test_a_weak_detection_does_not_take_the_object_of_a_shown_one():
    # The one below the threshold comes first and fits better.
    (row,) = outcomes((found((1, 0.3, *A), (1, 0.9, 0, 0, 10, 9)), truth((1, *A))))
    assert row[1:] == (1, 0, 0)


def test_difficult_objects_are_not_missed_and_forgive():
    target = truth((1, *B, "difficult"), (1, 0, 0, 5, 5, "difficult"))
    assert outcomes((found((1, 0.9, *B), (1, 0.8, *B), (2, 0.7, *B)), target))[0][1:] == (0, 1, 0)


def test_an_empty_image_left_alone_is_perfect():
    assert outcomes((found(), truth()))[0].f1 == 1
