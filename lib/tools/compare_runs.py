"""Runs as they lie in their folders: how they were configured, what they scored and what they found in each image."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import load_config
from ..config.effective import diff_configs
from ..dataset.dataset_factory import create_records
from ..evaluation import ImageOutcomes, VIDMeanAP, VOCMeanAP, written_id
from ..evaluation.image_metric import image_arrays
from ..solver.writer import JSON_LOG, read_log
from ..structures import Detections
from ..utils.errors import UserError
from .score import NO_DETECTIONS, read_detections

WITHOUT_EFFECT = (
    "EXP_DIR", "LOG_DIR", "ROOT_DIR", "DEVICE", "PHASE", "DATASET.NUM_WORKERS", "TRAIN.RESUME",
    "TRAIN.CHECKPOINTS_EPOCHS", "TRAIN.CHECKPOINTS_ITERATIONS", "TRAIN.CHECKPOINTS_KEPT", "TRAIN.LOG_EVERY",
    "TEST.BATCH_SIZE", "TEST.TEST_SCOPE", "TEST.NUM_PICTURES", "TEST.PICTURE_THRESHOLD", "TEST.PRINT_IMAGES",
    "VISUALIZE.IMAGE", "VISUALIZE.DETECTION",
)  # fmt: skip
"""Keys that change neither what a run learns nor what it finds."""

RESULTS = re.compile(r"results(.*)\.json")


@dataclass
class Run:
    """A tested run: its name, unique among those compared; its folder; the configuration as it was saved; the content
    of its results file; its records; the metric and, at a score of `threshold`, the outcomes of its detections `found`,
    one for each image of the records in their order; and the entries of its log."""

    name: str
    folder: Path
    config: dict
    results: dict
    records: object
    found: list[Detections]
    metric: VOCMeanAP | VIDMeanAP
    threshold: float
    outcomes: list
    log: list[dict]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.records.class_names)


def read_runs(paths, overrides=()) -> list[Run]:
    """The runs of `paths`, all of the same images and classes; overrides are KEY=VALUE words for all of them, such as
    another place of the data set.

    A path is the folder of a run or one of its results files, which chooses among several epochs.  Their ground truth
    is read from the data set.  UserError for what is no tested run, comes twice or cannot be compared.
    """
    places = [_place(path) for path in paths]
    for position, place in enumerate(places):
        if place in places[:position]:
            raise UserError(f"{paths[position]}: given twice; a run is compared with others")
    names, runs = _names(places), []
    for name, (folder, suffix) in zip(names, places, strict=True):
        run = _read_run(name, folder, suffix, overrides, runs[0] if runs else None)
        if runs:
            _check_same_images(runs[0], run)
        runs.append(run)
    return runs


def changed_keys(first: Run, second: Run) -> tuple[list[tuple], list[str]]:
    """([(key, value of the first, value of the second)], [keys WITHOUT_EFFECT]) that differ in the configurations."""
    changed = diff_configs(first.config, second.config)
    return (
        [entry for entry in changed if entry[0] not in WITHOUT_EFFECT],
        [key for key, *_ in changed if key in WITHOUT_EFFECT],
    )


def group_seeds(runs: list[Run]) -> list[list[Run]]:
    """The runs in groups whose configurations differ by SEED alone, in the order of the first of each group.

    Epochs of one run are no seeds: they stay apart.
    """
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            others = [key for key, *_ in changed_keys(group[0], run)[0] if key != "SEED"]
            if not others and all(run.folder != member.folder for member in group):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def epochs_of(log: list[dict], tag: str) -> list[tuple[float, float]]:
    """(epoch, value) of the entries of a log that hold `tag`; the epoch is that of the last training step before."""
    epoch, points = 0.0, []
    for entry in log:
        epoch = entry.get("Train/epoch") or epoch
        if entry.get(tag) is not None:
            points.append((epoch, entry[tag]))
    return points


def _place(path) -> tuple[Path, str]:
    """(folder, suffix of its results) of a path that a user gave."""
    given = Path(os.path.expanduser(path))
    if not given.exists():
        raise UserError(f"{path}: no such folder; a run is the EXP_DIR of a training that was tested")
    if given.is_dir():
        return given.resolve(), ""
    match = RESULTS.fullmatch(given.name)
    if match is None:
        raise UserError(f"{path}: not a run; give its folder, or a results file in it such as results_epoch_20.json")
    return given.resolve().parent, match[1]


def unique_names(paths: list[Path]) -> list[str]:
    """The last parts of each path, as many as tell them all apart."""
    deepest = max(len(path.parts) for path in paths)
    for depth in range(1, deepest + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _names(places: list[tuple[Path, str]]) -> list[str]:
    """A name for each place, with the epoch where one was chosen."""
    return unique_names([named_epoch(folder, suffix) for folder, suffix in places])


def named_epoch(folder: Path, suffix: str) -> Path:
    """The folder of a run with the suffix of one of its results files, in words, in its name."""
    return folder.with_name(folder.name + suffix.replace("_epoch_", " epoch "))


def _read_run(name: str, folder: Path, suffix: str, overrides, first: Run | None) -> Run:
    config_file = folder / "config.yml"
    _require(folder, suffix, config_file, folder / f"detections{suffix}.json")
    results = read_results(folder / f"results{suffix}.json")
    names = results["class_names"]
    if first is not None and sorted(names) != sorted(first.class_names):
        raise UserError(
            f"{folder}: was tested on the classes {', '.join(names)}, {first.folder} on "
            f"{', '.join(first.class_names)}; only runs of the same classes can be compared"
        )
    cfg = load_config(config_file, overrides)
    cfg.EXP_DIR = str(folder)  # where the split of the images is kept, wherever the folder may be now
    records = _open_records(cfg, folder, names if first is None else first.class_names)
    detections = read_detections(records, folder / f"detections{suffix}.json")
    found = [detections.get(index, NO_DETECTIONS) for index in range(len(records))]
    metric = (VIDMeanAP if records.is_video else VOCMeanAP)(records.class_names)
    threshold = cfg.TEST.PICTURE_THRESHOLD if first is None else first.threshold
    outcomes = ImageOutcomes(records.class_names, threshold)
    for index, detected in enumerate(found):
        target = records.target(index)
        arrays = image_arrays(detected, target, metric.class_names)
        metric.add(arrays, target)
        outcomes.add(arrays, target)
    log = read_log(folder / JSON_LOG) if (folder / JSON_LOG).is_file() else []
    saved = load_config(config_file)
    return Run(name, folder, saved, results, records, found, metric, threshold, outcomes.rows(), log)


def _open_records(cfg, folder: Path, class_names):
    try:
        return create_records(cfg, "test", class_names)
    except UserError as error:
        raise UserError(
            f"{folder}: the ground truth of its test images cannot be read: {error}; the words "
            "DATASET.DATASET_DIR=FOLDER name another place for all runs"
        ) from None


def _require(folder: Path, suffix: str, *files: Path) -> None:
    """UserError unless the folder holds a tested run."""
    wanted = [folder / f"results{suffix}.json", *files]
    missing = [path.name for path in wanted if not path.is_file()]
    if not missing:
        return
    others = sorted(path.name for path in folder.glob("results_*.json"))
    if others and not suffix and "config.yml" not in missing:
        raise UserError(f"{folder}: has results of several checkpoints; give one of its files: {', '.join(others)}")
    config = folder / "config.yml"
    cure = f"test it first: python train.py --cfg {config} --phase test" if config.is_file() else "give an EXP_DIR"
    raise UserError(f"{folder}: not a tested run, without {', '.join(missing)}; {cure}")


def read_results(path: Path) -> dict:
    """The content of a results.json with at least its class names and mAP; UserError for anything else."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        names, score = results["class_names"], results["mAP"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the results of a test ({error!r}); run the test phase again") from None
    if not isinstance(names, list) or not isinstance(score, int | float | None):
        raise UserError(f"{path}: not the results of a test; run the test phase again")
    return results


def _check_same_images(first: Run, other: Run) -> None:
    """UserError unless both runs were tested on the same images with the same objects."""
    ids, other_ids = ([written_id(run.records.image_id(i)) for i in range(len(run.records))] for run in (first, other))
    if ids != other_ids:
        apart = sorted(set(ids) ^ set(other_ids), key=str)
        where = f"; only one has {apart[0]!r}" if apart else ", in another order"
        seeds = first.config["SEED"] != other.config["SEED"]
        cause = "; SEED also draws the split of a folder without lists" if seeds else ""
        raise UserError(
            f"{other.folder}: was tested on other images than {first.folder} ({len(other_ids)} and {len(ids)}"
            f"{where}){cause}; test both on the same sets"
        )
    same = all(
        np.array_equal(getattr(first.records, part), getattr(other.records, part))
        for part in ("offsets", "boxes", "labels", "difficult")
    )
    if not same:
        raise UserError(
            f"{other.folder}: the same images have other objects than in {first.folder} ({other.records.name} and "
            f"{first.records.name}); compare on one set of annotations, given as DATASET.DATASET_DIR=FOLDER"
        )
