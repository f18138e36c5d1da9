"""The cleaned copy of a data set with COCO's annotations."""

import json
import os

import numpy as np

from ..dataset.coco_json import CocoFile, read_coco
from ..dataset.coco_layout import choose_files, open_coco_folders
from ..dataset.facts import FileFacts
from ..dataset.inspection import Checks, Finding, Findings, check_image
from ..utils.errors import UserError
from .check_classes import known_names
from .check_fix_rules import Change, Removals, judge_objects


def fix_coco(data, plan, facts: FileFacts, sets, gone: Removals, copy) -> list[str]:
    """Fill the copy; its folders for DATASET.DATASET_DIR.

    Only the annotation files that the configuration opens are written.
    """
    roots = [data.DATASET_DIR] if isinstance(data.DATASET_DIR, str) else list(data.DATASET_DIR)
    folders = open_coco_folders(roots)
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"--fix: DATASET.DATASET_DIR holds folders of one name, {', '.join(names)}; clean them singly")
    chosen: dict = {}
    for role, wanted in (("train", data.TRAIN_SETS), ("eval", data.EVAL_SETS), ("test", data.TEST_SETS)):
        if not wanted and role not in {each.name for each in sets}:
            continue
        for place in choose_files(folders, wanted, role, f"DATASET.{role.upper()}_SETS"):
            chosen[place] = chosen.get(place, False) or role != "train"
    known = known_names(sets, bool(data.CLASSES))
    for (folder, split), scored in chosen.items():
        prefix = f"{folder.name}/" if len(folders) > 1 else ""
        _write_set(folder, split, prefix, {} if scored else gone.training, gone, facts, known, data.EXIF, copy)
    return [str(copy.out / folder.name) if len(folders) > 1 else str(copy.out) for folder in folders]


def _write_set(folder, split, prefix, training, gone, facts, known, exif, copy) -> None:
    """The annotation file of a set without what is wrong, and its images."""
    file = read_coco(folder.file(split))
    place = f"{prefix}annotations/{split}.json"
    entries, listed = folder.entries(split, file, set(), Findings(Checks(), ""))
    images = facts.images([entry.image for entry in entries])
    changes: dict[int, Change] = {number: Change(detail) for number, detail in file.unlisted}
    sizes, dropped = {}, _unopened(file, listed)
    for entry, image, item in zip(entries, images, listed, strict=True):
        where = prefix + os.path.relpath(entry.image, folder.path).replace(os.sep, "/")
        why = image.detail if image.case else gone.everywhere.get(entry.image) or training.get(entry.image, "")
        if image.case or why:
            dropped[item.id] = why
            copy.leave_out(entry.image, where, why)
            continue
        copy.add_image(entry.image, where)
        size = check_image(image, item.annotation.size, Finding(), Findings(Checks("clip", exif), ""))
        if item.annotation.size is not None and tuple(item.annotation.size) != tuple(size):
            sizes[item.id] = size
        changes |= judge_objects(item.annotation, size, known, first_pixel=0)
    if changes or sizes or dropped:
        content = _changed(file, changes, sizes, dropped, place, copy)
        copy.add_file(str(file.path), place, content)
    else:
        copy.add_file(str(file.path), place)


def _unopened(file: CocoFile, listed) -> dict:
    """{id: why} of images that the folder would not open: outside of it, or listed before."""
    opened = {item.id for item in listed}
    return {item.id: "outside the folder, or listed twice" for item in file.images if item.id not in opened}


def _changed(file: CocoFile, changes, sizes, dropped, place: str, copy) -> bytes:
    """The content of the file after all changes."""
    content = json.loads(file.path.read_bytes())
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = {name: key for key, name in names.items()}
    for item in content["images"]:
        if item["id"] in sizes:
            height, width = sizes[item["id"]]
            before = [item.get("height"), item.get("width")]
            item |= {"height": height, "width": width}
            copy.change("size corrected", place, f"{item['file_name']} has another size", before, [height, width])
        if item["id"] in dropped:
            copy.change("image left out of the list", place, dropped[item["id"]], item)
    content["images"] = [item for item in content["images"] if item["id"] not in dropped]
    kept = []
    for number, item in enumerate(content["annotations"], 1):
        if item.get("image_id") in dropped:
            continue
        change = changes.get(number)
        if change is None:
            kept.append(item)
        elif change.box is None and change.name is None:
            copy.change(change.what, place, change.why, item, None, number)
        else:
            after = dict(item)
            if change.name is not None:
                after["category_id"] = ids[change.name]
            if change.box is not None:
                x1, y1, x2, y2 = change.box
                after["bbox"] = np.round([x1, y1, x2 - x1, y2 - y1], 2).tolist()
            copy.change(change.what, place, change.why, _plain(item), _plain(after), number)
            kept.append(after)
    content["annotations"] = kept
    return json.dumps(content).encode()


def _plain(item: dict) -> dict:
    """An annotation without its outline, which no change touches."""
    return {key: value for key, value in item.items() if key != "segmentation"}
