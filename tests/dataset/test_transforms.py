"""Augmentation moves boxes and pixels together, and evaluation leaves nothing to chance."""

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.dataset import geometry, transforms
from lib.dataset.geometry import draw_crop, draw_expand, rotate_boxes
from lib.dataset.transforms import Augmentation, EvalTransform, TrainTransform, create_transforms, distort

NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
BLACK = (0, 0, 0)


def draw_boxes(size, boxes, hollow=()):
    """White rectangles on black; those in `hollow` have a black middle."""
    image = np.zeros((*size, 3), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = 255
        if number in hollow:
            w, h = (x2 - x1) // 4, (y2 - y1) // 4
            image[y1 + h : y2 - h, x1 + w : x2 - w] = 0
    return image


def bright_extent(image):
    """Bounding box of the bright pixels; whatever the lighting, white stays above 100 and black below 50."""
    ys, xs = np.nonzero(image.max(axis=2) > 80)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def objects(boxes, labels=None):
    boxes = np.float32(boxes).reshape(-1, 4)
    labels = np.arange(1, len(boxes) + 1) if labels is None else np.asarray(labels)
    return boxes, labels.astype(np.int64), np.zeros(len(boxes), bool)


@pytest.mark.parametrize("output", [(300, 300), (120, 260)])
def test_the_box_stays_on_its_pixels_through_every_augmentation(output):
    box = [130, 60, 333, 290]
    image = draw_boxes((403, 517), [box])
    transform = TrainTransform(output, pixel_means=BLACK)
    kinds = set()
    for seed in range(150):
        choice = transform.draw(image.shape[:2], np.float32([box]), np.random.default_rng(seed))
        kinds.add((choice.crop is not None, choice.expand is not None, choice.mirror))
        result, boxes, labels, _ = transform(image, *objects([box]), np.random.default_rng(seed))
        assert result.shape == (*output, 3) and result.dtype == np.uint8
        pixels = boxes[0] * [output[1], output[0], output[1], output[0]]
        np.testing.assert_allclose(bright_extent(result), pixels, atol=1.3, err_msg=f"seed {seed}: {choice}")
        assert labels.tolist() == [1]
    assert len(kinds) == 8


def test_labels_and_difficult_flags_stay_with_their_boxes():
    boxes = [[20, 20, 120, 120], [200, 30, 300, 130], [40, 180, 160, 280], [220, 170, 330, 290]]
    image = draw_boxes((320, 360), boxes, hollow=(1, 3))
    transform = TrainTransform((300, 300), pixel_means=BLACK)
    counts = set()
    for seed in range(100):
        flags = np.array([False, True, False, True])
        result, found, labels, difficult = transform(image, np.float32(boxes), np.array([1, 2, 1, 2]), flags,
                                                     np.random.default_rng(seed))  # fmt: skip
        counts.add(len(found))
        assert (difficult == (labels == 2)).all()
        whole = ((found > 0.01) & (found < 0.99)).all(axis=1)  # a box that was cut has its middle elsewhere
        choice = transform.draw(image.shape[:2], np.float32(boxes), np.random.default_rng(seed))
        if choice.crop is not None and choice.expand is not None:
            continue
        for (x1, y1, x2, y2), label in zip(found[whole] * 300, labels[whole], strict=True):
            assert (result[int((y1 + y2) / 2), int((x1 + x2) / 2)].max() > 80) == (label == 1)
    assert counts >= {1, 2, 4}


def test_boxes_stay_inside_the_unit_square_and_above_the_smallest_size():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [540, 380], (30, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 100, (30, 2))], axis=1).astype(np.float32)
    image = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)
    transform = TrainTransform((300, 300), min_box_size=0.02)
    for seed in range(60):
        found = transform(image, *objects(boxes), np.random.default_rng(seed))[1]
        assert len(found) and found.dtype == np.float32
        assert found.min() >= 0 and found.max() <= 1
        assert (found[:, 2:] - found[:, :2]).min() >= 0.02


