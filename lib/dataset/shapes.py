"""A generated data set in VOC layout: `python -m lib.dataset.shapes OUT` draws textured objects over cluttered grounds;
with --video, videos of them in COCO-VID layout.

The classes differ in their form alone: colours, surfaces, sizes and grounds are drawn from the same distributions for
all of them and for the distractors, which are no class.  Every image comes from a generator seeded by (seed, split,
index), so that it depends neither on the other images nor on how many there are.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..utils.errors import UserError
from .shapes_folder import (
    ALL_CLASS_NAMES,
    SPLITS,
    Parameters,
    VideoParameters,
    claim_folder,
    draw_all,
    finish_folder,
    replace_file,
    stem,
)
from .shapes_scene import draw_scene
from .shapes_video import write_videos


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


def _write_image(out: Path, parameters: Parameters, job: tuple[str, int]) -> int:
    """Draw one image and write it, its annotation last; the number of its objects."""
    rng = np.random.default_rng((parameters.seed, SPLITS.index(job[0]), job[1]))
    height, width = (max(32, round(parameters.size * f)) for f in rng.uniform(0.75, 1.25, 2))
    quality = int(rng.integers(45, 96))
    class_names = ALL_CLASS_NAMES[: parameters.classes]
    image, boxes, labels, difficult = draw_scene(rng, height, width, class_names)
    name = stem(job) + ".jpg"
    objects = [(class_names[i - 1], box, d) for i, box, d in zip(labels, boxes.tolist(), difficult, strict=True)]
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    replace_file(out / "JPEGImages" / name, jpeg.tobytes())
    replace_file(out / "Annotations" / f"{stem(job)}.xml", annotation_xml(name, height, width, objects).encode())
    return len(objects)


def write_dataset(out, parameters: Parameters | None = None, num_workers: int | None = None) -> int:
    """Draw a data set in VOC layout (JPEGImages, Annotations, ImageSets/Main) under `out`; the number of images drawn.

    A complete set of the same parameters is left as it is (0 is returned), an unfinished one is continued.  UserError
    if the folder holds anything else.  `num_workers` processes draw; None takes one a core, few images need none.
    """
    out, parameters = Path(out), parameters or Parameters()
    claim_folder(out, parameters, ("JPEGImages", "Annotations", "ImageSets/Main"))
    done = {p.stem for p in (out / "Annotations").glob("*.xml")} & {p.stem for p in (out / "JPEGImages").glob("*.jpg")}
    jobs = [job for job in parameters.jobs() if stem(job) not in done]
    draw_all(partial(_write_image, out, parameters), jobs, "image", num_workers, portion=8)
    _write_lists(out, parameters)
    finish_folder(out)
    return len(jobs)


def _write_lists(out: Path, parameters: Parameters) -> None:
    """The image sets; a split without images gets no file."""
    for name, splits in {**{split: (split,) for split in SPLITS}, "trainval": ("train", "val")}.items():
        stems = [stem(job) for job in parameters.jobs() if job[0] in splits]
        path = out / "ImageSets" / "Main" / f"{name}.txt"
        if stems and not path.exists():
            replace_file(path, "".join(f"{line}\n" for line in stems).encode())


def _arguments(argv: list[str] | None) -> tuple[Path, Parameters]:
    """What the command line says; UserError where options do not go together or a value is out of range."""
    parser = argparse.ArgumentParser(prog="python -m lib.dataset.shapes", description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder to draw into, new or empty")
    parser.add_argument("--video", action="store_true", help="draw videos in COCO-VID layout")
    stills, videos = Parameters(), VideoParameters()
    for name, text in (
        ("num_train", "training images, or videos"),
        ("num_val", "validation images, or videos"),
        ("num_test", "test images, or videos"),
        ("size", "mean height and width of the images in pixels"),
        ("seed", "another seed, another data set"),
        ("classes", f"number of classes, the first of {', '.join(ALL_CLASS_NAMES)}"),
        ("frames", "frames of a video"),
        ("degraded", "share of the frames of a video that noise, blur, low contrast or a cover makes hard to see"),
    ):
        value, of_video = getattr(stills, name, None), getattr(videos, name)
        given = f"{of_video} with --video" if value is None else f"{value}, {of_video} with --video"
        given = str(value) if value == of_video else given
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(of_video), help=f"{text} (default: {given})")
    values = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    out, video = values.pop("out"), values.pop("video")
    for name in () if video else ("frames", "degraded"):
        if name in values:
            raise UserError(f"--{name}: goes with --video only")
    return out, (VideoParameters if video else Parameters)(**values)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status (0 done, 2 a mistake of the user, 130 interrupted)."""
    start, out = time.perf_counter(), None
    try:
        out, parameters = _arguments(argv)
        if isinstance(parameters, VideoParameters):
            num_videos = write_videos(out, parameters)
            num_images, what = num_videos * parameters.frames, f"{num_videos} videos, {{}} frames"
        else:
            num_images, what = write_dataset(out, parameters), "{} images"
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{out}: interrupted; the same command continues", file=sys.stderr)
        return 130
    seconds = time.perf_counter() - start
    if num_images:
        print(f"{out}: {what.format(num_images)} drawn in {seconds:.1f} s ({num_images / seconds:.0f} a second)")
    else:
        print(f"{out}: already there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
