"""A cleaned copy of a data set: its folder, the log of what differs from the original, and the way back.

Images are hard links where the file system has them: they take no room, and an image that is later edited in place
changes in both folders.  Annotations are files of their own.  Of every annotation and list that differs, the original
is kept in ORIGINALS, and LOG lists each change with what was there before and after.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

from ..dataset.facts import FileFacts
from ..dataset.split import SplitPlan
from ..dataset.voc_layout import leads_out
from ..utils.errors import UserError
from .check_fix_coco import fix_coco
from .check_fix_rules import removals
from .check_fix_voc import fix_voc
from .reports import is_report

LOG, RESTORED, ORIGINALS = "fix_log.json", "fix_log_restored.json", "fix_originals"
MARK = "fix of"
FIXERS = {
    "voc": fix_voc, "custom": fix_voc, "customRNN": fix_voc, "imagenet": fix_voc, "coco": fix_coco, "coco_vid": fix_coco
}  # fmt: skip
"""Kinds of data sets that can be written: what fills a copy."""


class CleanedCopy:
    """A folder in which a cleaned data set is written; paths in it are relative to it, with slashes."""

    def __init__(self, out: Path, about: dict):
        self.out = out
        self.log = {**about, "changes": [], "files": {}, "images_left_out": {}}
        self.num_images = 0

    def add_image(self, source: str, place: str) -> None:
        """Link an image into the copy."""
        target = self._target(place)
        if not target.exists():
            _link(source, target)
            self.num_images += 1

    def add_file(self, source: str | None, place: str, content: bytes | None = None) -> None:
        """Write a file as its source is, or with other content, of which the original is kept; without a source it is
        a new file."""
        original = None if source is None else Path(source).read_bytes()
        content = original if content is None else content
        self._target(place).write_bytes(content)
        if content != original:
            self._keep(source, place, original, content)

    def leave_out(self, image: str, place: str, why: str, annotation: str = "", annotation_place: str = "") -> None:
        """Note that an image, and the annotation that is its own, are not in the copy."""
        self.log["images_left_out"][place] = image
        self.change("image left out", place, why, before=image)
        if annotation:
            self._keep(annotation, annotation_place, Path(annotation).read_bytes(), None)

    def change(self, what: str, where: str, why: str, before=None, after=None, number: int | None = None) -> None:
        """Note a change of a file: of its object `number`, counted from 1, or of all of it."""
        entry = {"what": what, "where": where, "object": number, "why": why, "before": before, "after": after}
        self.log["changes"].append(entry)

    def finish(self) -> Path:
        """Write the log; its path."""
        path = self.out / LOG
        path.write_text(json.dumps(self.log, indent=1) + "\n", encoding="utf-8")
        return path

    def _keep(self, source, place: str, original: bytes | None, content: bytes | None) -> None:
        written = None if content is None else hashlib.sha256(content).hexdigest()
        self.log["files"][place] = {"source": source, "written": written}
        if original is not None:
            self._target(f"{ORIGINALS}/{place}").write_bytes(original)

    def _target(self, place: str) -> Path:
        target = self.out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def check_target(out: Path, kind: str, roots) -> None:
    """UserError for a folder that is not empty or lies in those of the data, and for a kind of data set that cannot be
    written."""
    if kind not in FIXERS:
        raise UserError(f"--fix: data sets of the kind {kind} cannot be written; allowed: {', '.join(sorted(FIXERS))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--fix {out}: is there already; give a new or empty folder")
    for root in [roots] if isinstance(roots, str) else roots:
        if Path(os.path.expanduser(root)).resolve() in out.resolve().parents:
            raise UserError(f"--fix {out}: lies in the data itself, {root}; give a folder outside of it")


def fix(cfg, name: str, out: Path, sets, problems, keep_near: bool) -> tuple[CleanedCopy, list[str]]:
    """(the copy, its folders for DATASET.DATASET_DIR): the data of a configuration without what is wrong with it.

    Faults are treated as ON_BAD clip treats them; images that cannot be used, of training those that eval or test also
    have, and second copies of training images are left out.
    """
    num_train = next((len(each.records) for each in sets if each.name == "train"), 0)
    gone = removals(problems, num_train, keep_near)
    about = {MARK: name, "kind": cfg.DATASET.DATASET, "exif": cfg.DATASET.EXIF}
    copy = CleanedCopy(out, about)
    plan = SplitPlan(tuple(cfg.DATASET.SPLIT), cfg.SEED, cfg.EXP_DIR)
    folders = FIXERS[cfg.DATASET.DATASET](cfg.DATASET, plan, FileFacts(cfg.EXP_DIR), sets, gone, copy)
    copy.finish()
    return copy, folders


def restore(out: Path) -> tuple[int, list[str]]:
    """Write the originals of all changed annotations and lists back into a cleaned copy and link the images that were
    left out; (files written, images that are no longer where they were).

    UserError where there is no log, or a file was changed since the copy was written.
    """
    log = out / LOG
    if not is_report(log, MARK):
        raise UserError(f"--restore {out}: holds no {LOG} of this tool")
    content = json.loads(log.read_text(encoding="utf-8"))
    for place in (*content["files"], *content["images_left_out"]):
        if leads_out(place):
            raise UserError(f"--restore {out}: {LOG} names '{place}', which is no path below the copy")
    for place, entry in content["files"].items():
        path = out / place
        there = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        if there != entry["written"]:
            raise UserError(f"--restore {out}: {path} was changed since; move it away to lose nothing")
        if entry["source"] is not None and not (out / ORIGINALS / place).is_file():
            raise UserError(f"--restore {out}: {out / ORIGINALS / place} is gone")
    for place, entry in content["files"].items():
        path = out / place
        if entry["source"] is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((out / ORIGINALS / place).read_bytes())
    gone = []
    for place, source in content["images_left_out"].items():
        if not os.path.isfile(source):
            gone.append(source)
        elif not (out / place).exists():
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            _link(source, out / place)
    log.rename(out / RESTORED)
    return len(content["files"]), gone


def _link(source: str, target: Path) -> None:
    """A hard link to a file, or a copy where there can be none."""
    source = os.path.realpath(source)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
