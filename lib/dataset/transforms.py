"""From a decoded photograph to the network's input: SSD augmentation for training, a plain resize for evaluation.

Images are uint8 [H, W, 3], BGR as OpenCV reads them, and leave in the colour order of the configuration; boxes come
in as pixels and leave in the unit square of the output.  Every image is resampled exactly once: a crop is a view, and
it is resized straight into its rectangle of the output canvas, which also is the expand step.  Boxes are mapped by the
very integers that place the pixels, so the two cannot drift apart.  All random numbers of an image are drawn first
(`TrainTransform.draw`), from the generator handed in; applying them is deterministic.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ..utils.errors import UserError

READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""EXIF rotation is ignored: annotations are taken to be made on the stored pixels."""

INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_LANCZOS4)
ANY_CROP = -1.0
CROP_MODES = (None, 0.1, 0.3, 0.5, 0.7, 0.9, ANY_CROP)
"""No crop, a crop of at least that IoU with the objects, or any crop that holds an object (SSD, section 2.2)."""

CROP_TRIES = 50
"""Crops drawn for a mode before another mode is drawn, and modes drawn before the image stays whole."""

LEVELS = np.arange(256, dtype=np.float32)


def read_image(path: str) -> np.ndarray:
    """The image file as uint8 BGR [H, W, 3], whatever its channels and depth; UserError if it cannot be read."""
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, READ_FLAGS) if data.size else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except cv2.error as error:
        raise UserError(f"{path}: OpenCV cannot decode this image ({error.err or error})") from None
    if image is None:
        what = f"{data.size} bytes that are no image OpenCV can decode" if data.size else "the file is empty"
        raise UserError(f"{path}: {what}")
    return image


@dataclass(frozen=True)
class Augmentation:
    """The random decisions for one image; the defaults change nothing.

    crop is (x, y, width, height) in pixels of the image; expand (x, y, width, height) the place of the crop on a
    canvas of that width and height, in pixels of the crop; hue in OpenCV's half degrees; keep_small switches the
    filter of small boxes off.
    """

    crop: tuple[int, int, int, int] | None = None
    brightness: float = 0.0
    contrast: float = 1.0
    hue: int = 0
    saturation: float = 1.0
    expand: tuple[int, int, int, int] | None = None
    mirror: bool = False
    interpolation: int = cv2.INTER_LINEAR
    keep_small: bool = False


