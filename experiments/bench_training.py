"""Whole training steps here and with torchvision's detectors, on the same photographs, for `make bench`.

Theirs is fed as its reference scripts feed it (references/detection of torchvision: presets "ssd" and "ssdlite", PIL
images, SGD with momentum); ours as a configuration of the repository says, arithmetic by TRAIN.AMP auto.  Both read,
augment and learn with as many worker processes and threads, in turns.
"""

import statistics
import time
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.transforms import v2

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records, num_workers

STEPS = 4  # of each, after one that does not count


class Pair(NamedTuple):
    """Our configuration, torchvision's builder, its augmentation before the mirror, and the images of a batch."""

    config: str
    build: object
    augment: list
    batch: int


PAIRS = {
    "SSD300 VGG-16": Pair(
        "experiments/cfgs/ssd_vgg16_voc.yml",
        ssd300_vgg16,
        [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill={tv_tensors.Image: (123, 117, 104), "others": 0}),
         v2.RandomIoUCrop()],
        4,
    ),
    "SSD-Lite": Pair(
        "experiments/cfgs/ssd_lite_mobilenetv2_voc.yml", ssdlite320_mobilenet_v3_large, [v2.RandomIoUCrop()], 16
    ),
}  # fmt: skip


class Photographs(Dataset):
    """The images of our records as torchvision's references read them."""

    def __init__(self, records, augment: list):
        self.records = records
        self.transform = v2.Compose(
            [*augment, v2.RandomHorizontalFlip(0.5), v2.PILToTensor(), v2.ToDtype(torch.float, scale=True),
             v2.SanitizeBoundingBoxes()]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int):
        image, target = Image.open(self.records.image_path(index)).convert("RGB"), self.records.target(index)
        boxes = target.boxes * torch.tensor([image.width, image.height] * 2)
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width))
        return self.transform(image, {"boxes": boxes, "labels": target.labels})


def rates(pair: Pair, folder, training_step) -> dict[str, tuple[float, float]]:
    """{"ours" and "torchvision": (images a second of whole steps, share of the time spent waiting for data)} on the
    training images of `folder`; training_step(cfg) makes our step, a function of clips."""
    settings = ["DATASET.DATASET=custom", f"DATASET.DATASET_DIR={folder}", "DATASET.TRAIN_SETS=['train']", "DEVICE=cpu",
                f"TRAIN.BATCH_SIZE={pair.batch}", f"EXP_DIR={folder}/run"]  # fmt: skip
    cfg = load_config(pair.config, settings)
    records = create_records(cfg, "train")
    cfg.MODEL.NUM_CLASSES = len(records.class_names) + 1
    cfg = load_config(pair.config, [*settings, f"MODEL.NUM_CLASSES={cfg.MODEL.NUM_CLASSES}"])
    loader = create_loader(cfg, "train", records)
    steps = {
        "ours": (_endless(loader), training_step(cfg)),
        "torchvision": (_endless(_their_loader(records, pair, cfg)), _their_step(pair, cfg)),
    }
    waited, taken = {name: [] for name in steps}, {name: [] for name in steps}
    for number in range(STEPS + 1):
        for name, (batches, step) in steps.items():
            start = time.perf_counter()
            batch = next(batches)
            at_hand = time.perf_counter()
            step(batch)
            if number:
                waited[name].append(at_hand - start)
                taken[name].append(time.perf_counter() - start)
    loader.close()
    return {
        name: (pair.batch / statistics.median(times), sum(waited[name]) / sum(times)) for name, times in taken.items()
    }


def _endless(batches):
    while True:
        yield from batches


def _their_loader(records, pair: Pair, cfg) -> DataLoader:
    return DataLoader(
        Photographs(records, pair.augment), pair.batch, shuffle=True, drop_last=True,
        num_workers=num_workers(cfg.DATASET.NUM_WORKERS), collate_fn=_lists, persistent_workers=True,
    )  # fmt: skip


def _lists(samples):
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def _their_step(pair: Pair, cfg):
    model = pair.build(weights=None, weights_backbone=None, num_classes=cfg.MODEL.NUM_CLASSES).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)
    return partial(_take_their_step, model, optimizer)


def _take_their_step(model, optimizer, batch) -> None:
    images, targets = batch
    loss = sum(model(images, targets).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
