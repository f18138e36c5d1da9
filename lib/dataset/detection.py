"""Annotations of a data set in flat arrays, and the images that go with them.

The arrays hold no Python object per image: worker processes that are forked share them, and reading them does not
touch reference counts, so memory does not grow with the workers.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..structures import Target
from ..utils.errors import UserError
from ..utils.registry import Registry
from .image_header import UnreadableImage
from .transforms import EvalTransform, read_image

logger = logging.getLogger(__name__)

DATASETS = Registry("data set")
"""Parsers `(roots, sets, role, class_names, plan, where, checks) -> DetectionRecords` by name; voc.py says what they
take."""

MAX_STAND_INS = 100
"""Images in a row that may be unreadable before training stops: so many are no accident, but a folder that is gone."""


class FlatStrings:
    """Many strings in two arrays: their bytes one after another, and where each begins."""

    def __init__(self, strings):
        encoded = [text.encode("utf-8", "surrogateescape") for text in strings]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        text = self._bytes[self._starts[index] : self._starts[index + 1]].tobytes()
        return text.decode("utf-8", "surrogateescape")


@dataclass(eq=False)
class DetectionRecords:
    """What a data set says of its I images and their M objects.

    class_names without the background; paths and ids of the images; sizes int32 [I, 2] (height, width); boxes float32
    [M, 4] xyxy in pixels, 0-based corners; labels int64 [M] from 1; difficult bool [M]; the objects of image i are
    offsets[i] to offsets[i + 1] of offsets int64 [I + 1].  `name` says where they come from, `exif` how the images
    are read (DATASET.EXIF) and `report` is the file that tells what is wrong with them, '' for none.

    Of videos, also: video v is the images video_offsets[v] to video_offsets[v + 1] of video_offsets int64 [V + 1], in
    order of time; its name is videos[v]; frames int64 [I] counts the images as their video does; track_ids int64 [M]
    names an object within its video, -1 where unknown.  Stills have none of these, but may have track_ids.

    crowd bool [M] marks the objects that are crowds, None where none is; they are difficult, too.  areas float64 [M]
    are those inside the outlines of the objects, NaN or None where there are none.  Of COCO's files, also:
    image_numbers int64 [I], the numbers of the images, and category_ids, those of class_names; None and () where the
    files have none, or none that hold for all of them.  `cache` keeps the images once they are read, None for nothing.
    """

    class_names: tuple[str, ...]
    paths: FlatStrings
    ids: FlatStrings
    sizes: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    offsets: np.ndarray
    name: str = ""
    exif: str = "ignore"
    report: str = ""
    track_ids: np.ndarray | None = None
    video_offsets: np.ndarray | None = None
    videos: FlatStrings | None = None
    frames: np.ndarray | None = None
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    image_numbers: np.ndarray | None = None
    category_ids: tuple[int, ...] = ()
    cache: Any = None

    @classmethod
    def build(cls, class_names, paths, ids, sizes, boxes, labels, difficult, counts, name="") -> "DetectionRecords":
        """Records from sequences; counts [I] is the number of objects of each image."""
        return cls(
            tuple(class_names),
            FlatStrings(paths),
            FlatStrings(ids),
            np.asarray(sizes, np.int32).reshape(-1, 2),
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(labels, np.int64),
            np.asarray(difficult, bool),
            np.cumsum([0, *counts], dtype=np.int64),
            name,
        )

    @classmethod
    def concat(cls, parts) -> "DetectionRecords":
        """One data set out of several of the same classes.  Where two images share an id, every id gets the name of
        its part in front: 'VOC2007/000001'."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
        for part in parts[1:]:
            if part.class_names != parts[0].class_names:
                raise UserError(
                    f"data sets with different classes cannot be joined: {parts[0].name} has "
                    f"{', '.join(parts[0].class_names)}; {part.name} has {', '.join(part.class_names)}"
                )
        ids = [text for part in parts for text in part.ids]
        if len(set(ids)) < len(ids):
            names = _distinct([part.name for part in parts])
            ids = [f"{name}/{text}" for name, part in zip(names, parts, strict=True) for text in part.ids]
        shifts = np.cumsum([0] + [len(part.labels) for part in parts])
        offsets = [part.offsets[:-1] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
        joined = (
            _join_videos(parts)
            | _join_extras(parts)
            | {
                field: np.concatenate([getattr(part, field) for part in parts])
                for field in ("sizes", "boxes", "labels", "difficult")
            }
        )
        return cls(
            parts[0].class_names,
            FlatStrings([path for part in parts for path in part.paths]),
            FlatStrings(ids),
            **joined,
            offsets=np.concatenate([*offsets, shifts[-1:]]),
            name=" + ".join(part.name for part in parts),
            exif=parts[0].exif,
            report=parts[0].report,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def image_path(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> np.ndarray:
        """Image `index` as uint8 BGR [H, W, 3], turned as its boxes expect; UnreadableImage if it cannot be read."""
        if self.cache is not None:
            return self.cache.read(index)
        return read_image(self.image_path(index), self.exif)

    @property
    def is_video(self) -> bool:
        """Whether the images are frames of videos, in order."""
        return self.video_offsets is not None

    def image_id(self, index: int) -> str | tuple[str, int]:
        """What results call image `index`: its id, or (video, number of the frame)."""
        if not self.is_video:
            return self.ids[index]
        return self.videos[int(self.video_of([index])[0])], int(self.frames[index])

    def video_of(self, indices) -> np.ndarray:
        """The number of the video that each image belongs to."""
        return np.searchsorted(self.video_offsets, indices, side="right") - 1

    def tracks(self, index: int) -> np.ndarray:
        """The track numbers int64 [N] of the objects of image `index`, -1 where unknown."""
        first, last = self.offsets[index : index + 2]
        return np.full(last - first, -1) if self.track_ids is None else self.track_ids[first:last].copy()

    def crowds(self, index: int) -> np.ndarray:
        """bool [N]: which objects of image `index` are crowds."""
        first, last = self.offsets[index : index + 2]
        return np.zeros(last - first, bool) if self.crowd is None else self.crowd[first:last].copy()

    def object_areas(self, index: int) -> np.ndarray | None:
        """float64 [N]: areas of the objects of image `index` in pixels, NaN where unknown; None where all are."""
        return None if self.areas is None else self.areas[self.offsets[index] : self.offsets[index + 1]].copy()

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of image `index` in pixels."""
        height, width = self.sizes[index].tolist()
        return height, width

    def objects(self, index: int):
        """Copies of boxes [N, 4] in pixels, labels [N] and difficult [N] of image `index`."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.boxes[span].copy(), self.labels[span].copy(), self.difficult[span].copy()

    def target(self, index: int) -> Target:
        """The objects of image `index` with boxes in the unit square."""
        boxes, labels, difficult = self.objects(index)
        height, width = self.size(index)
        boxes /= np.float32([width, height] * 2)
        marks = self.tracks(index), self.crowds(index), self.object_areas(index)
        return to_target(boxes, labels, difficult, self.image_id(index), (height, width), *marks)

    def num_objects_per_class(self) -> np.ndarray:
        """int64 [C - 1]: objects of every class, in the order of class_names."""
        return np.bincount(self.labels, minlength=len(self.class_names) + 1)[1:]


class Photograph(NamedTuple):
    """Image `index` of a data set, uint8 BGR [H, W, 3], with its boxes float32 [N, 4] in pixels, labels [N],
    difficult [N], crowd [N] and track numbers [N]."""

    index: int
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    tracks: np.ndarray


class Sample(NamedTuple):
    """A transformed image uint8 [H, W, 3] with its boxes float32 [N, 4] in the unit square, labels [N], difficult [N],
    crowd [N] and track numbers [N]; `size` is that of the file, `shown` the index of the image that is shown."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    tracks: np.ndarray
    size: tuple[int, int]
    shown: int


class DetectionDataset(torch.utils.data.Dataset):
    """Images of `records`, read and transformed; the key of an item is a sampler's Item, or its first words: epoch,
    index, how often the index came before in the epoch, (height, width), anchor.

    The random numbers of an item depend on seed, epoch, index and repeat only, whichever process loads it; those of a
    frame with an anchor on the anchor in place of the index, and what is drawn with them also on what the records say
    of the anchor, so that all frames with one anchor are augmented alike.  stand_in: the next readable image takes the
    place of one that cannot be read, for a frame with an anchor the nearest of its video, an earlier one if there is
    any; `unreadable` {index: reason} remembers it.  `mix` makes the epochs up to a last one use another transform for
    images without an anchor.
    """

    def __init__(self, records: DetectionRecords, transform, seed: int = 0, stand_in: bool = False):
        self.records, self.transform, self.seed, self.stand_in = records, transform, seed, stand_in
        self.unreadable = {}
        self._mixing, self._last_mixed_epoch = None, 0
        self._size_told = False

    def __len__(self) -> int:
        return len(self.records)

    def mix(self, transform, last_epoch: int):
        """Use this transform, which may ask `draw_other` for more images, in the epochs up to the last one."""
        self._mixing, self._last_mixed_epoch = transform, last_epoch

    def draw_other(self, rng):
        """(image uint8 BGR [H, W, 3], boxes [N, 4] in pixels, labels, marks bool [N, 2]: difficult and crowd) of a
        random image of the set."""
        found = self.load(int(rng.integers(len(self))))
        return found.image, found.boxes, found.labels, _marks(found)

    def sample(self, epoch: int, index: int, repeat: int = 0, output_size=None, anchor: int | None = None) -> Sample:
        """The image of a key, transformed; UnreadableImage naming a file that cannot be read.  Mixed images, of several
        photographs, have no track numbers."""
        found = self.load(index) if anchor is None else self.load_frame(index)
        shown, image, boxes, labels, difficult, crowd, tracks = found
        size = image.shape[:2]
        drawn = index if anchor is None else anchor
        rng = np.random.default_rng((self.seed, epoch, drawn, repeat) if repeat else (self.seed, epoch, drawn))
        if anchor is None and epoch <= self._last_mixed_epoch:
            image, boxes, labels, marks = self._mixing(image, boxes, labels, _marks(found), rng, output_size)
            (difficult, crowd), tracks = marks.T, np.full(len(labels), -1)
        else:
            anchored = boxes if anchor is None else self._boxes_for(anchor, size)
            choice = self.transform.draw(size, anchored, rng, output_size)
            image, boxes, kept = self.transform.perform(choice, image, boxes, output_size)
            labels, difficult, crowd, tracks = labels[kept], difficult[kept], crowd[kept], tracks[kept]
        return Sample(np.ascontiguousarray(image), boxes, labels, difficult, crowd, tracks, size, shown)

    def load(self, index: int) -> Photograph:
        """Image `index`, or what stands in for it: the same one for every process and every time, as long as the
        same files can be read."""
        tries = min(len(self), MAX_STAND_INS) if self.stand_in else 1
        found = self._first_readable([(index + step) % len(self) for step in range(tries)], stand_in=tries > 1)
        if found is None:
            first = self.unreadable[index]
            raise UserError(f"{tries} images in a row cannot be read, the first is {first}")
        return found

    def load_frame(self, index: int) -> Photograph:
        """Frame `index` of a video, or the nearest readable one that stands in for it: before it, else after it, never
        of another video; where there is none, a black image without objects."""
        video = int(self.records.video_of([index])[0])
        first, stop = self.records.video_offsets[video : video + 2].tolist()
        nearest = [*range(index, first - 1, -1), *range(index + 1, stop)]
        found = self._first_readable(nearest[:MAX_STAND_INS], self.stand_in)
        if found is not None:
            return found
        self.load(index)  # raises a UserError if more is gone than a video
        nothing = np.zeros(0, np.int64)
        image = np.zeros((*self.records.size(index), 3), np.uint8)
        return Photograph(index, image, np.zeros((0, 4), np.float32), nothing, nothing > 0, nothing > 0, nothing)

    def _first_readable(self, candidates, stand_in: bool) -> Photograph | None:
        """The first of these images that can be read; without stand_in an UnreadableImage if the very first cannot."""
        for shown in candidates:
            try:
                return self._load(shown)
            except UnreadableImage as error:
                self.unreadable[shown] = str(error)
                if not stand_in:
                    raise
        return None

    def _load(self, index: int) -> Photograph:
        image, tracks, crowd = self.records.read(index), self.records.tracks(index), self.records.crowds(index)
        boxes, labels, difficult = self.records.objects(index)
        size = image.shape[:2]
        if size != self.records.size(index):
            self._tell_size(index, size)
            boxes, good = _fit(boxes, size)
            labels, difficult, crowd, tracks = labels[good], difficult[good], crowd[good], tracks[good]
        return Photograph(index, image, boxes, labels, difficult, crowd, tracks)

    def _boxes_for(self, anchor: int, size) -> np.ndarray:
        """The boxes of the anchor for a frame that was read with that size."""
        boxes = self.records.objects(anchor)[0]
        return boxes if size == self.records.size(anchor) else _fit(boxes, size)[0]

    def __getitem__(self, key):
        """(image uint8 [H, W, 3], Target) for a key as (epoch, index)."""
        image, *objects, tracks, size, shown = self.sample(*key[:5])
        boxes, labels, difficult, crowd = objects
        areas = self.records.object_areas(shown) if isinstance(self.transform, EvalTransform) else None
        areas = areas if areas is not None and len(areas) == len(labels) else None
        return image, to_target(boxes, labels, difficult, self.records.image_id(shown), size, tracks, crowd, areas)

    def _tell_size(self, index: int, size):
        """Boxes are pixels of the image as it is read; what the annotation says of its size is put aside."""
        if not self._size_told:
            said, path = self.records.size(index), self.records.image_path(index)
            logger.warning(
                "%s: the image is %d x %d, its annotation says %d x %d; the image counts (told once)",
                path, size[1], size[0], said[1], said[0],
            )  # fmt: skip
            self._size_told = True


def _fit(boxes, size):
    """The boxes [N, 4] cut to an image of `size` (height, width), and the mask [N] of those that are left."""
    boxes = boxes.clip(0, np.float32([size[1], size[0]] * 2))
    good = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[good], good


def _marks(found: Photograph) -> np.ndarray:
    return np.stack([found.difficult, found.crowd], axis=1)


def to_target(boxes, labels, difficult, image_id, size, tracks=None, crowd=None, areas=None) -> Target:
    """A Target of tensors from arrays: boxes float32 [N, 4] in the unit square, labels int64, difficult bool, tracks
    int64 or None, crowd bool or None, areas float64 or None."""
    boxes = torch.from_numpy(np.ascontiguousarray(boxes, np.float32))
    more = (None if marks is None else torch.from_numpy(marks) for marks in (tracks, crowd, areas))
    return Target(boxes, torch.from_numpy(labels), torch.from_numpy(difficult), image_id, size, *more)


def _join_extras(parts: list[DetectionRecords]) -> dict:
    """The fields of the joined parts that only some kinds of data set have."""
    joined = {}
    if any(part.crowd is not None for part in parts):
        crowds = [np.zeros(len(part.labels), bool) if part.crowd is None else part.crowd for part in parts]
        joined["crowd"] = np.concatenate(crowds)
    if any(part.areas is not None for part in parts):
        unknown = [np.full(len(part.labels), np.nan) for part in parts]
        areas = [none if part.areas is None else part.areas for part, none in zip(parts, unknown, strict=True)]
        joined["areas"] = np.concatenate(areas)
    if all(part.image_numbers is not None for part in parts):
        numbers = np.concatenate([part.image_numbers for part in parts])
        joined["image_numbers"] = numbers if len(np.unique(numbers)) == len(numbers) else None
    if all(part.category_ids == parts[0].category_ids for part in parts):
        joined["category_ids"] = parts[0].category_ids
    return joined


def _join_videos(parts: list[DetectionRecords]) -> dict:
    """The fields of videos of the joined parts; a still among videos is a video of one frame."""
    tracks = [np.full(len(part.labels), -1) if part.track_ids is None else part.track_ids for part in parts]
    tracked = {"track_ids": np.concatenate(tracks)} if any(part.track_ids is not None for part in parts) else {}
    if not any(part.is_video for part in parts):
        return tracked
    names = _distinct([part.name for part in parts])
    parts = [part if part.is_video else with_videos(part, np.arange(len(part) + 1)) for part in parts]
    videos = [video for part in parts for video in part.videos]
    if len(set(videos)) < len(videos):
        videos = [f"{name}/{video}" for name, part in zip(names, parts, strict=True) for video in part.videos]
    shifts = np.cumsum([0] + [len(part) for part in parts])
    starts = [part.video_offsets[:-1] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
    return {
        **tracked,
        "video_offsets": np.concatenate([*starts, shifts[-1:]]),
        "videos": FlatStrings(videos),
        "frames": np.concatenate([part.frames for part in parts]),
    }


def with_videos(records: DetectionRecords, offsets, names=None, frames=None) -> DetectionRecords:
    """The same images as frames of videos, of which offsets [V + 1] says where each begins.

    names: those of the videos, by default that of their first image; frames [I]: their numbers, by default from 0.
    """
    offsets = np.asarray(offsets, np.int64)
    lengths = np.diff(offsets)
    if frames is None:
        frames = np.arange(len(records)) - np.repeat(offsets[:-1], lengths)
    names = [records.ids[int(first)] for first in offsets[:-1]] if names is None else names
    return replace(records, video_offsets=offsets, videos=FlatStrings(names), frames=np.asarray(frames, np.int64))


def _distinct(names) -> list[str]:
    """The names, with -2, -3, ... added to those that occurred before."""
    repeats = [names[:position].count(name) for position, name in enumerate(names)]
    return [f"{name}-{repeat + 1}" if repeat else name for name, repeat in zip(names, repeats, strict=True)]
