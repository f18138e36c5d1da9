"""Make clips from stills: each image of a data set becomes a short video of a crop that moves over it, as COCO-VID."""

import argparse
import json
import logging
import re
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ..commands import run_command
from ..config import CommandLineParser, load_config
from ..dataset.dataset_factory import create_records
from ..dataset.image_header import UnreadableImage
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.log import setup_logging
from .reports import number, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.stills_to_video")

SET_NAMES = {"train": "train", "eval": "val", "test": "test"}
"""Names of the written sets by phase."""

MARKER = "stills_to_video.json"
MIN_SCALE = 0.5  # sides of the smallest crop, in parts of those of the image
TRIES = 50  # pairs of crops that are drawn to find one that keeps an object in view
JPEG_QUALITY = 95


class Frame(NamedTuple):
    """The crop of an image that a frame shows, x, y, width, height in pixels, and the (height, width) of the frame."""

    crop: np.ndarray
    size: tuple[int, int]

    def show(self, image) -> np.ndarray:
        """The crop of an image [H, W, 3] as a frame; the crop need not lie on whole pixels."""
        x, y, width, height = self.crop
        scale_x, scale_y = self.size[1] / width, self.size[0] / height
        # OpenCV counts from the middle of the first pixel, crops from its corner.
        matrix = np.float64([[scale_x, 0, (0.5 - x) * scale_x - 0.5], [0, scale_y, (0.5 - y) * scale_y - 0.5]])
        return cv2.warpAffine(image, matrix, self.size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def map_boxes(self, boxes):
        """Boxes [N, 4] xyxy of the image in pixels of the frame, cut to it, and the indices of those that are left:
        their centre is in view."""
        x, y, width, height = self.crop
        scale = np.array([self.size[1] / width, self.size[0] / height] * 2)
        mapped = (boxes - np.array([x, y, x, y])) * scale
        kept = np.flatnonzero(_in_view(boxes, self.crop))
        return mapped[kept].clip(0, np.array(self.size[::-1] * 2)), kept


def _in_view(boxes, crop) -> np.ndarray:
    """Mask [N] of the boxes whose centre lies in the crop."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > crop[:2]) & (centers < crop[:2] + crop[2:])).all(axis=1)


def draw_frames(size, boxes, num_frames: int, rng) -> list[Frame]:
    """The frames of a clip: a random crop of an image of `size` (height, width) that glides into another one
    (crop-and-shift of arXiv 1903.10172).

    Crops have the proportions of the image.  At least one of the boxes [N, 4] stays in view, if there are any, and the
    frames have about as many pixels as the crops.
    """
    height, width = size
    whole = np.array([0.0, 0.0, width, height])

    def draw_crop() -> np.ndarray:
        scale = rng.uniform(MIN_SCALE, 1)
        return np.array([*(rng.random(2) * (1 - scale) * whole[2:]), *(scale * whole[2:])])

    first = last = whole
    for _ in range(TRIES):
        pair = draw_crop(), draw_crop()
        # What is in the first and in the last crop is in all between, because they are mixtures of both.
        if not len(boxes) or (_in_view(boxes, pair[0]) & _in_view(boxes, pair[1])).any():
            first, last = pair
            break
    shown = tuple(max(1, round(side)) for side in ((first + last) / 2)[[3, 2]].tolist())
    return [Frame(first + (last - first) * part, shown) for part in np.linspace(0, 1, num_frames)]


def write_set(records, out: Path, name: str, num_frames: int, seed: int, skip_unreadable: bool = True) -> dict:
    """Write the clips of `records` as OUT/NAME/<video>/000000.jpg and so on, and OUT/annotations/NAME.json.

    Returns the content of that file; objects are numbered through the set.  The clip of an image depends on seed, name
    and its index only.  UserError if no image can be read.
    """
    content = {"videos": [], "images": [], "annotations": []}
    content["categories"] = [{"id": i, "name": each} for i, each in enumerate(records.class_names, 1)]
    stream, titles = list(SET_NAMES.values()).index(name), _titles(records.ids)
    for index in tqdm(range(len(records)), desc=name, unit="clip", disable=None):
        try:
            image = records.read(index)
        except UnreadableImage as error:
            if not skip_unreadable:
                raise
            log.warning("%s; it is left out", error)
            continue
        boxes, labels, difficult = records.objects(index)
        crowd = records.crowds(index)
        frames = draw_frames(image.shape[:2], boxes, num_frames, np.random.default_rng((seed, stream, index)))
        folder, video = out / name / titles[index], len(content["videos"]) + 1
        folder.mkdir(parents=True, exist_ok=True)
        content["videos"].append({"id": video, "name": titles[index]})
        for time, frame in enumerate(frames):
            file = folder / f"{time:06d}.jpg"
            file.write_bytes(cv2.imencode(".jpg", frame.show(image), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])
            entry = {"id": len(content["images"]) + 1, "video_id": video, "frame_id": time}
            entry |= {"file_name": f"{titles[index]}/{file.name}", "width": frame.size[1], "height": frame.size[0]}
            content["images"].append(entry)
            for (x1, y1, x2, y2), kept in zip(*(part.tolist() for part in frame.map_boxes(boxes)), strict=True):
                box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
                found = {"id": len(content["annotations"]) + 1, "image_id": entry["id"], "video_id": video}
                found |= {"category_id": int(labels[kept])}
                found |= {} if crowd[kept] else {"instance_id": int(records.offsets[index]) + kept + 1}
                found |= {"bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": int(difficult[kept])}
                content["annotations"].append(found)
    if not content["videos"]:
        raise UserError(f"{records.name}: none of its {len(records)} images can be read")
    _write(_annotations(out, name), content)
    return content


def _titles(ids) -> list[str]:
    """A name for the folder of each video: its id, as far as a folder can be called that, and unlike the others."""
    titles = {}
    for text in ids:
        plain = title = re.sub(r"[^\w.-]+", "_", text).strip(".") or "clip"
        number = 1
        while title.casefold() in titles:
            number += 1
            title = f"{plain}-{number}"
        titles[title.casefold()] = title
    return list(titles.values())


def claim_folder(out: Path, name: str, parameters: dict) -> bool:
    """Note in the marker of `out` that the set is made with these parameters; whether it is still to be made.

    UserError if the folder holds something else, or the set with other parameters.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; it must be a folder")
    marker = out / MARKER
    if not marker.exists():
        found = sorted(path.name for path in out.iterdir()) if out.exists() else []
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise UserError(f"--out {out}: holds {', '.join(found[:3])}{more}; give a new or empty folder")
        sets = {}
    else:
        try:
            sets = dict(json.loads(marker.read_text(encoding="utf-8"))["sets"])
            there = dict(sets.get(name, parameters))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{marker}: is not a marker of this command; give a new or empty folder") from None
        differ = [
            f"{key} {there.get(key)} (not {value})" for key, value in parameters.items() if there.get(key) != value
        ]
        if differ:
            raise UserError(
                f"--out {out}: holds a set {name} with {', '.join(differ)}; delete it or give another folder"
            )
    _write(marker, {"sets": sets | {name: parameters}})
    return not _annotations(out, name).exists()


def _annotations(out: Path, name: str) -> Path:
    return out / "annotations" / f"{name}.json"


def _write(path: Path, content: dict) -> None:
    write_whole(path, json.dumps(content, ensure_ascii=False) + "\n")


def phases(text: str) -> list[str]:
    """The phases that --sets names; argparse calls it by the name of this function."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SET_NAMES:
            raise argparse.ArgumentTypeError(f"'{name}' is unknown; allowed: {', '.join(SET_NAMES)}, or a comma list")
    return list(dict.fromkeys(names))


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("stills_to_video"),
        description="Make a short video of each image of a data set of stills: a crop that moves over it. The videos "
        "are written as COCO-VID, to be trained on as DATASET.DATASET=coco_vid. SEED decides about the crops.",
        epilog="example: %(prog)s --cfg x.yml --out ./data/clips --sets train,eval SEED=1",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file that names the data set")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the videos, a new or empty one")
    parser.add_argument("--frames", type=number, default=10, metavar="T", help="frames of a video (default: 10)")
    parser.add_argument(
        "--sets",
        type=phases,
        default=["train"],
        metavar="PHASES",
        help="which images: train, eval, test (DATASET.TRAIN_SETS, EVAL_SETS, TEST_SETS), or a comma list of them "
        "(default: train); they become the sets train, val and test",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def make_clips(args) -> None:
    """Write the sets that the arguments name."""
    cfg, out = load_config(args.cfg, args.overrides), Path(args.out)
    class_names = ()
    for phase in args.sets:
        records, name = create_records(cfg, phase, class_names), SET_NAMES[phase]
        class_names = records.class_names
        if records.is_video:
            raise UserError(f"{records.name}: holds videos already; this tool makes them from stills")
        parameters = {"source": records.name, "images": len(records), "frames": args.frames, "seed": cfg.SEED}
        if not claim_folder(out, name, parameters):
            log.info("%s is there already, and left as it is", _annotations(out, name))
            continue
        found = write_set(records, out, name, args.frames, cfg.SEED, cfg.DATASET.ON_BAD != "fail")
        log.info(
            "%s: %d videos of %d frames, %d boxes of %d objects", _annotations(out, name), len(found["videos"]),
            args.frames, len(found["annotations"]), len({each["instance_id"] for each in found["annotations"]}),
        )  # fmt: skip


def main(argv=None) -> int:
    """Entry point: write the videos; returns 0, or 2 after one line about a mistake in the input."""

    def body() -> int:
        setup_logging()
        make_clips(create_parser().parse_intermixed_args(argv))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
