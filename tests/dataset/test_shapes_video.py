"""The generated videos: what moves where, when it is hard to see, what is written, and other folders left alone."""

import itertools
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.dataset import shapes_video
from lib.dataset.coco_vid import read_coco_vid
from lib.dataset.shapes import main, write_dataset
from lib.dataset.shapes_degrade import CLEAN, CLEAN_START, EVENT_FRAMES, KINDS, Degrader, Event, random_events
from lib.dataset.shapes_drawing import CLASS_NAMES, Shape, mask_box, shape_area, shape_mask
from lib.dataset.shapes_folder import Parameters, VideoParameters
from lib.dataset.shapes_motion import Camera, random_camera
from lib.dataset.shapes_scene import MIN_VISIBLE, TINY, draw_background
from lib.dataset.shapes_video import Film, paint_film, plan_film, write_videos
from lib.utils.errors import UserError

SMALL = VideoParameters(num_train=3, num_val=1, num_test=2, size=64, frames=12)
ARGUMENTS = ["--video", "--num-train=3", "--num-val=1", "--num-test=2", "--size=64", "--frames=12"]


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def annotations(folder, split="train"):
    return json.loads((folder / "annotations" / f"{split}.json").read_text())


def films(count, **changes):
    parameters = replace(VideoParameters(), **changes)
    return [plan_film(np.random.default_rng((7, number)), parameters) for number in range(count)]


def painted(film, seed=0):
    return list(paint_film(np.random.default_rng(seed), film, CLASS_NAMES))


def standing(paths, labels, events):
    """A film of 96 x 96 pixels under a camera that does not move."""
    frames = len(events)
    camera = Camera(np.array([96, 96]), np.zeros((frames, 2)), np.ones(frames), np.zeros(frames))
    return Film(96, 96, paths, labels, camera, events)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("videos") / "new" / "folder"
    assert write_videos(out, SMALL) == 6
    return out


