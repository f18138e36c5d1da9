import cv2
import numpy as np
import pytest
import torch

from lib.structures import Detections, Target
from lib.utils import draw
from lib.utils.draw import (
    class_color,
    draw_boxes,
    draw_detections,
    draw_note,
    draw_truth_and_detections,
    drawable_text,
    image_grid,
)


def plain(height=240, width=320, value=90):
    return np.full((height, width, 3), value, np.uint8)


def changed(before, after):
    return (before != after).any(axis=2)


def extent(mask):
    """x1, y1, x2, y2 of the true pixels."""
    y, x = np.nonzero(mask)
    return x.min(), y.min(), x.max(), y.max()


def detections(boxes, scores, labels, names=("cat", "dog")):
    return Detections(torch.tensor(boxes).float().view(-1, 4), torch.tensor(scores), torch.tensor(labels), names)


def caption_patch(text, label, image):
    """What a caption of a class looks like where nothing cuts it."""
    height = max(draw.SMALLEST_TEXT, round(0.018 * (image.shape[0] * image.shape[1]) ** 0.5))
    return draw._text_patch(text, height, draw._readable_on(class_color(label)), class_color(label))


def holds(image, patch):
    """Whether the patch stands in the image, pixel by pixel."""
    distance = cv2.matchTemplate(image, patch, cv2.TM_SQDIFF)
    y, x = np.unravel_index(distance.argmin(), distance.shape)
    return np.array_equal(image[y : y + patch.shape[0], x : x + patch.shape[1]], patch)


# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_of_the_first_classes_differ_for_every_eye(sight):
    rgb = np.array([class_color(label)[::-1] for label in range(1, len(draw.PALETTE) + 1)]) / 255
    linear = np.clip((rgb**2.2) @ np.array(SIGHT[sight]).T, 0, 1)
    lab = cv2.cvtColor(np.float32(linear ** (1 / 2.2))[None], cv2.COLOR_RGB2LAB)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(len(lab))
    assert distance.min() > 12  # 2.3 is just noticeable


def test_many_classes_keep_different_colours():
    assert len({class_color(label) for label in range(1, 3 * len(draw.PALETTE) + 1)}) == 3 * len(draw.PALETTE)
    assert class_color(10_000) and class_color(0) not in {class_color(label) for label in range(1, 43)}


def test_box_is_drawn_where_it_is_in_the_colour_of_its_class():
    before = plain()
    after = draw_boxes(before, [[50, 60, 150, 160]], labels=[2])
    assert (before == 90).all(), "the image itself must stay"
    for x, y in ((50, 100), (150, 100), (100, 60), (100, 160)):
        assert tuple(after[y, x]) == class_color(2)
    x1, y1, x2, y2 = extent(changed(before, after))
    assert max(abs(x1 - 50), abs(y1 - 60), abs(x2 - 150), abs(y2 - 160)) <= 3
    assert not changed(before, after)[70:150, 60:140].any(), "the inside stays visible"


def test_dashed_outline_shows_on_black_and_on_white():
    for value in (0, 255):
        ground = plain(value=value)
        drawn = draw_boxes(ground, [[50, 60, 150, 160]], colors=draw.WHITE, dashed=True)
        side = changed(ground, drawn)[60, 50:151]
        assert 0.3 < side.mean() < 0.7


@pytest.mark.parametrize("size", [(20, 20), (20, 900), (4000, 3000), (1, 1)])
def test_any_image_size(size):
    height, width = size
    box = [0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height]
    image = plain(*size)
    drawn = draw_boxes(image, [box], ["platelet 0.98"], [1])
    assert drawn.shape == image.shape and (size == (1, 1) or changed(image, drawn).any())


