"""Whatever an augmentation draws, every box stays on the pixels of its object."""

from dataclasses import replace

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.dataset.mixing import mixup, mosaic
from lib.dataset.transforms import TrainTransform

FIXED = settings(max_examples=40, deadline=None, derandomize=True)
SEED = st.integers(0, 2**32 - 1)
SIDE = st.integers(160, 420)
OUTPUT = st.tuples(st.integers(96, 320), st.integers(96, 320))
BLACK = (0, 0, 0)


@st.composite
def pictures(draw, shape="rectangle"):
    """(image with a white shape on black, its box): nothing of it touches the border."""
    height, width = draw(SIDE), draw(SIDE)
    w, h = draw(st.integers(50, width - 20)), draw(st.integers(50, height - 20))
    x, y = draw(st.integers(8, width - w - 8)), draw(st.integers(8, height - h - 8))
    image = np.zeros((height, width, 3), np.uint8)
    if shape == "rectangle":
        image[y : y + h, x : x + w] = 255
    else:
        cv2.ellipse(image, (x + w // 2, y + h // 2), (w // 2 - 1, h // 2 - 1), 0, 0, 360, (255, 255, 255), -1)
    ys, xs = np.nonzero(image[..., 0])
    return image, np.float32([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])


def extent(image):
    """Corners of what is bright, in pixels."""
    ys, xs = np.nonzero(image.max(axis=2) > 80)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def tolerance(image, output, choice) -> float:
    """A pixel, or what one pixel of the image is in the output, where the image is enlarged."""
    height, width = image.shape[:2] if choice.crop is None else (choice.crop[3], choice.crop[2])
    return 1.3 + 0.6 * max(0, output[0] / height - 1, output[1] / width - 1)


@FIXED
@given(pictures(), OUTPUT, SEED)
def test_crops_expansions_mirrors_and_any_size_of_the_output(picture, output, seed):
    image, boxes = picture
    transform = TrainTransform((300, 300), prob=0.5, pixel_means=BLACK, crop_prob=0.8)
    choice = transform.draw(image.shape[:2], boxes, np.random.default_rng(seed), output)
    result, found, kept = transform.perform(choice, image, boxes, output)
    assert kept.tolist() == [0] and found.min() >= -1e-6 and found.max() <= 1 + 1e-6
    pixels = found[0] * np.tile(output[::-1], 2)
    np.testing.assert_allclose(extent(result), pixels, atol=tolerance(image, output, choice))


@FIXED
@given(pictures(), SEED)
def test_where_nothing_is_resized_boxes_are_exact(picture, seed):
    image, boxes = picture
    transform = TrainTransform((300, 300), prob=0.5, pixel_means=BLACK, crop_prob=0.8)
    choice = transform.draw(image.shape[:2], boxes, np.random.default_rng(seed))
    height, width = image.shape[:2] if choice.crop is None else (choice.crop[3], choice.crop[2])
    output = (height, width) if choice.expand is None else (choice.expand[3], choice.expand[2])
    result, found, _ = transform.perform(choice, image, boxes, output)
    np.testing.assert_allclose(extent(result), found[0] * np.tile(output[::-1], 2), atol=1e-3)


@FIXED
@given(pictures(), OUTPUT, SEED)
def test_bends(picture, output, seed):
    image, boxes = picture
    transform = TrainTransform((300, 300), prob=0.3, pixel_means=BLACK, crop_prob=0.3, elastic_prob=1)
    choice = transform.draw(image.shape[:2], boxes, np.random.default_rng(seed), output)
    result, found, _ = transform.perform(choice, image, boxes, output)
    bent = 0.7 * max(output) / 100  # between the points of an outline
    np.testing.assert_allclose(
        extent(result), found[0] * np.tile(output[::-1], 2), atol=tolerance(image, output, choice) + bent
    )


@FIXED
@given(pictures("ellipse"), OUTPUT, SEED)
def test_turns(picture, output, seed):
    image, boxes = picture
    transform = TrainTransform((300, 300), prob=0.3, pixel_means=BLACK, crop_prob=0, rotation=(30, 1))
    choice = transform.draw(image.shape[:2], boxes, np.random.default_rng(seed), output)
    result, found, kept = transform.perform(choice, image, boxes, output)
    low, high = found[0, :2], found[0, 2:]
    if choice.angle and len(kept) and (low > 0.02).all() and (high < 0.98).all() and choice.expand is None:
        # One that was cut by the border of its image no longer fills its box.
        np.testing.assert_allclose(
            extent(result), found[0] * np.tile(output[::-1], 2), atol=tolerance(image, output, choice) + 1
        )


@FIXED
@given(st.lists(pictures(), min_size=4, max_size=4), OUTPUT, SEED)
def test_mosaics(found, output, seed):
    """The objects have colours of their own, by which they are known again."""
    colors = np.array([(250, 30, 30), (30, 250, 30), (30, 30, 250), (240, 240, 240)], np.uint8)
    transform = TrainTransform((300, 300), pixel_means=BLACK, min_box_size=0.05)
    looks = transform.draw_looks
    plain = {"brightness": 0.0, "contrast": 1.0, "hue": 0, "saturation": 1.0, "interpolation": cv2.INTER_NEAREST}
    transform.draw_looks = lambda rng: replace(looks(rng), **plain)
    samples = [
        (image // 255 * color, boxes, np.array([number]), np.zeros(1, bool))
        for number, ((image, boxes), color) in enumerate(zip(found, colors, strict=True))
    ]
    image, boxes, labels, _ = mosaic(samples, transform, np.random.default_rng(seed), output)
    assert image.shape == (*output, 3)
    for box, label in zip(boxes * np.tile(output[::-1], 2), labels, strict=True):
        ys, xs = np.nonzero((image == colors[label]).all(axis=2))
        shown = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        np.testing.assert_allclose(shown, box, atol=2)


@FIXED
@given(pictures(), pictures(), OUTPUT, SEED, st.floats(0.4, 0.6))
def test_mixups(first, second, output, seed, weight):
    transform = TrainTransform((300, 300), prob=0, pixel_means=BLACK, crop_prob=0)
    samples = []
    for channel, (image, boxes) in enumerate((first, second)):
        choice = replace(transform.draw(image.shape[:2], boxes, np.random.default_rng(seed), output), contrast=1.0,
                         brightness=0.0, hue=0, saturation=1.0)  # fmt: skip
        image = image * np.eye(3, dtype=np.uint8)[channel]
        picture, found, _ = transform.perform(choice, image, boxes, output)
        samples.append((picture, found, np.array([channel + 1]), np.zeros(1, bool)))
    image, boxes, labels, _ = mixup(*samples, weight)
    assert labels.tolist() == [1, 2]
    for channel, box in enumerate(boxes * np.tile(output[::-1], 2)):
        ys, xs = np.nonzero(image[..., channel] > 50)
        np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], box, atol=2.5)
