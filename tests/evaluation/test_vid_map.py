"""ImageNet VID mean average precision on cases worked out by hand, and against a plain implementation of the rules."""

import json
import math

import numpy as np
import pytest
import torch

from lib.evaluation import VIDMeanAP, load_results, save_results, written_id
from lib.evaluation.tracks import VideoObjects, motion_iou
from lib.structures import Detections, Target

from .builders import found, frame, plain_iou

A, B, C, D = (0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9), (60, 0, 69, 9)
NOWHERE = (80, 80, 89, 89)
SPEEDS = ("slow", "medium", "fast")


def score(*frames, class_names=("cat",)):
    metric = VIDMeanAP(class_names)
    for detections, target in frames:
        metric.update([detections], [target])
    return metric


class TestMatching:
    @pytest.mark.parametrize(("left", "vid"), [(5, 1), (6, 1), (7, 0)])
    def test_threshold_of_ten_by_ten_pixels_is_a_quarter(self, left, vid):
        # Overlaps of 5, 4 and 3 columns: IoU 50/150, exactly 40/160, 30/170; the threshold is 100 / (20 * 20).
        results = score((found((1, 0.9, left, 0, left + 9, 9)), frame((1, *A)))).compute()
        assert results["vid"] == vid
        assert results["map50"] == 0

    def test_threshold_never_exceeds_one_half(self):
        # The rule of small boxes would ask for 8100/10000 of 90 x 90 pixels; the detection has exactly one half.
        results = score((found((1, 0.9, 0, 0, 89, 44)), frame((1, 0, 0, 89, 89)))).compute()
        assert results["vid"] == results["map50"] == 1

    def test_detection_falls_back_on_the_free_object_that_it_overlaps_next(self):
        near, far = (0, 0, 9, 9), (0, 2, 9, 11)
        results = score((found((1, 0.9, *near), (1, 0.8, 0, 0, 9, 10)), frame((1, *near), (1, *far)))).compute()
        assert results["vid"] == results["map50"] == 1

    def test_best_score_chooses_first_whatever_the_order_of_the_rows(self):
        near, far = (0, 0, 9, 9), (0, 2, 9, 11)
        rows = [(1, 0.3, *NOWHERE), (1, 0.8, 0, 0, 9, 10), (1, 0.9, *near), (1, 0.1, *near)]
        for order in (rows, rows[::-1]):
            assert score((found(*order), frame((1, *near), (1, *far)))).compute()["map50"] == 1

    def test_second_detection_of_an_object_is_wrong(self):
        metric = score((found((1, 0.9, *A), (1, 0.8, *A), (1, 0.7, *B)), frame((1, *A), (1, *B))))
        assert metric.compute()["map50"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)

    def test_box_of_another_class_is_no_match(self):
        results = score((found((1, 0.9, *A)), frame((2, *A))), class_names=("cat", "dog")).compute()
        assert math.isnan(results["map50/cat"])
        assert results["vid/dog"] == results["vid"] == 0

    def test_overflowed_box_is_a_false_positive(self):
        results = score((found((1, 0.9, 0, 0, math.inf, 9), (1, 0.8, *A)), frame((1, *A)))).compute()
        assert results["vid"] == results["map50"] == pytest.approx(1 / 2)

    def test_equal_scores_keep_their_order(self):
        right, wrong = (1, 0.5, *A), (1, 0.5, *NOWHERE)
        assert score((found(right, *[wrong] * 99), frame((1, *A)))).compute()["vid"] == 1
        assert score((found(wrong, right), frame((1, *A)))).compute()["vid"] == 1 / 2
        assert score((found(*[right] * 99), frame((1, *A)))).compute()["vid"] == 1


