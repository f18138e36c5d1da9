"""Boxes, captions and grids of pictures: everything that is drawn on an image.

Images are uint8 BGR [H, W, 3]; boxes are corners (x1, y1, x2, y2) in pixels.  Nothing is drawn in place.
"""

import unicodedata
from functools import lru_cache

import cv2
import numpy as np

PALETTE = (
    # Okabe and Ito's colours without black, which every eye tells apart ...
    (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9), (0x00, 0x9E, 0x73), (0xF0, 0xE4, 0x42), (0x00, 0x72, 0xB2),
    (0xD5, 0x5E, 0x00), (0xCC, 0x79, 0xA7),
    # ... and those farthest from them, for normal and for red-green blind eyes.
    (0xEE, 0xDD, 0x88), (0x7F, 0x4F, 0x24), (0x33, 0x22, 0x88), (0x88, 0x22, 0x55), (0xFF, 0xAA, 0xBB),
    (0x99, 0xDD, 0xFF), (0xC8, 0xF7, 0xC5),
)  # fmt: skip
"""Red, green, blue of the classes 1, 2, ...; later ones get the same hues lighter, then darker."""

WHITE, BLACK, GREY, INK = (255, 255, 255), (0, 0, 0), (128, 128, 128), (32, 32, 32)
FONT = cv2.FONT_HERSHEY_SIMPLEX
SMALLEST_TEXT = 8  # height of a capital letter in pixels
LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L",
                         "đ": "d", "Đ": "D", "ð": "d", "þ": "th", "ı": "i", "–": "-", "—": "-", "’": "'"})  # fmt: skip
"""Letters that Unicode does not decompose into an ASCII letter and an accent."""


def class_color(label: int) -> tuple[int, int, int]:
    """The colour (blue, green, red) of a class; grey for the background, label 0."""
    if label < 1:
        return GREY
    turn, index = divmod(int(label) - 1, len(PALETTE))
    towards, share = ((0, 0.0), (255, 0.5), (0, 0.5))[turn % 3]
    red, green, blue = (round(value + share * (towards - value)) for value in PALETTE[index])
    return blue, green, red


def draw_boxes(image, boxes, captions=None, labels=None, colors=None, thickness=None, dashed=False) -> np.ndarray:
    """A copy of the image with boxes [N, 4] outlined, and a caption (a string, None for none) at each.

    The colours are `colors` (BGR, one for all or one each), else those of the classes `labels`.  `thickness` in pixels
    follows the image size where it is None; lines of one pixel have no dark rim.  Captions keep inside the image and
    off small boxes and each other where there is room; an image too small for them gets none.  Boxes outside the image
    and those that hold NaN are not drawn.
    """
    image = _bgr_copy(image)
    boxes = _array(boxes).astype(np.float64).reshape(-1, 4)
    colors = _colors_of(colors, labels, len(boxes))
    _draw_outlines(image, boxes, colors, thickness or default_thickness(image), dashed)
    if captions is not None:
        _draw_captions(image, boxes, captions, colors)
    return image


def default_thickness(image) -> int:
    """Pixels of an outline that suits the size of the image."""
    side = min(image.shape[:2])
    return max(1 if side < 200 else 2, round(side / 280))


def draw_detections(image, detections, threshold: float = 0.4) -> np.ndarray:
    """A copy of the image with the detections (boxes in its pixels) that score at least `threshold`, as 'name 0.87'."""
    boxes, labels, captions = _shown_detections(detections, threshold)
    return draw_boxes(image, boxes, captions, labels)


def draw_note(image, text: str) -> np.ndarray:
    """A copy of the image with a line of text in its top left corner, left out where the image is too small for it."""
    image = _bgr_copy(image)
    patch = _text_patch(drawable_text(text), _caption_size(image), WHITE, INK)
    if patch.shape[0] <= image.shape[0] and patch.shape[1] <= image.shape[1]:
        _paste(image, patch, 0, 0)
    return image


