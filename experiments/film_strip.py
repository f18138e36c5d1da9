#!/usr/bin/env python3
"""Draws the passage of generated videos in which two runs differ most, a row of frames for each.

    python experiments/film_strip.py --data DIR --out strip.jpg with=RUN/detections.json without=RUN/detections.json

The runs are compared by the objects that they find at --threshold: the passage is that in which the first finds most
that the second does not.  A frame's title says how it is degraded.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lib.config import load_config  # noqa: E402
from lib.dataset.dataset_factory import create_records  # noqa: E402
from lib.evaluation import load_results, written_id  # noqa: E402
from lib.structures import Detections  # noqa: E402
from lib.utils.draw import draw_truth_and_detections, image_grid  # noqa: E402

MAX_WIDTH = 1600  # pixels of a strip
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def main() -> int:
    args = parse_args()
    records = create_records(
        load_config(None, ["DATASET.DATASET=coco_vid", f"DATASET.DATASET_DIR={args.data}"]), "test"
    )
    runs = [run.split("=", 1) for run in args.runs]
    found = [load_results(path, records.class_names) for _, path in runs]
    ids = [written_id(records.image_id(index)) for index in range(len(records))]
    gains = [
        num_found(records.target(index), found[0].get(name, NOTHING), args.threshold)
        - num_found(records.target(index), found[1].get(name, NOTHING), args.threshold)
        for index, name in enumerate(ids)
    ]
    first = best_passage(np.array(gains), records.video_offsets, args.frames)
    looks = degradations(Path(args.data) / "annotations" / "test.json")
    pictures, titles = [], []
    for (title, _), results in zip(runs, found, strict=True):
        for index in range(first, first + args.frames):
            picture = cv2.resize(records.read(index), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
            shown = results.get(ids[index], NOTHING)
            shown = Detections(2 * shown.boxes, shown.scores, shown.labels, tuple(records.class_names))
            target = records.target(index)
            pictures.append(draw_truth_and_detections(picture, target, shown, records.class_names, args.threshold))
            titles.append(f"{title}, {looks[ids[index]]}")
    strip = image_grid(pictures, args.frames, titles)
    scale = min(1.0, MAX_WIDTH / strip.shape[1])
    strip = cv2.resize(strip, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tofile(args.out)
    print(f"{args.out}: {ids[first]} to {ids[first + args.frames - 1]}")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, metavar="NAME=FILE", help="title of a run and its detections")
    parser.add_argument("--data", required=True, help="folder of the generated videos")
    parser.add_argument("--out", required=True, help="JPEG file")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--threshold", type=float, default=0.4)
    return parser.parse_args()


def num_found(target, detections: Detections, threshold: float) -> int:
    """How many objects that count have a detection of their class on them."""
    height, width = target.size
    real = target.boxes.double() * torch.tensor([width, height, width, height])
    kept = detections.scores >= threshold
    hits = box_iou(real, detections.boxes[kept].double()) >= 0.5
    hits &= target.labels[:, None] == detections.labels[kept]
    return int((hits.any(1) & ~target.difficult).sum())


def best_passage(gains: np.ndarray, offsets: np.ndarray, length: int) -> int:
    """The first frame of the passage of one video with the largest sum."""
    sums = {
        first: gains[first : first + length].sum()
        for start, stop in zip(offsets[:-1], offsets[1:], strict=True)
        for first in range(start, stop - length + 1)
    }
    return max(sums, key=sums.get)


def degradations(annotations: Path) -> dict[str, str]:
    """What each frame suffers from, by its id."""
    truth = json.loads(annotations.read_text())
    names = {video["id"]: video["name"] for video in truth["videos"]}
    return {
        f"{names[image['video_id']]}/{image['frame_id']:06d}": (
            f"{image['degradation'].replace('_', ' ')} {image['strength']:.1f}" if image["strength"] else "clean"
        )
        for image in truth["images"]
    }


if __name__ == "__main__":
    sys.exit(main())
