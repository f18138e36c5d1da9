"""A generated data set in VOC layout: `python -m lib.dataset.shapes OUT` draws textured objects over cluttered grounds.

The classes differ in their form alone: colours, surfaces, sizes and grounds are drawn from the same distributions for
all of them and for the distractors, which are no class.  Every image comes from a generator seeded by (seed, split,
index), so that it depends neither on the other images nor on how many there are.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..utils.errors import UserError
from .shapes_drawing import CLASS_NAMES, MORE_CLASS_NAMES
from .shapes_scene import draw_scene

ALL_CLASS_NAMES = CLASS_NAMES + MORE_CLASS_NAMES
SPLITS = ("train", "val", "test")
MARKER, PARTIAL = "shapes.json", "shapes.partial"


@dataclass(frozen=True)
class Parameters:
    """What decides every byte of the annotations: images per split, mean image side in pixels, seed, classes."""

    num_train: int = 800
    num_val: int = 100
    num_test: int = 200
    size: int = 320
    seed: int = 0
    classes: int = len(CLASS_NAMES)
    version: int = 1

    def __post_init__(self):
        limits = {"size": (48, 4096), "classes": (1, len(ALL_CLASS_NAMES)), "version": (1, 1)}
        for name, value in asdict(self).items():
            low, high = limits.get(name, (0, 10**6))
            if not low <= value <= high:
                raise UserError(f"--{name.replace('_', '-')}: {value} was given, allowed: {low} to {high}")

    def jobs(self) -> list[tuple[str, int]]:
        """(split, index) of every image, indices from 1."""
        return [(split, i + 1) for split in SPLITS for i in range(getattr(self, f"num_{split}"))]


def annotation_xml(name: str, height: int, width: int, objects: list[tuple]) -> str:
    """A VOC annotation as LabelImg writes it; objects are (class name, box 1-based inclusive, difficult)."""
    lines = [
        "<annotation>",
        "\t<folder>JPEGImages</folder>",
        f"\t<filename>{name}</filename>",
        "\t<source>\n\t\t<database>shapes</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for class_name, (xmin, ymin, xmax, ymax), difficult in objects:
        truncated = int(xmin == 1 or ymin == 1 or xmax == width or ymax == height)
        lines += [
            f"\t<object>\n\t\t<name>{class_name}</name>\n\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{truncated}</truncated>\n\t\t<difficult>{int(difficult)}</difficult>",
            f"\t\t<bndbox>\n\t\t\t<xmin>{xmin}</xmin>\n\t\t\t<ymin>{ymin}</ymin>",
            f"\t\t\t<xmax>{xmax}</xmax>\n\t\t\t<ymax>{ymax}</ymax>\n\t\t</bndbox>\n\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _stem(job: tuple[str, int]) -> str:
    return f"{job[0]}_{job[1]:06d}"


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _write_image(out: Path, parameters: Parameters, job: tuple[str, int]) -> int:
    """Draw one image and write it, its annotation last; the number of its objects."""
    rng = np.random.default_rng((parameters.seed, SPLITS.index(job[0]), job[1]))
    height, width = (max(32, round(parameters.size * f)) for f in rng.uniform(0.75, 1.25, 2))
    quality = int(rng.integers(45, 96))
    class_names = ALL_CLASS_NAMES[: parameters.classes]
    image, boxes, labels, difficult = draw_scene(rng, height, width, class_names)
    name = _stem(job) + ".jpg"
    objects = [(class_names[i - 1], box, d) for i, box, d in zip(labels, boxes.tolist(), difficult, strict=True)]
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    _replace_file(out / "JPEGImages" / name, jpeg.tobytes())
    _replace_file(out / "Annotations" / f"{_stem(job)}.xml", annotation_xml(name, height, width, objects).encode())
    return len(objects)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    cv2.setNumThreads(0)


def _claim_folder(out: Path, parameters: Parameters) -> None:
    """Mark `out` as ours, or raise a UserError that names what stands there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is no folder")
    for marker in (out / MARKER, out / PARTIAL):
        if marker.exists():
            _compare(marker, parameters)
            return
    found = sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) if out.exists() else []
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(f"{out}: holds {', '.join(found[:3])}{more}, no shapes data set; give a new or empty folder")
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    _replace_file(out / PARTIAL, json.dumps(asdict(parameters), indent=1).encode())