def draw_truth_and_detections(image, target, detections, class_names=(), threshold: float = 0.4) -> np.ndarray:
    """A copy of the image with the truth in thin dashes of black and white, the detections in solid lines.

    target holds boxes in the unit square, detections boxes in pixels of this image.  A truth has a caption only where
    the picture would not tell its class otherwise: no drawn detection of the class overlaps it (IoU 0.5), or it is
    difficult (then its dashes are grey).
    """
    image = _bgr_copy(image)
    height, width = image.shape[:2]
    boxes, labels, captions = _shown_detections(detections, threshold)
    truth = _array(target.boxes).astype(np.float64).reshape(-1, 4) * [width, height, width, height]
    truth_labels, difficult = _array(target.labels), _array(target.difficult).astype(bool)
    found = ((_iou(truth, boxes) >= 0.5) & (truth_labels[:, None] == labels)).any(axis=1)
    truth_captions = []
    for label, is_difficult, is_found in zip(truth_labels.tolist(), difficult, found, strict=True):
        name = class_names[label - 1] if 0 < label <= len(class_names) else ""
        name = drawable_text(name, f"#{label}") + (" (difficult)" if is_difficult else "")
        truth_captions.append(name if is_difficult or not is_found else None)
    truth_colors = [GREY if flag else WHITE for flag in difficult]
    colors = _colors_of(None, labels, len(labels))
    _draw_outlines(image, truth, truth_colors, max(1, round(min(height, width) / 500)), dashed=True)
    _draw_outlines(image, boxes, colors, default_thickness(image))
    _draw_captions(image, np.vstack([boxes, truth]), captions + truth_captions, colors + truth_colors)
    return image


def _shown_detections(detections, threshold: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Boxes, labels and captions of the detections that score at least `threshold`."""
    boxes, scores, labels = (_array(part) for part in (detections.boxes, detections.scores, detections.labels))
    keep, names = np.flatnonzero(scores >= threshold), detections.names
    captions = [f"{drawable_text(names[i], f'#{labels[i]}')} {scores[i]:.2f}" for i in keep]
    return boxes.astype(np.float64).reshape(-1, 4)[keep], labels[keep], captions


def image_grid(images, columns: int, titles=None, cell=None) -> np.ndarray:
    """The images in rows of `columns`, each scaled to fit a cell of (height, width) pixels, under its title.

    The cell is as large as the largest image where it is None.
    """
    images = [_bgr_copy(image) for image in images]
    if not images:
        raise ValueError("a grid needs at least one image")
    if cell is None:
        cell = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    height, width = cell
    gap, columns = max(2, round(min(cell) / 50)), min(columns, len(images))
    text = max(SMALLEST_TEXT, min(round(height / 24), 16))
    head = 0 if titles is None else 2 * text + gap
    rows = -(-len(images) // columns)
    grid = np.full((rows * (height + head + gap) + gap, columns * (width + gap) + gap, 3), INK, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = gap + row * (height + head + gap), gap + column * (width + gap)
        if titles is not None and titles[index]:
            patch = _text_patch(_fit_text(titles[index], text, width - 2), text, WHITE, INK, padding=1)
            _paste(grid, patch, left, top + (head - patch.shape[0]) // 2)
        fitted = _fit_image(image, height, width)
        _paste(grid, fitted, left + (width - fitted.shape[1]) // 2, top + head + (height - fitted.shape[0]) // 2)
    return grid


def drawable_text(text, fallback: str = "") -> str:
    """The text in letters that this build of OpenCV can draw: accents go where need be, other letters are left out;
    `fallback` where nothing readable would remain."""
    result = "".join(_drawable_letter(letter) for letter in unicodedata.normalize("NFC", str(text)))
    result = " ".join(result.split())
    lost = any(letter.isalnum() for letter in str(text)) and not any(letter.isalnum() for letter in result)
    return fallback if lost or not result else result


@lru_cache(maxsize=4096)
def _drawable_letter(letter: str) -> str:
    if " " <= letter <= "~":
        return letter
    if letter.isspace() or unicodedata.category(letter) == "Cc":
        return " "
    if unicodedata.category(letter).startswith("C"):  # OpenCV crashes on lone surrogates
        return ""
    if _has_glyph(letter):
        return letter
    plain = unicodedata.normalize("NFKD", letter.translate(LETTERS))
    return "".join(part for part in plain if " " <= part <= "~")


def _has_glyph(letter: str) -> bool:
    """Whether a letter is drawn as itself; OpenCV draws a '?' for each of its bytes, or one, where it has no glyph."""
    drawn = _text_mask(letter, 20)
    if drawn is None or not drawn.any():
        return False
    return not any(np.array_equal(drawn, _text_mask("?" * count, 20)) for count in range(1, 5))


def _bgr_copy(image) -> np.ndarray:
    image = np.array(image, np.uint8, order="C")
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def _array(values) -> np.ndarray:
    """An array of a tensor on any device, or of a sequence."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _visible(boxes, shape) -> tuple[np.ndarray, np.ndarray]:
    """The boxes cut to the image, and the mask of those that can be seen in it."""
    last = np.array([shape[1] - 1, shape[0] - 1] * 2, np.float64)
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)  # false for NaN, as the others
    shown = ordered & (boxes[:, 2:] >= 0).all(axis=1) & (boxes[:, :2] <= last[:2]).all(axis=1)
    return np.clip(boxes, 0, last), shown


