"""Where an augmentation puts pixels and boxes: crops, expansion, turns, bends, mirror images, as pure functions.

Boxes are float32 [N, 4] xyxy in pixels, sizes are (height, width).
"""

import cv2
import numpy as np

ANY_CROP = -1.0
CROP_MODES = (None, 0.1, 0.3, 0.5, 0.7, 0.9, ANY_CROP)
"""No crop, a crop of at least that IoU with the objects, or any crop that holds an object (SSD, section 2.2)."""

CROP_TRIES = 50
"""Crops drawn for a mode before another mode is drawn, and modes drawn before the image stays whole."""

BEND_WAVES = 3
BEND_SHIFT = 0.03
"""Half waves of a bend along a side, at most, and how far it moves a point, at most, in parts of the side."""

BEND_STEPS = 8
OUTLINE_POINTS = 16
"""Steps of the iteration that inverts a bend, each of which more than halves the error, and points on a side of a
box."""

PATCHES = (2, 6)
PATCH_SIDES = (0.05, 0.15)
"""Least and largest number of the patches that hide parts of an image, and of their sides in parts of its own."""


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


def crop_boxes(boxes, crop):
    """Boxes [N, 4] in pixels of the crop, cut to it, and the indices of those kept: their centre lies inside."""
    if crop is None:
        return boxes, np.arange(len(boxes))
    x, y, width, height = crop
    kept = np.flatnonzero(_inside(boxes, np.array([[x, y, x + width, y + height]]))[0])
    shifted = boxes[kept] - np.float32([x, y, x, y])
    return np.clip(shifted, 0, np.float32([width, height] * 2)), kept


def rotate_boxes(boxes, size, angle: float):
    """Boxes [N, 4] of an image of `size` (height, width) after it was turned about its centre by `angle` degrees
    anticlockwise and cut to its old size, and the indices of those kept: their centre still lies inside.

    A box becomes the box around its turned inscribed ellipse (arXiv 2109.13488): the one around the turned corners
    would be far too large for most objects.
    """
    height, width = size
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    middle = np.float32([width / 2, height / 2])
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle).T
    half_width, half_height = ((boxes[:, 2:] - boxes[:, :2]) / 2).T
    centers = np.stack([cos * x + sin * y, cos * y - sin * x], axis=1) + middle
    halves = np.stack(
        [np.hypot(half_width * cos, half_height * sin), np.hypot(half_width * sin, half_height * cos)], axis=1
    )
    turned = np.concatenate([centers - halves, centers + halves], axis=1).astype(np.float32)
    kept = np.flatnonzero(((centers > 0) & (centers < (width, height))).all(axis=1))
    return np.clip(turned[kept], 0, np.float32([width, height] * 2)), kept


def bend_maps(matrix, size, seed: int) -> np.ndarray:
    """The map [height, width, 2] for cv2.remap to an image of `size` (height, width) that bends what the matrix [2, 3]
    of a cv2.warpAffine would put there.

    The bent image shows at a point what was at that point plus a displacement: a random sum of sines that vanish on the
    border and are so gentle that nothing is folded over.
    """
    height, width = size
    xs, ys = np.arange(width), np.arange(height)
    weights = _bend_weights(seed)
    shifts = _sines((ys + 0.5) / height) @ weights @ _sines((xs + 0.5) / width).T
    points = np.stack([xs + shifts[0] * width, ys[:, None] + shifts[1] * height], axis=2)
    inverse = cv2.invertAffineTransform(matrix)
    return (points @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)


def bend_boxes(boxes, size, seed: int) -> np.ndarray:
    """Boxes [N, 4] of an image of `size` (height, width) after that bend: each the box around its bent outline."""
    along, zeros = np.linspace(0, 1, OUTLINE_POINTS), np.zeros(OUTLINE_POINTS)
    sides = [(along, zeros), (along, zeros + 1), (zeros, along), (zeros + 1, along)]
    outline = np.concatenate([np.stack(side, axis=1) for side in sides])
    limits, weights = np.array([size[1], size[0]]), _bend_weights(seed)
    low, high = boxes[:, None, :2] / limits, boxes[:, None, 2:] / limits
    shown = low + (high - low) * outline
    points = shown
    for _ in range(BEND_STEPS):
        points = shown - np.einsum("...k,ckj,...j->...c", _sines(points[..., 1]), weights, _sines(points[..., 0]))
    points = points.clip(0, 1) * limits
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float32)


def _bend_weights(seed: int) -> np.ndarray:
    """Weights [2, K, K] of the products of sines along y and x that are the displacements along x and y."""
    waves = np.arange(1, BEND_WAVES + 1)
    weights = np.random.default_rng(seed).uniform(-1, 1, (2, BEND_WAVES, BEND_WAVES)) / np.hypot(waves[:, None], waves)
    grid = _sines(np.linspace(0, 1, 33))
    return weights * (BEND_SHIFT / np.abs(grid @ weights @ grid.T).max())


def _sines(places) -> np.ndarray:
    """[..., K]: the half waves of a bend at places in the unit interval."""
    return np.sin(np.pi * np.asarray(places)[..., None] * np.arange(1, BEND_WAVES + 1))


def draw_patches(size, seed: int) -> np.ndarray:
    """Random patches [K, 4] xyxy, whole pixels of an image of `size` (height, width), of a few percent of its area."""
    rng, (height, width) = np.random.default_rng(seed), size
    number = rng.integers(PATCHES[0], PATCHES[1] + 1)
    sides, places = rng.uniform(*PATCH_SIDES, (number, 2)), rng.random((number, 2))
    low = places * (1 - sides)
    return np.rint(np.concatenate([low, low + sides], axis=1) * (width, height, width, height)).astype(np.int64)


def mirror_boxes(boxes, width: int) -> np.ndarray:
    """Boxes [N, 4] of an image of that width, as they lie in its mirror image."""
    boxes = boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return boxes


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


def cropped_size(size, crop) -> tuple[int, int]:
    """(height, width) of what a crop leaves of an image of `size`."""
    return size if crop is None else (crop[3], crop[2])


def _as_crop(corners) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2 - x1, y2 - y1


def scale_span(start: int, stop: int, scale: float, limit: int) -> tuple[int, int]:
    """The span on a scaled axis, rounded to whole pixels, at least one wide and inside [0, limit]."""
    first = min(round(start * scale), limit - 1)
    return first, min(max(round(stop * scale), first + 1), limit)


def turn_and_resize(size, angle: float, output_size) -> np.ndarray:
    """The matrix [2, 3] for cv2.warpAffine that turns an image of `size` about its centre and fits it to output_size.

    OpenCV counts from the middle of the first pixel, boxes from its corner: half a pixel either way.
    """
    (height, width), (out_height, out_width) = size, output_size
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    scale = np.diag([out_width / width, out_height / height])
    linear = scale @ np.array([[cos, sin], [-sin, cos]])
    middle = np.array([width / 2, height / 2])
    shift = scale @ middle - linear @ middle + linear @ [0.5, 0.5] - 0.5
    return np.column_stack([linear, shift])