def test_layout_and_annotations(small_set):
    assert {path.name for path in small_set.iterdir()} == {"annotations", "train", "val", "test", "shapes.json"}
    assert {path.name for path in (small_set / "annotations").iterdir()} == {"train.json", "val.json", "test.json"}
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        content = annotations(small_set, split)
        names = [f"{split}_{number:06d}" for number in range(1, count + 1)]
        assert content["videos"] == [{"id": i, "name": name} for i, name in enumerate(names, 1)]
        assert content["categories"] == [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, 1)]
        assert len(content["images"]) == 12 * count
        for kind in ("images", "annotations"):
            assert [item["id"] for item in content[kind]] == list(range(1, len(content[kind]) + 1))
        for image in content["images"]:
            name = names[image["video_id"] - 1]
            assert image["file_name"] == f"{name}/{image['frame_id']:06d}.jpg"
            pixels = cv2.imread(str(small_set / split / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3)
            assert image["degradation"] in (CLEAN, *KINDS)
            assert (image["strength"] > 0) == (image["degradation"] != CLEAN)
        sizes = {image["video_id"]: (image["height"], image["width"]) for image in content["images"]}
        assert all(sizes[image["video_id"]] == (image["height"], image["width"]) for image in content["images"])


def test_tracks_and_boxes_of_the_annotations(small_set):
    content = annotations(small_set)
    images = {image["id"]: image for image in content["images"]}
    seen, classes = set(), {}
    for item in content["annotations"]:
        image = images[item["image_id"]]
        x, y, width, height = item["bbox"]
        assert 0 <= x < x + width <= image["width"] - 1 and 0 <= y < y + height <= image["height"] - 1
        assert item["video_id"] == image["video_id"] and item["iscrowd"] in (0, 1) and item["occluded"] in (0, 1)
        key = image["video_id"], item["category_id"]
        assert classes.setdefault(item["instance_id"], key) == key
        assert (item["image_id"], item["instance_id"]) not in seen
        seen.add((item["image_id"], item["instance_id"]))
    assert sorted(classes) == list(range(1, len(classes) + 1))


def test_the_reader_of_coco_vid_finds_the_same(small_set):
    records, content = read_coco_vid([str(small_set)], [], "train"), annotations(small_set)
    assert records.is_video and list(records.videos) == ["train_000001", "train_000002", "train_000003"]
    assert records.class_names == CLASS_NAMES and records.video_offsets.tolist() == [0, 12, 24, 36]
    assert len(records.labels) == len(content["annotations"])
    assert records.difficult.sum() == sum(item["iscrowd"] for item in content["annotations"])
    x, y, width, height = content["annotations"][0]["bbox"]
    assert records.boxes[0].tolist() == [x, y, x + width, y + height]


def test_same_parameters_same_videos_whatever_their_number(small_set, tmp_path):
    write_videos(tmp_path, replace(SMALL, num_train=9, num_test=1), num_workers=2)
    larger = contents(tmp_path)
    frames = {path: content for path, content in contents(small_set).items() if path.suffix == ".jpg"}
    shared = {path: content for path, content in frames.items() if "test_000002" not in str(path)}
    assert len(shared) == 60 and all(larger[path] == content for path, content in shared.items())
    few, many = annotations(small_set), annotations(tmp_path)
    for kind in ("images", "annotations"):
        assert many[kind][: len(few[kind])] == few[kind]


def test_seed_classes_and_degraded_change_the_videos(small_set, tmp_path):
    write_videos(tmp_path / "seed", replace(SMALL, num_val=0, num_test=0, seed=1))
    write_videos(tmp_path / "two", replace(SMALL, num_val=0, num_test=0, classes=2, degraded=0.0))
    assert annotations(tmp_path / "seed")["annotations"] != annotations(small_set)["annotations"]
    assert not (tmp_path / "two" / "annotations" / "val.json").exists()
    two = annotations(tmp_path / "two")
    assert [category["name"] for category in two["categories"]] == ["circle", "square"]
    assert {image["degradation"] for image in two["images"]} == {CLEAN}


def test_annotations_depend_on_no_pixel():
    """Looks come from a generator of their own: boxes and flags are the same whatever the things look like."""
    for film in films(3, frames=8, size=64):
        first, other = painted(film, 0), painted(film, 1)
        assert [sightings for _, sightings in first] == [sightings for _, sightings in other]
        assert not np.array_equal(first[0][0], other[0][0])


def test_boxes_are_tight_around_the_whole_objects_in_the_image():
    checked = 0
    for film in films(6, frames=10):
        for frame, (_, sightings) in enumerate(painted(film)):
            found = {sighting.track - 1: sighting for sighting in sightings}
            for number, (path, label) in enumerate(zip(film.paths, film.labels, strict=True)):
                box = mask_box(shape_mask(path[frame], film.height, film.width) >= 128)
                if label and box and min(box[2] - box[0], box[3] - box[1]) > 0:
                    assert found.pop(number).box == tuple(value - 1 for value in box)
                    checked += 1
            assert not found
    assert checked > 100


def test_boxes_hold_what_the_object_changes_in_clean_frames():
    """Without the object, the image changes where it was seen and, but for its shadow, nowhere else."""
    checked = 0
    for film in films(8, frames=4, degraded=0.0):
        number = len(film.paths) - 1  # the nearest
        if not film.labels[number]:
            continue
        away = [
            [replace(shape, x=9999.0) for shape in path] if path is film.paths[number] else path for path in film.paths
        ]
        for (with_it, sightings), (without, _) in zip(painted(film), painted(film._replace(paths=away)), strict=True):
            for sighting in sightings:
                if sighting.track == number + 1 and not sighting.difficult:
                    changed = (np.abs(with_it.astype(int) - without) > 12).any(2)
                    x1, y1, x2, y2 = sighting.box
                    rows, columns = np.nonzero(changed)
                    near = 0.25 * max(x2 - x1, y2 - y1) + 6  # its shadow, and the blur of the camera
                    assert x1 - near <= columns.min() and columns.max() <= x2 + near
                    assert y1 - near <= rows.min() and rows.max() <= y2 + near
                    assert changed[y1 : y2 + 1, x1 : x2 + 1].mean() > 0.2
                    checked += 1
    assert checked >= 10


def test_tracks_are_continuous():
    steps, gone = [], 0
    for film in films(25):
        side = min(film.height, film.width)
        for path in film.paths:
            places = np.array([(shape.x, shape.y) for shape in path]) / side
            steps.append(np.hypot(*np.diff(places, axis=0).T))
            sizes, angles = (np.array([getattr(shape, key) for shape in path]) for key in ("size", "angle"))
            assert np.abs(np.diff(np.log(sizes))).max() < 0.1 and np.abs(np.diff(angles)).max() < 0.1
            turned = np.diff(places, 2, axis=0)
            assert np.median(np.hypot(*turned.T)) < 0.02  # inertia
            gone += any(not shape_mask(shape, film.height, film.width).any() for shape in path)
    steps = np.concatenate(steps)
    assert steps.max() < 0.15 and 0.008 < np.median(steps) < 0.03
    assert gone >= 3  # some leave the image for a while


def test_a_camera_takes_points_to_the_image_and_back():
    camera = random_camera(np.random.default_rng(3), 20, 120, 160)
    for frame in (0, 7, 19):
        pixel = np.array([31.0, 77.0])
        assert np.allclose(camera.to_image(frame, camera.to_world(frame, pixel)), pixel)
        assert np.allclose(camera.to_image(frame, camera.centre[frame]), [79.5, 59.5])


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_share_and_length_of_the_degraded_parts(share):
    schedules = [random_events(np.random.default_rng(seed), 40, share) for seed in range(60)]
    degraded = np.array([[event is not None for event in schedule] for schedule in schedules])
    assert degraded.mean() == pytest.approx(share, abs=0.03) and not degraded[:, :CLEAN_START].any()
    for schedule in schedules:
        for event, frames in itertools.groupby(enumerate(schedule), key=lambda pair: pair[1]):
            frames = [frame for frame, _ in frames]
            if event:
                assert EVENT_FRAMES[0] <= len(frames) <= EVENT_FRAMES[1]
                assert (event.first, event.length) == (frames[0], len(frames))
                strengths = [event.strength(frame) for frame in frames]
                assert 0.9 * max(strengths) >= strengths[0] or len(frames) < 4  # it rises and falls
                assert strengths == pytest.approx(strengths[::-1]) and 0.5 < min(strengths) <= max(strengths) <= 1
    kinds = Counter(event.kind for schedule in schedules for event in set(schedule) - {None})
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("frames", [2, 4, 5, 6, 9])
def test_short_videos_keep_their_clean_beginning(frames):
    for seed in range(20):
        schedule = random_events(np.random.default_rng(seed), frames, 0.7)
        assert len(schedule) == frames and schedule[:CLEAN_START] == [None] * min(frames, CLEAN_START)


def edges(image):
    smooth = cv2.GaussianBlur(image.astype(np.float32).mean(2), (0, 0), 1)
    return np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)).ravel()


