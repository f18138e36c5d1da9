"""Annotations of a data set in flat arrays, and the images that go with them.

The arrays hold no Python object per image: worker processes that are forked share them, and reading them does not
touch reference counts, so memory does not grow with the workers.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch

from ..structures import Target
from ..utils.errors import UserError
from ..utils.registry import Registry
from .transforms import read_image

logger = logging.getLogger(__name__)

DATASETS = Registry("data set")
"""Parsers `(roots, sets, role, class_names, plan, where) -> DetectionRecords` by name; voc.py says what they take."""


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
    offsets[i] to offsets[i + 1] of offsets int64 [I + 1].  `name` says where they come from.
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
        joined = {
            field: np.concatenate([getattr(part, field) for part in parts])
            for field in ("sizes", "boxes", "labels", "difficult")
        }
        return cls(
            parts[0].class_names,
            FlatStrings([path for part in parts for path in part.paths]),
            FlatStrings(ids),
            **joined,
            offsets=np.concatenate([*offsets, shifts[-1:]]),
            name=" + ".join(part.name for part in parts),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def image_path(self, index: int) -> str:
        return self.paths[index]

    def image_id(self, index: int) -> str:
        return self.ids[index]

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
        return to_target(boxes, labels, difficult, self.image_id(index), (height, width))

    def num_objects_per_class(self) -> np.ndarray:
        """int64 [C - 1]: objects of every class, in the order of class_names."""
        return np.bincount(self.labels, minlength=len(self.class_names) + 1)[1:]


class DetectionDataset(torch.utils.data.Dataset):
    """Images of `records`, read and transformed; the key of an item is (epoch, index).

    The random numbers of an item depend on (seed, epoch, index) only, whichever process loads it.
    """

    def __init__(self, records: DetectionRecords, transform, seed: int = 0):
        self.records, self.transform, self.seed = records, transform, seed
        self._size_told = False

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, epoch: int, index: int):
        """(image uint8 [H, W, 3], boxes [N, 4] in the unit square, labels, difficult, size of the file) as arrays;
        UserError naming a file that cannot be read."""
        image = read_image(self.records.image_path(index))
        size = image.shape[:2]
        boxes, labels, difficult = self.records.objects(index)
        if size != self.records.size(index):
            boxes, labels, difficult = self._fit(index, size, boxes, labels, difficult)
        rng = np.random.default_rng((self.seed, epoch, index))
        image, boxes, labels, difficult = self.transform(image, boxes, labels, difficult, rng)
        return np.ascontiguousarray(image), boxes, labels, difficult, size

    def __getitem__(self, key):
        """(image uint8 [H, W, 3], Target) for key (epoch, index)."""
        epoch, index = key
        image, boxes, labels, difficult, size = self.sample(epoch, index)
        return image, to_target(boxes, labels, difficult, self.records.image_id(index), size)

    def _fit(self, index, size, boxes, labels, difficult):
        """Boxes are pixels of the image as it is read; what the annotation says of its size is put aside."""
        if not self._size_told:
            said, path = self.records.size(index), self.records.image_path(index)
            logger.warning(
                "%s: the image is %d x %d, its annotation says %d x %d; the image counts (told once)",
                path, size[1], size[0], said[1], said[0],
            )  # fmt: skip
            self._size_told = True
        boxes = boxes.clip(0, np.float32([size[1], size[0]] * 2))
        good = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return boxes[good], labels[good], difficult[good]


def to_target(boxes, labels, difficult, image_id, size) -> Target:
    """A Target of tensors from arrays: boxes float32 [N, 4] in the unit square, labels int64, difficult bool."""
    boxes = torch.from_numpy(np.ascontiguousarray(boxes, np.float32))
    return Target(boxes, torch.from_numpy(labels), torch.from_numpy(difficult), image_id, size)


def _distinct(names) -> list[str]:
    """The names, with -2, -3, ... added to those that occurred before."""
    repeats = [names[:position].count(name) for position, name in enumerate(names)]
    return [f"{name}-{repeat + 1}" if repeat else name for name, repeat in zip(names, repeats, strict=True)]
