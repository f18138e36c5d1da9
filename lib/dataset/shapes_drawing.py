"""How one object of the shapes data set is drawn: its form, its surface, its light and shadow.

A `Shape` is a handful of numbers; `shape_mask` and `draw_shape` depend on nothing else, so that the same object can be
drawn again elsewhere, larger or turned, as a video needs it.  Coordinates are pixels with the centre of the first pixel
at (0, 0); images are uint8 BGR [H, W, 3]; masks are uint8 [H, W], the share of each pixel that is covered times 255.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

CLASS_NAMES = ("circle", "square", "triangle", "star", "cross", "ring")
MORE_CLASS_NAMES = ("heart", "arrow", "crescent", "bolt")
TEXTURES = {"flat": 0.2, "gradient": 0.25, "stripes": 0.11, "checks": 0.11, "dots": 0.11, "clouds": 0.11, "grain": 0.11}
RIM_SHARE = 0.7  # of the objects have a darker or lighter rim
_SUBROWS = 8
TILE = 96
_TILE_REACH = 0.75  # a texture tile covers +-0.75 sizes around the centre, more than the half diagonal of any shape


@dataclass(frozen=True)
class Shape:
    """One object: its kind (class or distractor); centre and size (geometric mean of width and height) in pixels;
    rotation in radians; height over width before it; place (-1 to 1) in the variety of its class; seed of its surface;
    its hue (0 to 6, None for any colour).
    """

    kind: str
    x: float
    y: float
    size: float
    angle: float = 0.0
    aspect: float = 1.0
    variant: float = 0.0
    seed: int = 0
    hue: float | None = None


@dataclass(frozen=True)
class Light:
    """Where the light comes from (radians), how much it shades objects (0 to 1), and the strength (0 to 1) and the
    length (in object sizes) of the shadows."""

    angle: float = 0.8
    shading: float = 0.3
    shadow: float = 0.4
    shadow_length: float = 0.08


def _circle(radius: float, start: float = 0.0, stop: float = 2 * math.pi, num_points: int = 48) -> np.ndarray:
    t = np.linspace(start, stop, num_points, endpoint=abs(stop - start) < 6.28)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], 1)


def _spikes(num_spikes: int, inner: float) -> np.ndarray:
    t = np.arange(2 * num_spikes) * math.pi / num_spikes - math.pi / 2
    radius = np.where(np.arange(2 * num_spikes) % 2, inner, 1.0)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], 1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], 1)


def _blob(rng: np.random.Generator) -> np.ndarray:
    """A closed curve with lobes, too uneven to be taken for a circle."""
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    radius = np.ones_like(t)
    for k in (2, 3, 5):
        radius += rng.uniform(0.12, 0.3) * np.cos(k * t + rng.uniform(0, 2 * math.pi))
    return np.stack([radius * np.cos(t), radius * np.sin(t)], 1)


def _outline(kind: str, wide: float, seed: int) -> list[np.ndarray]:
    """Closed contours [n, 2] of a kind, of any scale; a second one is a hole in the first."""
    if kind == "circle":
        return [_circle(1)]
    if kind == "ring":
        return [_circle(1), _circle(0.58 + 0.1 * wide)[::-1]]
    if kind == "square":
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)]
    if kind == "triangle":
        return [np.array([[0.25 * wide, -1], [1, 0.8], [-1, 0.8]], float)]
    if kind == "star":
        return [_spikes(5, 0.45 + 0.06 * wide)]
    if kind == "cross":
        a = 0.33 + 0.07 * wide
        quarter = np.array([[a, 1], [a, a], [1, a]])
        turns = [np.array([[0, -1], [1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, 1], [-1, 0]])]
        return [np.concatenate([quarter, *(quarter @ turn for turn in turns)])]
    if kind == "heart":
        return [_heart()]
    if kind == "arrow":
        a = 0.3 + 0.08 * wide
        return [np.array([[1, 0], [0.1, -0.8], [0.1, -a], [-1, -a], [-1, a], [0.1, a], [0.1, 0.8]])]
    if kind == "crescent":
        return [np.concatenate([_circle(1, 0.9, 5.4), _circle(0.72, 5.0, 1.3) + [0.32 + 0.08 * wide, 0]])]
    if kind == "bolt":
        a = 0.12 * wide
        right, left = [[0.6, -0.25], [0.1, -0.25], [0.5, -1]], [[-0.6, 0.15], [-0.1, 0.15]]
        return [np.array([*right, [0.1 + a, -1], *left, [-0.3 + a, 1]])]
    if kind == "arch":  # a ring with a piece missing
        return [np.concatenate([_circle(1, 0, 3.6 + 0.6 * wide), _circle(0.55, 3.6 + 0.6 * wide, 0)])]
    if kind == "blob":
        return [_blob(np.random.default_rng(seed))]
    raise ValueError(f"no shape is called {kind!r}")


def contours(shape: Shape) -> list[np.ndarray]:
    """The closed contours [n, 2] (x, y) of the object in pixels; a hole runs the other way round than the outside."""
    parts = _outline(shape.kind, shape.variant, shape.seed)
    low, high = parts[0].min(0), parts[0].max(0)
    stretch = math.sqrt(shape.aspect)
    scale = shape.size * np.array([1 / stretch, stretch]) / (high - low)
    cos, sin = math.cos(shape.angle), math.sin(shape.angle)
    rotation = np.array([[cos, sin], [-sin, cos]])
    return [((part - (low + high) / 2) * scale) @ rotation + [shape.x, shape.y] for part in parts]


def shape_area(shape: Shape) -> float:
    """The area of the whole object in pixels, wherever it lies."""
    twice = [float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) for x, y in map(np.transpose, contours(shape))]
    return abs(sum(twice)) / 2


class _Window(NamedTuple):
    """A rectangle of pixels, x2 and y2 exclusive, that may reach beyond the image: forms are drawn whole, then cut."""

    x1: int
    y1: int
    x2: int
    y2: int

    def cut(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where the part inside the image lies: in the image, and in an array of the window's size."""
        x1, y1 = min(max(self.x1, 0), width), min(max(self.y1, 0), height)
        x2, y2 = max(min(self.x2, width), x1), max(min(self.y2, height), y1)
        own = slice(y1 - self.y1, y2 - self.y1), slice(x1 - self.x1, x2 - self.x1)
        return (slice(y1, y2), slice(x1, x2)), own


