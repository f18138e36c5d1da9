"""How camera and objects of the generated videos move.

The camera sees a part of a world whose origin is the middle of the ground: it pans, zooms and rolls a little, and takes
ground and objects along.  Objects walk through the world with inertia; at the borders of what the camera sees they turn
back, some in time and some only after they have left the image.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .shapes_drawing import Shape
from .shapes_scene import SIZE_RANGE

STILL_CAMERAS = 0.3  # share of the videos
PAN, ZOOM, ROLL = 0.18, 0.12, 0.07  # reach of the camera: parts of a side, log of the scale, radians
GROUND = 1.0 + 2 * PAN + 0.3  # sides of the ground in sides of the image: pan, widest view, roll
LEAVERS = 0.35  # share of the objects that may leave the image
SPEEDS = ((0.2, 0.0005, 0.005), (0.6, 0.008, 0.04), (0.2, 0.04, 0.07))  # share, range in shorter sides a frame
_TURN, _TURN_KEPT = 0.04, 0.8  # radians a frame and the part of a turn that stays for the next frame


class Camera(NamedTuple):
    """Where a camera looks in each of T frames of `extent` (width, height) pixels: the point of the world [T, 2] in the
    middle of the image, scale [T], and roll [T] in radians."""

    extent: np.ndarray
    centre: np.ndarray
    zoom: np.ndarray
    roll: np.ndarray

    def matrix(self, frame: int) -> np.ndarray:
        """Affine float [2, 3] from the world to pixels."""
        turn = self.zoom[frame] * rotation(self.roll[frame])
        return np.column_stack([turn, (self.extent - 1) / 2 - turn @ self.centre[frame]])

    def to_image(self, frame: int, point: np.ndarray) -> np.ndarray:
        """Pixel [2] of a point [2] of the world."""
        matrix = self.matrix(frame)
        return matrix[:, :2] @ point + matrix[:, 2]

    def to_world(self, frame: int, pixel: np.ndarray) -> np.ndarray:
        """The inverse of `to_image`."""
        matrix = self.matrix(frame)
        return np.linalg.solve(matrix[:, :2], pixel - matrix[:, 2])


def rotation(angle: float) -> np.ndarray:
    """Matrix [2, 2] that turns as `Shape.angle` does."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def wave(rng: np.random.Generator, num_frames: int, reach: float) -> np.ndarray:
    """A smooth random course [num_frames] within +-reach."""
    periods, phases = rng.uniform(30, 90, 2), rng.uniform(0, 2 * math.pi, 2)
    time = np.arange(num_frames)[:, None]
    return reach * rng.uniform(0.2, 1) * np.sin(2 * math.pi * time / periods + phases) @ [0.65, 0.35]


def random_camera(rng: np.random.Generator, num_frames: int, height: int, width: int) -> Camera:
    """A camera that moves, or stands still."""
    moves = rng.random() >= STILL_CAMERAS
    side = min(height, width)
    pan = [wave(rng, num_frames, moves * PAN * side) for _ in range(2)]
    zoom, roll = wave(rng, num_frames, moves * ZOOM), wave(rng, num_frames, moves * ROLL)
    return Camera(np.array([width, height]), np.stack(pan, 1), np.exp(zoom), roll)


def random_path(rng: np.random.Generator, camera: Camera, shape: Shape, taken: list) -> list[Shape]:
    """The shape [T] as the image shows it in every frame, on a walk that begins away from the first places `taken`."""
    num_frames, side = len(camera.zoom), camera.extent.min()
    leaves = rng.random() < LEAVERS
    margin = shape.size * (rng.uniform(0.6, 0.9) if leaves else -0.4)  # by so much may its centre pass the border
    begin = max(margin, -0.3 * shape.size) if leaves and rng.random() < 0.4 else -0.4 * shape.size
    starts = rng.uniform(-begin, camera.extent - 1 + begin, (6, 2))
    free = [min((float(np.hypot(*(start - other))) for other in taken), default=0.0) for start in starts]
    centres = _walk(rng, camera, starts[int(np.argmax(free))], margin, side * _random_speed(rng))
    low, high = np.array(SIZE_RANGE) * side
    sizes = np.clip(shape.size * np.exp(wave(rng, num_frames, 0.25)), low, high) * camera.zoom
    angles = shape.angle + wave(rng, num_frames, 0.4) + camera.roll
    placed = zip(centres.tolist(), sizes.tolist(), angles.tolist(), strict=True)
    return [replace(shape, x=x, y=y, size=size, angle=angle) for (x, y), size, angle in placed]


def _random_speed(rng: np.random.Generator) -> float:
    """A part of the shorter side a frame."""
    _, low, high = SPEEDS[rng.choice(len(SPEEDS), p=[share for share, _, _ in SPEEDS])]
    return low * (high / low) ** rng.random()


def _walk(rng: np.random.Generator, camera: Camera, start: np.ndarray, margin: float, speed: float) -> np.ndarray:
    """Pixels [T, 2] of an object that keeps its speed and turns slowly, but heads back `margin` beyond the border."""
    num_frames = len(camera.zoom)
    paces = speed * np.exp(wave(rng, num_frames, 0.35))
    noise = _TURN * rng.standard_normal(num_frames)
    heading, turn = rng.uniform(0, 2 * math.pi), 0.0
    place, pixels = camera.to_world(0, start), [start]
    for frame in range(1, num_frames):
        turn = _TURN_KEPT * turn + noise[frame]
        heading += turn
        step = camera.matrix(frame)[:, :2] @ [math.cos(heading), math.sin(heading)]
        pixel = camera.to_image(frame, place)
        back = (pixel < -margin) & (step < 0) | (pixel > camera.extent - 1 + margin) & (step > 0)
        if back.any():
            step = np.linalg.solve(camera.matrix(frame)[:, :2], np.where(back, -step, step))
            heading, turn = math.atan2(step[1], step[0]), 0.0
        place = place + paces[frame] * np.array([math.cos(heading), math.sin(heading)])
        pixels.append(camera.to_image(frame, place))
    return np.array(pixels)
