"""The objects that priors have to cover: those of the training sets, before and after augmentation, without crowds."""

import logging
from dataclasses import fields

import numpy as np
import torch

from ..config.stages import stage_of
from ..dataset.dataset_factory import create_loader
from ..dataset.detection import DetectionRecords
from .prior_layout import Objects

log = logging.getLogger(__name__)


class _Blanks(DetectionRecords):
    """Records whose images are not read."""

    def read(self, index: int) -> np.ndarray:
        return _blank(self.size(index))


def _blank(size) -> np.ndarray:
    """A black image of `size` (height, width) that takes no memory."""
    return np.broadcast_to(np.uint8(0), (*size, 3))


def plain_objects(records: DetectionRecords) -> Objects:
    """The objects of the records as a plain resize shows them."""
    counts = np.diff(records.offsets)
    boxes = records.boxes / np.repeat(records.sizes[:, [1, 0, 1, 0]], counts, axis=0).astype(np.float32)
    scenes = np.repeat(_scenes(records, np.arange(len(records))), counts)
    single = slice(None) if records.crowd is None else ~records.crowd
    found = _to_objects(boxes[single], records.labels[single], scenes[single], False)
    return _with_area(found, "before augmentation")


def draw_objects(cfg, records: DetectionRecords, num_images: int) -> tuple[Objects, Objects]:
    """(the objects in the first `num_images` images that a training shows, those that MIN_BOX_SIZE takes from them).

    Goes through the sampler and the augmentation of training, seed included, but reads no image and draws none: all
    are of MODEL.IMAGE_SIZE, whatever TRAIN.IMAGE_SIZES says.  Videos are shown as the first epoch shows them, as stills
    or in clips.
    """
    blanks = _Blanks(**{field.name: getattr(records, field.name) for field in fields(records)})
    loader = create_loader(cfg, "train", blanks, clips=records.is_video and stage_of(cfg, 1).clips)
    dataset, transform = loader.dataset, loader.dataset.transform
    transform._render = lambda image, choice, output_size: _blank(output_size)
    smallest, shown, lost = transform.min_box_size, [], []
    for item in _first_items(loader.sampler, num_images):
        key, scene = (item.epoch, item.index, item.repeat, None, item.anchor), _scenes(records, [item.index])[0]
        transform.min_box_size = 0.0
        boxes, labels = _single(dataset.sample(*key))
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
        if (sides < smallest + 1e-6).any():
            # Once more with the filter: the random numbers are the same, but an image that would lose everything is not
            # augmented at all.
            transform.min_box_size = smallest
            kept, kept_labels = _single(dataset.sample(*key))
            small = np.argsort(sides)[: max(0, len(boxes) - len(kept))]
            lost.append((boxes[small], labels[small], np.full(len(small), scene)))
            boxes, labels = kept, kept_labels
        shown.append((boxes, labels, np.full(len(labels), scene)))
    return _with_area(_join(shown), "after augmentation"), _join(lost)


def _single(sample) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and labels of the objects that are no crowds."""
    return sample.boxes[~sample.crowd], sample.labels[~sample.crowd]


def _scenes(records: DetectionRecords, indices) -> np.ndarray:
    """What these images show, by number: a scene each, but the frames of a video one."""
    return records.video_of(indices) if records.is_video else np.asarray(indices)


def _first_items(sampler, number: int):
    """So many items of a training from its start; of the last epoch a part that is spread over it."""
    batches = iter(sampler)
    while number > 0:
        epoch = [item for _ in range(len(sampler)) for item in next(batches)]
        step = -(-len(epoch) // number)
        yield from epoch[::step]
        number -= len(epoch)


def _join(parts) -> Objects:
    empty = (np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    return _to_objects(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)), True)


def _to_objects(boxes, labels, scenes, augmented: bool) -> Objects:
    boxes, labels = torch.from_numpy(np.ascontiguousarray(boxes, np.float32)), torch.from_numpy(labels)
    return Objects(boxes, labels, torch.from_numpy(scenes), torch.full_like(labels, augmented, dtype=torch.bool))


def _with_area(objects: Objects, when: str) -> Objects:
    """The objects that have an area."""
    good = (objects.shapes() > 0).all(1)
    if not good.all():
        log.warning("%d of %d objects %s have no area and are left out", int((~good).sum()), len(good), when)
    return objects[good]
