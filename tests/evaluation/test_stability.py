"""Flicker and gaps along tracks, on sequences of seen and unseen frames written out by hand."""

import math

import numpy as np
import pytest

from lib.evaluation import FlickerRate

from .builders import found, frame

BOX, OTHER, NOWHERE = (0, 0, 9, 9), (30, 0, 39, 9), (80, 80, 89, 89)


def metric_of(*frames, class_names=("cat", "dog"), **options):
    metric = FlickerRate(class_names, **options)
    for detections, target in frames:
        metric.update([detections], [target])
    return metric


def track(pattern, box=BOX, number=0, video="video", label=1, track_id=0):
    """Frames of one track: "x" is seen, "o" is not, " " is a frame without the object."""
    for offset, letter in enumerate(pattern):
        objects, tracks = ([], []) if letter == " " else ([(label, *box)], [track_id])
        rows = [(label, 0.9, *box)] if letter == "x" else []
        yield found(*rows), frame(*objects, video=video, number=number + offset, tracks=tracks)


@pytest.mark.parametrize(
    ("pattern", "changes", "pairs", "gaps", "seen"),
    [
        ("xxxx", 0, 3, 0, 4),
        ("oooo", 0, 3, 0, 0),
        ("xoxo", 3, 3, 1, 2),
        ("xoox", 2, 3, 2, 2),
        ("ooxx", 1, 3, 0, 2),
        ("oxxo", 2, 3, 0, 2),
        ("oxooxo", 4, 5, 2, 2),
        ("xo xo", 2, 2, 1, 2),
        ("xx  oo", 0, 2, 0, 2),
    ],
)
def test_one_track(pattern, changes, pairs, gaps, seen):
    length = len(pattern.replace(" ", ""))
    expected = {"flicker": 100 * changes / pairs, "gaps": gaps / length, "seen": seen / length}
    assert metric_of(*track(pattern)).compute() == pytest.approx(expected)


def test_all_tracks_count_by_their_length():
    one, two = track("xoxox", video="one"), track("xx", video="two", label=2)
    assert metric_of(*one, *two).compute() == pytest.approx({"flicker": 100 * 4 / 5, "gaps": 2 / 7, "seen": 5 / 7})


def test_tracks_of_two_videos_with_one_number_are_kept_apart():
    one, two = track("xx", video="one"), track("oo", video="two", number=2)
    assert metric_of(*one, *two).compute() == pytest.approx({"flicker": 0, "gaps": 0, "seen": 1 / 2})


def test_two_tracks_of_one_video_are_kept_apart():
    frames = []
    for number, rows in enumerate(([(1, 0.9, *BOX)], [(1, 0.9, *OTHER)])):
        frames.append((found(*rows), frame((1, *BOX), (1, *OTHER), number=number, tracks=[7, 8])))
    assert metric_of(*frames).compute() == pytest.approx({"flicker": 100, "gaps": 0, "seen": 1 / 2})


def test_order_of_arrival_does_not_matter():
    rng = np.random.default_rng(0)
    letters = ("".join(rng.choice(list("xo "), 40)) for _ in range(3))
    frames = [frame for name, pattern in zip("abc", letters, strict=True) for frame in track(pattern, video=name)]
    expected = metric_of(*frames).compute()
    assert 0 < expected["gaps"] < expected["seen"]
    assert metric_of(*(frames[i] for i in rng.permutation(len(frames)))).compute() == expected


def test_frames_that_follow_each_other_among_those_given():
    # Every fifth frame of the video: numbers 0, 5, 10.
    frames = list(track("xooooxoooox"))[::5]
    assert metric_of(*frames).compute() == {"flicker": 0, "gaps": 0, "seen": 1}


class TestSeen:
    def seen(self, *rows, objects=((1, *BOX),), **options):
        return metric_of((found(*rows), frame(*objects)), **options).compute()["seen"]

    def test_from_the_score_threshold_on(self):
        assert self.seen((1, 0.5, *BOX)) == 1
        assert self.seen((1, 0.49, *BOX)) == 0
        assert self.seen((1, 0.3, *BOX), score_threshold=0.3) == 1

    def test_from_the_overlap_on(self):
        # 10 x 10 pixels inside 10 x 20 and 10 x 21.
        assert self.seen((1, 0.9, 0, 0, 9, 19)) == 1
        assert self.seen((1, 0.9, 0, 0, 9, 20)) == 0
        assert self.seen((1, 0.9, 0, 0, 9, 20), iou_threshold=0.4) == 1

    def test_by_a_detection_of_its_class(self):
        assert self.seen((2, 0.9, *BOX)) == 0

    def test_one_detection_sees_one_object(self):
        assert self.seen((1, 0.9, *BOX), objects=((1, *BOX), (1, 0, 1, 9, 10))) == 1 / 2


def test_difficult_objects_and_unknown_tracks_are_left_out():
    frames = []
    for number, rows in enumerate(([(1, 0.9, *BOX)], [])):
        objects = (1, *BOX, "difficult"), (1, *OTHER)
        frames.append((found(*rows), frame(*objects, number=number, tracks=[0, -1])))
    assert all(map(math.isnan, metric_of(*frames).compute().values()))


def test_nothing_to_tell():
    assert all(map(math.isnan, FlickerRate(("cat",)).compute().values()))
    assert all(map(math.isnan, metric_of(*track("   ")).compute().values()))
    alone = metric_of(*track("x")).compute()
    assert math.isnan(alone["flicker"])
    assert (alone["gaps"], alone["seen"]) == (0, 1)


def test_frame_that_came_before_is_refused():
    with pytest.raises(ValueError, match="frame 0 of video 'video' came twice"):
        metric_of(*track("x"), *track("x"))
