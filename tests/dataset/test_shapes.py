"""The generated data set: what is drawn, where its boxes lie, and what happens to folders that hold something."""

import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.dataset import shapes
from lib.dataset.shapes import Parameters, main, write_dataset
from lib.dataset.shapes_drawing import (
    CLASS_NAMES,
    MORE_CLASS_NAMES,
    Light,
    Shape,
    draw_shape,
    mask_box,
    shape_area,
    shape_mask,
)
from lib.dataset.shapes_scene import MIN_INSIDE, MIN_VISIBLE, TINY, _random_hue, draw_scene, plan_scene
from lib.utils.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SMALL = Parameters(num_train=5, num_val=2, num_test=3, size=64)


def scenes(count, height=120, width=150, class_names=CLASS_NAMES):
    return [plan_scene(np.random.default_rng((7, i)), height, width, class_names) for i in range(count)]


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def annotations(folder):
    return [ElementTree.parse(path).getroot() for path in sorted((folder / "Annotations").glob("*.xml"))]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "new" / "folder"
    assert write_dataset(out, SMALL) == 10
    return out


def test_same_generator_same_scene_and_another_seed_another():
    first, again, other = (draw_scene(np.random.default_rng(seed), 96, 128) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (96, 128, 3) and first[0].dtype == np.uint8
    assert not np.array_equal(first[0], other[0])


def test_boxes_are_tight_around_the_masks_of_the_whole_objects():
    checked = 0
    for scene in scenes(60):
        for shape, box in zip(scene.shapes, scene.boxes, strict=True):
            rows, columns = np.nonzero(shape_mask(shape, 120, 150) >= 128)
            assert box.tolist() == [columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1]
            checked += 1
    assert checked > 150


def test_mask_of_a_known_square():
    square = Shape("square", x=20.0, y=9.5, size=88**0.5, aspect=8 / 11)  # columns 15..25, rows 6..13
    mask = shape_mask(square, 40, 50)
    assert mask_box(mask >= 128) == (16, 7, 26, 14)
    assert mask[6:14, 15:26].min() == 255 and mask.sum() / 255 == pytest.approx(11 * 8)
    moved = shape_mask(replace(square, x=20.25), 40, 50)  # the outer columns are three quarters and a quarter covered
    assert abs(moved[8, 15] / 255 - 0.75) < 0.01 and abs(moved[8, 26] / 255 - 0.25) < 0.01
    assert mask_box(np.zeros((5, 5), bool)) is None


@pytest.mark.parametrize("kind", CLASS_NAMES + MORE_CLASS_NAMES)
def test_mask_follows_area_angle_and_border(kind):
    shape = Shape(kind, 60.3, 59.8, 70.0, angle=0.6, aspect=0.8, variant=0.5)
    mask = shape_mask(shape, 120, 120)
    assert mask.sum() / 255 == pytest.approx(shape_area(shape), rel=0.002)
    turned = shape_mask(replace(shape, x=119 - 59.8, y=60.3, angle=0.6 + np.pi / 2), 120, 120)
    assert np.abs(turned.astype(int) - np.rot90(mask, -1)).mean() < 2
    cut = shape_mask(replace(shape, x=shape.x - 60), 120, 60)
    assert np.array_equal(cut, mask[:, 60:])
    assert not shape_mask(replace(shape, x=500.0), 120, 120).any()


def test_forms_of_the_classes_differ():
    masks = [shape_mask(Shape(k, 32, 32, 50.0), 64, 64) >= 128 for k in CLASS_NAMES + MORE_CLASS_NAMES]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert (one & other).sum() / (one | other).sum() < 0.85


def test_drawing_changes_the_image_under_the_mask_and_its_shadow_only():
    shape, ground = Shape("star", 40.25, 31.5, 40.0, angle=1.0, seed=5), np.full((70, 90, 3), 140, np.uint8)
    image = ground.copy()
    mask = draw_shape(image, shape, Light(shadow=0.0))
    assert np.array_equal(mask, shape_mask(shape, 70, 90))
    changed = (image != ground).any(2)
    assert not changed[mask == 0].any() and changed[mask == 255].mean() > 0.95
    shadowed = ground.copy()
    draw_shape(shadowed, shape, Light(angle=0.0, shadow=0.5, shadow_length=0.2))
    outside = mask == 0
    assert (shadowed[outside] <= ground[outside]).all() and (shadowed[outside] < ground[outside]).any()


def test_surface_moves_with_the_object():
    """A whole-pixel step moves the same pixels: what a video of the object relies on."""
    shape, dark = Shape("circle", 30.4, 30.7, 33.0, angle=0.4, seed=11), Light(shading=0.2, shadow=0.0)
    before, after = np.zeros((80, 80, 3), np.uint8), np.zeros((80, 80, 3), np.uint8)
    draw_shape(before, shape, dark)
    draw_shape(after, replace(shape, x=shape.x + 7, y=shape.y + 4), dark)
    assert np.abs(after[4:, 7:].astype(int) - before[:-4, :-7]).max() <= 2
    assert before.any()


def test_planned_objects_keep_to_their_limits():
    difficult = 0
    for scene in scenes(150):
        masks = [shape_mask(shape, 120, 150) >= 128 for shape in scene.shapes]
        for i, (shape, box) in enumerate(zip(scene.shapes, scene.boxes, strict=True)):
            covered = np.any([m for m in masks[i + 1 :]] or [np.zeros_like(masks[i])], axis=0)
            visible = (masks[i] & ~covered).sum() / shape_area(shape)
            narrow = min(box[2] - box[0], box[3] - box[1]) + 1
            assert masks[i].sum() >= MIN_INSIDE * shape_area(shape)
            assert scene.difficult[i] == (visible < MIN_VISIBLE or narrow < TINY * 120)
            assert visible >= 0.15
            difficult += scene.difficult[i]
        assert np.array_equal(scene.labels, [CLASS_NAMES.index(shape.kind) + 1 for shape in scene.shapes])
    assert difficult > 0


def test_counts_classes_and_sizes_are_spread():
    planned = scenes(500)
    counts = np.array([len(scene.labels) for scene in planned])
    assert 3 <= (counts == 0).sum() <= 40 and counts.max() == 7
    labels = np.concatenate([scene.labels for scene in planned])
    share = np.bincount(labels, minlength=7)[1:] / len(labels)
    assert share.min() > 0.12 and share.max() < 0.22  # 1/6 each
    sizes = np.array([shape.size for scene in planned for shape in scene.shapes]) / 120
    assert 0.12 <= sizes.min() < 0.16 and 0.5 < sizes.max() <= 0.6


def test_colour_is_a_hint_but_names_no_class():
    """Of the hues of a class, some two thirds lie nearest to its own place on the colour circle of six classes."""
    rng = np.random.default_rng(0)
    for label in range(6):
        hues = np.array([_random_hue(rng, label / 6) for _ in range(400)])
        assert (hues >= 0).all() and (hues < 6).all()
        assert 0.55 < (np.round(hues) % 6 == label).mean() < 0.8


def test_layout_and_annotations(small_set):
    sets = {path.stem: path.read_text().split() for path in (small_set / "ImageSets" / "Main").iterdir()}
    assert {name: len(stems) for name, stems in sets.items()} == {"train": 5, "val": 2, "trainval": 7, "test": 3}
    assert sets["trainval"] == sets["train"] + sets["val"] and not set(sets["trainval"]) & set(sets["test"])
    assert {path.name for path in small_set.iterdir()} == {"Annotations", "ImageSets", "JPEGImages", "shapes.json"}
    shapes_of_images = set()
    for root in annotations(small_set):
        image = cv2.imread(str(small_set / "JPEGImages" / root.findtext("filename")))
        height, width = int(root.findtext("size/height")), int(root.findtext("size/width"))
        assert image.shape == (height, width, 3) and root.findtext("size/depth") == "3"
        assert root.findtext("folder") == "JPEGImages" and root.findtext("segmented") == "0"
        shapes_of_images.add((height, width))
        for item in root.iter("object"):
            assert [child.tag for child in item] == ["name", "pose", "truncated", "difficult", "bndbox"]
            xmin, ymin, xmax, ymax = (int(item.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= xmin <= xmax <= width and 1 <= ymin <= ymax <= height
            assert item.findtext("name") in CLASS_NAMES
            assert item.findtext("truncated") == str(int(xmin == 1 or ymin == 1 or xmax == width or ymax == height))
    assert len(shapes_of_images) > 5


def test_more_images_and_processes_leave_the_others_alone(small_set, tmp_path):
    write_dataset(tmp_path, replace(SMALL, num_train=70), num_workers=2)
    larger = contents(tmp_path)
    for path, content in contents(small_set).items():
        if path.suffix in (".xml", ".jpg"):
            assert larger[path] == content
    assert sum(path.suffix == ".jpg" for path in larger) == 75


def test_another_seed_and_other_classes_change_the_set(small_set, tmp_path):
    write_dataset(tmp_path / "seed", replace(SMALL, seed=1))
    write_dataset(tmp_path / "two", replace(SMALL, classes=2, num_val=0))
    assert contents(tmp_path / "seed").keys() == contents(small_set).keys()
    texts = [[ElementTree.tostring(r) for r in annotations(f)] for f in (small_set, tmp_path / "seed")]
    assert not any(a == b for a, b in zip(*texts, strict=True))
    names = {name.text for root in annotations(tmp_path / "two") for name in root.iter("name")}
    assert names == {"circle", "square"}
    assert not (tmp_path / "two" / "ImageSets" / "Main" / "val.txt").exists()


def test_second_run_reuses(small_set, capsys):
    arguments = [str(small_set), "--num-train=5", "--num-val=2", "--num-test=3", "--size=64"]
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == f"{small_set}: already there"
    assert before == {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}


def test_other_parameters_are_refused(small_set, capsys):
    before = contents(small_set)
    assert main([str(small_set), "--num-train=5", "--num-val=2", "--num-test=3", "--size=96"]) == 2
    message = capsys.readouterr().err
    assert str(small_set) in message and "size 64 (not 96)" in message and message.count("\n") == 1
    assert contents(small_set) == before


@pytest.mark.parametrize("name", ["notes.txt", "JPEGImages/holiday.jpg"])
def test_foreign_folder_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=name.split("/")[0]):
        write_dataset(tmp_path, SMALL)
    assert list(contents(tmp_path).values()) == [b"mine"]


def test_a_file_and_a_broken_marker_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is no folder"):
        write_dataset(tmp_path / "file", SMALL)
    (tmp_path / "shapes.json").write_text("[1]")
    with pytest.raises(UserError, match=r"shapes\.json"):
        write_dataset(tmp_path, SMALL)


@pytest.mark.parametrize("argument", ["--size=4", "--classes=99", "--num-val=-1", "--seed=-1"])
def test_impossible_numbers_are_refused_in_one_line(tmp_path, capsys, argument):
    assert main([str(tmp_path / "out"), argument]) == 2
    message = capsys.readouterr().err
    assert message.startswith(argument.split("=")[0]) and message.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_interrupted_run_is_continued(small_set, tmp_path, monkeypatch, capsys):
    draw = shapes.draw_scene
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*args)

    arguments = [str(tmp_path), "--num-train=5", "--num-val=2", "--num-test=3", "--size=64"]
    monkeypatch.setattr(shapes, "draw_scene", interrupted)
    assert main(arguments) == 130
    assert "continues" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "shapes.json").exists() and (tmp_path / "shapes.partial").exists()
    with pytest.raises(UserError, match="seed 0"):
        write_dataset(tmp_path, replace(SMALL, seed=9))
    assert main(arguments) == 0
    assert len(calls) == 4 + 7  # three images were done
    assert contents(tmp_path) == contents(small_set)


def test_ctrl_c_ends_the_command_with_130_and_one_line(tmp_path):
    command = [sys.executable, "-m", "lib.dataset.shapes", str(tmp_path / "out"), "--num-train=100000"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job begins with it ignored
    )  # fmt: skip
    try:
        deadline = 60
        while not list((tmp_path / "out").glob("Annotations/*.xml")) and deadline > 0 and process.poll() is None:
            deadline -= 0.1
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert errors.count("\n") == 1 and "the same command continues" in errors