@pytest.mark.parametrize("kind", KINDS)
def test_a_degradation_hides_at_its_height_and_is_softer_at_its_ends(kind):
    likeness = defaultdict(list)
    for seed in range(6):
        path = [Shape("star", 50.0, 60.0, 44.0, seed=seed)] * 9
        rng = np.random.default_rng(seed)
        image = draw_background(rng, 120, 110)
        shapes_video.draw_shape(image, path[0])
        degrader = Degrader(Event(kind, 1, 8, 1.0, seed), [path], 120, 110)
        for frame in range(1, 9):
            before = image.copy()
            degraded = degrader(image.copy(), frame)
            assert degraded.dtype == np.uint8 and degraded.shape == image.shape and np.array_equal(image, before)
            around = np.s_[30:90, 20:80]
            likeness[frame].append(np.corrcoef(edges(image[around]), edges(degraded[around]))[0, 1])
    assert np.mean(likeness[4]) < 0.3 and np.mean(likeness[5]) < 0.3
    assert np.mean(likeness[1]) > np.mean(likeness[4])


def test_covers_lie_over_the_objects():
    path = [Shape("square", 30.0 + 2 * t, 60.0, 30.0) for t in range(6)]
    hidden = []
    for seed in range(10):
        degrader = Degrader(Event("occlusion", 0, 6, 1.0, seed), [path], 120, 120)
        for frame in (2, 3):
            degrader(np.full((120, 120, 3), 128, np.uint8), frame)
            hidden.append(degrader.covered[shape_mask(path[frame], 120, 120) >= 128].mean())
    assert np.mean(hidden) > 0.9


def test_what_is_scored():
    """Hidden by another object: difficult, as in the stills.  Degraded: scored once it was seen clearly."""
    far, near = Shape("circle", 30.0, 30.0, 20.0), Shape("square", 30.0, 30.0, 40.0)
    other = Shape("star", 70.0, 70.0, 24.0)
    outside, inside = replace(other, x=200.0), other
    noise, cover = Event("noise", 2, 2, 1.0, 0), Event("occlusion", 5, 2, 1.0, 0)
    events = [None, None, noise, noise, None, cover, cover]
    entering = [outside, outside, inside, inside, inside, inside, inside]
    film = standing([[far] * 7, [near] * 7, entering], [1, 2, 4], events)
    by_track = [{s.track: s for s in sightings} for _, sightings in painted(film)]
    assert all(frame[1].difficult and frame[1].occluded for frame in by_track)
    assert all(not frame[2].difficult for frame in by_track)
    assert [3 in frame for frame in by_track] == [False, False, True, True, True, True, True]
    assert [frame[3].difficult for frame in by_track[2:]] == [True, True, False, False, False]
    assert [frame[3].occluded for frame in by_track[2:5]] == [False] * 3
    covered = [s.occluded for _, sightings in painted(film)[5:] for s in sightings if s.track > 1]
    assert any(covered)


