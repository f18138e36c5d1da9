"""Mosaic and mixup: objects stay on their pixels, and everything follows from the generator."""

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader
from lib.dataset.detection import DetectionDataset, DetectionRecords
from lib.dataset.mixing import MixingTransform, draw_window, mixup, mosaic
from lib.dataset.transforms import TrainTransform
from lib.utils.errors import UserError

COLORS = [(250, 30, 30), (30, 250, 30), (30, 30, 250), (240, 240, 240)]


def sample(number, size=(240, 320)):
    """A dark picture with one rectangle in colour `number`, which is its label."""
    rng = np.random.default_rng(number)
    x, y = int(rng.integers(20, size[1] - 140)), int(rng.integers(20, size[0] - 120))
    box = [x, y, x + 120, y + 100]
    image = np.zeros((*size, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = COLORS[number]
    return image, np.float32([box]), np.array([number + 1]), np.array([number == 1])


def without_looks(**settings):
    """A transform that leaves colours, which the tests look at, as they are."""
    transform = TrainTransform((200, 260), pixel_means=(0, 0, 0), **settings)
    draw = transform.draw_looks
    transform.draw_looks = lambda rng: type(draw(rng))(mirror=bool(rng.random() < 0.5))
    return transform


def extent(image, color):
    ys, xs = np.nonzero(np.abs(image.astype(int) - color).max(axis=2) < 60)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def test_boxes_of_a_mosaic_lie_on_their_pixels():
    transform, seen = without_looks(min_box_size=0.03), set()
    for seed in range(60):
        image, boxes, labels, difficult = mosaic(
            [sample(i) for i in range(4)], transform, np.random.default_rng(seed), (200, 260)
        )
        assert image.shape == (200, 260, 3) and boxes.dtype == np.float32 and (boxes >= 0).all() and (boxes <= 1).all()
        assert (difficult == (labels == 2)).all()
        seen.update(labels.tolist())
        for box, label in zip(boxes * [260, 200, 260, 200], labels, strict=True):
            np.testing.assert_allclose(extent(image, COLORS[label - 1]), box, atol=2, err_msg=f"seed {seed}")
    assert seen == {1, 2, 3, 4}


@pytest.mark.parametrize("image_size", [(240, 320), (50, 400), (3, 2)])
def test_windows_keep_the_proportions_of_the_whole_image(image_size):
    rng = np.random.default_rng(0)
    for _ in range(50):
        part = int(rng.integers(50, 151)), int(rng.integers(50, 151))
        x, y, width, height = draw_window(image_size, part, (200, 200), rng)
        assert x >= 0 and x + width <= image_size[1] and y >= 0 and y + height <= image_size[0]
        if min(image_size) > 40:
            stretch = (part[1] / width) / (part[0] / height)  # of the window into its part
            assert stretch == pytest.approx(image_size[0] / image_size[1], rel=0.12)
            assert part[1] / width <= 200 / image_size[1] * 1.1


def test_mixup_blends_pixels_and_keeps_the_objects_of_both():
    first, second = sample(0), sample(1)
    image, boxes, labels, difficult = mixup(first, second, 0.25)
    expected = np.rint(0.25 * first[0].astype(float) + 0.75 * second[0])
    assert np.abs(image - expected).max() <= 1
    assert labels.tolist() == [1, 2] and difficult.tolist() == [False, True]
    np.testing.assert_array_equal(boxes, np.concatenate([first[1], second[1]]))


def test_probabilities_decide_how_many_images_take_part():
    def asked(mosaic_prob, mixup_prob):
        calls = []

        def draw_other(rng):
            calls.append(1)
            return sample(int(rng.integers(4)))

        transform = MixingTransform(TrainTransform((64, 64)), mosaic_prob, mixup_prob, draw_other)
        transform(*sample(0), np.random.default_rng(0))
        return len(calls)

    assert [asked(0, 0), asked(1, 0), asked(0, 1), asked(1, 1)] == [0, 3, 1, 7]


@pytest.fixture
def folder(tmp_path):
    paths, boxes = [], []
    for number in range(4):
        image, box, _, _ = sample(number)
        paths.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(paths[-1], image)
        boxes.append(box[0])
    return DetectionRecords.build(
        ("a", "b", "c", "d"), paths, list("0123"), [(240, 320)] * 4, boxes, [1, 2, 3, 4], [False] * 4, [1] * 4, "drawn"
    )


def test_the_last_epochs_are_plain(folder):
    config = load_config(None, ["DATASET.MIXUP=1", "DATASET.PLAIN_EPOCHS=2", "TRAIN.MAX_EPOCHS=5", "DEVICE=cpu",
                                "DATASET.NUM_WORKERS=0", "MODEL.IMAGE_SIZE=64", "TRAIN.BATCH_SIZE=4"])  # fmt: skip
    loader, objects = create_loader(config, "train", folder), {}
    for epoch in range(1, 6):
        loader.set_position(epoch)
        objects[epoch] = [len(target.labels) for (batch,) in loader for target in batch.targets]
    assert all(max(objects[epoch]) == 2 for epoch in (1, 2, 3))
    assert objects[4] == objects[5] == [1] * 4


@pytest.mark.parametrize("option", ["MOSAIC=1", "MIXUP=1", "ROTATION=30", "SAMPLING=repeat_factor"])
def test_batches_do_not_depend_on_the_number_of_workers(folder, option):
    def batches(workers):
        config = load_config(None, [f"DATASET.{option}", f"DATASET.NUM_WORKERS={workers}", "MODEL.IMAGE_SIZE=64",
                                    "TRAIN.BATCH_SIZE=2", "DEVICE=cpu", "TRAIN.IMAGE_SIZES=[64,96]"])  # fmt: skip
        loader = create_loader(config, "train", folder)
        loader.set_position(2, 1)
        found = [(batch.images.numpy().tobytes(), [t.boxes.tolist() for t in batch.targets]) for (batch,) in loader]
        loader.close()
        return found

    assert batches(0) == batches(2)


def test_an_image_that_comes_again_in_an_epoch_looks_different(folder):
    data = DetectionDataset(folder, TrainTransform((64, 64)), 1)
    assert data[1, 2][0].tobytes() == data[1, 2, 0][0].tobytes() != data[1, 2, 1][0].tobytes()


def test_class_weights_of_another_number_are_refused(folder):
    config = load_config(None, ["DATASET.SAMPLING=class_weight", "DATASET.CLASS_WEIGHTS=[1,2]"])
    with pytest.raises(UserError, match=r"DATASET.CLASS_WEIGHTS: \[1.0, 2.0\] given; .* 4 classes a, b, c, d"):
        create_loader(config, "train", folder)