def _window(outer: np.ndarray, margin: float = 1.5) -> _Window:
    """The pixels that a contour touches, and a margin."""
    x1, y1 = np.floor(outer.min(0) - margin)
    x2, y2 = np.ceil(outer.max(0) + margin) + 1
    return _Window(int(x1), int(y1), int(x2), int(y2))


def _coverage(parts: list[np.ndarray], window: _Window) -> np.ndarray:
    """uint8 coverage of the pixels of a window that holds the contours; exact along rows, sampled _SUBROWS times a row.

    Where an edge crosses the middle of a subrow, everything to its right changes sides; a running sum along the row
    adds these steps up.  In plain arithmetic, so that masks do not depend on the version of OpenCV.
    """
    width, height = window.x2 - window.x1, window.y2 - window.y1
    start = np.concatenate(parts) - [window.x1 - 0.5, window.y1 - 0.5]
    stop = np.concatenate([np.roll(part, -1, axis=0) for part in parts]) - [window.x1 - 0.5, window.y1 - 0.5]
    low, high = start[:, 1] * _SUBROWS - 0.5, stop[:, 1] * _SUBROWS - 0.5
    first = np.ceil(np.minimum(low, high)).astype(int)
    count = np.ceil(np.maximum(low, high)).astype(int) - first
    edge = np.repeat(np.arange(len(start)), count)
    subrow = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    x = start[edge, 0] + (subrow - low[edge]) / (high - low)[edge] * (stop - start)[edge, 0]
    column = x.astype(int)
    step, part_right = np.where(high > low, 1.0, -1.0)[edge], column + 1 - x
    cell = subrow // _SUBROWS * width + column
    steps = np.bincount(cell, step * part_right, height * width)
    steps += np.bincount(cell + 1, step * (1 - part_right), height * width)
    covered = np.abs(np.cumsum(steps.reshape(height, width), axis=1)) / _SUBROWS
    return np.rint(255 * np.minimum(covered, 1)).astype(np.uint8)


def shape_mask(shape: Shape, height: int, width: int) -> np.ndarray:
    """Coverage uint8 [height, width] of the object, anti-aliased, cut at the border of the image."""
    mask = np.zeros((height, width), np.uint8)
    parts = contours(shape)
    window = _window(parts[0])
    inside, own = window.cut(height, width)
    if mask[inside].size:
        mask[inside] = _coverage(parts, window)[own]
    return mask


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The 1-based inclusive (xmin, ymin, xmax, ymax) of the pixels of a bool mask; None without any."""
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return (x + 1, y + 1, x + w, y + h) if w else None


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """BGR float [3], any hue, often pale or grey."""
    return _colour(rng.uniform(0, 6), 0.9 * rng.random() ** 1.6, rng.uniform(0.12, 1.0))


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    ramp = np.clip(np.abs((hue + np.array([2.0, 4.0, 0.0])) % 6 - 3) - 1, 0, 1)
    return 255 * value * (1 - saturation + saturation * ramp)


def _look(seed: int, hue: float | None) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """The generator of an object's look, and its two colours: vivid ones about `hue`, or any."""
    rng = np.random.default_rng((seed, 1))
    first = random_colour(rng)
    if hue is not None:
        first = _colour(hue, rng.uniform(0.5, 1.0), rng.uniform(0.35, 1.0))
    return rng, first, first + rng.uniform(0.15, 0.45) * (random_colour(rng) - first)


def mean_colour(shape: Shape) -> np.ndarray:
    """About the mean BGR colour of an object."""
    _, first, second = _look(shape.seed, shape.hue)
    return (first + second) / 2


