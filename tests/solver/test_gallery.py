"""The images of an evaluation: the worst and best of a test on their page, and the film strip of a training."""

import re

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lib.dataset.detection import DetectionRecords
from lib.evaluation import Protocols
from lib.solver.film_strip import MAX_COLUMNS, MAX_KEPT, FilmStrip
from lib.solver.gallery import Gallery, draw_outcome
from lib.solver.outcome_page import Scored, caption_of, write_outcome_page
from lib.solver.outcomes import OutcomeKeeper
from lib.solver.solver import Solver
from lib.structures import Detections, Target
from lib.utils.draw import class_color

CLASSES = ("cat", "dog")
CAT, DOG, OTHER = [10, 10, 30, 30], [40, 10, 70, 30], [70, 60, 95, 90]

FOUND = {
    "one_error": [(CAT, 0.9, 1), (DOG, 0.8, 1)],  # the dog is taken for a cat
    "all_right": [(CAT, 0.9, 1), (DOG, 0.8, 2)],
    "nothing_found": [(CAT, 0.3, 1)],  # below the threshold
    "all_wrong": [(OTHER, 0.9, 2), (OTHER, 0.8, 1), (OTHER, 0.7, 2)],
    "twice": [(CAT, 0.9, 1), (CAT, 0.8, 1), (DOG, 0.7, 2)],
}
"""Image -> what is found on it: box, score, label.  A cat and a dog are on each."""


@pytest.fixture
def records(tmp_path):
    paths = [str(tmp_path / f"{name}.png") for name in FOUND]
    for number, path in enumerate(paths):
        cv2.imwrite(path, np.full((100, 120, 3), 40 * number + 40, np.uint8))
    boxes = [CAT, DOG] * len(FOUND)
    count = len(FOUND)
    return DetectionRecords.build(
        CLASSES, paths, list(FOUND), [(100, 120)] * count, boxes, [1, 2] * count, [0] * 2 * count, [2] * count, "pets"
    )


def detections(rows) -> Detections:
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return Detections(boxes, torch.tensor([row[1] for row in rows]), torch.tensor([row[2] for row in rows]), CLASSES)


def fed(records, threshold=0.5, order=None) -> OutcomeKeeper:
    keeper = OutcomeKeeper(records, CLASSES, threshold)
    order = range(len(records)) if order is None else order
    rows = list(FOUND.values())
    keeper.take([detections(rows[i]) for i in order], [records.target(i) for i in order])
    return keeper


def names(keeper, outcomes) -> list[str]:
    return [keeper.records.image_id(outcome.index) for outcome in outcomes]


@pytest.mark.parametrize("order", [None, [3, 0, 4, 2, 1]])
def test_the_worst_images_are_those_with_the_most_errors(records, order):
    keeper = fed(records, order=order)
    worst, best = keeper.worst_and_best(2)
    assert names(keeper, worst) == ["all_wrong", "nothing_found"]
    assert names(keeper, best) == ["all_right", "twice"]
    assert keeper.totals() == (5, 5, 5)


def test_chosen_images_keep_what_was_found_above_the_threshold(records):
    worst, best = fed(records).worst_and_best(3)
    (nothing,) = [outcome for outcome in worst if records.image_id(outcome.index) == "nothing_found"]
    assert len(nothing.found) == 0 and nothing.missed_of == {"cat": 1, "dog": 1} and not nothing.wrong_of
    all_right = best[0].found
    torch.testing.assert_close(all_right.boxes, torch.tensor([CAT, DOG], dtype=torch.float32))
    torch.testing.assert_close(all_right.scores, torch.tensor([0.9, 0.8]))
    assert all_right.names == ["cat", "dog"]


def test_captions_count_by_class(records):
    keeper = fed(records)
    outcomes = {keeper.records.image_id(o.index): caption_of(o) for part in keeper.worst_and_best(5) for o in part}
    assert outcomes == {
        "all_wrong": "F1 0.00: 0 right, 3 wrong (dog 2, cat), 2 missed (cat, dog)",
        "nothing_found": "F1 0.00: 0 right, 0 wrong, 2 missed (cat, dog)",
        "one_error": "F1 0.50: 1 right, 1 wrong (cat), 1 missed (dog)",
        "twice": "F1 0.80: 2 right, 1 wrong (cat), 0 missed",
        "all_right": "F1 1.00: 2 right, 0 wrong, 0 missed",
    }


