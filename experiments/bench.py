#!/usr/bin/env python3
"""Times the parts of training and inference on this machine, beside the targets they are held to.

    make bench        or        python experiments/bench.py [--seconds 2]

Every row is the median of repeated runs in one process, those in seconds are one run; "one core" rows run with a
single thread.  A ratio of 1 or less meets the target.  The targets are for two cores of a server processor; those of
augmentation, loss and post-processing are a sixth, two fifths and a twentieth (untrained) or sixtieth (trained) of what
the code of the reference family takes there.
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.bench_training import PAIRS, rates
from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records, num_workers
from lib.dataset.shapes import Parameters, draw_scene, write_dataset
from lib.dataset.transforms import create_transforms
from lib.evaluation import Protocols, to_results
from lib.evaluation.image_metric import truth_pixel_boxes
from lib.layers.normalize import Normalize
from lib.modeling.model_builder import create_criterion, create_model, create_postprocess
from lib.solver.optim import create_optimizer
from lib.solver.task import DetectionTask
from lib.structures import Batch, Detections, Predictions, Target
from lib.utils.device import autocast, resolve_precision

VGG = [
    "MODEL.FEATURE_LAYER=[[22,34,'S','S','',''],[512,1024,512,256,256,256]]",
    f"MODEL.STEPS={[[s, s] for s in (8, 16, 32, 64, 100, 300)]}",
    f"MODEL.SIZES={[[s, s] for s in (30, 60, 111, 162, 213, 264, 315)]}",
    "MODEL.ASPECT_RATIOS=[[1,2,3],[1,2,3],[1,2,3],[1,2,3],[1,2],[1,2]]",
    "MODEL.NUM_CLASSES=21",
]
LITE = ["MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v2"]
BATCH = 16


class Row(NamedTuple):
    """A measurement: what, on how many cores, value and target in `unit`; of a rate the target is the least.  What is
    only measured has None for a target."""

    what: str
    cores: str
    value: float
    target: float | None
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """At most 1 where the target is met; 0 without a target."""
        if self.target is None:
            return 0.0
        return self.target / self.value if self.unit == "img/s" else self.value / self.target


def median_ms(call, seconds: float) -> float:
    """Median milliseconds of `call` over about so many seconds, after a warm-up."""
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def random_targets(count: int, num_classes: int) -> list[Target]:
    """`count` images with 2 to 8 objects each."""
    generator, targets = torch.Generator().manual_seed(0), []
    for i in range(count):
        low = torch.rand(2 + i % 7, 2, generator=generator) * 0.6
        boxes = torch.cat([low, low + 0.05 + torch.rand(len(low), 2, generator=generator) * 0.35], 1)
        targets.append(Target(boxes=boxes, labels=torch.randint(1, num_classes, (len(low),), generator=generator)))
    return targets


def data_rows(seconds: float):
    """Decoding, augmentation and batching of 640x480 photographs for a 300x300 network."""
    rng = np.random.default_rng(0)
    image, boxes, labels, difficult = draw_scene(rng, 480, 640)
    jpeg = cv2.imencode(".jpg", image)[1]
    boxes = boxes.astype(np.float32) - 1
    augment = create_transforms(load_config(None, []), train=True)
    batch = [np.ascontiguousarray(cv2.resize(image, (300, 300))) for _ in range(32)]
    ms = median_ms(lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR), seconds)
    yield Row("decode a 640x480 JPEG", "one core", ms, 6.0)
    ms = median_ms(lambda: augment(image, boxes, labels, difficult, rng), seconds)
    yield Row("augment it to 300x300", "one core", ms, 2.0)
    yield Row("stack 32 images", "one core", median_ms(lambda: torch.from_numpy(np.stack(batch)), seconds), 4.0)


XML = (
    "<annotation><size><width>80</width><height>60</height><depth>3</depth></size><object><name>cat</name><bndbox>"
    "<xmin>11</xmin><ymin>21</ymin><xmax>41</xmax><ymax>51</ymax></bndbox></object></annotation>"
)


def opening_rows(_):
    """Opening 20,000 images with VOC annotations: every file is read, or compared with what the cache keeps of it."""
    jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))[1].tobytes()
    with tempfile.TemporaryDirectory() as folder:
        root, names = Path(folder) / "data", [f"{number:06d}" for number in range(20_000)]
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / part).mkdir(parents=True)
        for name in names:
            (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg)
            (root / "Annotations" / f"{name}.xml").write_text(XML)
        (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names))
        cfg = load_config(None, ["DATASET.DATASET=custom", f"DATASET.DATASET_DIR={root}", "DATASET.TRAIN_SETS=train",
                                 f"EXP_DIR={folder}/run"])  # fmt: skip
        for what, target in (("open 20,000 images for the first time", None), ("open them from the cache", 10.0)):
            start = time.perf_counter()
            create_records(cfg, "train")
            yield Row(what, "all cores", time.perf_counter() - start, target, "s")


def loss_row(seconds: float):
    """Matching, mining and both losses of SSD300, forward and backward."""
    cfg = load_config(None, VGG)
    generator = torch.Generator().manual_seed(0)
    priors, criterion = create_model(cfg).priors, create_criterion(cfg)
    loc = torch.randn(32, len(priors), 4, generator=generator, requires_grad=True)
    conf = torch.randn(32, len(priors), 21, generator=generator, requires_grad=True)
    targets = random_targets(32, 21)

    def step():
        loc.grad = conf.grad = None
        sum(criterion(Predictions(loc, conf, priors, None), targets).values()).backward()

    yield Row("loss and its gradient, batch 32, 11620 priors", "all cores", median_ms(step, seconds), 45.0)


def postprocess_rows(seconds: float):
    """From logits to boxes of one image, with scores of an untrained and of a trained network."""
    cfg = load_config(None, VGG)
    priors, postprocess = create_model(cfg).priors, create_postprocess(cfg)
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(1, len(priors), 4, generator=generator) * 0.3
    untrained = torch.randn(1, len(priors), 21, generator=generator) * 0.3
    trained = torch.randn(1, len(priors), 21, generator=generator) + torch.tensor([9.0] + [0.0] * 20)
    for name, conf, target in (("untrained", untrained, 8.0), ("trained-like", trained, 1.5)):
        predictions = Predictions(loc, conf, priors, None)
        ms = median_ms(lambda p=predictions: postprocess(p), seconds)
        yield Row(f"post-process an image, {name} scores", "one core", ms, target)


def training_rows(seconds: float):
    """A training step of SSD-Lite MobileNetV2 300 on JPEG files of about 640x480, without and with its data."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "shapes", Parameters(64, 1, 1, size=554), num_workers=0)  # 554^2 = 640 x 480
        cfg = load_config(None, [*LITE, "DATASET.DATASET=custom", f"DATASET.DATASET_DIR={folder}/shapes",
                                 "DATASET.TRAIN_SETS=train", f"TRAIN.BATCH_SIZE={BATCH}", f"EXP_DIR={folder}/run",
                                 "DEVICE=cpu", "MODEL.NUM_CLASSES=7"])  # fmt: skip
        loader = create_loader(cfg, "train")
        step, images = training_step(cfg), clips_for_ever(loader)
        next(images)  # the workers are up
        ms = median_ms(lambda: next(images), seconds) / BATCH
        workers = num_workers(cfg.DATASET.NUM_WORKERS)
        yield Row("loader alone", f"{workers} worker{'s' * (workers > 1)}", 1e3 / ms, 80.0, "img/s")
        fixed = [next(images)[0]]
        without = median_ms(lambda: step(fixed), seconds * 4)
        yield Row("training step, data at hand", "all cores", BATCH * 1e3 / without, 12.0, "img/s")
        waits = []

        def read_and_step():
            start = time.perf_counter()
            clip = next(images)
            waits.append(time.perf_counter() - start)
            step(clip)

        whole = median_ms(read_and_step, seconds * 4)
        yield Row("training step with its data", "all cores", BATCH * 1e3 / whole, 10.0, "img/s")
        yield Row("part of it spent waiting for data", "all cores", 1e5 * statistics.median(waits) / whole, 2.0, "%")
        loader.close()


