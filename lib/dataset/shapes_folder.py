"""The folder of a generated data set: what decides its contents, whose it is, how drawing is spread and resumed.

A folder is claimed by a marker with the parameters before anything is drawn into it, and gets its final name when all
is there.  Files are written whole or not at all, so that an interrupted run can be continued.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from ..utils.errors import UserError
from .shapes_drawing import CLASS_NAMES, MORE_CLASS_NAMES

ALL_CLASS_NAMES = CLASS_NAMES + MORE_CLASS_NAMES
SPLITS = ("train", "val", "test")
MARKER, PARTIAL = "shapes.json", "shapes.partial"
LIMITS = {
    "size": (48, 4096),
    "classes": (1, len(ALL_CLASS_NAMES)),
    "version": (1, 1),
    "frames": (2, 10000),
    "degraded": (0, 0.7),
}


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
        for name, value in asdict(self).items():
            low, high = LIMITS.get(name, (0, 10**6))
            if not low <= value <= high:
                raise UserError(f"--{name.replace('_', '-')}: {value} was given, allowed: {low} to {high}")

    def jobs(self) -> list[tuple[str, int]]:
        """(split, index) of every image or video, indices from 1."""
        return [(split, i + 1) for split in SPLITS for i in range(getattr(self, f"num_{split}"))]


@dataclass(frozen=True)
class VideoParameters(Parameters):
    """The same of a set of videos, which the first three count: also the frames of each, and their degraded share."""

    num_train: int = 120
    num_val: int = 20
    num_test: int = 30
    size: int = 160
    frames: int = 40
    degraded: float = 0.4


def stem(job: tuple[str, int]) -> str:
    """The name of an image or a video."""
    return f"{job[0]}_{job[1]:06d}"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def claim_folder(out: Path, parameters: Parameters, folders: tuple[str, ...]) -> None:
    """Mark `out` as ours and make its folders, or raise a UserError that names what stands there."""
    if not parameters.jobs():
        raise UserError("--num-train, --num-val, --num-test: all are 0, nothing to draw")
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
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
    replace_file(out / PARTIAL, json.dumps(asdict(parameters), indent=1).encode())


def _compare(marker: Path, parameters: Parameters) -> None:
    wanted = asdict(parameters)
    try:
        there = json.loads(marker.read_text())
        differ = [f"{k} {there.get(k)} (not {v})" for k, v in wanted.items() if there.get(k) != v]
    except (ValueError, AttributeError):
        raise UserError(f"{marker}: is not a marker of this command; give a new or empty folder") from None
    if ("frames" in there) != ("frames" in wanted):
        found, option = ("videos", "give --video") if "frames" in there else ("stills", "leave --video out")
        raise UserError(f"{marker.parent}: holds a shapes data set of {found}; {option}, or give another folder")
    if differ:
        differ = ", ".join(differ)
        raise UserError(f"{marker.parent}: holds a shapes data set with {differ}; delete it or give another folder")


def finish_folder(out: Path) -> None:
    """Give the marker the name of a complete set."""
    if (out / PARTIAL).exists():
        os.replace(out / PARTIAL, out / MARKER)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    cv2.setNumThreads(0)


def draw_all(draw: Callable, jobs: list, unit: str, num_workers: int | None, portion: int) -> None:
    """Call draw(job) for all jobs in `num_workers` processes (None: one a core), which take `portion` at a time; too
    few jobs to go round need none."""
    num_workers = min(num_workers or os.cpu_count() or 1, len(jobs) // (4 * portion))
    with tqdm(total=len(jobs), unit=unit, desc="drawing", disable=None) as bar:
        if num_workers > 1:
            with multiprocessing.Pool(num_workers, _start_worker) as pool:
                for _ in pool.imap_unordered(draw, jobs, chunksize=portion):
                    bar.update()
        else:
            for job in jobs:
                draw(job)
                bar.update()
