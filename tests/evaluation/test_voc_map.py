"""VOC mean average precision on cases worked out by hand, and against a plain implementation of the rules."""

import math

import numpy as np
import pytest
import torch

from lib.evaluation import VOCMeanAP
from lib.utils.errors import UserError

from .builders import found, plain_iou, truth

A, B, C, D = (0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9), (60, 0, 69, 9)
NOWHERE = (80, 80, 89, 89)


def score(*images, class_names=("cat",), **options):
    metric = VOCMeanAP(class_names, **options)
    for detections, target in images:
        metric.update([detections], [target])
    return metric


def four_cats():
    return truth((1, *A), (1, *B), (1, *C), (1, *D))


def test_average_precision_by_hand():
    # Right, wrong, right of four objects: recall 1/4, 1/4, 1/2 and precision 1, 1/2, 2/3.
    metric = score((found((1, 0.9, *A), (1, 0.8, *NOWHERE), (1, 0.7, *B)), four_cats()))
    results = metric.compute()
    assert results["voc07"] == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert results["voc_area"] == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)
    assert set(results) == {"voc07", "voc_area", "voc07/cat", "voc_area/cat"}


def test_precision_is_made_monotone_before_the_area():
    # Wrong, then four right ones: the best precision at or beyond every recall is 4/5.
    metric = score((found((1, 0.9, *NOWHERE), *((1, 0.8, *box) for box in (A, B, C, D))), four_cats()))
    assert metric.compute()["voc_area"] == pytest.approx(4 / 5)
    assert metric.compute()["voc07"] == pytest.approx(4 / 5)


def test_perfect_detections_score_one_and_the_order_of_the_input_does_not_matter():
    rows = [(1, 0.5, *A), (1, 0.9, *B), (1, 0.1, *NOWHERE), (1, 0.7, *C), (1, 0.8, *D)]
    for order in (rows, rows[::-1]):
        assert score((found(*order), four_cats())).compute()["voc_area"] == 1


def test_recall_of_three_fifths_misses_the_point_next_to_it():
    # Three of five found: the points 0 to 0.5 have precision 1.  0.6 as 6 * 0.1 is above 3 / 5, as in other evaluators.
    metric = score((found((1, 0.9, *A), (1, 0.8, *B), (1, 0.7, *C)), truth(*((1, *b) for b in (A, B, C, D, NOWHERE)))))
    assert metric.compute()["voc07"] == pytest.approx(6 / 11)