class TrainTransform:
    """SSD augmentation (Liu et al. 2016, sections 2.2 and 3.6): crop, photometric, expand, mirror, resize.

    image_size is (height, width) of the output; prob the probability of expand, crop_prob that of drawing a crop mode
    (one of the seven is no crop); crop_overlap 'any' or 'all': which objects must reach the IoU of the drawn mode;
    objects whose shorter side is below min_box_size of the output are left out; pixel_means, in color_order, is the
    colour around an expanded image.  An image whose objects would all be lost is only resized.  Images without
    objects are augmented like the others and stay empty.
    """

    def __init__(
        self,
        image_size,
        prob: float = 0.6,
        crop_overlap: str = "any",
        min_box_size: float = 0.01,
        pixel_means=(103.94, 116.78, 123.68),
        color_order: str = "BGR",
        crop_prob: float = 1.0,
    ):
        self.height, self.width = (int(side) for side in image_size)
        self.prob, self.crop_overlap, self.min_box_size = prob, crop_overlap, min_box_size
        self.crop_prob = crop_prob
        self.color_order = color_order
        means = pixel_means[::-1] if color_order == "RGB" else pixel_means
        self.mean_color = tuple(int(value) for value in np.clip(np.rint(means), 0, 255))
        self._canvas = np.full((self.height, self.width, 3), self.mean_color, np.uint8)

    def __call__(self, image, boxes, labels, difficult, rng):
        """Augment one image.

        image uint8 BGR [H, W, 3]; boxes float32 [N, 4] xyxy pixels; labels int64 [N]; difficult bool [N]; rng a
        numpy Generator.  Returns (image uint8 [height, width, 3] in color_order, boxes float32 [M, 4] xyxy in the
        unit square, labels [M], difficult [M]).
        """
        choice = self.draw(image.shape[:2], boxes, rng)
        boxes, kept = self._map_boxes(choice, image.shape[:2], boxes)
        boxes /= np.float32([self.width, self.height] * 2)
        return self._render(image, choice), boxes, labels[kept], difficult[kept]

    def draw(self, size, boxes, rng) -> Augmentation:
        """All random decisions for an image of `size` (height, width) with these boxes [N, 4] xyxy pixels."""
        crop = draw_crop(size, boxes, self.crop_overlap, rng) if rng.random() < self.crop_prob else None
        brightness, contrast, hue, saturation, expand, mirror = rng.random(6)
        choice = Augmentation(
            crop=crop,
            brightness=rng.uniform(-32, 32) if brightness < 0.5 else 0.0,
            contrast=rng.uniform(0.5, 1.5) if contrast < 0.5 else 1.0,
            hue=int(rng.integers(-18, 19)) if hue < 0.5 else 0,
            saturation=rng.uniform(0.5, 1.5) if saturation < 0.5 else 1.0,
            expand=draw_expand(_cropped_size(size, crop), rng) if expand < self.prob else None,
            mirror=bool(mirror < 0.5),
            interpolation=INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))],
        )
        if len(boxes) and not len(self._map_boxes(choice, size, boxes)[1]):
            return Augmentation(interpolation=choice.interpolation, keep_small=True)
        return choice

    def steps(self, image, boxes, labels, difficult, rng) -> list:
        """The augmentation step by step, for pictures: [(name, image in color_order, boxes in pixels of that image)].

        Shows what __call__ does with a generator in the same state; the last image is the one it returns.
        """
        choice = self.draw(image.shape[:2], boxes, rng)
        result = self._render(image, choice), self._map_boxes(choice, image.shape[:2], boxes)[0]
        shown = [("input", image, boxes)]
        image, boxes = crop_image(image, choice.crop), crop_boxes(boxes, choice.crop)[0]
        shown.append(("crop", image, boxes))
        image = distort(np.array(image), choice)
        shown.append(("distort", image, boxes))
        if choice.expand is not None:
            x, y, width, height = choice.expand
            canvas = np.full((height, width, 3), self.mean_color, np.uint8)
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
            image, boxes = canvas, boxes + np.float32([x, y, x, y])
        shown.append(("expand", image, boxes))
        if choice.mirror:
            image, boxes = cv2.flip(image, 1), mirror_boxes(boxes, image.shape[1])
        shown.append(("mirror", image, boxes))
        shown = [(name, reorder(picture, self.color_order), found) for name, picture, found in shown]
        return [*shown, ("resize", *result)]

    def _place(self, choice: Augmentation, size) -> tuple[int, int, int, int]:
        """The rectangle x1, y1, x2, y2 of the output that the cropped image fills."""
        if choice.expand is None:
            return 0, 0, self.width, self.height
        x, y, width, height = choice.expand
        crop_height, crop_width = _cropped_size(size, choice.crop)
        x1, x2 = _scale_span(x, x + crop_width, self.width / width, self.width)
        y1, y2 = _scale_span(y, y + crop_height, self.height / height, self.height)
        return x1, y1, x2, y2

    def _map_boxes(self, choice: Augmentation, size, boxes):
        """Boxes in pixels of the output and the indices of those that remain."""
        x1, y1, x2, y2 = self._place(choice, size)
        height, width = _cropped_size(size, choice.crop)
        boxes, kept = crop_boxes(boxes, choice.crop)
        boxes = boxes * np.float32([(x2 - x1) / width, (y2 - y1) / height] * 2) + np.float32([x1, y1, x1, y1])
        if choice.mirror:
            boxes = mirror_boxes(boxes, self.width)
        if choice.keep_small:
            return boxes, kept
        shorter = ((boxes[:, 2:] - boxes[:, :2]) / np.float32([self.width, self.height])).min(axis=1)
        large = shorter >= self.min_box_size
        return boxes[large], kept[large]

    def _render(self, image, choice: Augmentation) -> np.ndarray:
        """The output image: one resize of the crop into its rectangle."""
        x1, y1, x2, y2 = self._place(choice, image.shape[:2])
        view = crop_image(image, choice.crop)
        output = cv2.resize(view, (x2 - x1, y2 - y1), interpolation=choice.interpolation)
        output = distort(output, choice)
        if choice.expand is not None:
            patch, output = output, self._canvas.copy()
            output[y1:y2, x1:x2] = patch
        if choice.mirror:
            output = cv2.flip(output, 1)
        return reorder(output, self.color_order)


class EvalTransform:
    """The deterministic preparation of an image: linear resize to image_size (height, width), then color_order."""

    def __init__(self, image_size, color_order: str = "BGR"):
        self.height, self.width = (int(side) for side in image_size)
        self.color_order = color_order

    def resize(self, image) -> np.ndarray:
        """uint8 BGR [H, W, 3] -> uint8 [height, width, 3] in color_order."""
        return reorder(cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_LINEAR), self.color_order)

    def __call__(self, image, boxes, labels, difficult, rng=None):
        """As TrainTransform.__call__, without chance: every object stays."""
        height, width = image.shape[:2]
        return self.resize(image), boxes / np.float32([width, height] * 2), labels, difficult


def create_transforms(cfg, train: bool):
    """The transform of the configuration: TrainTransform for training, else EvalTransform."""
    data = cfg.DATASET
    if not train:
        return EvalTransform(cfg.MODEL.IMAGE_SIZE, data.COLOR_ORDER)
    return TrainTransform(
        cfg.MODEL.IMAGE_SIZE,
        data.PROB,
        data.CROP_OVERLAP,
        data.MIN_BOX_SIZE,
        data.PIXEL_MEANS,
        data.COLOR_ORDER,
        data.CROP_PROB,
    )