def test_small_objects_leave_with_their_own_labels(monkeypatch):
    monkeypatch.setattr(geometry, "CROP_MODES", (None,))
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = [[10, 10, 30, 14], [20, 20, 120, 80], [0, 0, 8, 100], [100, 10, 200, 90]]
    given = np.float32(boxes), np.array([1, 2, 3, 4]), np.array([True, False, True, False])
    _, found, labels, difficult = TrainTransform((50, 50), prob=0, min_box_size=0.05)(
        image, *given, np.random.default_rng(0)
    )
    assert labels.tolist() == [2, 4] and not difficult.any()
    np.testing.assert_allclose(found[:, [1, 3]], [[0.2, 0.8], [0.1, 0.9]], rtol=1e-6)


def test_an_image_that_would_lose_all_objects_is_only_resized():
    box = [100, 100, 180, 190]
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    transform = TrainTransform((200, 200), min_box_size=0.9)
    for seed in range(20):
        result, found, *_ = transform(image, *objects([box]), np.random.default_rng(seed))
        np.testing.assert_allclose(found, [[0.25, 1 / 3, 0.45, 19 / 30]], rtol=1e-6)
        ways = [cv2.resize(image, (200, 200), interpolation=way) for way in transforms.INTERPOLATIONS]
        assert any((result == way).all() for way in ways)


def test_images_without_objects_are_augmented_and_stay_empty():
    image = np.random.default_rng(0).integers(0, 255, (90, 110, 3), dtype=np.uint8)
    transform = TrainTransform((50, 60))
    results = []
    for seed in range(30):
        result, boxes, labels, difficult = transform(image, *NOTHING, np.random.default_rng(seed))
        assert boxes.shape == (0, 4) and labels.shape == difficult.shape == (0,)
        results.append(result)
    choices = [transform.draw((90, 110), NOTHING[0], np.random.default_rng(seed)) for seed in range(30)]
    assert any(choice.crop for choice in choices) and any(choice.expand for choice in choices)
    assert len({result.tobytes() for result in results}) > 25


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 400), (5, 4)])
def test_tiny_and_narrow_images_pass(size):
    image = np.full((*size, 3), 200, np.uint8)
    box = [0, 0, size[1], size[0]]
    transform = TrainTransform((40, 30))
    for seed in range(40):
        result, boxes, *_ = transform(image, *objects([box]), np.random.default_rng(seed))
        assert result.shape == (40, 30, 3) and len(boxes) == 1