def test_second_detection_of_an_object_is_wrong():
    metric = score((found((1, 0.9, *A), (1, 0.8, *A), (1, 0.7, *B)), truth((1, *A), (1, *B))))
    assert metric.compute()["voc_area"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_detection_never_falls_back_on_its_second_best_object():
    # Both objects overlap the second detection by more than half, but the one it overlaps most is taken.
    near, far = (0, 0, 9, 9), (0, 2, 9, 11)
    metric = score((found((1, 0.9, *near), (1, 0.8, 0, 0, 9, 10)), truth((1, *near), (1, *far))))
    assert metric.compute()["voc_area"] == pytest.approx(1 / 2)


def test_right_detection_is_the_one_with_the_best_score_not_the_best_overlap():
    metric = score((found((1, 0.8, *A), (1, 0.9, 0, 0, 9, 12)), truth((1, *A))))
    np.testing.assert_array_equal(metric.rankings()["cat"].correct, [True, False])


def test_box_of_another_class_is_no_match():
    results = score((found((1, 0.9, *A)), truth((2, *A))), class_names=("cat", "dog")).compute()
    assert math.isnan(results["voc07/cat"])
    assert results["voc07/dog"] == results["voc07"] == 0


def test_objects_of_different_images_are_kept_apart():
    results = score((found((1, 0.9, *A)), truth()), (found(), truth((1, *A)))).compute()
    assert results["voc_area"] == 0


class TestDifficult:
    def test_claims_on_difficult_objects_count_neither_way(self):
        rows = [(1, 0.9, *B), (1, 0.8, *B), (1, 0.7, *A)]
        metric = score((found(*rows), truth((1, *A), (1, *B, "difficult"))))
        assert metric.compute()["voc07"] == metric.compute()["voc_area"] == 1
        assert metric.counts() == {"cat": {"objects": 1, "difficult": 1, "detections": 3}}

    def test_class_with_only_difficult_objects_has_no_figure(self):
        results = score((found((1, 0.9, *A)), truth((1, *A, "difficult")))).compute()
        assert math.isnan(results["voc07/cat"])
        assert math.isnan(results["voc07"])

    def test_difficult_object_that_is_overlapped_less_does_not_excuse(self):
        metric = score((found((1, 0.9, 60, 60, 79, 79)), truth((1, *A), (1, 60, 60, 69, 69, "difficult"))))
        np.testing.assert_array_equal(metric.rankings()["cat"].correct, [False])


class TestOverlap:
    def test_corners_are_inclusive(self):
        # 3 x 3 pixels against 3 x 2: IoU 6/9; with plain differences it would be 2 * 1 / (2 * 2), not above a half.
        assert score((found((1, 0.9, 5, 5, 7, 6)), truth((1, 5, 5, 7, 7)))).compute()["voc_area"] == 1

    @pytest.mark.parametrize(("height", "right"), [(18, True), (19, False), (20, False)])
    def test_iou_of_exactly_one_half_is_not_enough(self, height, right):
        # 10 x 10 pixels inside 10 x (height + 1): IoU 100/190, exactly 100/200, 100/210.
        metric = score((found((1, 0.9, 0, 0, 9, height)), truth((1, *A))))
        assert metric.compute()["voc_area"] == right

    def test_one_half_is_exact_in_spite_of_the_way_through_the_unit_square(self):
        correct = []
        for x in range(0, 450, 7):
            target = truth((1, x, x // 2, x + 9, x // 2 + 9), size=(333, 500))
            metric = score((found((1, 0.9, x, x // 2, x + 9, x // 2 + 19)), target))
            correct.append(bool(metric.rankings()["cat"].correct[0]))
        assert not any(correct)

    def test_other_threshold(self):
        image = (found((1, 0.9, 0, 0, 9, 12)), truth((1, *A)))
        assert score(image, iou_threshold=0.75).compute()["voc_area"] == 1
        assert score(image, iou_threshold=0.8).compute()["voc_area"] == 0

    def test_boxes_are_not_clipped_to_the_image(self):
        # Clipped to the 100 x 100 pixels, the detection would be the object.
        assert score((found((1, 0.9, 90, 90, 130, 99)), truth((1, 90, 90, 99, 99)))).compute()["voc_area"] == 0

    def test_non_square_image(self):
        target = truth((1, 150, 10, 189, 39), size=(50, 200))
        assert score((found((1, 0.9, 150, 10, 189, 39)), target)).compute()["voc_area"] == 1

    @pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 3e38])
    def test_overflowed_box_is_a_false_positive(self, bad):
        metric = score((found((1, 0.9, 0, 0, bad, 9), (1, 0.8, *A)), truth((1, *A))))
        assert metric.compute()["voc_area"] == pytest.approx(1 / 2)


class TestEqualScores:
    RIGHT, WRONG = (1, 0.5, *A), (1, 0.5, *NOWHERE)

    def test_order_within_an_image(self):
        assert score((found(self.RIGHT, self.WRONG), truth((1, *A)))).compute()["voc_area"] == 1
        assert score((found(self.WRONG, self.RIGHT), truth((1, *A)))).compute()["voc_area"] == 1 / 2

    def test_order_of_the_images(self):
        right, wrong = (found(self.RIGHT), truth((1, *A))), (found(self.WRONG), truth())
        assert score(right, wrong).compute()["voc_area"] == 1
        assert score(wrong, right).compute()["voc_area"] == 1 / 2

    def test_order_among_many(self):
        # Enough detections that an unstable sort would not leave them alone.
        metric = score((found(*[self.RIGHT] + [self.WRONG] * 500), truth((1, *A))))
        assert metric.compute()["voc_area"] == 1


class TestNothingThere:
    def test_no_image_at_all(self):
        metric = VOCMeanAP(("cat",))
        assert all(math.isnan(value) for value in metric.compute().values())
        assert metric.pr_curves() == {}
        assert metric.counts() == {"cat": {"objects": 0, "difficult": 0, "detections": 0}}

    def test_class_without_objects_is_left_out_of_the_mean(self):
        results = score((found((1, 0.9, *A), (2, 0.9, *B)), truth((1, *A))), class_names=("cat", "dog")).compute()
        assert math.isnan(results["voc07/dog"])
        assert math.isnan(results["voc_area/dog"])
        assert results["voc07"] == results["voc_area"] == 1

    def test_class_without_detections_has_zero(self):
        results = score((found((1, 0.9, *A)), truth((1, *A), (2, *B))), class_names=("cat", "dog")).compute()
        assert results["voc07/dog"] == results["voc_area/dog"] == 0
        assert results["voc07"] == 1 / 2

    def test_image_without_objects_gives_false_positives(self):
        metric = score((found((1, 0.9, *A)), truth()), (found((1, 0.8, *A)), truth((1, *A))))
        assert metric.compute()["voc_area"] == pytest.approx(1 / 2)


def test_more_updates_after_a_result():
    metric = score((found((1, 0.9, *A)), truth((1, *A))))
    assert metric.compute()["voc_area"] == 1
    metric.update([found()], [truth((1, *A))])
    assert metric.compute()["voc_area"] == 1 / 2


def test_pr_curve_by_hand():
    precision, recall, scores = score(
        (found((1, 0.75, *B), (1, 0.5, *NOWHERE), (1, 0.875, *A)), four_cats()), class_names=("cat", "dog")
    ).pr_curves()["cat"]
    np.testing.assert_allclose(precision, [1, 1, 2 / 3])
    np.testing.assert_allclose(recall, [1 / 4, 2 / 4, 2 / 4])
    np.testing.assert_allclose(scores, [0.875, 0.75, 0.5])


class TestBestF1:
    def test_by_hand(self):
        # After each detection: 1/1 of 2 (F1 2/3), 1/2 (1/2), 2/3 (4/5), 2/4 (2/3).
        rows = [(1, 0.875, *A), (1, 0.75, *NOWHERE), (1, 0.5, *B), (1, 0.25, *NOWHERE)]
        point = score((found(*rows), truth((1, *A), (1, *B)))).best_f1()["cat"]
        assert point == pytest.approx((4 / 5, 0.5, 2 / 3, 1))

    def test_equal_scores_stand_or_fall_together(self):
        # A threshold cannot take the right one without the wrong one.
        point = score((found((1, 0.5, *A), (1, 0.5, *NOWHERE)), truth((1, *A)))).best_f1()["cat"]
        assert point == pytest.approx((2 / 3, 0.5, 1 / 2, 1))

    def test_without_objects_and_without_detections(self):
        metric = score((found((1, 0.9, *A)), truth((2, *A))), class_names=("cat", "dog"))
        assert all(map(math.isnan, metric.best_f1()["cat"]))
        f1, threshold, precision, recall = metric.best_f1()["dog"]
        assert f1 == recall == 0
        assert math.isnan(threshold)
        assert math.isnan(precision)


class TestRefused:
    def test_target_without_size(self):
        target = truth((1, *A), image_id="000012")
        target.size = None
        with pytest.raises(ValueError, match="'000012' has no size"):
            VOCMeanAP(("cat",)).update([found()], [target])

    @pytest.mark.parametrize("label", [0, 2])
    def test_label_outside_the_classes(self, label):
        for detections, target in ((found((label, 0.9, *A)), truth()), (found(), truth((label, *A)))):
            with pytest.raises(ValueError, match=f"'image': an? .* label {label}; labels go from 1 to 1"):
                VOCMeanAP(("cat",)).update([detections], [target])

    def test_nan_score(self):
        with pytest.raises(ValueError, match="'image': a detection has the score NaN"):
            VOCMeanAP(("cat",)).update([found((1, math.nan, *A))], [truth()])

    def test_detections_of_other_classes(self):
        with pytest.raises(UserError, match="class 1 is 'dog' in the detections and 'cat' in the ground truth"):
            VOCMeanAP(("cat", "dog")).update([found(class_names=("dog", "cat"))], [truth()])
        with pytest.raises(UserError, match="3 classes scored against 2"):
            VOCMeanAP(("cat", "dog")).update([found(class_names=("cat", "dog", "cow"))], [truth()])

    def test_unequal_numbers_of_images(self):
        with pytest.raises(ValueError, match="1 detections for 2 targets"):
            VOCMeanAP(("cat",)).update([found()], [truth(), truth()])

    def test_repeated_class_name(self):
        with pytest.raises(ValueError, match="repeat"):
            VOCMeanAP(("cat", "cat"))


def plain_average_precision(images, label):
    """(11-point, area) of one class, written down as the rules read: one detection after the other."""
    num_objects = sum(o[0] == label and len(o) == 5 for _, objects in images for o in objects)
    rows = [(row, objects) for rows, objects in images for row in rows if row[0] == label]
    taken, outcome = set(), []
    for row, objects in sorted(rows, key=lambda pair: -pair[0][1]):
        best, best_iou = None, -1.0
        for candidate in objects:
            if candidate[0] == label:
                iou = plain_iou(row[2:], candidate[1:5])
                if iou > best_iou:
                    best, best_iou = candidate, iou
        if best_iou <= 0.5:
            outcome.append(0)
        elif len(best) == 5:
            outcome.append(int(id(best) not in taken))
            taken.add(id(best))
    if num_objects == 0:
        return math.nan, math.nan
    points = [(sum(outcome[:n]) / num_objects, sum(outcome[:n]) / n) for n in range(1, len(outcome) + 1)]
    at_least = [max([p for r, p in points if r >= t], default=0) for t in np.arange(0.0, 1.1, 0.1)]
    area, recall_before = 0.0, 0.0
    for n, (recall, _) in enumerate(points):
        area += (recall - recall_before) * max(p for _, p in points[n:])
        recall_before = recall
    return sum(at_least) / 11, area


def random_images(rng, num_classes, num_images=8):
    """Few pixels, few scores and detections close to objects: ties of every kind occur all the time."""
    images = []
    for _ in range(num_images):
        objects = []
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = rng.integers(0, 12, 2).tolist() + rng.integers(2, 9, 2).tolist()
            difficult = ("difficult",) if rng.random() < 0.2 else ()
            objects.append((int(rng.integers(1, num_classes + 1)), x, y, x + w, y + h, *difficult))
        rows = []
        for _ in range(rng.integers(0, 25)):
            if objects and rng.random() < 0.8:
                label, *box = objects[rng.integers(len(objects))][:5]
                box = [c + int(s) for c, s in zip(box, rng.integers(-1, 2, 4), strict=True)]
            else:
                label, box = int(rng.integers(1, num_classes + 1)), [1, 2, 9, 9]
            rows.append((label, int(rng.integers(1, 9)) / 8, *box))
        images.append((rows, objects))
    return images


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_a_plain_implementation_on_random_images(seed):
    rng = np.random.default_rng(seed)
    names = ("cat", "dog", "cow")
    images = random_images(rng, len(names))
    metric = VOCMeanAP(names)
    for start in range(0, len(images), 3):
        part = images[start : start + 3]
        dtype = torch.float64 if seed % 2 else torch.float32
        metric.update([found(*rows, dtype=dtype) for rows, _ in part], [truth(*objects) for _, objects in part])
    results = metric.compute()
    expected = {name: plain_average_precision(images, label) for label, name in enumerate(names, start=1)}
    for name, (eleven_point, area) in expected.items():
        assert results[f"voc07/{name}"] == pytest.approx(eleven_point, abs=1e-12, nan_ok=True)
        assert results[f"voc_area/{name}"] == pytest.approx(area, abs=1e-12, nan_ok=True)
    known = [ap for ap, _ in expected.values() if not math.isnan(ap)]
    assert results["voc07"] == pytest.approx(sum(known) / len(known))
