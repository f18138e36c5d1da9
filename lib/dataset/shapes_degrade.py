"""What makes frames of a generated video hard to see for a moment: noise, blur, low contrast, covers.

Each is an event of a few frames that comes and goes softly.  At its height a frame alone hardly tells which objects
there are and where: whoever remembers the frames before knows more.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from .shapes_drawing import Shape, blend
from .shapes_motion import rotation
from .shapes_scene import clouds, draw_background

KINDS = ("noise", "motion_blur", "defocus", "low_contrast", "occlusion")
CLEAN = "none"
CLEAN_START = 4  # frames at the beginning of a video that nothing spoils, so that its objects can be known
EVENT_FRAMES = (2, 8)
_PEAK = (0.9, 1.0)


class Event(NamedTuple):
    """A degradation: its kind, first frame, number of frames, strength (0 to 1) at its height, and its seed."""

    kind: str
    first: int
    length: int
    peak: float
    seed: int

    def strength(self, frame: int) -> float:
        """The strength in a frame of the event: it rises and falls."""
        return self.peak * math.sqrt(math.sin(math.pi * (frame - self.first + 1) / (self.length + 1)))


def random_events(rng: np.random.Generator, num_frames: int, share: float) -> list[Event | None]:
    """The event of each frame, or None: about `share` of all, none of the first CLEAN_START, clean frames between."""
    shortest, longest = EVENT_FRAMES
    wanted = int(share * num_frames + rng.random())
    lengths = []
    while wanted - sum(lengths) >= shortest:
        lengths.append(min(int(rng.integers(shortest, longest + 1)), wanted - sum(lengths)))
    if lengths and wanted > sum(lengths) and min(lengths) < longest:
        lengths[lengths.index(min(lengths))] += 1
    while lengths and CLEAN_START + sum(lengths) + len(lengths) - 1 > num_frames:
        lengths.pop()
    spare = num_frames - CLEAN_START - sum(lengths) - (len(lengths) - 1)
    places = np.sort(rng.integers(0, spare + 1, len(lengths))) if lengths else []
    schedule, first = [None] * num_frames, CLEAN_START
    for place, length, number in zip(places, lengths, range(len(lengths)), strict=True):
        begin = first + int(place) + sum(lengths[:number]) + number
        kind, peak, seed = KINDS[rng.integers(len(KINDS))], rng.uniform(*_PEAK), int(rng.integers(2**31))
        schedule[begin : begin + length] = [Event(kind, begin, length, peak, seed)] * length
    return schedule


class Cover(NamedTuple):
    """A strip or patch that hides what lies behind it: its middle [T, 2] in the frames of the event, its half extents
    along and across its own axis in pixels (inf for a strip), and the angle of that axis."""

    centres: np.ndarray
    reach: tuple[float, float]
    angle: float

    def opacity(self, number: int, height: int, width: int) -> np.ndarray:
        """float32 [height, width] in 0..1, soft at the edges, in frame `number` of the event."""
        x = np.arange(width, dtype=np.float32)[None, :] - np.float32(self.centres[number, 0])
        y = np.arange(height, dtype=np.float32)[:, None] - np.float32(self.centres[number, 1])
        turn, solid = rotation(self.angle).astype(np.float32), np.ones((height, width), np.float32)
        for axis, reach in zip(turn.T, self.reach, strict=True):
            if math.isfinite(reach):
                soft = np.float32(max(1.0, 0.2 * reach))
                solid *= np.clip((np.float32(reach) - np.abs(axis[0] * x + axis[1] * y)) / soft + 0.5, 0, 1)
        return solid


def random_covers(rng: np.random.Generator, event: Event, paths: list[list[Shape]], height: int, width: int) -> list:
    """Covers that drift over most of the objects [N][T] in the image amid the event, and over nothing."""
    middle, side = event.first + event.length // 2, min(height, width)
    during = range(event.first, event.first + event.length)
    near = [path for path in paths if 0 <= path[middle].x < width and 0 <= path[middle].y < height]
    hidden = [path for path in near if rng.random() < 0.85] or near[:1]
    covers = []
    for path in hidden:
        size = path[middle].size
        covers.append(_cover(rng, np.array([[path[t].x, path[t].y] for t in during]), size, side))
    for x, y in rng.uniform(0, 1, (int(rng.integers(1, 3)), 2)) * [width, height]:
        covers.append(_cover(rng, np.tile([x, y], (event.length, 1)), side * rng.uniform(0.15, 0.4), side))
    return covers


def _cover(rng: np.random.Generator, places: np.ndarray, size: float, side: float) -> Cover:
    """A cover that drifts over an object of this size at these places [T, 2]."""
    drift, shift = rng.normal(0, 0.012 * side, 2), rng.uniform(-0.2, 0.2, 2) * size
    time = np.arange(len(places))[:, None] - len(places) / 2
    along = math.inf if rng.random() < 0.25 else size * rng.uniform(0.85, 1.2)
    return Cover(places + shift + drift * time, (along, size * rng.uniform(0.8, 1.1)), rng.uniform(0, math.pi))


class Degrader:
    """Degrades the frames of one event, in their order; `covered` bool [H, W] is what covers hide in the last one."""

    def __init__(self, event: Event, paths: list[list[Shape]], height: int, width: int):
        self.event, self.height, self.width = event, height, width
        self.rng = np.random.default_rng((event.seed, 3))
        self.covered = np.zeros((height, width), bool)
        self.angle, self.level = self.rng.uniform(0, math.pi), self.rng.choice([25.0, 110.0, 150.0, 225.0])
        self.covers = []
        if event.kind == "occlusion":
            self.covers = random_covers(self.rng, event, paths, height, width)
            self.paints = [draw_background(self.rng, height, width) for _ in self.covers]

    def __call__(self, image: np.ndarray, frame: int) -> np.ndarray:
        """The image uint8 [H, W, 3] of a frame of the event, degraded."""
        return getattr(self, f"_{self.event.kind}")(image, self.event.strength(frame), frame)

    def _noise(self, image: np.ndarray, strength: float, frame: int) -> np.ndarray:
        """Noise of several scales, as fine alone would be smoothed away, over what is left of the image."""
        grain = 50 * self.rng.standard_normal((self.height, self.width, 1), np.float32)
        for pixels, level in ((3, 40), (10, 30), (25, 20)):
            small = (self.height // pixels + 2, self.width // pixels + 2, 3)
            coarse = self.rng.standard_normal(small, np.float32) * np.float32(level)
            grain = grain + cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return _mix(image, 1 - 0.88 * strength, 120, strength * grain)

    def _low_contrast(self, image: np.ndarray, strength: float, frame: int) -> np.ndarray:
        """Fog, glare or dark: little is left of the image, and blots lie over it."""
        veil = 30 * (clouds(self.rng, self.height, self.width, 8) - 0.5)
        veil += 4 * self.rng.standard_normal((self.height, self.width, 1), np.float32)
        return _mix(image, 0.02 + 0.98 * (1 - strength) ** 2, self.level, strength * veil)

    def _motion_blur(self, image: np.ndarray, strength: float, frame: int) -> np.ndarray:
        """Everything is smeared far along a line and a little across it, as by a camera that is hit."""
        reach = strength * min(self.height, self.width)
        side = int(math.hypot(self.height, self.width)) + 1
        middle = np.array([self.width - 1, self.height - 1]) / 2
        turn = rotation(self.angle)
        matrix = np.column_stack([turn, np.full(2, (side - 1) / 2) - turn @ middle])
        turned = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        smeared = cv2.blur(turned, (1 + round(0.8 * reach), 1 + round(0.2 * reach)))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(smeared, matrix, (self.width, self.height), flags=flags, borderMode=cv2.BORDER_REFLECT)

    def _defocus(self, image: np.ndarray, strength: float, frame: int) -> np.ndarray:
        """Everything is blurred evenly; a quarter of the resolution shows all that is left."""
        small = cv2.resize(image, (self.width // 4, self.height // 4), interpolation=cv2.INTER_AREA)
        sigma = strength * 0.2 * min(self.height, self.width) / 4
        small = cv2.GaussianBlur(small, (0, 0), max(0.3, sigma))
        return cv2.resize(small, (self.width, self.height), interpolation=cv2.INTER_CUBIC)

    def _occlusion(self, image: np.ndarray, strength: float, frame: int) -> np.ndarray:
        """Covers that look like ground hide most objects; they fade in and out."""
        self.covered[:] = False
        for cover, paint in zip(self.covers, self.paints, strict=True):
            opacity = cover.opacity(frame - self.event.first, self.height, self.width)
            opacity *= np.float32(min(1, 1.15 * strength))
            blend(image, paint, opacity)
            self.covered |= opacity > 0.5
        return image


def _mix(image: np.ndarray, keep: float, level: float, veil: np.ndarray) -> np.ndarray:
    """The part `keep` of an image, the rest an even grey level, and a veil float32 [H, W, 1 or 3] on top."""
    mixed = image * np.float32(keep) + (np.float32(level * (1 - keep)) + veil)
    return np.clip(mixed, 0, 255).astype(np.uint8)
