"""Small data sets with VOC annotations, written for a test."""

from pathlib import Path

import cv2
import numpy as np


def write_image(path, size=(60, 80), seed=0) -> Path:
    """A noisy image of size (height, width); the extension says the format."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def xml_text(objects=(), size=(60, 80), filename="", root="annotation") -> str:
    """objects: (name, (xmin, ymin, xmax, ymax)) or (name, box, difficult); size None leaves the element out."""
    lines = [f"<{root}>", f"<filename>{filename}</filename>"]
    if size is not None:
        lines.append(f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>")
    for name, box, *difficult in objects:
        corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        flag = f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        lines.append(f"<object><name>{name}</name>{flag}<bndbox>{corners}</bndbox></object>")
    return "\n".join([*lines, f"</{root}>"])


def write_xml(path, objects=(), **kwargs) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(xml_text(objects, **kwargs))
    return path


def write_voc(folder, sets, objects=None, extension=".jpg", size=(60, 80)) -> Path:
    """A folder in VOC layout: sets {split: stems}; objects {stem: objects}, by default one 'cat' in each image."""
    folder = Path(folder)
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for split, stems in sets.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for number, stem in enumerate(sorted({stem for stems in sets.values() for stem in stems})):
        found = (objects or {}).get(stem, [("cat", (11, 21, 41, 51))])
        write_image(folder / "JPEGImages" / f"{stem}{extension}", size, number)
        write_xml(folder / "Annotations" / f"{stem}.xml", found, size=size)
    return folder


def write_loose(folder, stems, name="cat", extension=".jpg") -> Path:
    """Images and XML files side by side, as LabelImg saves them."""
    folder = Path(folder)
    for number, stem in enumerate(stems):
        write_image(folder / f"{stem}{extension}", seed=number)
        write_xml(folder / f"{stem}.xml", [(name, (11, 21, 41, 51))])
    return folder
