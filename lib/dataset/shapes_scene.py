"""What an image of the shapes data set holds: objects, distractors, a cluttered ground, and the marks of a camera.

Where the objects lie is drawn first and depends on no pixel, so that annotations are the same with every version of
OpenCV; how they look comes after.
"""

import math
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from .shapes_drawing import (
    CLASS_NAMES,
    MORE_CLASS_NAMES,
    TILE,
    Light,
    Shape,
    blend,
    draw_shape,
    mask_box,
    mean_colour,
    random_colour,
    shape_area,
    shape_mask,
    texture,
)

EMPTY_SHARE = 0.03
SIZE_RANGE = (0.12, 0.6)  # of the shorter side of the image
MIN_INSIDE = 0.5  # smallest part of an object that the border leaves
MIN_VISIBLE = 0.4  # an object that shows less of itself is difficult
TINY = 0.04  # one with a box narrower than this part of the shorter side of the image too
_COUNT_WEIGHTS = (15, 20, 20, 15, 10, 6, 4)  # of 1 to 7 objects
DISTRACTORS = ("blob", "arch")
LETTERS = "BEFGHJKLMNPRSUWZ2345679?&"


class Scene(NamedTuple):
    """The objects of one image in the order of drawing; boxes, labels and difficult are as long as shapes."""

    shapes: list[Shape]
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


def plan_scene(rng: np.random.Generator, height: int, width: int, class_names=CLASS_NAMES) -> Scene:
    """Where the objects of an image lie; boxes, labels and difficult are those of `draw_scene`."""
    num_objects = 0
    if rng.random() >= EMPTY_SHARE:
        weights = np.array(_COUNT_WEIGHTS, float)
        num_objects = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
    shapes, boxes, shown = [], [], []  # shown: the visible part of each object, bool [height, width]
    for _ in range(num_objects):
        kind = class_names[rng.integers(len(class_names))]
        size = min(height, width) * _random_size(rng)
        shape = Shape(kind, 0, 0, size, rng.uniform(-0.6, 0.6), math.exp(rng.uniform(-0.35, 0.35)), rng.uniform(-1, 1))
        least = 0.15 if rng.random() < 0.1 else MIN_VISIBLE  # a few may all but hide another one
        for x, y in rng.uniform(-0.1, 1.1, (12, 2)) * [width, height]:
            shape = replace(shape, x=float(x), y=float(y))
            mask = shape_mask(shape, height, width) >= 128
            left = [part & ~mask for part in shown]
            if _fits(shape, mask) and all(map(partial(_shows, least), shapes, shown, left)):
                shapes, boxes, shown = [*shapes, shape], [*boxes, mask_box(mask)], [*left, mask]
                break
    boxes = np.array(boxes, np.int64).reshape(-1, 4)
    tiny = (boxes[:, 2:] - boxes[:, :2] + 1).min(1) < TINY * min(height, width)
    visible = np.array([np.count_nonzero(part) for part in shown], float)
    hidden = visible < MIN_VISIBLE * np.array([shape_area(shape) for shape in shapes], float)
    labels = np.array([class_names.index(shape.kind) + 1 for shape in shapes], np.int64)
    return Scene(shapes, boxes, labels, tiny | hidden)


def _random_size(rng: np.random.Generator) -> float:
    """A part of SIZE_RANGE: log-uniform, heavier at the upper end."""
    low, high = SIZE_RANGE
    return low * (high / low) ** (rng.random() ** 0.6)


def _fits(shape: Shape, mask: np.ndarray) -> bool:
    """Whether enough of the object lies inside the image."""
    return np.count_nonzero(mask) >= max(1, MIN_INSIDE * shape_area(shape))