@lru_cache(maxsize=256)
def texture(seed: int, hue: float | None = None, side: int = TILE) -> np.ndarray:
    """A square tile uint8 [side, side, 3]: the surface of an object, in its own frame."""
    rng, first, second = _look(seed, hue)
    kind = rng.choice(list(TEXTURES), p=list(TEXTURES.values()))
    angle, pitch, phase = rng.uniform(0, math.pi), rng.uniform(0.1, 0.35), rng.uniform(0, 2 * math.pi)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side * (2 * _TILE_REACH)
    u = grid[None, :] * math.cos(angle) + grid[:, None] * math.sin(angle)
    v = grid[:, None] * math.cos(angle) - grid[None, :] * math.sin(angle)
    omega = 2 * math.pi / pitch
    if kind == "flat":
        pattern = np.zeros((side, side), np.float32)
    elif kind == "gradient":
        pattern = (u - u.min()) / (u.max() - u.min())
    elif kind == "stripes":
        pattern = 0.5 + np.clip(3 * np.sin(omega * u + phase), -0.5, 0.5)
    elif kind == "checks":
        pattern = 0.5 + np.clip(6 * np.sin(omega * u + phase) * np.sin(omega * v), -0.5, 0.5)
    elif kind == "dots":
        pattern = np.clip(4 * (np.sin(omega * u + phase) * np.sin(omega * v) - 0.3), 0, 1)
    else:
        cells = rng.integers(4, 9) if kind == "clouds" else side // 3
        pattern = cv2.resize(rng.random((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    tile = first.astype(np.float32) + pattern[..., None] * (second - first).astype(np.float32)
    return np.clip(tile, 0, 255).astype(np.uint8)


def blend(region: np.ndarray, paint: np.ndarray, alpha: np.ndarray) -> None:
    """region = region * (1 - alpha) + paint * alpha in place; alpha float32 [h, w] in 0..1."""
    region[:] = cv2.blendLinear(np.ascontiguousarray(region), np.ascontiguousarray(paint), 1 - alpha, alpha)


def _cast_shadow(image: np.ndarray, shape: Shape, light: Light) -> None:
    """Darken what lies on the far side of the light, softly."""
    reach = light.shadow_length * shape.size
    sigma = max(0.5, 0.3 * reach)
    away = {"x": shape.x + reach * math.cos(light.angle), "y": shape.y + reach * math.sin(light.angle)}
    parts = contours(replace(shape, **away))
    window = _window(parts[0], margin=3 * sigma)
    inside, own = window.cut(*image.shape[:2])
    if image[inside].size:
        soft = cv2.GaussianBlur(_coverage(parts, window), (0, 0), sigma)[own]
        keep = 1 - light.shadow / 255 * soft.astype(np.float32)
        image[inside] = (image[inside] * keep[..., None]).astype(np.uint8)


def _surface(shape: Shape, light: Light, window: _Window, coverage: np.ndarray) -> np.ndarray:
    """The shaded texture uint8 BGR of a window around the object, and the object's rim if it has one."""
    x1, y1, x2, y2 = window
    side = TILE if shape.size > TILE / 3 else TILE // 3  # a coarser tile for a small object, against aliasing
    tile = cv2.resize(texture(shape.seed, shape.hue), (side, side), interpolation=cv2.INTER_AREA)
    zoom = 2 * _TILE_REACH * shape.size / side
    cos, sin = zoom * math.cos(shape.angle), zoom * math.sin(shape.angle)
    half = (side - 1) / 2
    matrix = np.array([[cos, -sin, shape.x - x1 - half * (cos - sin)], [sin, cos, shape.y - y1 - half * (sin + cos)]])
    paint = cv2.warpAffine(tile, matrix, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    rng = np.random.default_rng((shape.seed, 2))
    rim, level = rng.uniform(0.02, 0.06) * shape.size, rng.choice([0.25, 0.45, 1.6])
    if rng.random() < RIM_SHARE:
        depth = cv2.distanceTransform((coverage >= 128).view(np.uint8), cv2.DIST_L2, 3)
        tint = np.clip(paint * level + 20 * (level > 1), 0, 255).astype(np.uint8)
        blend(paint, tint, np.clip(max(0.6, rim) + 1 - depth, 0, 1))
    xs = (np.arange(x1, x2, dtype=np.float32) - shape.x) * (math.cos(light.angle) / shape.size)
    ys = (np.arange(y1, y2, dtype=np.float32) - shape.y) * (math.sin(light.angle) / shape.size)
    shade = 1 - light.shading * (xs[None, :] + ys[:, None])
    return np.clip(paint * shade[..., None], 0, 255).astype(np.uint8)


def draw_shape(image: np.ndarray, shape: Shape, light: Light | None = None) -> np.ndarray:
    """Draw the object onto the image, in place, and return its mask uint8 [H, W] (as `shape_mask` does).

    The surface turns and grows with the object; the light, which also throws a shadow, does not.
    """
    light = light or Light()
    if light.shadow:
        _cast_shadow(image, shape, light)
    mask = np.zeros(image.shape[:2], np.uint8)
    parts = contours(shape)
    window = _window(parts[0])
    inside, own = window.cut(*mask.shape)
    if mask[inside].size:
        coverage = _coverage(parts, window)
        mask[inside] = coverage[own]
        blend(image[inside], _surface(shape, light, window, coverage)[own], mask[inside].astype(np.float32) / 255)
    return mask