def torchvision_rows(_):
    """Whole steps here and with torchvision's detectors."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "shapes", Parameters(64, 1, 1, size=554), num_workers=0)
        for name, pair in PAIRS.items():
            found = rates(pair, Path(folder) / "shapes", training_step)
            (ours, waiting), (theirs, _) = found["ours"], found["torchvision"]
            yield Row(f"torchvision: training step, {name}", "all cores", theirs, None, "img/s")
            yield Row(f"ours: training step, {name}", "all cores", ours, 1.5 * theirs, "img/s")
            yield Row("part of it spent waiting for data", "all cores", 100 * waiting, 2.0, "%")


def clips_for_ever(loader):
    """The clips of one epoch after the other."""
    while True:
        yield from loader


def training_step(cfg):
    """Function (clip) that takes one step, as the Solver does."""
    device = torch.device("cpu")
    model = create_model(cfg).to(memory_format=torch.channels_last).train()
    task = DetectionTask(model, create_criterion(cfg), Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS))
    optimizer, dtype = create_optimizer(cfg, model), resolve_precision(cfg.TRAIN.AMP, device, training=True)

    def step(clip: list[Batch]):
        losses, _ = task(clip, None, lambda: autocast(device, dtype))
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.TRAIN.CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()

    return step


def inference_rows(seconds: float):
    """SSD-Lite MobileNetV2 300 from uint8 images to boxes, one by one and in batches."""
    cfg, device = load_config(None, [*LITE, "MODEL.NUM_CLASSES=21"]), torch.device("cpu")
    model = create_model(cfg).to(memory_format=torch.channels_last).eval()
    normalize, postprocess = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS), create_postprocess(cfg)
    dtype = resolve_precision(cfg.MODEL.PRECISION, device, training=False)
    for count, target in ((1, 25.0), (8, 70.0)):
        images = torch.randint(0, 255, (count, 300, 300, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        sizes = torch.tensor([[480, 640]] * count)

        @torch.inference_mode()
        def infer(images=images, sizes=sizes):
            with autocast(device, dtype):
                predictions = model(normalize(images))
            postprocess(predictions, sizes)

        ms = median_ms(infer, seconds)
        yield Row(f"inference, batch {count}", "all cores", count * 1e3 / ms, target, "img/s")


def random_scored(num_images: int, num_classes: int) -> tuple[list[Detections], list[Target]]:
    """Images of 640x480 with 7 objects on average, of classes of very unequal number, and 100 detections each, half of
    them near an object."""
    rng, scale = np.random.default_rng(0), np.array([640, 480, 640, 480])

    def boxes_and_labels(count: int):
        low, sides = rng.random((count, 2)) * 0.7, np.exp(rng.normal(-2, 0.8, (count, 2))).clip(0.02, 0.9)
        return np.concatenate([low, (low + sides).clip(0, 1)], 1), rng.zipf(1.5, count) % num_classes + 1

    detections, targets = [], []
    for number, count in enumerate(rng.poisson(7.2, num_images)):
        objects, labels = boxes_and_labels(count)
        boxes, found = boxes_and_labels(100)
        if count:
            near = rng.integers(0, count, 50)
            sides = np.tile(objects[near, 2:] - objects[near, :2], 2)
            boxes[:50], found[:35] = objects[near] + rng.normal(0, 0.15, (50, 4)) * sides, labels[near[:35]]
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.002)
        scores = np.sort(rng.random(100, np.float32) ** 3)[::-1].copy()
        shuffled = rng.permutation(100)
        parts = (boxes[shuffled].astype(np.float32) * scale.astype(np.float32), scores, found[shuffled])
        detections.append(Detections(*map(torch.from_numpy, parts)))
        objects = torch.from_numpy(objects.astype(np.float32))
        targets.append(Target(objects, torch.from_numpy(labels), image_id=number, size=(480, 640)))
    return detections, targets


def scoring_rows(_):
    """All figures of 500,000 detections in 5,000 images, as the test phase asks for them, and pycocotools' twelve."""
    detections, targets = random_scored(5000, 80)
    protocols = Protocols([f"class {label}" for label in range(1, 81)], "coco", is_video=False, score_threshold=0.4)
    start = time.perf_counter()
    for first in range(0, len(targets), 32):
        protocols.update(detections[first : first + 32], targets[first : first + 32])
    figures = protocols.compute()
    protocols.confusion_counts()
    yield Row("500,000 detections by all protocols", "all cores", time.perf_counter() - start, 15.0, "s")
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        return
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        for index, entries in ((truth, coco_truth(targets)), (found, to_results(detections, targets))):
            index.dataset = {
                "images": [{"id": number} for number in range(len(targets))],
                "categories": [{"id": label} for label in range(1, 81)],
                "annotations": [
                    entry | {"id": number, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
                    for number, entry in enumerate(entries, 1)
                ],
            }
            index.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    seconds = time.perf_counter() - start
    assert abs(evaluation.stats[0] - figures["AP"]) < 1e-4, "pycocotools has another AP"
    yield Row("the same by pycocotools, COCO's figures alone", "one core", seconds, None, "s")


def coco_truth(targets: list[Target]) -> list[dict]:
    """The objects of some images as annotations of COCO."""
    return [
        {"image_id": target.image_id, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for target in targets
        for label, (x1, y1, x2, y2) in zip(target.labels.tolist(), truth_pixel_boxes(target).tolist(), strict=True)
    ]


def main() -> int:
    """Print the table; the exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each row (2)")
    seconds = parser.parse_args().seconds
    threads, missed = torch.get_num_threads(), 0
    cv2.setNumThreads(1)
    print(f"torch {torch.__version__}, {threads} threads, OpenCV {cv2.__version__}\n")
    print(f"{'what':<47}{'on':<11}{'measured':>14}{'target':>9}{'ratio':>8}")
    for rows in (
        data_rows, opening_rows, loss_row, postprocess_rows, training_rows, torchvision_rows, inference_rows,
        scoring_rows,
    ):  # fmt: skip
        torch.set_num_threads(1 if rows in (data_rows, postprocess_rows) else threads)
        for row in rows(seconds):
            held_to = "" if row.target is None else f"{row.target:>9.1f}{row.ratio:>8.2f}"
            print(f"{row.what:<47}{row.cores:<11}{row.value:>8.2f} {row.unit:<5}{held_to}", flush=True)
            missed += row.ratio > 1
    print(f"\n{missed} targets missed" if missed else "\nall targets met")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
