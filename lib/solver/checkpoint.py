"""Checkpoints: the full state of a run, and weights from other files.

Those written here hold plain tensors and data; opening any file never runs code from it.  They are written beside
their final name and moved there, so that a crash leaves the old file or the new one, never a part.
"""

import copy
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..config.effective import config_from_dict, diff_meanings, flatten_config
from ..config.loader import KEYS
from ..config.schema import ALIKE, IMAGENET_COLORS
from ..config.stages import stage_of
from ..config.weight_colors import expected_colors
from ..modeling.foreign import FAMILY, FAMILY_PREFIXES, System, recognise, translate
from ..modeling.pruned import shrink_to
from ..utils.errors import UserError, nearest
from ..utils.files import replacing
from ..utils.signals import held_back
from .checkpoint_reader import is_run_checkpoint, read_checkpoint
from .class_transfer import ClassMatch, fit_head

logger = logging.getLogger(__name__)

BEST = "best.pth"
PARTIAL = ".partial"

FOREIGN_WIRING = ("MODEL.SOURCE_NORM", "MODEL.NORM_IN_TRUNK", "MODEL.EXTRAS_ACTIVATION", "CRITERION.CONF_LOSS")
"""Keys that the tensors of a published system rely on without showing it."""

NETWORK = ("MODEL.NETS", "MODEL.SSDS")
"""Keys that a pruned network cannot be taken out of."""

INPUTS = tuple(IMAGENET_COLORS)
"""The keys that say what images look like to the network."""


