"""What is benchmarked: configurations and runs that patterns name, and their weights, mAP and images."""

import copy
import glob
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import update_derived
from ..dataset.shapes import draw_scene
from ..dataset.transforms import read_image
from ..evaluation.legend import legend
from ..solver.checkpoint import BEST
from ..solver.run import checkpoints_to_test
from ..utils.class_names import known_class_names
from ..utils.errors import UserError
from ..utils.video import pictures_in
from .compare_runs import RESULTS, named_epoch, read_results, unique_names
from .plan import ASSUMED_CLASSES

log = logging.getLogger(__name__)

MOST_IMAGES = 16
NUM_DRAWN = 4
FRAGMENTS = "base"
"""The folder of files that others name as their _BASE_, which by themselves are no configurations."""


@dataclass(frozen=True)
class Job:
    """A configuration to be timed on `batch` images at a time with so many threads (None: as many as torch chooses).

    folder: that of a run, None for a configuration by itself; results: the file of its test, where it has one;
    is_first_batch: whether it has the first of the batch sizes; images: a file of arrays; seconds: for a round of runs;
    least: how many it has at least.
    """

    name: str
    config: Path
    folder: Path | None
    results: Path | None
    overrides: tuple[str, ...]
    threads: int | None
    batch: int
    is_first_batch: bool
    images: Path
    seconds: float
    least: int


def find_configs(patterns) -> list[Path]:
    """The YAML files that the patterns match, each once; UserError for a pattern without any.

    Those in folders called "base" are left out, unless the pattern names the folder.
    """
    found = []
    for pattern in patterns:
        paths = [path for path in _matches("--cfg", pattern) if path.suffix in (".yml", ".yaml")]
        if not paths:
            raise UserError(f"--cfg {pattern}: matches no YAML file; a pattern is such as 'experiments/cfgs/*.yml'")
        whole = [path for path in paths if FRAGMENTS in Path(pattern).parts or FRAGMENTS not in path.parts[:-1]]
        found += whole or paths
        if whole and len(whole) < len(paths):
            left_out = len(paths) - len(whole)
            log.info("%d files in folders called %s are left out: others build on them", left_out, FRAGMENTS)
    return list(dict.fromkeys(found))


def find_runs(patterns) -> list[tuple[Path, Path | None]]:
    """(folder, results file or None) of the runs that the patterns match: folders, or results files in them, which
    choose among several checkpoints.  UserError for a pattern without any."""
    found = []
    for pattern in patterns:
        paths = [path for path in _matches("--runs", pattern) if path.is_dir() or RESULTS.fullmatch(path.name)]
        if not paths:
            raise UserError(f"--runs {pattern}: matches no folder; a run is the EXP_DIR of a training")
        for path in paths:
            results = path / "results.json" if path.is_dir() else path
            found.append((results.parent, results if results.is_file() else None))
    return list(dict.fromkeys(found))


def _matches(option: str, pattern: str) -> list[Path]:
    text = str(Path(os.path.expanduser(pattern)))
    paths = [Path(text)] if Path(text).exists() else [Path(path) for path in sorted(glob.glob(text, recursive=True))]
    if not paths:
        raise UserError(f"{option} {pattern}: matches nothing")
    return paths


def name_all(configs: list[Path], runs: list[tuple[Path, Path | None]]) -> list[str]:
    """A short name for each, first the configurations."""
    whole = [path.with_suffix("") for path in configs]
    for folder, results in runs:
        whole.append(named_epoch(folder.resolve(), RESULTS.fullmatch(results.name)[1] if results else ""))
    return unique_names(whole)


def settle_classes(cfg) -> str:
    """Fill MODEL.NUM_CLASSES where it is not given, without a look at the data; how it is known, in a word."""
    if cfg.MODEL.NUM_CLASSES is not None:
        return "given"
    names = known_class_names(cfg.DATASET.DATASET, cfg.DATASET.CLASSES)
    cfg.MODEL.NUM_CLASSES = len(names) + 1 if names else ASSUMED_CLASSES
    update_derived(cfg)
    return "by name" if names else "assumed"


def find_weights(cfg, results: Path | None) -> tuple[Path | None, float | None, str]:
    """(checkpoint, its mAP, what that is) of a configuration; None where there is none.

    TEST.CHECKPOINT or the last one in EXP_DIR; of a run with results that which they are of.  RESUME_CHECKPOINT is
    where training starts, often of another network, and does not count.
    """
    folder = Path(cfg.EXP_DIR)
    if results is None and (folder / "results.json").is_file():
        results = folder / "results.json"
    tested = read_results(results) if results is not None else {}
    scored = folder / Path(tested.get("checkpoint", "")).name
    own = cfg.TEST.CHECKPOINT in ("", "last", "best")
    if scored.is_file() and own:
        return scored, tested["mAP"], _rule_of_map(tested)
    chosen = copy.deepcopy(cfg)
    chosen.RESUME_CHECKPOINT = ""
    try:
        checkpoint = checkpoints_to_test(chosen)[-1][1]
    except UserError:
        return None, None, ""
    missing = checkpoint == folder / BEST and not checkpoint.exists()
    return None if missing else checkpoint, None, ""


def _rule_of_map(results: dict) -> str:
    """The protocol of the mAP of a test, as its results tell."""
    if "mAP" in results.get("legend", {}):
        return results["legend"]["mAP"]
    keys = [key for key in ("voc07", "voc_area", "map50", "AP") if results.get(key) == results["mAP"]]
    return next(iter(legend(keys, 0.0).values()), "protocol not told")


def load_images(folder: str | None, size: tuple[int, int]) -> tuple[list[np.ndarray], str, float | None]:
    """(images BGR uint8, what they are, milliseconds to read and decode one or None) of a folder; without one, drawn
    scenes of the size (width, height) that look somewhat like photographs."""
    if folder is None:
        rng = np.random.default_rng(0)
        images = [draw_scene(rng, size[1], size[0])[0] for _ in range(NUM_DRAWN)]
        return images, f"{NUM_DRAWN} drawn scenes of {size[0]}x{size[1]}", None
    path = Path(os.path.expanduser(folder))
    if not path.is_dir():
        raise UserError(f"--images {folder}: there is no such folder")
    images, seconds = [], []
    for picture in pictures_in(path)[:MOST_IMAGES]:
        start = time.perf_counter()
        try:
            images.append(read_image(str(picture), "ignore"))
        except UserError as error:
            log.warning("skipped: %s", error)
            continue
        seconds.append(time.perf_counter() - start)
    if not images:
        raise UserError(f"--images {folder}: none of its images could be read")
    sides = sorted({f"{image.shape[1]}x{image.shape[0]}" for image in images})
    shown = ", ".join(sides[:3]) + (", ..." if len(sides) > 3 else "")
    return images, f"{len(images)} images of {path} ({shown})", 1000 * float(np.median(seconds))


def save_images(images: list[np.ndarray], path: Path) -> None:
    """Write arrays to a file for `open_images`."""
    np.savez(path, *images)


def open_images(path: Path) -> list[np.ndarray]:
    """The arrays of a file of `save_images`."""
    with np.load(path) as file:
        return [file[name] for name in file.files]
