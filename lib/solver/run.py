"""The folder of a run: which checkpoint to go on from, and whether it fits the configuration."""

import logging
from pathlib import Path

from ..config.effective import config_to_dict, diff_configs
from ..utils.errors import UserError
from . import checkpoint as ckpt

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
)
"""Keys that decide the shape of the weights or the meaning of the outputs: a run cannot go on under other ones."""

UNREMARKABLE = ("PHASE", "TRAIN.RESUME", "DEVICE", "DATASET.NUM_WORKERS", "RESUME_CHECKPOINT")
"""Keys that may differ between the starts of a run without a word."""


def find_run(cfg) -> Path | None:
    """The checkpoint from which training continues: TRAIN.RESUME if it is a path, else the last one in EXP_DIR."""
    if cfg.TRAIN.RESUME != "auto":
        return Path(cfg.TRAIN.RESUME)
    return ckpt.last_checkpoint(cfg.EXP_DIR)


def check_same_run(content: dict, path, cfg, class_names) -> None:
    """Refuse to go on from a checkpoint of another geometry or other classes; print what else differs."""
    if content.get("class_names") is not None and list(content["class_names"]) != list(class_names):
        raise UserError(
            f"{path}: was trained for the classes {_names(content['class_names'])}, the data set has "
            f"{_names(class_names)}; give EXP_DIR another folder, or DATASET.CLASSES the old names"
        )
    changed = diff_configs(content.get("config", {}), cfg)
    for key, old, new in changed:
        if key in GEOMETRY:
            raise UserError(f"{path}: was trained with {key} {old}, now it is {new}; give EXP_DIR another folder")
    for key, old, new in changed:
        if key not in UNREMARKABLE:
            logger.info("changed since the checkpoint: %s was %s, is %s", key, old, new)


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
        "format": ckpt.FORMAT,
        "config": config_to_dict(cfg),
        "class_names": list(class_names),
        **state,
    }