def test_who_left_the_image_must_be_seen_again():
    here = Shape("star", 50.0, 50.0, 24.0)
    gone, noise = replace(here, x=-60.0), Event("noise", 2, 2, 1.0, 0)
    film = standing([[here, gone, here, here]], [1], [None, None, noise, noise])
    assert [[s.difficult for s in sightings] for _, sightings in painted(film)] == [[False], [], [True], [True]]


def test_difficult_objects_are_tiny_or_show_little_of_themselves():
    flags = Counter()
    for film in films(12, degraded=0.0, frames=16):
        for frame, (_, sightings) in enumerate(painted(film)):
            masks = [shape_mask(path[frame], film.height, film.width) >= 128 for path in film.paths]
            for sighting in sightings:
                number = sighting.track - 1
                covered = np.any([*masks[sighting.track :], np.zeros_like(masks[0])], axis=0)
                shown = (masks[number] & ~covered).sum() / shape_area(film.paths[number][frame])
                x1, y1, x2, y2 = sighting.box
                narrow = min(x2 - x1, y2 - y1) + 1 < TINY * min(film.height, film.width)
                assert sighting.difficult == (shown < MIN_VISIBLE or narrow)
                flags[sighting.difficult] += 1
    assert flags[True] > 5 and flags[False] > 5 * flags[True]


def test_second_run_reuses_and_mends(small_set, tmp_path, capsys):
    write_videos(tmp_path, SMALL)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert main([str(tmp_path), *ARGUMENTS]) == 0
    assert capsys.readouterr().out.strip() == f"{tmp_path}: already there"
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "val" / "val_000001" / "000003.jpg").unlink()
    (tmp_path / "annotations" / "test.json").unlink()
    assert write_videos(tmp_path, SMALL) == 3
    assert contents(tmp_path) == before == contents(small_set)


def test_an_interrupted_run_is_continued(small_set, tmp_path, monkeypatch, capsys):
    encode, calls = cv2.imencode, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 30:  # in the third video
            raise KeyboardInterrupt
        return encode(*args)

    monkeypatch.setattr(cv2, "imencode", interrupted)
    assert main([str(tmp_path), *ARGUMENTS]) == 130
    assert "continues" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "shapes.partial").exists() and not list(tmp_path.glob("annotations/*.json"))
    with pytest.raises(UserError, match="seed 0"):
        write_videos(tmp_path, replace(SMALL, seed=9))
    assert main([str(tmp_path), *ARGUMENTS]) == 0
    assert len(calls) == 30 + 4 * 12  # two videos were done
    assert contents(tmp_path) == contents(small_set)


def test_stills_and_videos_refuse_the_folders_of_each_other(small_set, tmp_path, capsys):
    numbers = ["--num-train=3", "--num-val=1", "--num-test=2", "--size=64"]
    before = contents(small_set)
    assert main([str(small_set), *numbers]) == 2
    message = capsys.readouterr().err
    assert "of videos" in message and str(small_set) in message and message.count("\n") == 1
    assert contents(small_set) == before
    write_dataset(tmp_path, Parameters(num_train=3, num_val=1, num_test=2, size=64))
    before = contents(tmp_path)
    assert main([str(tmp_path), "--video", *numbers]) == 2
    message = capsys.readouterr().err
    assert "of stills" in message and str(tmp_path) in message and message.count("\n") == 1
    assert contents(tmp_path) == before


def test_foreign_folders_and_other_parameters_are_refused(small_set, tmp_path, capsys):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "holiday.jpg").write_text("mine")
    with pytest.raises(UserError, match="train"):
        write_videos(tmp_path, SMALL)
    assert list(contents(tmp_path).values()) == [b"mine"]
    assert main([str(small_set), *ARGUMENTS, "--degraded=0.2"]) == 2
    message = capsys.readouterr().err
    assert "degraded 0.4 (not 0.2)" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--frames=1", "--video"],
        ["--degraded=0.9", "--video"],
        ["--degraded=nan", "--video"],
        ["--size=4", "--video"],
        ["--num-train=-1", "--video"],
        ["--frames=20"],
        ["--degraded=0.1"],
    ],
)
def test_impossible_arguments_are_refused_in_one_line(tmp_path, capsys, arguments):
    assert main([str(tmp_path / "out"), *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith(arguments[0].split("=")[0]) and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_nothing_to_draw(tmp_path, capsys):
    assert main([str(tmp_path / "out"), "--video", "--num-train=0", "--num-val=0", "--num-test=0"]) == 2
    assert "nothing to draw" in capsys.readouterr().err and not Path(tmp_path / "out").exists()