def draw_crop(size, boxes, overlap: str, rng) -> tuple[int, int, int, int] | None:
    """A random crop (x, y, width, height) of an image of `size` (height, width), or None for the whole image.

    `overlap` 'any': one of the boxes [N, 4] must reach the IoU of the drawn mode, 'all': every one.  The centre of at
    least one box lies inside.  Without boxes every crop will do.
    """
    for _ in range(CROP_TRIES):
        mode = CROP_MODES[rng.integers(len(CROP_MODES))]
        if mode is None:
            return None
        crops = _candidates(size, rng)
        if not len(boxes):
            return _as_crop(crops[0])
        fits = _inside(boxes, crops).any(axis=1)
        if mode != ANY_CROP:
            iou = _iou(crops, boxes)
            fits &= (iou.max(axis=1) if overlap == "any" else iou.min(axis=1)) >= mode
        if fits.any():
            return _as_crop(crops[fits.argmax()])
    return None


def draw_expand(size, rng) -> tuple[int, int, int, int]:
    """Place an image of `size` (height, width) on a canvas of up to 16 times its area: (x, y, width, height)."""
    height, width = size
    scale = rng.uniform(1, 4)
    ratio = np.sqrt(rng.uniform(max(0.5, scale**-2), min(2, scale**2)))
    canvas_width, canvas_height = max(width, int(scale * ratio * width)), max(height, int(scale / ratio * height))
    x, y = rng.integers(canvas_width - width + 1), rng.integers(canvas_height - height + 1)
    return int(x), int(y), canvas_width, canvas_height


def distort(image, choice: Augmentation) -> np.ndarray:
    """Brightness, contrast, hue and saturation of a BGR image; may work in place."""
    if choice.brightness or choice.contrast != 1:
        table = np.clip(LEVELS + np.float32(choice.brightness), 0, 255) * np.float32(choice.contrast)
        cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8), dst=image)
    if choice.hue or choice.saturation != 1:
        tables = np.empty((1, 256, 3), np.uint8)
        tables[0, :, 0] = (np.arange(256) + choice.hue) % 180
        tables[0, :, 1] = np.clip(np.rint(LEVELS * np.float32(choice.saturation)), 0, 255)
        tables[0, :, 2] = np.arange(256)
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        cv2.LUT(hsv, tables, dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=image)
    return image


def crop_image(image, crop) -> np.ndarray:
    """A view of the crop (x, y, width, height); the image itself for None."""
    if crop is None:
        return image
    x, y, width, height = crop
    return image[y : y + height, x : x + width]


def crop_boxes(boxes, crop):
    """Boxes [N, 4] in pixels of the crop, cut to it, and the indices of those kept: their centre lies inside."""
    if crop is None:
        return boxes, np.arange(len(boxes))
    x, y, width, height = crop
    kept = np.flatnonzero(_inside(boxes, np.array([[x, y, x + width, y + height]]))[0])
    shifted = boxes[kept] - np.float32([x, y, x, y])
    return np.clip(shifted, 0, np.float32([width, height] * 2)), kept


def mirror_boxes(boxes, width: int) -> np.ndarray:
    """Boxes [N, 4] of an image of that width, as they lie in its mirror image."""
    boxes = boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return boxes


def reorder(image, color_order: str) -> np.ndarray:
    """A BGR image in the colour order asked for."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if color_order == "RGB" else image


def _candidates(size, rng) -> np.ndarray:
    """CROP_TRIES random crops [K, 4] as integer xyxy: side scale 0.3 to 1, aspect ratio 1/2 to 2."""
    height, width = size
    draws = rng.random((4, CROP_TRIES))
    scale = 0.3 + 0.7 * draws[0]
    low, high = np.maximum(0.5, scale**2), np.minimum(2, scale**-2)
    ratio = np.sqrt(low + (high - low) * draws[1])
    widths = np.clip((scale * ratio * width).astype(np.int64), 1, width)
    heights = np.clip((scale / ratio * height).astype(np.int64), 1, height)
    x, y = (draws[2] * (width - widths + 1)).astype(np.int64), (draws[3] * (height - heights + 1)).astype(np.int64)
    return np.stack([x, y, x + widths, y + heights], axis=1)


def _inside(boxes, crops) -> np.ndarray:
    """[K, N]: whether the centre of box n lies strictly inside crop k."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((crops[:, None, :2] < centers) & (centers < crops[:, None, 2:])).all(axis=2)


def _iou(crops, boxes) -> np.ndarray:
    """IoU [K, N] of crops [K, 4] with boxes [N, 4]."""
    sides = np.minimum(crops[:, None, 2:], boxes[:, 2:]) - np.maximum(crops[:, None, :2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return common / ((crops[:, 2:] - crops[:, :2]).prod(axis=1)[:, None] + areas - common)


def _cropped_size(size, crop) -> tuple[int, int]:
    """(height, width) of what a crop leaves of an image of `size`."""
    return size if crop is None else (crop[3], crop[2])


def _as_crop(corners) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2 - x1, y2 - y1


def _scale_span(start: int, stop: int, scale: float, limit: int) -> tuple[int, int]:
    """The span on a scaled axis, rounded to whole pixels, at least one wide and inside [0, limit]."""
    first = min(round(start * scale), limit - 1)
    return first, min(max(round(stop * scale), first + 1), limit)