def test_the_generator_alone_decides():
    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    transform, given = TrainTransform((64, 64)), objects([[10, 10, 70, 80]])
    before = [part.copy() for part in (image, *given)]
    first, second, other = (transform(image, *given, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
    assert not (first[0] == other[0]).all()
    for part, old in zip((image, *given), before, strict=True):
        np.testing.assert_array_equal(part, old)


def test_color_order_swaps_pixels_and_reads_the_means_in_that_order():
    image = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    given = objects([[10, 10, 70, 80]])
    bgr = TrainTransform((64, 64), prob=1, pixel_means=(10, 20, 30))
    rgb = TrainTransform((64, 64), prob=1, pixel_means=(30, 20, 10), color_order="RGB")
    for seed in range(10):
        one, two = (transform(image, *given, np.random.default_rng(seed))[0] for transform in (bgr, rgb))
        np.testing.assert_array_equal(one, two[:, :, ::-1])
        corners = one[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()
        assert [10, 20, 30] in corners
    plain = EvalTransform((64, 64), "RGB").resize(image)
    np.testing.assert_array_equal(plain, EvalTransform((64, 64)).resize(image)[:, :, ::-1])


def test_steps_end_with_what_the_transform_returns_and_every_step_keeps_the_box_on_its_pixels():
    box = [130, 60, 333, 290]
    image = draw_boxes((403, 517), [box])
    transform = TrainTransform((150, 200), pixel_means=BLACK, color_order="RGB")
    for seed in range(30):
        steps = transform.steps(image, *objects([box]), np.random.default_rng(seed))
        assert [name for name, _, _ in steps] == ["input", "crop", "distort", "expand", "mirror", "resize"]
        for name, picture, boxes in steps:
            np.testing.assert_allclose(bright_extent(picture), boxes[0], atol=1.3, err_msg=f"{seed} {name}")
        result, boxes, *_ = transform(image, *objects([box]), np.random.default_rng(seed))
        np.testing.assert_array_equal(steps[-1][1], result)
        np.testing.assert_allclose(steps[-1][2], boxes * [200, 150, 200, 150], rtol=1e-5)


def draw_disc(size, center, radii):
    image = np.zeros((*size, 3), np.uint8)
    return cv2.ellipse(image, center, radii, 0, 0, 360, (255, 255, 255), -1)


@pytest.mark.parametrize("expand", [0, 1])
def test_a_turned_ellipse_fills_its_box(expand):
    image, box = draw_disc((300, 400), (210, 140), (70, 30)), [140, 110, 281, 171]
    transform = TrainTransform((200, 150), prob=expand, crop_prob=0.3, pixel_means=BLACK, rotation=(40, 1))
    angles = set()
    for seed in range(60):
        choice = transform.draw(image.shape[:2], np.float32([box]), np.random.default_rng(seed))
        angles.add(np.sign(choice.angle))
        result, boxes, *_ = transform(image, *objects([box]), np.random.default_rng(seed))
        cut = choice.crop is not None  # an ellipse that was cut no longer fills its box after the turn
        if not cut:
            np.testing.assert_allclose(bright_extent(result), boxes[0] * [150, 200, 150, 200], atol=1.6, err_msg=seed)
    assert angles >= {-1, 1}


@pytest.mark.parametrize("angle, expected", [(90, [20, 40, 50, 80]), (-90, [50, 20, 80, 60]), (180, [40, 50, 80, 80])])
def test_quarter_turns_are_exact(angle, expected):
    box = np.float32([[20, 20, 60, 50]])
    turned, kept = rotate_boxes(box, (100, 100), angle)
    np.testing.assert_allclose(turned, [expected], atol=1e-4)
    image = draw_boxes((100, 100), [[20, 20, 60, 50]])
    picture = TrainTransform((100, 100))._render(image, Augmentation(angle=angle), (100, 100))
    np.testing.assert_array_equal(bright_extent(picture), expected)


def test_objects_turned_out_of_the_image_are_left_out():
    boxes = np.float32([[0, 0, 20, 20], [90, 40, 110, 60]])
    turned, kept = rotate_boxes(boxes, (100, 200), -30)
    assert kept.tolist() == [1] and turned.min() >= 0


def test_steps_show_the_turn():
    transform = TrainTransform((150, 200), pixel_means=BLACK, rotation=(30, 1), crop_prob=0)
    image, box = draw_disc((300, 400), (210, 140), (70, 30)), [140, 110, 281, 171]
    steps = transform.steps(image, *objects([box]), np.random.default_rng(1))
    assert [name for name, _, _ in steps][:3] == ["input", "crop", "rotate"]
    for name, picture, boxes in steps:
        np.testing.assert_allclose(bright_extent(picture), boxes[0], atol=1.6, err_msg=name)


def test_a_call_may_ask_for_another_size():
    box, image = [130, 60, 333, 290], draw_boxes((403, 517), [[130, 60, 333, 290]])
    transform = TrainTransform((300, 300), pixel_means=BLACK)
    for seed in range(20):
        result, boxes, *_ = transform(image, *objects([box]), np.random.default_rng(seed), (96, 160))
        assert result.shape == (96, 160, 3)
        np.testing.assert_allclose(bright_extent(result), boxes[0] * [160, 96, 160, 96], atol=1.3)


def test_brightness_comes_before_contrast_and_saturates():
    image = np.array([[[0, 100, 250]]], np.uint8)
    result = distort(image.copy(), Augmentation(brightness=20, contrast=0.5))
    assert result.tolist() == [[[10, 60, 128]]]  # 250 + 20 stops at 255 before it is halved


def test_hue_turns_the_color_circle_and_saturation_pales():
    red = np.array([[[0, 0, 255]]], np.uint8)
    violet = distort(red.copy(), Augmentation(hue=-15))[0, 0].astype(int)  # 30 degrees back
    np.testing.assert_allclose(violet, [128, 0, 255], atol=1)
    pale = distort(red.copy(), Augmentation(saturation=0.5))[0, 0].astype(int)
    np.testing.assert_allclose(pale, [127, 127, 255], atol=1)
    grey = np.full((2, 2, 3), 90, np.uint8)
    assert (distort(grey.copy(), Augmentation(hue=12, saturation=1.5)) == 90).all()


@pytest.mark.parametrize("overlap", ["any", "all"])
def test_crops_reach_the_iou_of_the_mode_with_any_or_all_boxes(monkeypatch, overlap):
    monkeypatch.setattr(geometry, "CROP_MODES", (0.3,))
    boxes = np.float32([[10, 10, 200, 190], [60, 40, 260, 230]])
    seen = []
    for seed in range(60):
        crop = draw_crop((240, 300), boxes, overlap, np.random.default_rng(seed))
        x, y, w, h = crop
        assert 0 <= x <= 300 - w and 0 <= y <= 240 - h and (w / 300) / (h / 240) * 1.03 >= 0.5 and w >= 60
        shared = [
            max(0, min(x + w, b[2]) - max(x, b[0])) * max(0, min(y + h, b[3]) - max(y, b[1])) for b in boxes.tolist()
        ]
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes.tolist()]
        iou = [s / (w * h + a - s) for s, a in zip(shared, areas, strict=True)]
        seen.append(iou)
        assert (max(iou) if overlap == "any" else min(iou)) >= 0.3
    assert (min(min(iou) for iou in seen) < 0.3) == (overlap == "any")


def test_a_crop_that_cannot_be_found_leaves_the_image_whole(monkeypatch):
    monkeypatch.setattr(geometry, "CROP_MODES", (0.9,))
    boxes = np.float32([[0, 0, 4, 4], [290, 230, 299, 239]])
    assert draw_crop((240, 300), boxes, "any", np.random.default_rng(0)) is None


def test_expand_keeps_the_image_whole_on_a_canvas_of_at_most_sixteen_times_its_area():
    areas = []
    for seed in range(200):
        x, y, width, height = draw_expand((50, 80), np.random.default_rng(seed))
        assert 0 <= x <= width - 80 and 0 <= y <= height - 50
        areas.append(width * height / (50 * 80))
    assert max(areas) <= 16 and min(areas) < 2 and max(areas) > 12


@pytest.mark.parametrize("prob, low, high", [(0, 0, 0), (0.6, 0.53, 0.67), (1, 1, 1)])
def test_prob_is_the_share_of_expanded_images(prob, low, high):
    transform = TrainTransform((30, 30), prob=prob)
    choices = [transform.draw((50, 80), NOTHING[0], np.random.default_rng(seed)) for seed in range(600)]
    assert low <= np.mean([choice.expand is not None for choice in choices]) <= high
    assert 0.42 < np.mean([choice.mirror for choice in choices]) < 0.58


def test_evaluation_is_a_linear_resize_to_height_and_width():
    image = np.random.default_rng(0).integers(0, 255, (90, 110, 3), dtype=np.uint8)
    transform = EvalTransform((40, 70))
    result, boxes, labels, difficult = transform(image, *objects([[11, 9, 55, 45]], [3]))
    np.testing.assert_array_equal(result, cv2.resize(image, (70, 40), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_array_equal(result, transform.resize(image))
    np.testing.assert_allclose(boxes, [[0.1, 0.1, 0.5, 0.5]], rtol=1e-6)
    assert labels.tolist() == [3] and difficult.tolist() == [False]


def test_create_transforms_reads_the_configuration():
    words = ["COLOR_ORDER=RGB", "PIXEL_MEANS=[1, 2, 3]", "PROB=1"]
    cfg = load_config(None, ["MODEL.IMAGE_SIZE=[200, 100]", *(f"DATASET.{word}" for word in words)])
    image = np.full((64, 64, 3), 255, np.uint8)
    train, plain = create_transforms(cfg, True), create_transforms(cfg, False)
    for seed in range(5):
        result = train(image, *NOTHING, np.random.default_rng(seed))[0]
        assert result.shape == (200, 100, 3)
        assert [1, 2, 3] in result[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()
    assert plain(image, *NOTHING)[0].shape == (200, 100, 3)
