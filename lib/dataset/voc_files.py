"""Finding the files of a folder of photographs and annotations: by stem, whatever the type of the image."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from .facts import FileFacts
from .inspection import Finding
from .voc_xml import BadAnnotation

IMAGE_TYPES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jpe", ".dib", ".ppm", ".pgm", ".pbm", ".pnm",
    ".jp2", ".sr", ".ras", ".hdr", ".exr", ".avif", ".gif",
)  # fmt: skip
"""Extensions of images; the first one counts where a stem has several."""


class Entry(NamedTuple):
    """One image: paths of its file and its annotation, and its id inside its folder."""

    image: str
    annotation: str
    key: str


def images_by_stem(folder: Path) -> dict:
    """{stem: its files, best type first} of one folder; empty if there is no such folder."""
    found = defaultdict(list)
    if os.path.isdir(folder):  # a name may be too long for pathlib
        for item in os.scandir(folder):
            stem, extension = os.path.splitext(item.name)
            if extension.lower() in IMAGE_TYPES:
                found[stem].append(item.name)
    return {stem: sorted(names, key=_type_rank) for stem, names in found.items()}


def pair_files(root: Path, facts: FileFacts):
    """Every annotation below root with its image, sorted, the images that have no annotation, and the annotations
    that have no image of their own, as (case, Finding).

    The image has the stem of the annotation, or the <filename> it gives.  The id is the stem, or the path below root
    where stems repeat.
    """
    annotations, images = _find_files(root)
    found, owners, faults = [], {}, []
    for folder, stem in annotations:
        annotation = os.path.join(folder, f"{stem}.xml")
        image = _pick(images.get(stem, ()), folder) or _pick(_named_images(annotation, images, facts), folder)
        if image is None:
            detail = f"below {root} is no image '{stem}' of any type, nor its <filename>"
            faults.append(("missing_image", Finding("", annotation, None, detail)))
        elif image in owners:
            detail = f"the only image it could mean is {image}, which belongs to {owners[image]}"
            faults.append(("shared_image", Finding("", annotation, None, detail)))
        else:
            owners[image] = annotation
            found.append(Entry(image, annotation, stem))
    if len({entry.key for entry in found}) < len(found):
        found = [entry._replace(key=key_below(root, entry)) for entry in found]
    spare = [path for paths in images.values() for path in paths if path not in owners]
    return sorted(found, key=lambda entry: key_below(root, entry)), sorted(spare), faults


def key_below(root: Path, entry: Entry) -> str:
    """The path of the annotation below root without its extension, the same on every machine."""
    return os.path.splitext(os.path.relpath(entry.annotation, root))[0].replace(os.sep, "/")


def base_name(path: str) -> str:
    """The last part of a path of any operating system."""
    return re.split(r"[/\\]", path)[-1]


def sample_names(folder: Path) -> str:
    """What a folder holds, shortly."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "nothing"


def walk(root: Path):
    """(folder, sorted names of its files) of root and all folders below; hidden ones are passed over, and links that
    come back to a folder."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder, sorted(files)


def _find_files(root: Path):
    """[(folder, stem)] of the XML files and {stem: image files} below root."""
    annotations, images = [], defaultdict(list)
    for folder, files in walk(root):
        for name in files:
            stem, extension = os.path.splitext(name)
            if extension.lower() == ".xml":
                annotations.append((folder, stem))
            elif extension.lower() in IMAGE_TYPES:
                images[stem].append(os.path.join(folder, name))
    return annotations, images


def named_file(annotation: str, facts: FileFacts) -> str:
    """The name, without a folder, that an annotation gives to its image; '' where it gives none."""
    (found,) = facts.annotations([annotation])
    return "" if isinstance(found, BadAnnotation) else base_name(found.filename)


def _named_images(annotation: str, images: dict, facts: FileFacts) -> list:
    """The files called as the annotation's <filename> says."""
    name = named_file(annotation, facts)
    return [path for path in images.get(os.path.splitext(name)[0], ()) if base_name(path) == name]


def _pick(images, folder: str) -> str | None:
    """The image that belongs to an annotation in `folder`: there, else in the folder whose path is most alike."""
    beside = [path for path in images if os.path.dirname(path) == folder]
    if beside or len(images) < 2:
        return min(beside or images, key=_type_rank, default=None)
    parts = set(Path(folder).parts)
    return min(images, key=lambda path: (-len(parts & set(Path(path).parts)), _type_rank(path)))


def _type_rank(path: str) -> tuple:
    return IMAGE_TYPES.index(os.path.splitext(path)[1].lower()), path