def _colors_of(colors, labels, count: int) -> list[tuple]:
    if colors is None:
        return [class_color(label) for label in ([1] * count if labels is None else _array(labels).tolist())]
    one_for_all = len(colors) == 3 and all(np.isscalar(value) for value in colors)
    return [tuple(map(int, color)) for color in ([colors] * count if one_for_all else colors)]


def _draw_outlines(image, boxes, colors, thickness: int, dashed: bool = False) -> None:
    boxes, shown = _visible(boxes, image.shape)
    areas = np.where(shown, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 0)
    draw_outline = _dashed_outline if dashed else _solid_outline
    for position in np.argsort(-areas, kind="stable"):  # small ones on top
        if shown[position]:
            draw_outline(image, boxes[position].round().astype(int).tolist(), colors[position], thickness)


def _solid_outline(image, box, color, thickness: int) -> None:
    """A rectangle with a dark rim, so that it stands out from a ground of its own colour."""
    x1, y1, x2, y2 = box
    if thickness > 1:
        cv2.rectangle(image, (x1, y1), (x2, y2), INK, thickness + 2 * max(1, thickness // 5))
    cv2.rectangle(image, (x1, y1), (x2, y2), color, thickness)


def _dashed_outline(image, box, color, thickness: int) -> None:
    """A black rectangle with dashes of the colour: visible on any ground."""
    x1, y1, x2, y2 = box
    cv2.rectangle(image, (x1, y1), (x2, y2), BLACK, thickness)
    dash = 4 * thickness + 1
    for start in range(x1, x2 + 1, 2 * dash):
        for y in (y1, y2):
            cv2.line(image, (start, y), (min(start + dash - 1, x2), y), color, thickness)
    for start in range(y1, y2 + 1, 2 * dash):
        for x in (x1, x2):
            cv2.line(image, (x, start), (x, min(start + dash - 1, y2)), color, thickness)


def _draw_captions(image, boxes, captions, colors) -> None:
    """Captions of boxes [N, 4], the first ones in the best places; all boxes are kept in view."""
    height, width = image.shape[:2]
    boxes, shown = _visible(boxes, image.shape)
    wanted = [i for i in np.flatnonzero(shown) if captions[i]]
    seen, placed = boxes[shown], np.empty((0, 4))
    areas = (seen[:, 2:] - seen[:, :2] + 1).prod(axis=1)
    size = _caption_size(image)
    for i in wanted:
        caption = _fit_text(captions[i], size, width - 2 * _padding(size))
        if not caption:
            continue
        patch = _text_patch(caption, size, _readable_on(colors[i]), colors[i])
        if patch.shape[0] > height or patch.shape[0] * patch.shape[1] > height * width / 4:
            continue
        place = _caption_place(boxes[i], patch.shape, (height, width), seen, areas, placed)
        placed = np.vstack([placed, place])
        _paste(image, patch, *place[:2].astype(int))


def _caption_place(box, patch_shape, image_size, boxes, areas, placed) -> np.ndarray:
    """The rectangle for a caption that hides least of the boxes and the earlier captions.

    Covering a tenth of a box weighs as much as covering a fortieth of a caption; of equal places the first counts.
    """
    high, wide = patch_shape[:2]
    x1, y1, x2, y2 = box.round()
    places = np.array([
        (x1, y1 - high), (x2 + 1 - wide, y1 - high), (x1, y2 + 1), (x2 + 1 - wide, y2 + 1),
        (x2 + 1, y1), (x1 - wide, y1), (x1, y1), (x1, y2 + 1 - high),
    ])  # fmt: skip
    places = np.clip(places, 0, [image_size[1] - wide, image_size[0] - high])
    places = np.hstack([places, places + [wide, high]])
    cost = (_intersection(places, boxes) / areas).sum(axis=1) + 0.02 * np.arange(len(places))
    cost += 4 * _intersection(places, placed).sum(axis=1) / (wide * high)
    return places[cost.argmin()]


def _intersection(boxes, others) -> np.ndarray:
    """Common area of every one of boxes [N, 4] with every one of others [M, 4]: [N, M]."""
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    return np.clip(sides, 0, None).prod(axis=2)


def _iou(boxes, others) -> np.ndarray:
    common = _intersection(boxes, others)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others))
    return common / np.maximum(area[:, None] + other_area - common, 1e-9)