def _shows(least: float, shape: Shape, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether an object stays visible enough, or as it was, when something is laid over it."""
    visible = np.count_nonzero(after)
    return visible == np.count_nonzero(before) or visible >= least * shape_area(shape)


def paint_scene(rng: np.random.Generator, height: int, width: int, shapes: list[Shape], class_names) -> np.ndarray:
    """An image uint8 BGR [height, width, 3] of the planned objects over a cluttered ground, as a camera sees it."""
    image = draw_background(rng, height, width)
    light, kinds = random_light(rng), distractor_kinds(class_names)
    distractors = []
    for _ in range(rng.integers(0, 3)):
        kind, size = kinds[rng.integers(len(kinds))], min(height, width) * _random_size(rng)
        x, y, aspect = rng.uniform(0, width), rng.uniform(0, height), math.exp(rng.uniform(-0.35, 0.35))
        shape = Shape(kind, x, y, size, rng.uniform(0, 2 * math.pi), aspect, rng.uniform(-1, 1))
        distractors.append(replace(shape, hue=rng.uniform(0, 6)))
    for shape in distractors:
        draw_shape(image, made_visible(rng, shape, _behind(image, shape)), light)
    for shape in shapes:
        hue = class_hue(rng, shape.kind, class_names)
        draw_shape(image, made_visible(rng, replace(shape, hue=hue), _behind(image, shape)), light)
    return Exposure.draw(rng)(rng, image)


def _random_hue(rng: np.random.Generator, place: float) -> float:
    """A hue about the one of a class at `place` (0 to 1) on the colour circle.

    The classes overlap, one object in ten has any hue and so have the distractors: colour is a hint that helps a
    detector on its way in the first minutes, but only the shape is certain.
    """
    return rng.uniform(0, 6) if rng.random() < 0.1 else (6 * place + rng.normal(0, 0.45)) % 6


def class_hue(rng: np.random.Generator, kind: str, class_names) -> float:
    """A hue for an object of a class."""
    return _random_hue(rng, class_names.index(kind) / len(class_names))


def random_light(rng: np.random.Generator) -> Light:
    """The light of a scene."""
    return Light(rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.6), rng.uniform(0, 0.6), rng.uniform(0.02, 0.12))


def distractor_kinds(class_names) -> list[str]:
    """The forms that are no class."""
    return [*(kind for kind in MORE_CLASS_NAMES if kind not in class_names), *DISTRACTORS]


def made_visible(rng: np.random.Generator, shape: Shape, behind: np.ndarray) -> Shape:
    """The shape with that of five random surfaces that differs most from the mean colour [3] behind it."""
    seeds = [int(seed) for seed in rng.integers(2**31, size=5)]
    looks = [replace(shape, seed=seed) for seed in seeds]
    return max(looks, key=lambda look: np.abs(mean_colour(look) - behind).sum())


def _behind(image: np.ndarray, shape: Shape) -> np.ndarray:
    """The mean BGR colour of the part of an image that a shape will cover, about."""
    height, width = image.shape[:2]
    reach = 0.5 * shape.size
    x1, x2 = np.clip([shape.x - reach, shape.x + reach], 0, width).astype(int)
    y1, y2 = np.clip([shape.y - reach, shape.y + reach], 0, height).astype(int)
    return np.array(cv2.mean(image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])[:3])


def draw_scene(rng: np.random.Generator, height: int, width: int, class_names=CLASS_NAMES) -> tuple:
    """One image and what it holds.

    Returns (image uint8 BGR [height, width, 3], boxes int64 [N, 4] (xmin, ymin, xmax, ymax) 1-based inclusive, labels
    int64 [N] from 1 into `class_names`, difficult bool [N]).  A box is tight around the pixels of the whole object that
    lie in the image, hidden or not; difficult objects are tiny or show less than MIN_VISIBLE of themselves.
    """
    scene = plan_scene(rng, height, width, class_names)
    image = paint_scene(rng, height, width, scene.shapes, class_names)
    return image, scene.boxes, scene.labels, scene.difficult


def clouds(rng: np.random.Generator, height: int, width: int, cells: int, channels: int = 1) -> np.ndarray:
    """Smooth noise float32 [height, width, channels] in 0..1 with about `cells` bumps along the longer side."""
    pixels = max(height, width) / cells
    grid = rng.random((math.ceil(height / pixels) + 1, math.ceil(width / pixels) + 1, channels), np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def draw_background(rng: np.random.Generator, height: int, width: int, scribbles: int = 1) -> np.ndarray:
    """A cluttered image uint8 [height, width, 3] without objects: clouds, fields of texture, and `scribbles` times
    lines, arcs and letters."""
    low = random_colour(rng).astype(np.float32)
    high = low + np.float32(0.4) * (random_colour(rng).astype(np.float32) - low)
    half = (height + 1) // 2, (width + 1) // 2  # clouds are smooth: half the resolution shows all of them
    pattern = sum(weight * clouds(rng, *half, cells) for weight, cells in ((0.6, 3), (0.3, 9), (0.1, 40)))
    coarse = low + pattern * (high - low)
    coarse += rng.uniform(0, 30) * (clouds(rng, *half, int(rng.integers(4, 30)), 3) - 0.5)
    image = cv2.resize(np.clip(coarse, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.integers(0, 3)):
        _lay_field(rng, image)
    for _ in range(scribbles):
        _scribble(rng, image)
    return image


def _scribble(rng: np.random.Generator, image: np.ndarray) -> None:
    """Straight lines, open arcs and letters, all of which resemble parts of objects."""
    extent = np.array([image.shape[1], image.shape[0]])
    scale = int(extent.min())
    for _ in range(rng.integers(0, 5)):
        start, stop = rng.uniform(-0.2, 1.2, (2, 2)) * extent
        thickness = int(rng.integers(1, max(2, scale // 60) + 1))
        cv2.line(image, _pixel(start), _pixel(stop), random_colour(rng), thickness, cv2.LINE_AA)
    for _ in range(rng.integers(0, 3)):
        centre, axes = _pixel(rng.uniform(0, 1, 2) * extent), _pixel(rng.uniform(0.1, 0.7, 2) * scale)
        turn, start, span = rng.uniform(0, 360), rng.uniform(0, 360), rng.uniform(40, 200)
        thickness = int(rng.integers(1, max(2, scale // 50) + 1))
        cv2.ellipse(image, centre, axes, turn, start, start + span, random_colour(rng), thickness, cv2.LINE_AA)
    for _ in range(rng.integers(0, 3)):
        letter, size = LETTERS[rng.integers(len(LETTERS))], rng.uniform(0.06, 0.25) * scale
        where, font = _pixel(rng.uniform(0, 1, 2) * extent), int(rng.integers(0, 5))
        cv2.putText(image, letter, where, font, size / 22, random_colour(rng), max(1, round(size / 10)), cv2.LINE_AA)


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _lay_field(rng: np.random.Generator, image: np.ndarray) -> None:
    """Cover one side of a random straight line with a texture: edges, but no closed form."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * math.pi)
    normal = np.array([math.cos(angle), math.sin(angle)])
    point = rng.uniform(0.1, 0.9, 2) * [width, height] - [width / 2, height / 2]
    tile = texture.__wrapped__(int(rng.integers(2**31)))
    zoom, turn = rng.uniform(0.25, 0.8) * max(height, width) / TILE, rng.uniform(0, 360)
    matrix = cv2.getRotationMatrix2D((TILE / 2, TILE / 2), turn, zoom)
    matrix[:, 2] += [width / 2 - TILE / 2, height / 2 - TILE / 2]
    paint = cv2.warpAffine(tile, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    xs = (np.arange(width, dtype=np.float32) - width / 2) * np.float32(normal[0])
    ys = (np.arange(height, dtype=np.float32) - height / 2) * np.float32(normal[1])
    distance = xs[None, :] + ys[:, None] - np.float32(normal @ point)
    blend(image, paint, np.clip(distance + 0.5, 0, 1) * np.float32(rng.uniform(0.2, 0.7)))


class Exposure(NamedTuple):
    """What camera and light do to a whole image: falling light, blur, contrast, brightness, and noise."""

    angle: float
    fall: float
    gain: float
    offset: float
    blur: float
    sigma: float
    motion: int
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Exposure":
        """A random one."""
        angle, fall = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.6)
        gain, offset = rng.uniform(0.65, 1.25), rng.uniform(-25, 30)
        blur, sigma, motion = rng.random(), rng.uniform(0.4, 1.3), int(rng.integers(3, 7))
        return cls(angle, fall, gain, offset, blur, sigma, motion, 11 * rng.random() ** 2)

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """The image uint8 [H, W, 3] as this camera sees it; the generator makes the noise."""
        height, width = image.shape[:2]
        if self.blur < 0.35:
            image = cv2.GaussianBlur(image, (0, 0), self.sigma)
        elif self.blur < 0.45:
            kernel = np.zeros((self.motion, self.motion), np.float32)
            kernel[self.motion // 2] = 1 / self.motion
            spin = cv2.getRotationMatrix2D((self.motion // 2, self.motion // 2), math.degrees(self.angle), 1)
            kernel = cv2.warpAffine(kernel, spin, (self.motion, self.motion))
            image = cv2.filter2D(image, -1, kernel / kernel.sum())
        xs = (np.arange(width, dtype=np.float32) / width - 0.5) * math.cos(self.angle)
        ys = (np.arange(height, dtype=np.float32) / height - 0.5) * math.sin(self.angle)
        field = self.gain * (1 + self.fall * (xs[None, :] + ys[:, None]))
        grain = rng.standard_normal((height, width), np.float32) * np.float32(self.noise)
        grain += np.float32(self.offset + 128 * (1 - self.gain))
        out = image * field[..., None]
        out += grain[..., None]
        return cv2.convertScaleAbs(np.maximum(out, 0, out=out))