class TestMotionIoU:
    def motion(self, *rows):
        """Of rows (video, frame, track, left): boxes of 10 x 10 pixels; arrives row by row."""
        objects = VideoObjects()
        boxes = []
        for video, number, track, left in rows:
            boxes.append((left, 0, left + 9, 9))
            objects.add(frame((1, *boxes[-1]), video=video, number=number, tracks=[track]))
        return motion_iou(np.array(boxes, np.float64), objects.arrays()).tolist()

    def test_mean_over_the_other_frames_of_the_track(self):
        # Boxes a pixel apart have IoU 90/110, two pixels apart 80/120, three 70/130.
        one, two, three = 90 / 110, 80 / 120, 70 / 130
        assert self.motion(("v", 0, 1, 0), ("v", 1, 1, 1), ("v", 2, 1, 3)) == pytest.approx(
            [(one + three) / 2, (one + two) / 2, (two + three) / 2]
        )

    def test_window_is_ten_frames_by_number_to_either_side(self):
        assert self.motion(("v", 0, 1, 0), ("v", 10, 1, 1), ("v", 11, 1, 0)) == pytest.approx(
            [90 / 110, 90 / 110, 90 / 110]
        )

    def test_only_frames_of_the_same_track_of_the_same_video(self):
        rows = [("v", 0, 1, 0), ("w", 1, 1, 50), ("v", 2, 2, 50), ("v", 1, 1, 1)]
        assert self.motion(*rows) == pytest.approx([90 / 110, math.nan, math.nan, 90 / 110], nan_ok=True)

    def test_two_boxes_of_a_track_in_one_frame_are_not_compared(self):
        objects = VideoObjects()
        objects.add(frame((1, *A), (1, *B), number=0, tracks=[4, 4]))
        objects.add(frame((1, *A), number=1, tracks=[4]))
        boxes = np.array([A, B, A], np.float64)
        assert motion_iou(boxes, objects.arrays()).tolist() == pytest.approx([1, 0, 1 / 2])

    def test_unknown_tracks_have_none(self):
        assert self.motion(("v", 0, -1, 0), ("v", 1, -1, 0)) == pytest.approx([math.nan] * 2, nan_ok=True)


def video(*numbers_and_rows, objects, video="video"):
    """Frames of (number, rows) with objects [(label, boxes by number)], whose tracks are their places in the list."""
    frames = []
    for number, rows in numbers_and_rows:
        held = [(label, *boxes[number]) for label, boxes in objects]
        frames.append((found(*rows), frame(*held, video=video, number=number)))
    return frames


STILL, JUMPS, JUMPS_TOO = (A, A), (B, C), (D, (60, 50, 69, 59))
"""Boxes in two frames: motion IoU 1 is slow, 0 is fast."""


