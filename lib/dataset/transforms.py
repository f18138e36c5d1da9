"""From a decoded photograph to the network's input: SSD augmentation for training, a plain resize for evaluation.

Images are uint8 [H, W, 3], BGR as OpenCV reads them, and leave in the colour order of the configuration; boxes come
in as pixels and leave in the unit square of the output.  Every image is resampled exactly once: a crop is a view, and
it is resized straight into its rectangle of the output canvas, which also is the expand step; a turn or a bend is made
in the same step.  Boxes are mapped by the
very integers that place the pixels, so the two cannot drift apart.  All random numbers of an image are drawn first
(`TrainTransform.draw`), from the generator handed in; applying them is deterministic.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from ..utils.errors import UserError
from ..utils.shortage import lacks_memory
from .geometry import (
    bend_boxes,
    bend_maps,
    crop_boxes,
    cropped_size,
    draw_crop,
    draw_expand,
    draw_patches,
    mirror_boxes,
    rotate_boxes,
    scale_span,
    turn_and_resize,
)
from .image_header import UnreadableImage, decode, read_orientation, turn_upright

INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_LANCZOS4)
LEVELS = np.arange(256, dtype=np.float32)


def read_image(path: str, exif: str = "ignore") -> np.ndarray:
    """The image file as uint8 BGR [H, W, 3], whatever its channels and depth.

    exif, as DATASET.EXIF: ignore takes the pixels as they are stored, apply turns them as EXIF says, fail refuses an
    image that EXIF would turn.  UnreadableImage for a file that is missing, broken or no image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except (OSError, ValueError) as error:
        if lacks_memory(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImage(f"{path}: cannot be read ({reason})") from None
    image = decode(data, path)
    orientation = read_orientation(data.tobytes()) if exif != "ignore" else 1
    if orientation != 1 and exif == "fail":
        raise UserError(f"{path}: EXIF says that it is rotated (orientation {orientation}), and DATASET.EXIF is fail")
    return turn_upright(image, orientation)


@dataclass(frozen=True)
class Augmentation:
    """The random decisions for one image; the defaults change nothing.

    crop is (x, y, width, height) in pixels of the image; expand (x, y, width, height) the place of the crop on a
    canvas of that width and height, in pixels of the crop; angle turns the crop about its centre, in degrees
    anticlockwise; bend and patches are the seeds of an elastic bend and of patches that hide parts, None for none; hue
    in OpenCV's half degrees; keep_small switches the filter of small boxes off.
    """

    crop: tuple[int, int, int, int] | None = None
    angle: float = 0.0
    brightness: float = 0.0
    contrast: float = 1.0
    hue: int = 0
    saturation: float = 1.0
    expand: tuple[int, int, int, int] | None = None
    mirror: bool = False
    interpolation: int = cv2.INTER_LINEAR
    keep_small: bool = False
    bend: int | None = None
    patches: int | None = None


class TrainTransform:
    """SSD augmentation (Liu et al. 2016, sections 2.2 and 3.6): crop, photometric, expand, mirror, resize.

    image_size is (height, width) of the output, unless a call gives one; prob the probability of expand, crop_prob
    that of drawing a crop mode (one of the seven is no crop); crop_overlap 'any' or 'all': which objects must reach the
    IoU of the drawn mode; objects whose shorter side is below min_box_size of the output are left out; pixel_means, in
    color_order, is the colour around an expanded image.  An image whose objects would all be lost is only resized.
    Images without objects are augmented like the others and stay empty.  rotation is (largest angle in degrees,
    probability); the corners that it bares get that colour too.  elastic_prob is the probability of a gentle bend,
    dropout_prob that of patches in that colour; what they hide stays an object.
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
        rotation: tuple[float, float] = (0.0, 0.0),
        elastic_prob: float = 0.0,
        dropout_prob: float = 0.0,
    ):
        self.image_size = tuple(int(side) for side in image_size)
        self.prob, self.crop_overlap, self.min_box_size = prob, crop_overlap, min_box_size
        self.crop_prob, self.rotation = crop_prob, rotation
        self.elastic_prob, self.dropout_prob = elastic_prob, dropout_prob
        self.color_order = color_order
        means = pixel_means[::-1] if color_order == "RGB" else pixel_means
        self.mean_color = tuple(int(value) for value in np.clip(np.rint(means), 0, 255))

    def __call__(self, image, boxes, labels, difficult, rng, output_size=None):
        """Augment one image.

        image uint8 BGR [H, W, 3]; boxes float32 [N, 4] xyxy pixels; labels int64 [N]; difficult bool [N]; rng a
        numpy Generator; output_size (height, width), image_size without it.  Returns (image uint8 [height, width, 3]
        in color_order, boxes float32 [M, 4] xyxy in the unit square, labels [M], difficult [M]).
        """
        choice = self.draw(image.shape[:2], boxes, rng, output_size)
        image, boxes, kept = self.perform(choice, image, boxes, output_size)
        return image, boxes, labels[kept], difficult[kept]

    def draw(self, size, boxes, rng, output_size=None) -> Augmentation:
        """All random decisions for an image of `size` (height, width) with these boxes [N, 4] xyxy pixels."""
        crop = draw_crop(size, boxes, self.crop_overlap, rng) if rng.random() < self.crop_prob else None
        expand = draw_expand(cropped_size(size, crop), rng) if rng.random() < self.prob else None
        choice = replace(self.draw_looks(rng), crop=crop, expand=expand)
        if len(boxes) and not len(self._map_boxes(choice, size, boxes, output_size or self.image_size)[1]):
            return Augmentation(interpolation=choice.interpolation, keep_small=True)
        return choice

    def draw_looks(self, rng) -> Augmentation:
        """The decisions that do not depend on the image: colours, mirror, angle, interpolation, bend, patches."""
        brightness, contrast, hue, saturation, mirror = rng.random(5)
        largest, prob = self.rotation
        return Augmentation(
            angle=rng.uniform(-largest, largest) if largest and rng.random() < prob else 0.0,
            brightness=rng.uniform(-32, 32) if brightness < 0.5 else 0.0,
            contrast=rng.uniform(0.5, 1.5) if contrast < 0.5 else 1.0,
            hue=int(rng.integers(-18, 19)) if hue < 0.5 else 0,
            saturation=rng.uniform(0.5, 1.5) if saturation < 0.5 else 1.0,
            mirror=bool(mirror < 0.5),
            interpolation=INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))],
            bend=_draw_seed(self.elastic_prob, rng),
            patches=_draw_seed(self.dropout_prob, rng),
        )

    def perform(self, choice: Augmentation, image, boxes, output_size=None):
        """What the decisions make of an image uint8 BGR [H, W, 3] and its boxes [N, 4] xyxy pixels.

        Returns the output image in color_order, the boxes [M, 4] that remain in the unit square, and their indices [M].
        """
        output_size = output_size or self.image_size
        boxes, kept = self._map_boxes(choice, image.shape[:2], boxes, output_size)
        boxes /= np.float32(output_size[::-1] * 2)
        return self._render(image, choice, output_size), boxes, kept

    def apply(self, choice: Augmentation, image, boxes, output_size):
        """As `perform`, but the boxes [M, 4] are those that lie in the output, in pixels of it, small ones too."""
        boxes, kept = self._map_boxes(replace(choice, keep_small=True), image.shape[:2], boxes, output_size)
        return self._render(image, choice, output_size), boxes, kept

    def large_enough(self, boxes, output_size) -> np.ndarray:
        """Mask [N] of the boxes [N, 4], in pixels of the output, whose shorter side is at least min_box_size."""
        return ((boxes[:, 2:] - boxes[:, :2]) / np.float32(output_size[::-1])).min(axis=1) >= self.min_box_size

    def steps(self, image, boxes, labels, difficult, rng) -> list:
        """The augmentation step by step, for pictures: [(name, image in color_order, boxes in pixels of that image)].

        Shows what __call__ does with a generator in the same state; the last image is the one it returns.
        """
        choice = self.draw(image.shape[:2], boxes, rng)
        mapped = self._map_boxes(choice, image.shape[:2], boxes, self.image_size)[0]
        result = self._render(image, choice, self.image_size), mapped
        shown = [("input", image, boxes)]
        image, boxes = crop_image(image, choice.crop), crop_boxes(boxes, choice.crop)[0]
        shown.append(("crop", image, boxes))
        size = image.shape[:2]
        if self.rotation[0]:
            if choice.angle:
                image = self._turn(image, replace(choice, bend=None), size)
                boxes = rotate_boxes(boxes, size, choice.angle)[0]
            shown.append(("rotate", image, boxes))
        if self.elastic_prob:
            if choice.bend is not None:
                image, boxes = self._turn(image, replace(choice, angle=0), size), bend_boxes(boxes, size, choice.bend)
            shown.append(("elastic", image, boxes))
        image = distort(np.array(image), choice)
        shown.append(("distort", image, boxes))
        if self.dropout_prob:
            image = self._hide(np.array(image), choice)
            shown.append(("dropout", image, boxes))
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

    def _place(self, choice: Augmentation, size, output_size) -> tuple[int, int, int, int]:
        """The rectangle x1, y1, x2, y2 of the output that the cropped image fills."""
        out_height, out_width = output_size
        if choice.expand is None:
            return 0, 0, out_width, out_height
        x, y, width, height = choice.expand
        crop_height, crop_width = cropped_size(size, choice.crop)
        x1, x2 = scale_span(x, x + crop_width, out_width / width, out_width)
        y1, y2 = scale_span(y, y + crop_height, out_height / height, out_height)
        return x1, y1, x2, y2

    def _map_boxes(self, choice: Augmentation, size, boxes, output_size):
        """Boxes in pixels of the output and the indices of those that remain."""
        x1, y1, x2, y2 = self._place(choice, size, output_size)
        height, width = cropped_size(size, choice.crop)
        boxes, kept = crop_boxes(boxes, choice.crop)
        if choice.angle:
            boxes, inside = rotate_boxes(boxes, (height, width), choice.angle)
            kept = kept[inside]
        if choice.bend is not None:
            boxes = bend_boxes(boxes, (height, width), choice.bend)
        boxes = boxes * np.float32([(x2 - x1) / width, (y2 - y1) / height] * 2) + np.float32([x1, y1, x1, y1])
        if choice.mirror:
            boxes = mirror_boxes(boxes, output_size[1])
        if choice.keep_small:
            return boxes, kept
        large = self.large_enough(boxes, output_size)
        return boxes[large], kept[large]

    def _render(self, image, choice: Augmentation, output_size) -> np.ndarray:
        """The output image: one resize, or one turn and bend, of the crop into its rectangle."""
        x1, y1, x2, y2 = self._place(choice, image.shape[:2], output_size)
        view = crop_image(image, choice.crop)
        if choice.angle or choice.bend is not None:
            output = self._turn(view, choice, (y2 - y1, x2 - x1))
        else:
            output = cv2.resize(view, (x2 - x1, y2 - y1), interpolation=choice.interpolation)
        output = self._hide(distort(output, choice), choice)
        if choice.expand is not None:
            patch, output = output, _plain_image(output_size, self.mean_color).copy()
            output[y1:y2, x1:x2] = patch
        if choice.mirror:
            output = cv2.flip(output, 1)
        return reorder(output, self.color_order)

    def _turn(self, view, choice: Augmentation, output_size) -> np.ndarray:
        """The crop turned about its centre, resized and bent in one step."""
        flags = cv2.INTER_LINEAR if choice.interpolation == cv2.INTER_AREA else choice.interpolation  # not for turns
        matrix = turn_and_resize(view.shape[:2], choice.angle, output_size)
        if choice.bend is None:
            return cv2.warpAffine(view, matrix, output_size[::-1], flags=flags, borderValue=self.mean_color)
        maps = bend_maps(matrix, output_size, choice.bend)
        border = cv2.BORDER_CONSTANT if choice.angle else cv2.BORDER_REPLICATE
        return cv2.remap(view, maps, None, flags, borderMode=border, borderValue=self.mean_color)

    def _hide(self, image, choice: Augmentation) -> np.ndarray:
        """The image with its patches painted over, in place."""
        if choice.patches is not None:
            for x1, y1, x2, y2 in draw_patches(image.shape[:2], choice.patches):
                image[y1:y2, x1:x2] = self.mean_color
        return image


def _draw_seed(prob: float, rng) -> int | None:
    """A seed with that probability; nothing is drawn for 0."""
    return int(rng.integers(2**31)) if prob and rng.random() < prob else None


@lru_cache(maxsize=32)
def _plain_image(size, color) -> np.ndarray:
    """An image of `size` (height, width) in one colour, not to be written to."""
    return np.full((*size, 3), color, np.uint8)


class EvalTransform:
    """The deterministic preparation of an image: linear resize to image_size (height, width), then color_order."""

    def __init__(self, image_size, color_order: str = "BGR"):
        self.height, self.width = (int(side) for side in image_size)
        self.color_order = color_order

    def resize(self, image, output_size=None) -> np.ndarray:
        """uint8 BGR [H, W, 3] -> uint8 [height, width, 3] in color_order."""
        height, width = output_size or (self.height, self.width)
        return reorder(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), self.color_order)

    def draw(self, size, boxes, rng=None, output_size=None) -> Augmentation:
        """As TrainTransform.draw, without chance: nothing changes."""
        return Augmentation()

    def perform(self, choice: Augmentation, image, boxes, output_size=None):
        """As TrainTransform.perform: every object stays."""
        height, width = image.shape[:2]
        return self.resize(image, output_size), boxes / np.float32([width, height] * 2), np.arange(len(boxes))

    def __call__(self, image, boxes, labels, difficult, rng=None, output_size=None):
        """As TrainTransform.__call__, without chance: every object stays."""
        image, boxes, _ = self.perform(Augmentation(), image, boxes, output_size)
        return image, boxes, labels, difficult


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
        (data.ROTATION, data.ROTATION_PROB),
        data.ELASTIC_PROB,
        data.DROPOUT_PROB,
    )


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


def reorder(image, color_order: str) -> np.ndarray:
    """A BGR image in the colour order asked for."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if color_order == "RGB" else image