def _compare(marker: Path, parameters: Parameters) -> None:
    try:
        there = json.loads(marker.read_text())
        differ = [f"{k} {there.get(k)} (not {v})" for k, v in asdict(parameters).items() if there.get(k) != v]
    except (ValueError, AttributeError):
        raise UserError(f"{marker}: is not a marker of this command; give a new or empty folder") from None
    if differ:
        differ = ", ".join(differ)
        raise UserError(f"{marker.parent}: holds a shapes data set with {differ}; delete it or give another folder")


def write_dataset(out, parameters: Parameters | None = None, num_workers: int | None = None) -> int:
    """Draw a data set in VOC layout (JPEGImages, Annotations, ImageSets/Main) under `out`; the number of images drawn.

    A complete set of the same parameters is left as it is (0 is returned), an unfinished one is continued.  UserError
    if the folder holds anything else.  `num_workers` processes draw; None takes one a core, few images need none.
    """
    out, parameters = Path(out), parameters or Parameters()
    if not parameters.jobs():
        raise UserError("--num-train, --num-val, --num-test: all are 0, nothing to draw")
    _claim_folder(out, parameters)
    done = {p.stem for p in (out / "Annotations").glob("*.xml")} & {p.stem for p in (out / "JPEGImages").glob("*.jpg")}
    jobs = [job for job in parameters.jobs() if _stem(job) not in done]
    num_workers = min(num_workers or os.cpu_count() or 1, len(jobs) // 32)
    draw = partial(_write_image, out, parameters)
    with tqdm(total=len(jobs), unit="image", desc="drawing", disable=None) as bar:
        if num_workers > 1:
            with multiprocessing.Pool(num_workers, _start_worker) as pool:
                for _ in pool.imap_unordered(draw, jobs, chunksize=8):
                    bar.update()
        else:
            for job in jobs:
                draw(job)
                bar.update()
    _write_lists(out, parameters)
    if (out / PARTIAL).exists():
        os.replace(out / PARTIAL, out / MARKER)
    return len(jobs)


def _write_lists(out: Path, parameters: Parameters) -> None:
    """The image sets; a split without images gets no file."""
    for name, splits in {**{split: (split,) for split in SPLITS}, "trainval": ("train", "val")}.items():
        stems = [_stem(job) for job in parameters.jobs() if job[0] in splits]
        path = out / "ImageSets" / "Main" / f"{name}.txt"
        if stems and not path.exists():
            _replace_file(path, "".join(f"{stem}\n" for stem in stems).encode())


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status (0 done, 2 a mistake of the user, 130 interrupted)."""
    default = Parameters()
    parser = argparse.ArgumentParser(prog="python -m lib.dataset.shapes", description=__doc__.split("\n\n")[0])
    parser.add_argument("out", help="folder to draw into, new or empty")
    for name, text in (
        ("num_train", "training images"),
        ("num_val", "validation images"),
        ("num_test", "test images"),
        ("size", "mean height and width of the images in pixels"),
        ("seed", "another seed, another data set"),
        ("classes", f"number of classes, the first of {', '.join(ALL_CLASS_NAMES)}"),
    ):
        option, value = f"--{name.replace('_', '-')}", getattr(default, name)
        parser.add_argument(option, type=int, default=value, help=f"{text} (default: {value})")
    values = vars(parser.parse_args(argv))
    out, start = values.pop("out"), time.perf_counter()
    try:
        num_images = write_dataset(out, Parameters(**values))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{out}: interrupted; the same command continues", file=sys.stderr)
        return 130
    seconds = time.perf_counter() - start
    if num_images:
        print(f"{out}: {num_images} images drawn in {seconds:.1f} s ({num_images / seconds:.0f} a second)")
    else:
        print(f"{out}: already there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
