#!/usr/bin/env python3
"""Times detection by this trainer's networks and by torchvision's in one process, image arrays in to boxes out.

    python experiments/against_torchvision.py --data data/BCCD --out experiments/models/against_torchvision

Each pair is SSD300 on VGG-16 here and torchvision's ssd300_vgg16, and SSD-Lite on MobileNet V2 at 300 pixels here and
torchvision's ssdlite320_mobilenet_v3_large.  All four are first trained for a few steps on the same photographs, in the
format of VOC with the lists trainval and test, until most boxes are background, since the work behind a network depends
on what it finds; weights in OUT are not trained again.  Then the test photographs go through each network in turns, as
it is by default on each side: torchvision's in fp32, ours as MODEL.PRECISION and MODEL.COMPILE `auto` choose for many
images, and ours once more in fp32 without being compiled.  The medians go to OUT/speeds.csv and to a table.
"""

import argparse
import csv
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import cv2
import torch
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.commands import run_command
from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records
from lib.layers.normalize import Normalize
from lib.modeling.model_builder import create_criterion, create_model
from lib.predictor import ObjectDetector
from lib.solver.task import DetectionTask
from lib.utils.device import device_name

CONFIGS = Path(__file__).resolve().parent / "cfgs"
PAIRS = {
    "ssd_vgg16": ("ssd_vgg16_voc.yml", ssd300_vgg16, 2e-4, 60),
    "ssd_lite": ("ssd_lite_mobilenetv2_voc.yml", ssdlite320_mobilenet_v3_large, 1e-3, 200),
}
"""Our configuration, torchvision's builder, and rate and number of the training steps."""
BATCHES = (1, 8)
STEP_BATCH = 4
PLAIN = ["MODEL.PRECISION=fp32", "MODEL.COMPILE=none"]
COMPILED = ["MODEL.COMPILE=default"]
"""What MODEL.COMPILE auto is for endless streams and for 2000 images or more."""
COLUMNS = ("pair", "batch", "what", "ms_per_image", "p95_ms_per_image", "times_torchvision")


def main() -> int:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.pairs:
        detectors = create_detectors(name, args)
        records = create_records(config(name, args), "test")
        images = [records.read(index) for index in range(min(len(records), 32))]
        for batch in BATCHES:
            rows += measure(name, detectors, images, batch, args.rounds)
            write(args.out / "speeds.csv", rows)
    print(table(rows))
    print(f"torch {torch.__version__}, {device_name(torch.device('cpu'))}")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/BCCD"), help="photographs in the format of VOC")
    parser.add_argument("--out", type=Path, default=Path("experiments/models/against_torchvision"))
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=30, help="times that each detects, in turns with the others")
    return parser.parse_args()


def config(name: str, args, overrides=()):
    """Our configuration of a pair, on the photographs."""
    data = ["DATASET.DATASET=custom", f"DATASET.DATASET_DIR={args.data.resolve()}", "DATASET.TRAIN_SETS=['trainval']",
            "DATASET.TEST_SETS=['test']", f"EXP_DIR={args.out}", "DEVICE=cpu", f"TRAIN.BATCH_SIZE={STEP_BATCH}",
            "DATASET.NUM_WORKERS=0"]  # fmt: skip
    cfg = load_config(CONFIGS / PAIRS[name][0], [*data, *overrides])
    cfg.MODEL.NUM_CLASSES = len(create_records(cfg, "train").class_names) + 1
    return cfg


def create_detectors(name: str, args) -> dict:
    """What is timed, by name: functions of BGR images that give boxes."""
    theirs = train(name, args, f"torchvision_{name}", lambda cfg: TheirTask(name, cfg))
    train(name, args, name, OurTask)
    ours = args.out / f"{name}.pth"
    return {
        "torchvision": theirs.detect,
        "ours, auto": ObjectDetector(config(name, args, COMPILED), ours).predict,
        "ours, fp32, not compiled": ObjectDetector(config(name, args, PLAIN), ours).predict,
    }


class OurTask:
    """One of our detectors in training."""

    def __init__(self, cfg):
        self.model = create_model(cfg)
        normalize = Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS)
        self._task = DetectionTask(self.model, create_criterion(cfg), normalize)

    def loss(self, batch) -> torch.Tensor:
        return sum(self._task([batch])[0].values())


class TheirTask:
    """One of torchvision's detectors, which takes RGB images between 0 and 1."""

    def __init__(self, name: str, cfg):
        self.model = PAIRS[name][1](weights=None, weights_backbone=None, num_classes=cfg.MODEL.NUM_CLASSES)

    def loss(self, batch) -> torch.Tensor:
        height, width = batch.images.shape[2:]
        images = list(batch.images.float() / 255)
        scale = torch.tensor([width, height, width, height])
        targets = [{"boxes": target.boxes * scale, "labels": target.labels} for target in batch.targets]
        return sum(self.model(images, targets).values())

    @torch.inference_mode()
    def detect(self, images: list) -> list:
        rgb = (cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in images)
        return self.model([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in rgb])


def train(name: str, args, title: str, create_task):
    """The task with the weights of OUT/title.pth, which a short training writes where they are missing."""
    torch.manual_seed(0)
    cfg, (_, _, rate, num_steps), path = config(name, args), PAIRS[name], args.out / f"{title}.pth"
    task = create_task(cfg)
    if path.exists():
        task.model.load_state_dict(torch.load(path, weights_only=True))
        task.model.eval()
        return task
    optimizer = torch.optim.AdamW(task.model.parameters(), rate)
    task.model.train()
    loader = create_loader(cfg, "train")
    batches = (batch for _ in cycle([0]) for clip in loader for batch in clip)
    for step, batch in enumerate(islice(batches, num_steps), 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 5)
        optimizer.step()
        if step % 20 == 0:
            print(f"{title}: step {step} of {num_steps}, loss {loss.item():.2f}", flush=True)
    torch.save(task.model.state_dict(), path)
    task.model.eval()
    return task


def measure(name: str, detectors: dict, images: list, batch: int, rounds: int) -> list[dict]:
    """Milliseconds an image of each, in turns, so that a busy moment of the machine hits all alike."""
    groups = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)]
    times = {what: [] for what in detectors}
    for detect in detectors.values():  # compiling, and the first choice of algorithms
        detect(groups[0]), detect(groups[0])
    for group in islice(cycle(groups), rounds):
        for what, detect in detectors.items():
            start = time.perf_counter()
            detect(group)
            times[what].append((time.perf_counter() - start) * 1e3 / batch)
    medians = {what: statistics.median(taken) for what, taken in times.items()}
    rows = []
    for what, taken in times.items():
        p95 = sorted(taken)[int(0.95 * (len(taken) - 1))]
        values = (name, batch, what, medians[what], p95, medians["torchvision"] / medians[what])
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        print(f"{name}, batch {batch}, {what}: {medians[what]:.1f} ms an image", flush=True)
    return rows


def write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def table(rows: list[dict]) -> str:
    """The medians as a Markdown table."""
    lines = ["| pair | batch | detector | ms an image | times as fast |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['pair']} | {row['batch']} | {row['what']} | {row['ms_per_image']:.1f} | "
            f"{row['times_torchvision']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