def test_thickness_follows_the_image_size():
    widths = []
    for side in (100, 300, 1000, 4000):
        drawn = draw_boxes(plain(side, side), [[side / 4, side / 4, side, side / 2]])
        widths.append(changed(plain(side, side), drawn)[3 * side // 8, : side // 2].sum())
    assert widths == sorted(widths) and widths[0] <= 2 and widths[1] <= 5 and 10 <= widths[3] <= 20


def test_boxes_that_cannot_be_seen_are_left_out():
    nan, inf = float("nan"), float("inf")
    hidden = [[-90, 10, -5, 50], [400, 10, 500, 50], [10, 300, 50, 400], [nan, 1, 2, 3], [90, 90, 80, 95]]
    assert not changed(plain(), draw_boxes(plain(), hidden, ["x"] * 5, [1] * 5)).any()
    drawn = draw_boxes(plain(), [[-1e12, -inf, inf, 1e12]], ["everything"], [1])
    assert changed(plain(), drawn)[0].any()
    assert not changed(plain(), draw_boxes(plain(), np.zeros((0, 4)), [], [])).any()


def test_tensors_and_grey_images_are_taken():
    boxes, labels = torch.tensor([[5.0, 5, 40, 40]]).bfloat16(), torch.tensor([1])
    drawn = draw_boxes(np.zeros((50, 60), np.uint8), boxes, labels=labels)
    assert drawn.shape == (50, 60, 3)


@pytest.mark.parametrize("box", [[5, 5, 60, 60], [280, 200, 319, 239], [0, 0, 319, 239], [250, 2, 318, 20]])
def test_captions_keep_inside_the_image(box):
    patch = caption_patch("platelets 0.87", 1, plain())
    assert not holds(draw_boxes(plain(), [box], None, [1]), patch)
    assert holds(draw_boxes(plain(), [box], ["platelets 0.87"], [1]), patch)


def test_text_is_dark_on_light_and_light_on_dark():
    for color, expected in (((0x42, 0xE4, 0xF0), draw.BLACK), ((0x88, 0x22, 0x33), draw.WHITE)):
        assert draw._readable_on(color) == expected


def test_captions_leave_small_objects_in_view():
    """Right above the large box, where its caption would go first, sits a small object."""
    boxes = [[100, 100, 250, 220], [105, 85, 125, 97]]
    image = draw_boxes(plain(), boxes, ["large 0.90", None], [1, 2])
    outlined = draw_boxes(plain(), boxes, None, [1, 2])
    covered = changed(image, outlined)[85:97, 105:125]
    assert not covered.any() and changed(image, outlined).any()


def test_captions_of_neighbours_do_not_cover_each_other():
    boxes = [[60, 100, 200, 200], [64, 102, 204, 202], [58, 98, 198, 198]]
    words = ["first 0.90", "second 0.80", "third 0.70"]
    together = draw_boxes(plain(), boxes, words, [1, 2, 3])
    assert all(holds(together, caption_patch(word, label, together)) for label, word in enumerate(words, start=1))


def test_detections_below_the_threshold_are_not_drawn():
    found = detections([[20, 20, 80, 80], [150, 150, 220, 220]], [0.9, 0.3], [1, 2])
    drawn = draw_detections(plain(), found, 0.5)
    assert changed(plain(), drawn)[:120, :140].any() and not changed(plain(), drawn)[120:, 140:].any()
    assert not changed(plain(), draw_detections(plain(), found, 0.95)).any()
    assert not changed(plain(), draw_detections(plain(), detections([], [], []), 0.1)).any()


def test_detections_carry_name_and_score(monkeypatch):
    captions = []
    monkeypatch.setattr(draw, "draw_boxes", lambda image, boxes, words, labels: captions.extend(words))
    draw_detections(plain(), detections([[1, 1, 9, 9], [2, 2, 8, 8]], [0.871, 0.5], [2, 7]), 0.1)
    assert captions == ["dog 0.87", "7 0.50"]


def test_only_truths_that_nothing_shows_get_a_name(monkeypatch):
    words = []
    monkeypatch.setattr(draw, "_draw_captions", lambda image, boxes, captions, colors: words.extend(captions))
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.5, 0.5, 0.8, 0.9], [0.4, 0.1, 0.6, 0.3], [0.7, 0.1, 0.9, 0.3]])
    target = Target(boxes, torch.tensor([1, 1, 2, 2]), torch.tensor([False, False, False, True]))
    pixels = boxes * torch.tensor([320, 240, 320, 240])
    found = Detections(pixels[[0, 1, 3]], torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 2, 2]), ("cat", "dog"))
    draw_truth_and_detections(plain(), target, found, ("cat", "dog"), 0.5)
    # The second is a cat that was called a dog, the third was missed, the fourth is difficult though found.
    assert words == ["cat 0.90", "dog 0.80", "dog 0.70", None, "cat", "dog", "dog (difficult)"]