def test_an_image_is_not_among_the_worst_and_the_best(records):
    keeper = fed(records)
    worst, best = keeper.worst_and_best(100)
    assert sorted(names(keeper, worst) + names(keeper, best)) == sorted(FOUND)
    keeper = fed(records, order=[1])
    worst, best = keeper.worst_and_best(100)
    assert not worst and names(keeper, best) == ["all_right"]  # without an error an image is not bad
    assert OutcomeKeeper(records, CLASSES, 0.5).worst_and_best(3) == ([], [])


def test_the_worst_frames_come_from_several_videos(tmp_path):
    """Six frames of one video are worse than any of the others, and still it is shown once."""
    frames = [6, 2, 2]
    count = sum(frames)
    records = DetectionRecords.build(
        CLASSES, [f"{i}.png" for i in range(count)], [str(i) for i in range(count)], [(100, 120)] * count,
        [CAT] * count, [1] * count, [0] * count, [1] * count,
    )  # fmt: skip
    records.video_offsets, records.frames = np.array([0, 6, 8, 10]), np.concatenate([np.arange(n) for n in frames])
    records.videos = ["bad", "fair", "good"]
    keeper = OutcomeKeeper(records, CLASSES, 0.5)
    for i in range(count):
        wrong = [(OTHER, 0.9, 2)] * (1 if i >= 6 else 5)
        keeper.take([detections(wrong)], [records.target(i)])
    worst, _ = keeper.worst_and_best(3)
    assert [records.image_id(outcome.index)[0] for outcome in worst] == ["bad", "fair", "good"]


def protocols(records) -> Protocols:
    rules = Protocols(CLASSES, "voc07", False, 0.5)
    rules.update([detections(rows) for rows in FOUND.values()], [records.target(i) for i in range(len(records))])
    return rules


def test_the_page_shows_figures_pictures_and_plots(records, tmp_path):
    rules = protocols(records)
    figures = rules.compute() | {"parameters": 2_500_000, "fps_network": 31.4}
    scored = Scored("Test of <pets>", "5 images", figures, rules, {"precision recall": np.zeros((20, 20, 3), np.uint8)})
    text = write_outcome_page(tmp_path / "gallery.html", scored, fed(records), 2).read_text()
    assert "Test of &lt;pets&gt;" in text and text.count("<img") == 4 + 1 + 1  # pictures, legend, plot
    assert text.index("all_wrong") < text.index("nothing_found") < text.index("all_right") < text.index("twice")
    assert "5 of 10 detections are right; score 0.5 or more, IoU 0.5" in text and "2.50 M" in text
    assert "VOC2007 average precision at 11 recalls" in text and "The 2 worst images" in text
    assert text.count('data-tag="cat"') == 1  # one button above the worst; the best have errors of one class only
    assert not re.search(r"https?://", text)


def test_an_image_that_is_gone_is_left_out(records, tmp_path, caplog):
    keeper, rules = fed(records), protocols(records)
    (tmp_path / "all_wrong.png").unlink()
    scored = Scored("Test", "", rules.compute(), rules, {})
    text = write_outcome_page(tmp_path / "gallery.html", scored, keeper, 2).read_text()
    assert "<b>all_wrong</b>" not in text and "<b>nothing_found</b>" in text
    assert "no picture of an image" in caplog.text


def test_a_test_without_pictures_still_has_its_figures(records, tmp_path):
    rules = protocols(records)
    scored = Scored("Test", "", rules.compute(), rules, {})
    text = write_outcome_page(tmp_path / "gallery.html", scored, fed(records), 0).read_text()
    assert "<img" not in text and "recall" in text


def test_boxes_scale_with_a_small_picture():
    image, target = np.zeros((100, 200, 3), np.uint8), Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    found = Detections(torch.tensor([[40.0, 20, 160, 80]]), torch.tensor([0.9]), torch.tensor([1]), ("",))
    picture = draw_outcome(image, target, found, ("",), 0.5, 100)
    y, x = np.nonzero((picture == class_color(1)).all(axis=2))
    assert picture.shape == (50, 100, 3)
    assert (x.min(), x.max(), y.max()) == (pytest.approx(20, abs=2), pytest.approx(80, abs=2), pytest.approx(40, abs=2))


def strip_of(path) -> np.ndarray:
    return cv2.imread(str(path / "film_strip.jpg"))


