"""Reads checkpoint files, without ever running code from them, and says in one line what is wrong with a bad one."""

import logging
import os
import pickle
import re
import warnings
import zipfile
from functools import partial
from pathlib import Path

import torch

from ..utils.errors import UserError, nearest
from .checkpoint_checks import check_archive, check_run, check_tensors
from .tensor_unpickler import holds_tensors, load_tensors, mentions

logger = logging.getLogger(__name__)

FORMAT = 1
FOLDER = 0x10
"""The attribute by which an entry of an archive is a folder; torch fills its tensor with what the memory holds."""
DAMAGED = "not a readable checkpoint: it has changed since it was written"


def read_checkpoint(path, quiet: bool = False) -> dict:
    """The content of a checkpoint file on the CPU; UserError if it cannot be read without running code from it.

    Of a foreign file that holds pickled objects beside its tensors the tensors are read, with a warning unless `quiet`.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a checkpoint file")
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.pth")] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) if siblings else "its folder holds no .pth file"
        raise UserError(f"{path}: no such checkpoint; {hint}")
    check_archive(path)
    try:
        if mentions(path, b"bytearray"):  # torch would make one of any size
            raise pickle.UnpicklingError("GLOBAL builtins.bytearray")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd about a pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file ends in whatever its parser stumbles over
        if _is_damaged(path):
            raise UserError(f"{path}: {DAMAGED}") from error
        content, left_out = _tensors_alone(path, error)
        if content is None:
            raise UserError(f"{path}: {_fault_of(path, error)}") from error
        if not quiet:
            names = ", ".join(left_out[:4]) + (", ..." if len(left_out) > 4 else "")
            logger.warning("%s: holds more than weights; its tensors are taken, objects are left out: %s", path, names)
    else:
        if _is_damaged(path):
            raise UserError(f"{path}: {DAMAGED}")
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    check_tensors(content, path)
    if is_run_checkpoint(content):
        if content["format"] > FORMAT:
            raise UserError(f"{path}: written by a newer version (format {content['format']}, known is {FORMAT})")
        check_run(content, path)
    return content


def _tensors_alone(path: Path, error: Exception) -> tuple[dict | None, list[str]]:
    """(the content of a file that torch refused for the classes it names, without their objects; the classes); None
    for the content where there are no tensors in it, and for checkpoints of this trainer, which hold no objects."""
    if not isinstance(error, pickle.UnpicklingError):
        return None, []
    try:
        content, left_out = load_tensors(path)
        useful = holds_tensors(content) and not is_run_checkpoint(content)
    except Exception:  # the first error says more
        return None, []
    return (content if useful else None), left_out


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
    """Whether the checksums in a file disagree with what it holds; torch reads it without looking at them.  Files of
    the oldest kind have none, nor have those that were written with torch.serialization.set_crc32_options(False)."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            if not any(entry.CRC for entry in entries):
                return False
            if any(entry.external_attr & FOLDER for entry in entries):
                return True
            return any(_num_bytes(file, entry) != entry.file_size for entry in entries)
    except Exception:  # what torch reads all the same is not as it was written
        return True


def _num_bytes(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """How many bytes an entry has, whose checksum is compared on the way."""
    with file.open(entry) as part:
        return sum(map(len, iter(partial(part.read, 1 << 20), b"")))


def is_run_checkpoint(content: dict) -> bool:
    """Whether the content of a file is the full state of a run of this trainer."""
    return isinstance(content.get("format"), int) and isinstance(content.get("model"), dict)