def test_truth_and_detections_look_different():
    target = Target(torch.tensor([[0.1, 0.1, 0.4, 0.5]]), torch.tensor([1]))
    none = detections([], [], [])
    truth = draw_truth_and_detections(plain(), target, none, ("cat",), 0.5)
    pixels = set(map(tuple, truth[24, 32:128].tolist()))
    assert pixels == {draw.WHITE, draw.BLACK}
    difficult = Target(target.boxes, target.labels, torch.tensor([True]))
    assert (truth != draw_truth_and_detections(plain(), difficult, none, ("cat",), 0.5)).any()


@pytest.mark.parametrize(
    "name", ["Größe", "Łódź", "血小板", "เกล็ดเลือด", "тромбоцит", "🙂", "a\nb", "", "x" * 500, "\ud800"]
)
def test_any_class_name_can_be_drawn(name):
    drawn = draw_detections(plain(), detections([[100, 100, 200, 200]], [0.9], [2], ("cat", name)), 0.5)
    assert drawn.shape == (240, 320, 3)
    text = drawable_text(name, "#2")
    assert text and "??" not in text and "\n" not in text


def test_names_without_a_glyph_become_ascii_or_the_class_number(monkeypatch):
    monkeypatch.setattr(draw, "_has_glyph", lambda letter: False)
    draw._drawable_letter.cache_clear()
    try:
        assert drawable_text("Größe") == "Grosse"
        assert drawable_text("Łódź œuvre") == "Lodz oeuvre"
        assert drawable_text("血小板", "#3") == "#3"
        assert drawable_text("car 车", "#4") == "car"
    finally:
        draw._drawable_letter.cache_clear()


def test_a_letter_without_a_glyph_is_noticed():
    assert draw._has_glyph("A") and not draw._has_glyph("\U0001f642")


def test_grid_places_images_in_rows_and_keeps_their_shape():
    images = [np.full((40, 80, 3), value, np.uint8) for value in (60, 120, 180)]
    grid = image_grid(images, 2, cell=(100, 100))
    for value, row, column in ((60, 0, 0), (120, 0, 1), (180, 1, 0)):
        x1, y1, x2, y2 = extent((grid == value).all(axis=2))
        assert (x2 - x1 + 1, y2 - y1 + 1) == (100, 50)
        assert x1 // 100 == column and y1 // 100 == row
    assert grid.shape[1] < 2.2 * 100 and grid.shape[0] < 2.2 * 100


def test_grid_titles_stand_above_their_image():
    image = np.full((60, 90, 3), 200, np.uint8)
    bare, titled = image_grid([image], 1), image_grid([image], 1, ["a title"])
    assert titled.shape[0] > bare.shape[0] and titled.shape[1] == bare.shape[1]
    head = titled.shape[0] - bare.shape[0]
    assert (titled[:head] > 220).any(), "letters are white"
    assert ((titled == 200).all(axis=2)).sum() >= image.shape[0] * image.shape[1]
    longer = image_grid([image], 1, ["a title that is much longer than the picture is wide"])
    assert longer.shape == titled.shape
    assert image_grid([image], 1, [None]).shape == titled.shape


def test_grid_takes_fewer_images_than_columns_and_grey_ones():
    assert image_grid([np.zeros((10, 10), np.uint8)], 5, cell=(30, 30)).shape == (34, 34, 3)
    with pytest.raises(ValueError, match="at least one"):
        image_grid([], 3)


def test_a_note_stands_in_the_corner_and_only_there():
    before = plain()
    x1, y1, x2, y2 = extent(changed(before, draw_note(before, "12.5 fps")))
    assert (x1, y1) == (0, 0) and x2 < 160 and y2 < 40 and (before == plain()).all()
    small = plain(10, 10)
    assert (draw_note(small, "12.5 fps") == small).all()
