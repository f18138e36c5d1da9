"""The objects of frames of videos as flat arrays, and how much each of them moves."""

from array import array
from numbers import Integral
from typing import NamedTuple

import numpy as np

from ..structures import Target
from .image_metric import joined
from .matching import paired_iou

MOTION_WINDOW = 10
"""Frames to either side within which an object is compared with itself."""


def frame_of(image_id) -> tuple[str | int, int] | None:
    """(video, number of the frame) where an image_id names a frame of a video, else None."""
    if isinstance(image_id, tuple) and len(image_id) == 2:
        video, frame = image_id
        if isinstance(video, (str, Integral)) and isinstance(frame, Integral):
            return video, int(frame)
    return None


class ObjectArrays(NamedTuple):
    """M objects of the frames of videos, in the order in which the frames came: images [M] is the number of the frame
    among all, videos [M] that of the video, frames [M] counts as the video does, places [M] counts the frames that
    came in order of time, and tracks [M] names the object within its video, -1 where unknown."""

    images: np.ndarray
    videos: np.ndarray
    frames: np.ndarray
    places: np.ndarray
    tracks: np.ndarray


class VideoObjects:
    """Gathers the targets of frames, which may come in any order."""

    def __init__(self):
        self._seen = {}
        self._videos, self._frames = array("q"), array("q")
        self._tracks = []

    def add(self, target: Target) -> None:
        """Take the objects of a frame in; ValueError where its image_id is not (video, number of the frame), or when
        the frame came before."""
        if frame_of(target.image_id) is None:
            raise ValueError(f"image {target.image_id!r} is not a frame of a video, which is (video, number)")
        video, frame = frame_of(target.image_id)
        number, frames = self._seen.setdefault(video, (len(self._seen), set()))
        if frame in frames:
            raise ValueError(f"frame {frame} of video {video!r} came twice")
        frames.add(frame)
        self._videos.append(number)
        self._frames.append(frame)
        self._tracks.append(target.track_ids.cpu().numpy().astype(np.int64))

    def arrays(self) -> ObjectArrays:
        """What was gathered."""
        videos, frames = np.array(self._videos, np.int64), np.array(self._frames, np.int64)
        places = np.empty(len(frames), np.int64)
        places[np.lexsort((frames, videos))] = np.arange(len(frames))
        images = np.repeat(np.arange(len(frames)), [len(tracks) for tracks in self._tracks])
        return ObjectArrays(images, videos[images], frames[images], places[images], joined(self._tracks, np.int64))


def motion_iou(boxes: np.ndarray, objects: ObjectArrays, window: int = MOTION_WINDOW) -> np.ndarray:
    """How still each object is, [M] in 0..1: the mean IoU of its box with those of its track in the frames around.

    boxes [M, 4] xyxy in pixels.  The frames around are those up to `window` before and after by number, without its
    own; where the track is not in a frame, the mean is over fewer.  NaN where it is in none of them, as always when the
    track is unknown.  (Zhu et al., Flow-Guided Feature Aggregation, ICCV 2017.)
    """
    total, count = np.zeros(len(boxes)), np.zeros(len(boxes))
    order = np.lexsort((objects.frames, objects.tracks, objects.videos))
    order = order[objects.tracks[order] >= 0]
    boxes = boxes[order]
    videos, tracks, frames = (values[order] for values in (objects.videos, objects.tracks, objects.frames))
    for step in range(1, len(order)):
        apart = frames[step:] - frames[:-step]
        near = (videos[step:] == videos[:-step]) & (tracks[step:] == tracks[:-step]) & (apart <= window)
        if not near.any():
            break
        # Two boxes of one track in one frame are a mistake of the annotation and tell nothing of motion.
        first = np.flatnonzero(near & (apart > 0))
        overlaps = paired_iou(boxes[first], boxes[first + step])
        for ends in (order[first], order[first + step]):
            total[ends] += overlaps
            count[ends] += 1
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
