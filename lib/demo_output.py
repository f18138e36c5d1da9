"""What demo leaves behind: the folder, the drawn pictures in it, and results files in the formats asked for."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from .demo_sources import Sources, some_names
from .evaluation.coco_results import to_coco_results
from .evaluation.results import BOX_DECIMALS, ResultsWriter, written_id
from .structures import Detections, Target
from .utils.errors import UserError
from .utils.files import write_whole
from .utils.video import CODECS

logger = logging.getLogger(__name__)

JSON, CSV, COCO, COCO_IMAGES = "detections.json", "detections.csv", "coco_results.json", "coco_images.json"
FORMATS = {"json": (JSON,), "csv": (CSV,), "coco": (COCO, COCO_IMAGES)}
"""The results files of each choice of --format."""

LABELS = range(1, 2**31)
"""The numbers by which COCO's form knows the classes."""


def make_folder(out: Path) -> None:
    """Make the folder --out; UserError where that is no folder or cannot be one."""
    if out.suffix.lower() in {suffix for suffix, _ in CODECS} and not out.is_dir():
        raise UserError(f"--out {out}: is the name of a video; give the folder of the video and of {JSON}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: this folder cannot be made ({error.strerror})") from None


def refuse_to_overwrite(out: Path, sources: Sources, formats: Iterable[str], ours: bool) -> None:
    """UserError if a drawn picture would take the place of an image to be read, or, unless the folder is `ours` by its
    name, a picture, video or results file that of one that no earlier demo has made."""
    taken = [out / name for form in formats for name in FORMATS[form] if (out / name).exists()]
    for place, name in sources.images:
        picture = out / picture_name(name)
        if picture.exists():
            if place.exists() and picture.samefile(place):
                raise UserError(f"--out {out}: is the folder of the images, which would be overwritten")
            taken.append(picture)
    for place, name in sources.videos:
        video = out / f"{name}.mp4"
        if video.exists() and not (isinstance(place, Path) and place.exists() and video.samefile(place)):
            taken.append(video)
    if taken and not ours and not _is_of_demo(out):
        raise UserError(
            f"--out {out}: holds {some_names(taken)}, which would be overwritten and comes from no demo; name another "
            "folder"
        )


def _is_of_demo(out: Path) -> bool:
    """Whether a folder holds the results of an earlier demo, which a new one may replace; those of a test do not count,
    they lie beside the configuration of their run."""
    results = [name for names in FORMATS.values() for name in names]
    return any((out / name).exists() for name in results) and not (out / "config.yml").exists()


def picture_name(name: str) -> str:
    """The name of the drawn picture of an image: its own, with .jpg behind it where its format is an odd one."""
    return name if name.lower().endswith((".jpg", ".jpeg", ".png")) else f"{name}.jpg"


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a drawn picture, BGR uint8 [H, W, 3], in a folder that is made where it is missing."""
    done, content = cv2.imencode(path.suffix, picture)
    if done:
        write_whole(path, content.tobytes())
    else:
        height, width = picture.shape[:2]
        logger.warning("%s: a picture of %d x %d pixels cannot be written as %s", path, width, height, path.suffix)


class ResultFiles:
    """The results of a demo in each of `formats` (keys of FORMATS), written image by image.

    Used as a context manager, whose files appear together at its end; after an exception none does and older ones stay.
    Class names are the detector's.  COCO's form knows images and classes by numbers only: images count from 1 in the
    order in which they come, classes as the labels do, and coco_images.json beside the results tells which is which in
    the form of an annotation file without annotations.
    """

    def __init__(self, out: Path, formats: Iterable[str], class_names: Sequence[str]):
        self._writers, self._num_images, self._entered = [], 0, ExitStack()
        for name in formats:
            if name == "coco":
                entries = {COCO: self._numbered_entries, COCO_IMAGES: self._image_entries}
                self._writers.append(ResultsWriter(out / COCO, entries[COCO]))
                self._writers.append(_CocoImages(out / COCO_IMAGES, entries[COCO_IMAGES], class_names))
            else:
                self._writers.append(ResultsWriter(out / JSON) if name == "json" else _CsvFile(out / CSV))

    @property
    def names(self) -> list[str]:
        """The files' names."""
        return [writer.path.name for writer in self._writers]

    def __enter__(self) -> "ResultFiles":
        with ExitStack() as entered:
            for writer in self._writers:
                entered.enter_context(writer)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._entered.__exit__(*exception)

    def add(self, found: Detections, image: np.ndarray, image_id) -> None:
        """Append what was found in an image [H, W, 3], boxes in its pixels; image_id as in Target."""
        self._num_images += 1
        target = Target(found.boxes[:0], found.labels[:0], image_id=image_id, size=image.shape[:2])  # without a truth
        for writer in self._writers:
            writer.add([found], [target])

    def _numbered_entries(self, found: list[Detections], targets: list[Target]) -> list[dict]:
        numbers = {target.image_id: self._num_images for target in targets}
        return to_coco_results(found, targets, numbers, LABELS)

    def _image_entries(self, found: list[Detections], targets: list[Target]) -> list[dict]:
        (target,) = targets
        height, width = target.size
        name = written_id(target.image_id)
        return [{"id": self._num_images, "file_name": name, "height": height, "width": width}]


class _CsvFile(ResultsWriter):
    """The entries as rows of a table, boxes as corners in 0-based pixels."""

    opening, first, between, closing = "image,label,class,score,x1,y1,x2,y2\n", "", "", ""

    @staticmethod
    def encode(entry: dict) -> str:
        left, top, width, height = entry["bbox"]
        corners = [left, top, round(left + width, BOX_DECIMALS), round(top + height, BOX_DECIMALS)]
        line, name = io.StringIO(), entry.get("category_name", entry["category_id"])
        row = [entry["image_id"], entry["category_id"], name, entry["score"], *corners]
        csv.writer(line, lineterminator="\n").writerow(row)
        return line.getvalue()


class _CocoImages(ResultsWriter):
    """An annotation file of COCO with images and categories, and without annotations."""

    opening = '{"images": ['

    def __init__(self, path: Path, to_entries, class_names: Sequence[str]):
        super().__init__(path, to_entries)
        categories = [{"id": label, "name": name} for label, name in enumerate(class_names, 1)]
        self.closing = f'\n],\n"annotations": [],\n"categories": {self.encode(categories)}}}\n'