class TestSpeeds:
    def test_objects_of_other_speeds_are_ignored_with_what_found_them(self):
        frames = video((0, [(1, 0.9, *B), (1, 0.8, *A)]), (1, []), objects=[(1, STILL), (1, JUMPS)])
        results = score(*frames).compute()
        assert results["slow"] == pytest.approx(1 / 2)
        assert results["fast"] == pytest.approx(1 / 2)
        assert results["vid"] == pytest.approx(2 / 4)
        assert math.isnan(results["medium"])

    def test_duplicate_is_wrong_only_for_the_speed_of_what_it_repeats(self):
        again = (1, 0.95, 1, 0, 10, 9)
        hits = [(1, 0.9, *A), (1, 0.8, *B)], [(1, 0.7, *A), (1, 0.6, *C)]
        frames = video((0, [again, *hits[0]]), (1, hits[1]), objects=[(1, STILL), (1, JUMPS)])
        results = score(*frames).compute()
        # Of the slow ones the repeated one comes first in rank, and the exact one is the false one.
        assert results["slow"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
        assert results["fast"] == 1

    def test_nowhere_costs_the_share_of_the_ignored(self):
        hits = [[(1, 0.8, *A), (1, 0.7, *JUMPS[i]), (1, 0.6, *JUMPS_TOO[i])] for i in (0, 1)]
        objects = [(1, STILL), (1, JUMPS), (1, JUMPS_TOO)]
        results = score(*video((0, [(1, 0.9, *NOWHERE), *hits[0]]), (1, hits[1]), objects=objects)).compute()
        assert results["slow"] == pytest.approx(2 / (2 + 2 / 3))
        assert results["fast"] == pytest.approx(4 / (4 + 1 / 3))
        assert results["vid"] == pytest.approx(6 / 7)

    def test_nowhere_in_a_frame_of_one_speed_costs_that_speed_alone(self):
        frames = video((0, [(1, 0.9, *NOWHERE), (1, 0.8, *A)]), (1, [(1, 0.7, *A)]), objects=[(1, STILL)])
        other = video((0, [(1, 0.6, *B)]), (1, [(1, 0.5, *C)]), objects=[(1, JUMPS)], video="other")
        results = score(*frames, *other).compute()
        assert results["slow"] == pytest.approx(2 / 3)
        assert results["fast"] == 1

    @pytest.mark.parametrize(("dog", "fast"), [(STILL, 1), (JUMPS_TOO, 2 / 3)])
    def test_what_a_wrong_detection_lies_on_may_be_of_another_class(self, dog, fast):
        left, top, right, bottom = dog[0]
        wrong = (1, 0.9, left, top, right, bottom)
        objects = [(1, JUMPS), (2, dog)]
        frames = video((0, [wrong, (1, 0.8, *B)]), (1, [(1, 0.7, *C)]), objects=objects)
        assert score(*frames, class_names=("cat", "dog")).compute()["fast/cat"] == pytest.approx(fast)

    def test_overlapping_both_alike_costs_the_share_of_the_ignored(self):
        # A slow and a fast dog in the same place, another fast one elsewhere, and a cat detected on the two.
        objects = [(2, STILL), (2, (A, C)), (2, JUMPS), (1, JUMPS_TOO)]
        frames = video((0, [(1, 0.9, *A), (1, 0.8, *JUMPS_TOO[0])]), (1, [(1, 0.7, *JUMPS_TOO[1])]), objects=objects)
        results = score(*frames, class_names=("cat", "dog")).compute()
        assert results["fast/cat"] == pytest.approx(2 / (2 + 1 / 4))

    def test_frames_without_objects_count_as_fast(self):
        frames = video(
            (0, [(1, 0.8, *A), (1, 0.7, *B)]), (1, [(1, 0.6, *A), (1, 0.5, *C)]), objects=[(1, STILL), (1, JUMPS)]
        )
        empty = (found((1, 0.9, *NOWHERE)), frame(number=2))
        results = score(*frames, empty).compute()
        # Two slow ones, two fast ones and the empty frame.
        assert results["slow"] == pytest.approx(2 / (2 + 2 / 5))
        assert results["fast"] == pytest.approx(2 / (2 + 3 / 5))
        assert results["vid"] == pytest.approx(4 / 5)

    @pytest.mark.parametrize(("width", "speeds"), [(10, "slow"), (9, "slow medium"), (7, "medium fast"), (6, "fast")])
    def test_both_ends_of_a_range_belong_to_it(self, width, speeds):
        # Boxes 10 and `width` pixels wide: motion IoU 1, 0.9, 0.7 and 0.6.
        frames = video((0, [(1, 0.9, *A)]), (1, []), objects=[(1, (A, (0, 0, width - 1, 9)))])
        results = score(*frames).compute()
        assert [speed for speed in SPEEDS if not math.isnan(results[speed])] == [s for s in SPEEDS if s in speeds]

    def test_track_numbers_belong_to_their_video(self):
        frames = [
            video((0, [(1, 0.9, *box)]), (1, [(1, 0.8, *box)]), objects=[(1, (box, box))], video=name)
            for name, box in (("one", A), ("two", B))
        ]
        results = score(*frames[0], *frames[1]).compute()
        assert results["slow"] == 1
        assert math.isnan(results["fast"])

    def test_objects_of_unknown_tracks_have_no_speed(self):
        frames = [(found((1, 0.9, *A)), frame((1, *A), number=i, tracks=[-1])) for i in (0, 1)]
        results = score(*frames).compute()
        assert results["vid"] == 1
        assert all(math.isnan(results[speed]) for speed in SPEEDS)


class TestDifficult:
    def test_claims_on_difficult_objects_count_neither_way(self):
        rows = [(1, 0.9, *B), (1, 0.8, *B), (1, 0.7, *A)]
        metric = score(*((found(*rows), frame((1, *A), (1, *B, "difficult"), number=i)) for i in (0, 1)))
        results = metric.compute()
        assert results["map50"] == results["vid"] == results["slow"] == 1
        assert metric.counts() == {"cat": {"objects": 2, "difficult": 2, "detections": 6}}

    def test_class_with_only_difficult_objects_has_no_figure(self):
        results = score((found((1, 0.9, *A)), frame((1, *A, "difficult")))).compute()
        assert all(map(math.isnan, results.values()))


class TestNothingThere:
    def test_no_frame_at_all(self):
        metric = VIDMeanAP(("cat",))
        assert list(metric.compute()) == [*(keys := ("map50", "vid", *SPEEDS)), *(f"{key}/cat" for key in keys)]
        assert all(map(math.isnan, metric.compute().values()))
        assert metric.pr_curves() == {}

    def test_frames_without_objects_and_detections(self):
        assert all(map(math.isnan, score((found(), frame()), (found(), frame(number=1))).compute().values()))

    def test_objects_without_detections_have_zero(self):
        results = score(*video((0, []), (1, []), objects=[(1, STILL)])).compute()
        assert results["map50"] == results["vid"] == results["slow"] == 0

    def test_class_without_objects_is_left_out_of_the_mean(self):
        frames = video((0, [(2, 0.9, *NOWHERE), (1, 0.8, *A)]), (1, [(1, 0.7, *A)]), objects=[(1, STILL)])
        results = score(*frames, class_names=("cat", "dog")).compute()
        assert results["vid"] == results["slow"] == 1
        assert math.isnan(results["vid/dog"])


class TestRefused:
    @pytest.mark.parametrize("image_id", ["000012", 12, None, ("video", "12"), ("video", 1, 2)])
    def test_image_that_is_no_frame(self, image_id):
        target = frame((1, *A))
        target.image_id = image_id
        with pytest.raises(ValueError, match="is not a frame of a video"):
            VIDMeanAP(("cat",)).update([found()], [target])

    def test_frame_that_came_before(self):
        with pytest.raises(ValueError, match="frame 3 of video 'video' came twice"):
            score((found(), frame(number=3)), (found(), frame(number=3)))

    def test_refused_frame_leaves_no_trace(self):
        metric = score(*video((0, [(1, 0.9, *A)]), (1, []), objects=[(1, STILL)]))
        before = metric.compute()
        for target in (frame((2, *A), number=2), frame((1, *A), number=0)):
            with pytest.raises(ValueError):
                metric.update([found((1, 0.95, *NOWHERE))], [target])
        assert metric.compute() == pytest.approx(before, nan_ok=True)


def test_curves_and_best_threshold_are_those_of_map50():
    metric = score((found((1, 0.9, *A), (1, 0.8, 26, 0, 35, 9), (1, 0.7, *C)), frame((1, *A), (1, *B), (1, *C))))
    precision, recall, scores = metric.pr_curves()["cat"]
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.7])
    assert metric.best_f1()["cat"] == pytest.approx((2 / 3, 0.7, 2 / 3, 2 / 3))
    assert metric.compute()["vid"] == 1


