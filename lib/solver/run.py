"""The folder of a run: which checkpoint to go on from, and whether it fits the configuration."""

import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..config.effective import config_to_dict, diff_configs, diff_meanings
from ..config.schema import INPUT_KEYS, WIRING_KEYS
from ..utils.errors import UserError
from . import checkpoint as ckpt
from .checkpoint_reader import FORMAT

logger = logging.getLogger(__name__)

GEOMETRY = (
    "MODEL.NETS",
    "MODEL.SSDS",
    "MODEL.IMAGE_SIZE",
    "MODEL.NUM_CLASSES",
    "MODEL.FEATURE_LAYER",
    "MODEL.STEPS",
    "MODEL.SIZES",
    "MODEL.ASPECT_RATIOS",
    "MODEL.CLIP",
    "MODEL.BASE_STRUCTURE",
    "MODEL.DEPTH_MULTIPLIER",
    "MODEL.NECK_WIDTH",
    "MODEL.NECK_REPEATS",
    "MODEL.RNN.CELL_LEVELS",
    "MODEL.RNN.CELL_CHANNELS",
    "MODEL.RNN.CELL_SKIP",
    "MODEL.RNN.SMALL_NETS",
    *INPUT_KEYS,
    *WIRING_KEYS,
)
"""Keys that decide the shape of the weights or the meaning of input or output: a run cannot go on under other ones."""

CLIPS = (
    "MODEL.RNN.IN_USE",
    "MODEL.RNN.USE_LSTM_AFTER_EPOCH",
    "MODEL.RNN.BACKPROP_STEPS",
    "MODEL.RNN.FRAMES_IN_VIDEO",
    "MODEL.RNN.BATCH_SIZE",
    "TRAIN.IMAGE_SIZES",
    "DATASET.DATASET_DIR",
    "DATASET.TRAIN_SETS",
    "DATASET.SHUFFLE",
    "SEED",
)
"""Keys that decide which frames a clip shows, and so whose past a recurrent state is."""

UNREMARKABLE = (
    "PHASE", "TRAIN.RESUME", "DEVICE", "DATASET.NUM_WORKERS", "RESUME_CHECKPOINT", "MODEL.PRETRAINED",
    "VISUALIZE.IMAGE", "VISUALIZE.DETECTION", "DATASET.CACHE",
)  # fmt: skip
"""Keys that may differ between the starts of a run without a word."""


def find_run(cfg) -> tuple[Path, dict] | None:
    """The checkpoint from which training continues, and what it holds: TRAIN.RESUME if it is a path, else the last one
    in EXP_DIR; None without any.

    Where the last one in EXP_DIR cannot be read, the one before it is taken, with a warning; UserError if none can.
    """
    if cfg.TRAIN.RESUME != "auto":
        path = Path(cfg.TRAIN.RESUME)
        return path, ckpt.read_checkpoint(path)
    unreadable = []
    for _, path in reversed(ckpt.epoch_checkpoints(cfg.EXP_DIR)):
        try:
            content = ckpt.read_checkpoint(path)
        except UserError as error:
            unreadable.append(str(error))
            continue
        if unreadable:
            logger.warning("%s; training falls back to %s", "; ".join(unreadable), path.name)
        return path, content
    if unreadable:
        raise UserError(f"{unreadable[0]}; EXP_DIR holds no other to continue; give EXP_DIR another folder")
    return None


def find_first(cfg) -> tuple[Path, dict] | None:
    """The file whose weights fill the model first, and what it holds; None where there is none, or none whose base is
    taken.

    Its images and shapes are those of the run, so it is to be asked before anything is built.  Files that cannot be
    read are left to the phase that needs them, which says why.
    """
    for path in _first_files(cfg):
        with suppress(UserError):
            return path, ckpt.read_checkpoint(path, quiet=True)
    return None


def _first_files(cfg) -> list[Path]:
    """The files of which the first that can be read fills the model."""
    if "train" not in cfg.PHASE:
        with suppress(UserError):
            return [path for _, path in checkpoints_to_test(cfg)]
        return []
    if cfg.TRAIN.RESUME != "auto":
        return [Path(cfg.TRAIN.RESUME)]
    kept = [path for _, path in reversed(ckpt.epoch_checkpoints(cfg.EXP_DIR))]
    scope = [word.strip() for word in cfg.TRAIN.RESUME_SCOPE.split(",") if word.strip()]
    fills_base = not scope or any(word.partition(".")[0] in ("base", "backbone") for word in scope)
    return kept or ([Path(cfg.RESUME_CHECKPOINT)] if cfg.RESUME_CHECKPOINT and fills_base else [])


def make_way(state, path, cfg) -> None:
    """Move what lies in EXP_DIR from beyond the position of `path`, from which `state` was loaded, to a folder of its
    own: a course that --resume went back on, or files that cannot be read.  They would count as the last checkpoint.

    After going back, a best.pth from beyond, or one that the new folder never had, no longer counts as the best; nor
    does one that cannot be read.
    """
    exp_dir, best = Path(cfg.EXP_DIR), Path(cfg.EXP_DIR) / ckpt.BEST
    position = (state.epoch + 1, state.batch) if state.batch else (state.epoch, math.inf)
    beyond = [later for _, later in ckpt.epoch_checkpoints(exp_dir) if ckpt.position_of(later) > position]
    beyond = [later for later in beyond if later.resolve() != Path(path).resolve()]
    if not best.exists():
        state.best = {}
    elif _is_spent(best, math.inf if cfg.TRAIN.RESUME == "auto" else state.step):
        beyond.append(best)
        state.best = {}
    if beyond:
        folder = next(free for free in map(exp_dir.joinpath, _aside_names()) if not free.exists())
        folder.mkdir()
        for later in beyond:
            later.rename(folder / later.name)
        names = ", ".join(later.name for later in beyond)
        logger.info("beyond epoch %d, batch %d: moved to %s: %s", state.epoch, state.batch, folder, names)


