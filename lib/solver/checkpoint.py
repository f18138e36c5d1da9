"""Checkpoints: the full state of a run, and weights from other files.

Files hold plain tensors and data and are read with weights_only=True, so that opening one never runs code.  They are
written beside their final name and moved there, so that a crash leaves the old file or the new one, never a part.
"""

import logging
import math
import os
import pickle
import re
import warnings
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..utils.errors import UserError, nearest

logger = logging.getLogger(__name__)

FORMAT = 1

FAMILY_PREFIXES = {
    "base": "backbone.layers",
    "norm": "neck.norm",
    "extras": "neck.extras",
    "loc": "head.loc",
    "conf": "head.conf",
    "transforms": "neck.transforms",
    "pyramids": "neck.pyramids",
}
"""Parts of a model in the words of the reference family, and where they live here: the key map of its checkpoints
and the alias table of TRAINABLE_SCOPE and RESUME_SCOPE."""

BEST = "best.pth"


@dataclass
class LoadReport:
    """What became of the weights of a file: names loaded; missing in the file; unexpected in it; skipped because of
    their shape (name, shape in the file, shape in the model); out of scope."""

    path: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple] = field(default_factory=list)
    out_of_scope: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model was filled."""
        return not self.missing and not self.mismatched and not self.out_of_scope

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded from {self.path}"]
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
        return "; ".join(parts)

    def require_complete(self) -> None:
        """Raise UserError unless the file filled the whole model."""
        if not self.complete:
            raise UserError(f"the checkpoint does not fit the model: {self}")


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def read_checkpoint(path) -> dict:
    """The content of a checkpoint file on the CPU; UserError if it cannot be read without running code from it."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a checkpoint file")
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.pth")] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) if siblings else "its folder holds no .pth file"
        raise UserError(f"{path}: no such checkpoint; {hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd about a pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file ends in whatever its parser stumbles over
        raise UserError(f"{path}: {_fault_of(path, error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    if is_run_checkpoint(content):
        if content["format"] > FORMAT:
            raise UserError(f"{path}: written by a newer version (format {content['format']}, known is {FORMAT})")
        if _is_damaged(path):
            raise UserError(f"{path}: not a readable checkpoint: it has changed since it was written")
    return content


def _fault_of(path: Path, error: Exception) -> str:
    """Why torch could not read a file, for somebody who knows neither pickle nor zip."""
    if not os.access(path, os.R_OK):
        return "not a readable checkpoint: the permission to read it is missing"
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "not a readable checkpoint: the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "no checkpoint at all but the pointer of Git LFS to one; 'git lfs pull' fetches it"
    if not head.startswith((b"PK", b"\x80")):
        return "no checkpoint at all but a file of another kind"
    if isinstance(error, pickle.UnpicklingError) and (head[:1] == b"\x80" or zipfile.is_zipfile(path)):
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = f" ({code[1]})" if code else ", or it is no checkpoint at all"
        return f"refused, because reading it would run code stored in the file{found}; a state_dict holds none"
    return "not a readable checkpoint, perhaps cut off"


def _is_damaged(path: Path) -> bool:
    """Whether the checksums in a file disagree with what it holds; torch reads it without looking at them."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return file.testzip() is not None


def is_run_checkpoint(content: dict) -> bool:
    """Whether the content of a file is the full state of a run of this trainer."""
    return isinstance(content.get("format"), int) and isinstance(content.get("model"), dict)


def weights_of(content: dict, path, averaged: bool = True) -> dict[str, torch.Tensor]:
    """The state dict in the content of a file, in the names of our models: of a full checkpoint the averaged
    weights where it has them (unless `averaged` is false), of published files the state dict they are or wrap."""
    if is_run_checkpoint(content):
        return dict(content["ema"] if averaged and content.get("ema") else content["model"])
    for wrapper in ("state_dict", "model"):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    state = {name: t for name, t in content.items() if isinstance(name, str) and isinstance(t, torch.Tensor)}
    if not state:
        raise UserError(f"{path}: holds no weights (its entries: {_some([str(k) for k in content]) or 'none'})")
    return {family_to_model_name(name): tensor for name, tensor in state.items()}


def family_to_model_name(name: str) -> str:
    """The name here of a tensor of a published checkpoint; names it does not know are returned as they are."""
    while name.startswith("module."):
        name = name[len("module.") :]
    head, _, rest = name.partition(".")
    return f"{FAMILY_PREFIXES[head]}.{rest}" if head in FAMILY_PREFIXES and rest else name


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


def load_weights(model: nn.Module, path, scope: str = "") -> LoadReport:
    """Fill `model` from a checkpoint file of this trainer or of the reference family, within `scope`.

    Tensors of another shape are left alone and reported, as are names that only one side has.  Raises UserError for
    an unreadable file, for values that are not finite, and where nothing fits.
    """
    return copy_weights(model, read_checkpoint(path), path, scope)


def copy_weights(model: nn.Module, content: dict, path, scope: str = "") -> LoadReport:
    """`load_weights` from the content of a file that has been read; `path` names it in messages."""
    state = weights_of(content, path)
    prefixes = scope_prefixes(scope, model, "RESUME_SCOPE")
    report = LoadReport(str(path))
    own = model.state_dict()
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
    report.unexpected = [name for name in state if name not in own]
    if not report.loaded:
        raise UserError(f"{path}: no tensor of the file fits the model ({report})")
    return report


def save_atomically(content: dict, path) -> None:
    """torch.save that never leaves a half-written file under `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except RuntimeError as error:
        cause = error.__context__  # torch hides the error of the disk behind one of its own
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk, on systems that can; elsewhere it gets there in their own time."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def delete_partial_files(exp_dir) -> None:
    """Delete what a process that was killed while it saved has left behind."""
    for path in Path(exp_dir).glob("*.pth.partial"):
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