def column(value) -> list[np.ndarray]:
    return [np.full((60, 200, 3), value, np.uint8)] * 2


def shown(strip, count) -> list[int]:
    """The grey of the pictures of each column."""
    width = strip.shape[1] // count
    return [round(float(strip[-30, width * i + width // 2].mean()), -1) for i in range(count)]


def test_a_film_strip_grows_and_survives_a_resumed_run(tmp_path):
    FilmStrip(tmp_path).add(column(50), 5, 0.1)
    first = strip_of(tmp_path)
    FilmStrip(tmp_path).add(column(100), 10, 0.2)  # another process
    FilmStrip(tmp_path).add(column(150), 15, 0.3)
    grown = strip_of(tmp_path)
    assert grown.shape[1] > 2.8 * first.shape[1] and shown(grown, 3) == [50, 100, 150]
    FilmStrip(tmp_path).add(column(200), 10, 0.25)  # went back: what came after is of another course
    assert shown(strip_of(tmp_path), 2) == [50, 200]


def test_a_film_strip_shows_the_first_and_the_last_of_many(tmp_path):
    strip = FilmStrip(tmp_path)
    for epoch in range(1, MAX_COLUMNS + 6):
        strip.add(column(10 * epoch), epoch, 0.5)
    greys = shown(strip_of(tmp_path), MAX_COLUMNS)
    assert greys[0] == 10 and greys[-1] == 10 * (MAX_COLUMNS + 5) and greys == sorted(greys)


def test_a_film_strip_of_a_long_run_keeps_a_few_columns_evenly_spread(tmp_path):
    strip = FilmStrip(tmp_path)
    for epoch in range(1, 4 * MAX_KEPT, 2):
        strip.add([np.zeros((4, 8, 3), np.uint8)], epoch, 0.5)
    epochs = sorted(int(path.stem[6:]) for path in (tmp_path / "film_strip").iterdir())
    assert len(epochs) == MAX_KEPT and (epochs[0], epochs[-1]) == (1, 4 * MAX_KEPT - 1)
    assert np.diff(epochs).max() <= 8  # evenly would be 4


def test_a_film_strip_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "film_strip").write_text("in the way")
    FilmStrip(tmp_path).add(column(10), 1, 0.5)
    assert "film_strip.jpg: cannot be written" in caplog.text
    FilmStrip(tmp_path / "none").add([], 1, 0.5)
    assert not (tmp_path / "none").exists()


def test_a_resumed_training_goes_on_with_its_strip_and_a_test_writes_its_page(tiny, tmp_path):
    common = ["TRAIN.TRACK_MAP_EVERY=1", "TEST.NUM_PICTURES=2", "TRAIN.BATCH_SIZE=10"]
    Solver(tiny(*common, "TRAIN.MAX_EPOCHS=1")).run()
    run = tmp_path / "run"
    before = (run / "film_strip" / "epoch_0001.jpg").read_bytes()
    Solver(tiny(*common, "TRAIN.MAX_EPOCHS=2", "PHASE=train,test")).run()
    assert [path.name for path in sorted((run / "film_strip").iterdir())] == ["epoch_0001.jpg", "epoch_0002.jpg"]
    assert (run / "film_strip" / "epoch_0001.jpg").read_bytes() == before
    assert strip_of(run).shape[1] > 1.8 * cv2.imread(str(run / "film_strip" / "epoch_0001.jpg")).shape[1]
    assert "8 images of shapes/test" in (run / "gallery.html").read_text()
    board = EventAccumulator(str(run)).Reload()
    assert {f"hparams/{name}" for name in ("mAP", "fps", "parameters", "MACs")} <= set(board.Tags()["scalars"])
    assert board.Graph().node  # of the first process; the second one goes on with its run


def test_a_gallery_shows_the_same_images_every_time(records):
    class Settings:
        PRINT_IMAGES, NUM_PICTURES, PICTURE_THRESHOLD = False, 3, 0.5

    first, second = (Gallery(records, Settings, CLASSES) for _ in range(2))
    for gallery, order in ((first, [0, 1, 2, 3, 4]), (second, [4, 2, 0, 3, 1])):
        rows = list(FOUND.values())
        gallery.take([detections(rows[i]) for i in order], [records.target(i) for i in order])
    for one, two in zip(first.strip(), second.strip(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(first.strip()) == 3