def plain_figures(frames, num_classes):
    """{key: [AP of every class]}, written down as the rules read; frames are (video, number, rows, objects)."""
    motion = {key: plain_motion(frames, *key) for key in plain_instances(frames)}
    num_empty = sum(not objects for _, _, _, objects in frames)
    figures = {}
    for key in ("map50", "vid", *SPEEDS):
        low, high = {"slow": (0.9, 1), "medium": (0.7, 0.9), "fast": (0, 0.7)}.get(key, (-1, 2))
        inside = {k: len(k[3]) == 6 and (key in ("map50", "vid") or low <= m <= high) for k, m in motion.items()}
        share = (sum(inside.values()) + num_empty * (low <= 0)) / max(len(motion) + num_empty, 1)
        outcomes = {label: [] for label in range(1, num_classes + 1)}
        for name, number, rows, objects in frames:
            states = [inside[name, number, k, o] for k, o in enumerate(objects)]
            for row, taken in plain_match(rows, objects, 0.5 if key == "map50" else None):
                if taken is not None:
                    weights = (1, 0) if states[taken] else (0, 0)
                elif key in ("map50", "vid"):
                    weights = (0, 1)
                else:
                    weights = (0, plain_weight(row, objects, states, share))
                outcomes[row[0]].append((row[1], *weights))
        figures[key] = [
            plain_ap(outcomes[label], sum(v for k, v in inside.items() if k[3][0] == label)) for label in outcomes
        ]
    return figures


