#!/usr/bin/env python3
"""Times the parts of a training step and of inference on this machine, beside the targets they are held to.

    make bench        or        python experiments/bench.py [--seconds 2]

Every row is the median of repeated runs in one process; "one core" rows run with a single thread.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from lib.config import load_config
from lib.dataset.shapes import draw_scene
from lib.dataset.transforms import create_transforms
from lib.layers.normalize import Normalize
from lib.modeling.model_builder import create_criterion, create_model, create_postprocess
from lib.solver.optim import create_optimizer
from lib.structures import Predictions, Target
from lib.utils.device import autocast, resolve_precision

VGG = [
    "MODEL.FEATURE_LAYER=[[22,34,'S','S','',''],[512,1024,512,256,256,256]]",
    f"MODEL.STEPS={[[s, s] for s in (8, 16, 32, 64, 100, 300)]}",
    f"MODEL.SIZES={[[s, s] for s in (30, 60, 111, 162, 213, 264, 315)]}",
    "MODEL.ASPECT_RATIOS=[[1,2,3],[1,2,3],[1,2,3],[1,2,3],[1,2],[1,2]]",
    "MODEL.NUM_CLASSES=21",
]
LITE = ["MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v2", "MODEL.NUM_CLASSES=21"]


def median_ms(call, seconds: float) -> float:
    """Median milliseconds of `call` over about so many seconds, after a warm-up."""
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def random_targets(count: int, generator) -> list[Target]:
    """`count` images with 2 to 8 objects each."""
    targets = []
    for i in range(count):
        low = torch.rand(2 + i % 7, 2, generator=generator) * 0.6
        boxes = torch.cat([low, low + 0.05 + torch.rand(len(low), 2, generator=generator) * 0.35], 1)
        targets.append(Target(boxes=boxes, labels=torch.randint(1, 21, (len(low),), generator=generator)))
    return targets


def data_rows(seconds: float):
    """Decoding, augmentation and batching of 640x480 photographs for a 300x300 network."""
    rng = np.random.default_rng(0)
    image, boxes, labels, difficult = draw_scene(rng, 480, 640)
    jpeg = cv2.imencode(".jpg", image)[1]
    boxes = boxes.astype(np.float32) - 1
    augment = create_transforms(load_config(None, []), train=True)
    batch = [np.ascontiguousarray(cv2.resize(image, (300, 300))) for _ in range(32)]
    yield "decode a 640x480 JPEG", "one core", median_ms(lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR), seconds), None
    yield (
        "augment to 300x300",
        "one core",
        median_ms(lambda: augment(image, boxes, labels, difficult, rng), seconds),
        2.0,
    )
    yield "stack 32 images", "one core", median_ms(lambda: torch.from_numpy(np.stack(batch)), seconds), None


def loss_row(seconds: float):
    """Matching, mining and both losses of SSD300, forward and backward."""
    cfg = load_config(None, VGG)
    generator = torch.Generator().manual_seed(0)
    priors, criterion = create_model(cfg).priors, create_criterion(cfg)
    loc = torch.randn(32, len(priors), 4, generator=generator, requires_grad=True)
    conf = torch.randn(32, len(priors), 21, generator=generator, requires_grad=True)
    targets = random_targets(32, generator)

    def step():
        loc.grad = conf.grad = None
        sum(criterion(Predictions(loc, conf, priors, None), targets).values()).backward()

    yield "loss, batch 32, 11620 priors", "all cores", median_ms(step, seconds), 45.0


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
        yield (
            f"post-process, {name} scores",
            "one core",
            median_ms(lambda p=predictions: postprocess(p), seconds),
            target,
        )


def network_rows(seconds: float):
    """Inference and training step of SSD-Lite MobileNetV2 300."""
    cfg, device = load_config(None, LITE), torch.device("cpu")
    model = create_model(cfg).to(memory_format=torch.channels_last)
    normalize = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS)
    images = torch.randint(0, 255, (8, 300, 300, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    postprocess, sizes = create_postprocess(cfg), torch.tensor([[480, 640]])
    dtype = resolve_precision("auto", device, training=False)

    @torch.inference_mode()
    def infer():
        with autocast(device, dtype):
            predictions = model(normalize(images[:1]))
        postprocess(predictions, sizes)

    model.eval()
    yield "ssd_lite mobilenet_v2, image to boxes", "all cores", median_ms(infer, seconds), None
    model.train()
    criterion, optimizer = create_criterion(cfg), create_optimizer(cfg, model)
    targets = random_targets(8, torch.Generator().manual_seed(0))
    dtype = resolve_precision("auto", device, training=True)

    def step():
        with autocast(device, dtype):
            predictions = model(normalize(images))
        sum(criterion(predictions, targets).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    yield "ssd_lite mobilenet_v2, train step of 8", "all cores", median_ms(step, seconds), None


def main() -> int:
    """Print the table; the exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each row (2)")
    seconds = parser.parse_args().seconds
    threads, missed = torch.get_num_threads(), 0
    cv2.setNumThreads(1)
    print(f"torch {torch.__version__}, {threads} threads, OpenCV {cv2.__version__}\n")
    print(f"{'what':<40}{'on':<11}{'ms':>9}{'target':>9}{'ratio':>8}")
    for rows in (data_rows, loss_row, postprocess_rows, network_rows):
        torch.set_num_threads(1 if rows in (data_rows, postprocess_rows) else threads)
        for what, where, ms, target in rows(seconds):
            against = f"{target:>9.1f}{ms / target:>8.2f}" if target else ""
            print(f"{what:<40}{where:<11}{ms:>9.2f}{against}", flush=True)
            missed += bool(target and ms > target)
    print(f"\n{missed} targets missed" if missed else "\nall targets met")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
