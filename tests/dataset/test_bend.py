"""Gentle bends take boxes along; patches hide pixels and change no box; without them nothing else changes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.dataset import geometry
from lib.dataset.geometry import bend_boxes, bend_maps, draw_patches, turn_and_resize
from lib.dataset.transforms import Augmentation, TrainTransform, create_transforms

BLACK = (0, 0, 0)


def rectangle(size, box):
    image = np.zeros((*size, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def bright_extent(image):
    ys, xs = np.nonzero(image.max(axis=2) > 80)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("angle", [0.0, 9.0])
def test_the_box_goes_with_its_bent_pixels(angle, monkeypatch):
    monkeypatch.setattr(geometry, "BEND_SHIFT", 0.05)
    box, transform, moved = [130, 60, 333, 290], TrainTransform((300, 260), pixel_means=BLACK), []
    plain = Augmentation(angle=angle, interpolation=cv2.INTER_LINEAR)
    # A box that was turned is that of its ellipse, so that is what has to be drawn.
    image = rectangle((403, 517), box) * (angle == 0)
    if angle:
        cv2.ellipse(image, (231, 175), (101, 115), 0, 0, 360, (255, 255, 255), -1)
    for seed in range(40):
        choice = replace(plain, bend=seed, mirror=bool(seed % 2), expand=(40, 30, 600, 500) if seed % 3 else None)
        bent, boxes, kept = transform.apply(choice, image, np.float32([box]), (300, 260))
        straight = transform.apply(replace(choice, bend=None), image, np.float32([box]), (300, 260))[1]
        assert kept.tolist() == [0] and boxes.dtype == np.float32
        extent, (found,) = bright_extent(bent), boxes
        if angle:  # the bent outline is that of a rectangle, into which the ellipse fits with some room
            assert (extent[:2] > found[:2] - 1.6).all() and (extent[2:] < found[2:] + 1.6).all(), f"seed {seed}"
            assert np.prod(extent[2:] - extent[:2]) > 0.75 * np.prod(found[2:] - found[:2]), f"seed {seed}"
        else:
            np.testing.assert_allclose(extent, found, atol=1.6, err_msg=f"seed {seed}")
        moved.append(np.abs(boxes - straight).max())
    assert max(moved) > 5


def test_bends_are_gentle_leave_the_border_and_fold_nothing():
    size, matrix = (200, 300), turn_and_resize((200, 300), 0, (200, 300))
    grid = np.stack(np.meshgrid(np.arange(300), np.arange(200)), axis=2)
    for seed in range(50):
        maps = bend_maps(matrix, size, seed)
        shifts = np.abs(maps - grid) / (300, 200)
        assert 0.02 < shifts.max() < 0.0303
        assert max(shifts[[0, -1], :, 1].max(), shifts[:, [0, -1], 0].max()) < 0.002
        assert (np.diff(maps[..., 0], axis=1) > 0).all() and (np.diff(maps[..., 1], axis=0) > 0).all()
        whole = bend_boxes(np.float32([[0, 0, 300, 200], [40, 40, 41, 42]]), size, seed)
        np.testing.assert_allclose(whole[0], [0, 0, 300, 200], atol=1e-3)
        assert (whole[1, 2:] > whole[1, :2]).all()
    assert bend_boxes(np.zeros((0, 4), np.float32), size, 0).shape == (0, 4)


def test_patches_hide_a_few_percent_in_the_mean_colour():
    parts = []
    for seed in range(100):
        patches = draw_patches((240, 320), seed)
        assert 2 <= len(patches) <= 6 and patches.min() >= 0 and (patches.max(axis=0) <= [320, 240, 320, 240]).all()
        image = np.full((240, 320, 3), 255, np.uint8)
        transform = TrainTransform((240, 320), pixel_means=(10, 20, 30))
        shown, boxes, _ = transform.apply(Augmentation(patches=seed), image, np.float32([[20, 30, 60, 70]]), (240, 320))
        hidden = (shown == (10, 20, 30)).all(axis=2)
        assert (hidden | (shown == 255).all(axis=2)).all() and boxes.tolist() == [[20, 30, 60, 70]]
        parts.append(hidden.mean())
    assert 0.03 < np.mean(parts) < 0.05 and min(parts) > 0


def test_both_are_off_by_default_and_come_as_often_as_asked():
    def draw(seed, *words):
        transform = create_transforms(load_config(None, [*words, "MODEL.IMAGE_SIZE=64"]), True)
        return transform.draw((100, 120), np.float32([[10, 10, 70, 80]]), np.random.default_rng(seed))

    plain = [draw(seed) for seed in range(100)]
    assert all(choice.bend is None and choice.patches is None for choice in plain)
    words = ["DATASET.ELASTIC_PROB=0.3", "DATASET.DROPOUT_PROB=0.6", "DATASET.CROP_PROB=0", "DATASET.PROB=0"]
    drawn = [draw(seed, *words) for seed in range(300)]
    assert 60 < sum(choice.bend is not None for choice in drawn) < 120
    assert 140 < sum(choice.patches is not None for choice in drawn) < 220
    others = [draw(seed, *words[2:]) for seed in range(300)]
    assert [replace(choice, bend=None, patches=None) for choice in drawn] == others


def test_the_steps_show_both_and_end_in_the_result():
    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    given = np.float32([[10, 10, 70, 80]]), np.array([1]), np.array([False])
    transform = TrainTransform((64, 64), elastic_prob=0.7, dropout_prob=0.7, rotation=(10, 0.5))
    for seed in range(12):
        shown = transform.steps(image, *given, np.random.default_rng(seed))
        names = "input crop rotate elastic distort dropout expand mirror resize"
        assert [name for name, *_ in shown] == names.split()
        result, boxes, *_ = transform(image, *given, np.random.default_rng(seed))
        assert (shown[-1][1] == result).all()
        np.testing.assert_allclose(shown[-1][2], boxes * 64, atol=1e-4)
        steps = {name: (picture, found) for name, picture, found in shown}
        height, width = steps["mirror"][0].shape[:2]
        scaled = steps["mirror"][1] * np.float32([64 / width, 64 / height] * 2)
        np.testing.assert_allclose(scaled, boxes * 64, atol=1.5)