def plain_instances(frames):
    return [(name, number, k, o) for name, number, _, objects in frames for k, o in enumerate(objects)]


def plain_motion(frames, name, number, _, instance):
    """objects are (label, x1, y1, x2, y2, track[, "difficult"])."""
    near = [
        plain_iou(instance[1:5], o[1:5])
        for video, other, _, objects in frames
        for o in objects
        if video == name and 0 < abs(other - number) <= 10 and o[5] == instance[5] >= 0
    ]
    return sum(near) / len(near) if near else math.nan


def plain_match(rows, objects, threshold):
    free, pairs = list(range(len(objects))), []
    for row in sorted(rows, key=lambda r: -r[1]):
        best, best_iou = None, 0
        for k in free:
            w, h = objects[k][3] - objects[k][1] + 1, objects[k][4] - objects[k][2] + 1
            needed = min(0.5, w * h / ((w + 10) * (h + 10))) if threshold is None else threshold
            iou = plain_iou(row[2:], objects[k][1:5])
            if objects[k][0] == row[0] and iou >= needed and iou > best_iou:
                best, best_iou = k, iou
        if best is not None and len(objects[best]) == 6:
            free.remove(best)
        pairs.append((row, best))
    return pairs


def plain_weight(row, objects, states, share):
    if not objects:
        return share
    most = {state: -1 for state in (True, False)}
    for o, state in zip(objects, states, strict=True):
        most[state] = max(most[state], plain_iou(row[2:], o[1:5]))
    if most[True] == most[False]:
        return states.count(False) / len(states)
    return float(most[True] > most[False])


def plain_ap(outcomes, num_objects):
    if not num_objects:
        return math.nan
    right = wrong = 0
    points = []
    for _, true, false in sorted(outcomes, key=lambda o: -o[0]):
        right, wrong = right + true, wrong + false
        if right + wrong:
            points.append((right / num_objects, right / (right + wrong)))
    area, before = 0.0, 0.0
    for n, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[n:])
        before = recall
    return area


def random_frames(rng, num_classes):
    """Two or three videos of few pixels: empty frames, interrupted tracks and equal overlaps occur all the time."""
    frames = []
    for name in ("one", "two", "three")[: rng.integers(2, 4)]:
        tracks = []
        for track in range(rng.integers(1, 5)):
            corner, sides = rng.integers(0, 15, 2), rng.integers(2, 12, 2)
            known = rng.random() < 0.9
            tracks.append((int(rng.integers(1, num_classes + 1)), corner, sides, track, track if known else -1))
        for number in range(int(rng.integers(3, 16))):
            objects = []
            for label, corner, sides, speed, track in tracks:
                if rng.random() < 0.6 and number % 5 != 4:
                    shifted = corner + rng.integers(-speed, speed + 1, 2)
                    difficult = ("difficult",) if rng.random() < 0.1 else ()
                    objects.append((label, *shifted.tolist(), *(shifted + sides).tolist(), track, *difficult))
            rows = []
            for _ in range(rng.integers(0, 9)):
                label, box = int(rng.integers(1, num_classes + 1)), rng.integers(0, 9, 4) + (0, 0, 9, 9)
                if objects and rng.random() < 0.8:
                    chosen = objects[rng.integers(len(objects))]
                    label = chosen[0] if rng.random() < 0.7 else label
                    box = np.array(chosen[1:5]) + rng.integers(-2, 3, 4)
                rows.append((label, float(rng.random()), *box.tolist()))
            frames.append((name, number, rows, objects))
    return frames