def _readable_on(color) -> tuple[int, int, int]:
    """Black or white, whichever contrasts more with the colour (WCAG 2 relative luminance)."""
    blue, green, red = ((value / 255) ** 2.2 for value in color)
    return BLACK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else WHITE


def _caption_size(image) -> int:
    """The height of a capital letter that suits the size of the image."""
    return max(SMALLEST_TEXT, round(0.018 * (image.shape[0] * image.shape[1]) ** 0.5))


def _padding(text_height: int) -> int:
    return max(2, text_height // 3)


def _fit_text(text: str, height: int, width: int) -> str:
    """The text, cut with '..' at the end where it is wider than `width` pixels; '' if not even a letter fits."""
    text = drawable_text(text)
    for length in range(len(text), 0, -1):
        shortened = text if length == len(text) else text[:length].rstrip() + ".."
        if _text_mask(shortened, height).shape[1] <= width:
            return shortened
    return ""


def _text_mask(text: str, height: int) -> np.ndarray | None:
    """The coverage (0 to 255) of each pixel by the text, tight to left and right; capital letters are `height` high."""
    scale, thickness = height / 21, max(1, round(height / 11))
    room = cv2.getTextSize(text, FONT, scale, thickness)[0][0] + 4 * height
    canvas = np.zeros((4 * height, room), np.uint8)
    cv2.putText(canvas, text, (height, 5 * height // 2), FONT, scale, 255, thickness, cv2.LINE_AA)
    columns = np.flatnonzero(canvas.any(axis=0))
    if not len(columns):
        return None
    rows = np.flatnonzero(canvas.any(axis=1))
    top, bottom = min(rows[0], 13 * height // 10), max(rows[-1] + 1, 14 * height // 5)
    return canvas[top:bottom, columns[0] : columns[-1] + 1]


def _text_patch(text: str, height: int, color, background, padding: int | None = None) -> np.ndarray:
    """The text on a filled rectangle."""
    padding = _padding(height) if padding is None else padding
    mask = _text_mask(text, height) if text else None
    mask = np.zeros((height, 1), np.uint8) if mask is None else mask
    cover = np.pad(mask, ((padding // 2, padding // 2), (padding, padding)))[..., None] / 255
    return np.rint(cover * np.float64(color) + (1 - cover) * np.float64(background)).astype(np.uint8)


def _fit_image(image, height: int, width: int) -> np.ndarray:
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _paste(image, patch, left, top) -> None:
    """Put a patch on the image, cut at its borders."""
    patch = patch[: image.shape[0] - top, : image.shape[1] - left]
    image[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