def _aside_names() -> Iterator[str]:
    yield "set_aside"
    yield from (f"set_aside_{number}" for number in itertools.count(2))


def _is_spent(best: Path, last_step: float) -> bool:
    """Whether a best.pth cannot be read, or comes from beyond so many optimizer steps or from nobody knows where."""
    try:
        content = ckpt.read_checkpoint(best)
    except UserError as error:
        logger.warning("%s; the next evaluation chooses the best anew", error)
        return True
    return content.get("position", {}).get("step", math.inf) > last_step


def check_same_run(content: dict, path, cfg, class_names) -> None:
    """Refuse to go on from a checkpoint of another geometry or other classes; print what else differs."""
    if content.get("class_names") is not None and list(content["class_names"]) != list(class_names):
        raise UserError(
            f"{path}: was trained for the classes {_names(content['class_names'])}, the data set has "
            f"{_names(class_names)}; give EXP_DIR another folder, or DATASET.CLASSES the old names"
        )
    for key, old, new in diff_meanings(content.get("config", {}), cfg, GEOMETRY):
        raise UserError(
            f"{path}: was trained with {key} {old}, now it is {new}; give EXP_DIR another folder, or "
            f"{key} its old value"
        )
    for key, old, new in diff_configs(content.get("config", {}), cfg):
        if key not in UNREMARKABLE:
            logger.info("changed since the checkpoint: %s was %s, is %s", key, old, new)


def forget_other_clips(state, content: dict, cfg) -> None:
    """Drop the recurrent state that was loaded from within an epoch if the clips that follow are not those it is of."""
    changed = [key for key, *_ in diff_configs(content.get("config", {}), cfg) if key in CLIPS]
    if changed and state.recurrent is not None:
        state.recurrent = None
        logger.info("the next clip starts without a past, since %s has changed within an epoch", ", ".join(changed))


def warn_of_meanings(content: dict, path, cfg) -> None:
    """Warn where weights that a new run starts from were trained to mean something else by the same numbers."""
    if ckpt.is_run_checkpoint(content):
        for key, old, new in diff_meanings(content.get("config", {}), cfg, INPUT_KEYS + WIRING_KEYS):
            logger.warning("%s was trained with %s %s, now it is %s: that has to be learnt anew", path, key, old, new)
    else:
        ckpt.warn_of_inputs(cfg, content, path)
        scope = {word.strip().partition(".")[0] for word in cfg.TRAIN.RESUME_SCOPE.split(",") if word.strip()}
        for key, old, new in [] if scope and scope <= {"base", "backbone"} else ckpt.miswired(cfg, content):
            logger.warning("%s was trained with %s %s, here it is %s: that has to be learnt anew", path, key, old, new)


def _names(names) -> str:
    return ", ".join(list(names)[:10]) + (", ..." if len(names) > 10 else "") + f" ({len(names)})"


def checkpoints_to_test(cfg) -> list[tuple[str, Path]]:
    """(title, path) of the checkpoints that the test phase scores.

    TEST.CHECKPOINT; else the kept epochs within TEST.TEST_SCOPE; else the last one in EXP_DIR; else
    RESUME_CHECKPOINT.  UserError if there is none.
    """
    exp_dir, wanted, scope = Path(cfg.EXP_DIR), cfg.TEST.CHECKPOINT, cfg.TEST.TEST_SCOPE
    last = ckpt.last_checkpoint(exp_dir)
    if wanted == "best":
        return [("best", exp_dir / ckpt.BEST)]
    if wanted not in ("", "last"):
        return [(Path(wanted).stem, Path(wanted))]
    kept = [(epoch, path) for epoch, path in ckpt.epoch_checkpoints(exp_dir) if "_iter_" not in path.name]
    if scope and wanted != "last" and kept:
        within = [(f"epoch {epoch}", path) for epoch, path in kept if scope[0] <= epoch <= scope[-1]]
        if within:
            return within
        logger.info("%s holds no checkpoint of TEST.TEST_SCOPE %s; its last one is tested", exp_dir, list(scope))
    if last is not None:
        return [("last", last)]
    if cfg.RESUME_CHECKPOINT:
        return [(Path(cfg.RESUME_CHECKPOINT).stem, Path(cfg.RESUME_CHECKPOINT))]
    raise UserError(
        f"nothing to test: EXP_DIR {exp_dir} holds no checkpoint and neither TEST.CHECKPOINT nor RESUME_CHECKPOINT is "
        "given; run the train phase first"
    )


def run_content(cfg, class_names, **state) -> dict:
    """What a checkpoint file holds: the state of the run, its configuration and its class names."""
    return {
        "format": FORMAT,
        "config": config_to_dict(cfg),
        "class_names": list(class_names),
        **state,
    }