def to_update(name, number, rows, objects):
    held = [(*o[:5], *o[6:]) for o in objects]
    tracks = [o[5] for o in objects]
    return found(*rows, dtype=torch.float64), frame(*held, video=name, number=number, tracks=tracks)


@pytest.mark.parametrize("seed", range(30))
def test_agrees_with_a_plain_implementation_in_any_order_of_arrival(seed):
    rng = np.random.default_rng(seed)
    names = ("cat", "dog", "cow")
    frames = random_frames(rng, len(names))
    results = score(*(to_update(*part) for part in frames), class_names=names).compute()
    for key, per_class in plain_figures(frames, len(names)).items():
        assert [results[f"{key}/{name}"] for name in names] == pytest.approx(per_class, abs=1e-12, nan_ok=True), key
        known = [ap for ap in per_class if not math.isnan(ap)]
        assert results[key] == pytest.approx(sum(known) / len(known) if known else math.nan, nan_ok=True)
    shuffled = [to_update(*frames[i]) for i in rng.permutation(len(frames))]
    assert score(*shuffled, class_names=names).compute() == pytest.approx(results, abs=1e-12, nan_ok=True)


@pytest.fixture(scope="module")
def case(shared):
    path = shared / "parity" / "vid_dev.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return json.loads(path.read_text())


class TestPublishedRules:
    """Against figures of the public evaluators on made-up videos."""

    def frames(self, case):
        classes, scale = case["classes"], torch.tensor([640, 480, 640, 480])
        for name, snippet in case["snippets"].items():
            for number in range(snippet["length"]):
                real, seen = (
                    [row for row in case[kind] if (row["snippet"], row["frame"]) == (name, number)]
                    for kind in ("truths", "detections")
                )
                yield (
                    Detections(
                        torch.tensor([row["box"] for row in seen]).reshape(-1, 4),
                        torch.tensor([row["score"] for row in seen]),
                        torch.tensor([classes.index(row["cls"]) + 1 for row in seen], dtype=torch.int64),
                        tuple(classes),
                    ),
                    Target(
                        torch.tensor([row["box"] for row in real]).reshape(-1, 4) / scale,
                        torch.tensor([classes.index(row["cls"]) + 1 for row in real], dtype=torch.int64),
                        image_id=(name, number),
                        size=(480, 640),
                        track_ids=torch.tensor([row["track"] for row in real], dtype=torch.int64),
                    ),
                )

    def expected(self, case):
        tables = {"map50": case["map50"], "vid": case["vid"]} | {speed: case["motion"][speed] for speed in SPEEDS}
        return {
            key if cls == "mean" else f"{key}/{cls}": math.nan if value is None else value
            for key, table in tables.items()
            for cls, value in table.items()
        }

    def test_figures(self, case):
        metric = score(*self.frames(case), class_names=case["classes"])
        assert metric.compute() == pytest.approx(self.expected(case), abs=1e-6, nan_ok=True)

    def test_figures_through_a_results_file(self, case, tmp_path):
        detections, targets = zip(*self.frames(case), strict=True)
        save_results(tmp_path / "results.json", detections, targets)
        back = load_results(tmp_path / "results.json", case["classes"])
        frames = ((back.get(written_id(target.image_id), found()), target) for target in targets)
        results = score(*frames, class_names=case["classes"]).compute()
        assert results == pytest.approx(self.expected(case), abs=1e-6, nan_ok=True)

    def test_motion_iou_of_every_object(self, case):
        objects, boxes, keys = VideoObjects(), [], []
        for _, target in self.frames(case):
            objects.add(target)
            boxes.append((target.boxes * torch.tensor([640, 480, 640, 480])).round(decimals=2).numpy())
            keys += [(*target.image_id, track) for track in target.track_ids.tolist()]
        motion = motion_iou(np.concatenate(boxes).astype(np.float64), objects.arrays())
        expected = {(name, number, track): value for name, number, track, value in case["motion_iou"]}
        assert dict(zip(keys, motion.tolist(), strict=True)) == pytest.approx(expected, abs=1e-6)