@dataclass
class LoadReport:
    """What became of the weights of a file: names loaded; missing in the file; unexpected in it; skipped because of
    their shape (name, shape in the file, shape in the model); out of scope.

    system: the published system that the file comes from, '' for files of this trainer and unknown ones; inputs: the
    values of INPUTS that the weights expect, as far as the file tells.  classes: how class predictions were taken over
    by name, None where there was no need; grown: class predictors of which only the first boxes were filled.
    """

    path: str
    system: str = ""
    inputs: dict = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple] = field(default_factory=list)
    out_of_scope: list[str] = field(default_factory=list)
    classes: ClassMatch | None = None
    grown: tuple[str, ...] = ()
    hint: str = ""

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was filled, down to the last row."""
        whole = not self.grown and not (self.classes and self.classes.new)
        return whole and not self.missing and not self.mismatched and not self.out_of_scope

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded from {self.path}{self.system and f' ({self.system})'}"]
        parts += [str(self.classes)] if self.classes else []
        parts += [f"of 6 boxes a cell the first 4 filled in {', '.join(self.grown)}"] if self.grown else []
        for what, names in (
            ("not in the file", self.missing),
            ("not in the model", self.unexpected),
            ("out of scope", self.out_of_scope),
        ):
            if names:
                parts.append(f"{len(names)} {what} ({_some(names)})")
        if self.mismatched:
            shapes = [f"{name} {list(theirs)} for {list(ours)}" for name, theirs, ours in self.mismatched]
            parts.append(f"{len(shapes)} of another shape ({_some(shapes)})")
            parts += [self.hint] if self.hint else []
        return "; ".join(parts)

    def require_complete(self) -> None:
        """Raise UserError unless the file filled the whole model."""
        if not self.complete:
            hint = f"; experiments/cfgs/imported has what fits {self.system}" if self.inputs and self.system else ""
            raise UserError(f"the checkpoint does not fit the model: {self}{hint}")


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def weights_of(content: dict, path, averaged: bool = True) -> dict[str, torch.Tensor]:
    """The state dict in the content of a file, in the names of our models: of a full checkpoint the averaged
    weights where it has them (unless `averaged` is false), of published files the state dict they are or wrap."""
    if is_run_checkpoint(content):
        return dict(content["ema"] if averaged and content.get("ema") else content["model"])
    content = _unwrapped(content)
    state = _tensors(content)
    if not state:
        raise UserError(f"{path}: holds no weights (its entries: {_some([str(k) for k in content]) or 'none'})")
    return translate(state)


def _unwrapped(content: dict) -> dict:
    """The state dict in the content of a published file."""
    for wrapper in ("state_dict", "model"):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return content


def _tensors(content: dict) -> dict[str, torch.Tensor]:
    return {name: t for name, t in content.items() if isinstance(name, str) and isinstance(t, torch.Tensor)}


def system_of(content: dict) -> System | None:
    """The published system whose names the content of a file has; None for files of this trainer and unknown ones."""
    return None if is_run_checkpoint(content) else recognise(_tensors(_unwrapped(content)))


def inputs_of(content: dict) -> dict:
    """The values of INPUTS that the weights in a file expect; empty where the file does not tell."""
    if is_run_checkpoint(content):
        stored = flatten_config(content.get("config", {}))
        return {key: stored.get(key, KEYS[key].default) for key in INPUTS}
    system = system_of(content)
    return dict(system.inputs) if system else {}


def adopt_inputs(cfg, content: dict, path) -> None:
    """Set INPUTS of `cfg` to what the weights of a file expect, unless somebody gave them other values: colour order,
    means and deviations belong together, so that one given value keeps all three."""
    now, defaults = flatten_config(cfg), {key: KEYS[key].default for key in INPUTS}
    expected = defaults if system_of(content) is FAMILY else inputs_of(content)
    usual = expected_colors(cfg.MODEL.NETS, cfg.MODEL.PRETRAINED) if cfg.MODEL.PRETRAINED else defaults
    changed = [key for key, value in expected.items() if now[key] != value]
    if not changed or any(now[key] != usual.get(key) for key in changed):
        return
    for key in changed:
        section, name = key.split(".")
        cfg[section][name] = copy.deepcopy(expected[key])
    logger.info("%s, as the weights of %s expect", _listed({key: expected[key] for key in changed}), path)


def miswired(cfg, content: dict) -> list[tuple]:
    """(key, value that the weights need, value of `cfg`) where the network of `cfg` is not that of the published system
    that a file comes from, though every tensor may fit."""
    system = system_of(content)
    if system is None:
        return []
    keys = ("CRITERION.CONF_LOSS",) if system is FAMILY else FOREIGN_WIRING
    needed, now = {key: KEYS[key].default for key in keys} | dict(system.wiring), flatten_config(cfg)
    changed = [(key, value, now[key]) for key, value in needed.items() if now[key] != value]
    return [(key, old, new) for key, old, new in changed if not {str(old), str(new)} <= set(ALIKE.get(key, ()))]


def check_wiring(content: dict, path, cfg) -> None:
    """Refuse to show results of a published network that is wired otherwise than its weights were trained."""
    for key, old, new in miswired(cfg, content):
        raise UserError(
            f"{path}: {system_of(content).title} has {key} {old}, here it is {new}; give {key} that value, or start "
            "from the system's file in experiments/cfgs/imported"
        )


def warn_of_inputs(cfg, content: dict, path) -> None:
    """Warn where the images of `cfg` are not those that the weights of a published file expect."""
    now = flatten_config(cfg)
    expected = {} if is_run_checkpoint(content) else inputs_of(content)
    if any(now[key] != value for key, value in expected.items()):
        logger.warning(
            "%s, as configured, but the weights of %s (%s) expect %s; leave the keys out to follow the weights",
            _listed({key: now[key] for key in expected}), path, system_of(content).title, _listed(expected),
        )  # fmt: skip


def _listed(values: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def match_shapes(model: nn.Module, content: dict, path, cfg) -> None:
    """Shrink the fresh model of `cfg` to the network of a file, if that is a pruned one; before the weights are loaded,
    and before anybody keeps hold of the parameters.  UserError where it is another network."""
    facts = content.get("pruned") if is_run_checkpoint(content) else None
    if not facts:
        return
    for key, old, new in diff_meanings(content.get("config", {}), cfg, NETWORK):
        raise UserError(f"{path}: is pruned from a network with {key} {old}, now it is {new}; give {key} its old value")
    shrink_to(model, {name: tuple(tensor.shape) for name, tensor in content["model"].items()}, str(path))
    model.pruned = dict(facts)


def switch_memory(model: nn.Module, content: dict, path, cfg) -> None:
    """Let a recurrent detector remember where MODEL.RNN.IN_USE says so and the weights of a file have learnt to, which
    those that a run saved in an epoch of stills have not."""
    trained, epoch = cfg, epoch_of(path)
    if is_run_checkpoint(content):
        trained = config_from_dict(content.get("config", {}))
        position = content.get("position", {"epoch": epoch, "batch": 0})
        epoch = position["epoch"] + (position["batch"] > 0)
    wanted, learnt = cfg.MODEL.RNN.IN_USE, stage_of(trained, epoch).clips
    model.switch_memory(wanted and learnt)
    if model.neck.has_memory and wanted and not learnt:
        logger.info("%s: its weights have seen stills only, and go without memory", path)
    elif model.neck.has_memory and learnt and not wanted:
        logger.warning("%s: its weights have learnt with memory, MODEL.RNN.IN_USE False goes without it", path)


def scope_prefixes(scope: str, model: nn.Module, key: str) -> list[str]:
    """Parameter-name prefixes for a comma list of scope words or parameter paths; '' gives [''], which fits all.

    A family word without parameters in this model is warned about; any other unknown word is a UserError.
    """
    words = [word.strip() for word in scope.split(",") if word.strip()]
    names = [name for name, _ in model.named_parameters()]
    prefixes = []
    for word in words:
        prefix = FAMILY_PREFIXES.get(word, word)
        if any(in_scope(name, [prefix]) for name in names):
            prefixes.append(prefix)
        elif word in FAMILY_PREFIXES:
            logger.warning("%s: this model has no parameters under '%s'", key, word)
        else:
            tops = {".".join(name.split(".")[:2]) for name in names} | set(FAMILY_PREFIXES)
            raise UserError(f"{key}: '{word}' is no part of the model; {nearest(word, tops)}")
    return prefixes if words else [""]


def in_scope(name: str, prefixes: list[str]) -> bool:
    """Whether a parameter name lies under one of the prefixes."""
    return any(prefix == "" or name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def load_weights(model: nn.Module, path, scope: str = "", class_names: Sequence[str] = ()) -> LoadReport:
    """Fill `model` from a file of this trainer, of the reference family or of another known system, within `scope`.

    `class_names` are those of the model's classes: where the file's are known as well, class predictions are taken over
    by name.  Tensors of another shape are left alone and reported, as are names that only one side has.  Raises
    UserError for an unreadable file, for values that are not finite, and where nothing fits.
    """
    return copy_weights(model, read_checkpoint(path), path, scope, class_names)


def copy_weights(model: nn.Module, content: dict, path, scope: str = "", class_names: Sequence[str] = ()) -> LoadReport:
    """`load_weights` from the content of a file that has been read; `path` names it in messages."""
    state, system = weights_of(content, path), system_of(content)
    prefixes = scope_prefixes(scope, model, "RESUME_SCOPE")
    report = LoadReport(str(path), system.title if system else "", inputs_of(content))
    stored = content.get("class_names") if is_run_checkpoint(content) else None
    fit = fit_head(model, state, stored, class_names)
    own = model.state_dict()
    report.unexpected = [name for name in state if name not in own]
    report.hint = fit.hint
    state |= fit.tensors
    for name, tensor in own.items():
        optional = name.endswith("num_batches_tracked")  # absent from files older than torch 0.4.1
        if not in_scope(name, prefixes):
            report.out_of_scope.append(name)
        elif name not in state:
            report.missing += [] if optional else [name]
        elif state[name].shape != tensor.shape:
            report.mismatched.append((name, tuple(state[name].shape), tuple(tensor.shape)))
        elif not torch.isfinite(state[name]).all():
            raise UserError(f"{path}: {name} holds values that are no numbers")
        else:
            tensor.copy_(state[name])
            report.loaded.append(name)
    if not report.loaded:
        raise UserError(f"{path}: no tensor of the file fits the model ({report})")
    if not fit.tensors.keys().isdisjoint(report.loaded):  # else they lie outside the scope
        report.classes, report.grown = fit.match, fit.grown
    return report


def save_atomically(content: dict, path) -> None:
    """torch.save that never leaves a half-written file under `path`; signals to end wait until it is done.

    Raises OSError naming `path`, with the free space of a disk that is full.
    """
    path = Path(path)
    with held_back(), replacing(path, path.with_name(path.name + PARTIAL), durable=True) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides the error of the disk behind one of its own
                raise error.__context__ from None
            raise


def delete_partial_files(exp_dir) -> None:
    """Delete what a process that was killed while it saved has left behind."""
    for path in Path(exp_dir).glob(f"*.pth{PARTIAL}"):
        path.unlink(missing_ok=True)


NUMBERED = re.compile(r"(?P<prefix>.*)_epoch_(?P<epoch>\d+)(_iter_(?P<batch>\d+))?\.pth")
KEPT_WITHIN_EPOCH = 2  # so that there is one to go back to if the last cannot be read


def epoch_of(path) -> int:
    """The epoch in the name of a numbered checkpoint, 0 for other names."""
    return position_of(path)[0]


def position_of(path) -> tuple[int, float]:
    """(epoch, batches done in it) in the name of a numbered checkpoint, with infinity for the end of the epoch; (0, 0)
    for other names.  Positions compare in the order in which a run reaches them."""
    match = NUMBERED.fullmatch(Path(path).name)
    if not match:
        return 0, 0
    return int(match["epoch"]), math.inf if match["batch"] is None else int(match["batch"])


def epoch_checkpoints(exp_dir, prefix: str = "") -> list[tuple[int, Path]]:
    """(epoch, path) of the numbered checkpoints in a folder in the order of their positions; of one prefix where it is
    given.  The names decide, since a copy of the folder need not keep the times of the files."""
    found = []
    for path in Path(exp_dir).glob("*_epoch_*.pth") if Path(exp_dir).is_dir() else ():
        match = NUMBERED.fullmatch(path.name)
        if match and prefix in ("", match["prefix"]):
            found.append((int(match["epoch"]), path))
    return sorted(found, key=lambda entry: (position_of(entry[1]), entry[1].stat().st_mtime_ns, entry[1].name))


def last_checkpoint(exp_dir) -> Path | None:
    """The checkpoint a run would continue from: the numbered one of the latest position."""
    paths = [path for _, path in epoch_checkpoints(exp_dir)]
    return paths[-1] if paths else None


def delete_old_checkpoints(exp_dir, prefix: str, kept: int) -> None:
    """Of the numbered checkpoints under `prefix` keep the last `kept` of whole epochs and, of those within an epoch,
    the last two that come after them; delete the others."""
    paths = [path for _, path in epoch_checkpoints(exp_dir, prefix)]
    whole = [path for path in paths if position_of(path)[1] == math.inf]
    after = paths[paths.index(whole[-1]) + 1 :] if whole else paths
    for path in set(paths) - set(whole[-max(kept, 1) :]) - set(after[-KEPT_WITHIN_EPOCH:]):
        path.unlink(missing_ok=True)
