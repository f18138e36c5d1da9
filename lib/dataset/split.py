"""The seeded split of a folder without lists: drawn once, kept as a file in the folder of the run."""

import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..utils.errors import UserError
from ..utils.files import write_whole

logger = logging.getLogger(__name__)

PARTS = ("train", "val", "test")


class SplitPlan(NamedTuple):
    """How a folder without lists is split: parts of train, val and test, the seed, and the folder of the run, where
    the split is kept ('' keeps it nowhere)."""

    parts: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0
    folder: str = ""

    def used(self) -> list[str]:
        """The names of the parts above zero; UserError if the parts make no sense."""
        parts = np.asarray(self.parts, float)
        if parts.shape != (3,) or not np.isfinite(parts).all() or (parts < 0).any() or parts[0] == 0:
            raise UserError(f"DATASET.SPLIT: {list(self.parts)} must be three parts: train (above 0), val and test")
        return [name for name, part in zip(PARTS, self.parts, strict=True) if part > 0]


NO_PLAN = SplitPlan()


def kept_split(keys, plan: SplitPlan, label: str, source: str):
    """({part: keys}, sentence to tell): the split kept in plan.folder, or a new one that is kept there from now on.

    keys name the images; label goes into the file's name; source says in messages where the images are.
    """
    file = Path(plan.folder) / f"split_{label}.json" if plan.folder else None
    if file is not None and file.is_file():
        return _reload(file, keys, plan), f"split as kept in {file}"
    sets = draw_split(keys, plan, source)
    if file is not None:
        _save(file, {"folder": source, "seed": plan.seed, "parts": list(plan.parts), **sets})
    return sets, f"seeded split (seed {plan.seed})" + (f", kept in {file}" if file else "")


def draw_split(keys, plan: SplitPlan, source: str) -> dict:
    """{part: sorted keys}, drawn by the seed; every part above zero gets at least one image."""
    used = plan.used()
    if len(keys) < len(used):
        raise UserError(
            f"{source}: {len(keys)} annotated images are too few for a split into {', '.join(used)}; the set 'all' in "
            f"DATASET.TRAIN_SETS and DATASET.TEST_SETS uses them for both"
        )
    order = np.random.default_rng(plan.seed).permutation(sorted(keys)).tolist()
    _, val, test = (max(part > 0, round(len(keys) * part / sum(plan.parts))) for part in plan.parts)
    test = min(test, len(keys) - 1 - (val > 0))
    val = min(val, len(keys) - 1 - test)
    sets = {"val": order[:val], "test": order[val : val + test], "train": order[val + test :]}
    return {name: sorted(sets[name]) for name in PARTS}


def _reload(file: Path, keys, plan: SplitPlan) -> dict:
    """The split of an earlier start.  New images join train, so that scores on val and test stay comparable."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        sets = {name: [str(key) for key in kept[name]] for name in PARTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a readable split ({error!r}); delete it to draw a new one") from None
    known, present = {key for names in sets.values() for key in names}, set(keys)
    if not known & present:
        raise UserError(f"{file}: the split of other images; delete it, or use another EXP_DIR for this data set")
    new = sorted(present - known)
    if new:
        logger.warning("%s: %d images are new and join train; delete the file to draw a new split", file, len(new))
        sets["train"] = sorted(sets["train"] + new)
        _save(file, {**kept, **sets})
    if known - present:
        logger.warning("%s: %d images of the split are gone", file, len(known - present))
    if (kept.get("seed"), kept.get("parts")) != (plan.seed, list(plan.parts)):
        logger.warning(
            "%s: kept as it was drawn, with SEED %s and DATASET.SPLIT %s; delete the file to draw a new split",
            file, kept.get("seed"), kept.get("parts"),
        )  # fmt: skip
    return {name: [key for key in sets[name] if key in present] for name in PARTS}


def _save(file: Path, content: dict):
    """A killed run leaves no half a split."""
    try:
        write_whole(file, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{file}: the split cannot be written ({error.strerror or error})") from None
