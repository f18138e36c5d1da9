"""What a checkpoint file may claim: plain tensors that are no larger than the file, and the entries of a run as they
were written.  Files come from strangers, and torch believes what it reads."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor, strided

from ..config.effective import faults_of
from ..utils.class_names import check_shown
from ..utils.errors import UserError

MOST_GROWTH = 8
"""How many times its size a file may take in memory; torch writes without compression, and two names may share one
tensor."""

ALWAYS_ROOM = 2**31
"""Bytes that the tensors of any file may take: one whose rows are all the same is small on the disk."""

POSITION = ("epoch", "batch")
LARGEST = 2**62

RUN_ENTRIES = {
    "config": dict,
    "class_names": list,
    "ema": (dict, type(None)),
    "ema_steps": int,
    "optimizer": dict,
    "scaler": dict,
    "rng": dict,
    "position": dict,
    "best": dict,
    "pruned": (dict, type(None)),
    "to_score": bool,
}
"""The kinds of the entries of a run's checkpoint, as far as they are there."""


def check_archive(path: Path) -> None:
    """UserError for a zip archive that would unpack to many times its size."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as file:
            unpacked = sum(entry.file_size for entry in file.infolist())
    except Exception:  # torch says what is wrong with it
        return
    if unpacked > MOST_GROWTH * path.stat().st_size:
        raise UserError(f"{path}: refused, it would unpack to {unpacked / 1e6:,.0f} MB, many times its size")


def check_tensors(content, path: Path) -> None:
    """UserError for tensors that are no plain arrays of numbers on the CPU, or claim more than the file can hold."""
    room = max(MOST_GROWTH * path.stat().st_size, ALWAYS_ROOM)
    waiting, seen = [content], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            if part.layout != strided or part.is_quantized or part.device.type != "cpu":
                raise UserError(
                    f"{path}: holds a tensor that is sparse, quantized or empty of values; a state_dict is dense"
                )
            room -= part.numel() * part.element_size()
            if room < 0:
                raise UserError(f"{path}: refused, its tensors claim more values than the file holds")
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part


def check_run(content: dict, path: Path) -> None:
    """UserError for a checkpoint of this trainer whose entries are not what training writes."""
    for name, kind in RUN_ENTRIES.items():
        if name in content and not isinstance(content[name], kind):
            _refuse(path, f"'{name}' is a {type(content[name]).__name__}")
    for name in ("model", "ema"):
        for key, value in (content.get(name) or {}).items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                _refuse(path, f"'{name}' holds more than tensors by name")
    if content.get("ema") and _shapes(content["ema"]) != _shapes(content["model"]):
        _refuse(path, "'ema' and 'model' are not alike")
    names = content.get("class_names", [])
    if not all(isinstance(name, str) for name in names):
        _refuse(path, "'class_names' holds more than texts")
    check_shown(names, str(path))
    counts = content.get("position", dict.fromkeys(POSITION, 0))
    if not all(type(count) is int and 0 <= count < LARGEST for count in (*counts.values(), *map(counts.get, POSITION))):
        _refuse(path, f"'position' does not count {' and '.join(POSITION)}")
    if not all(isinstance(value, int | float) for value in content.get("best", {}).values()):
        _refuse(path, "'best' holds more than numbers")
    _check_random_states(content, path)
    _check_optimizer(content.get("optimizer", {}), path)
    fault = faults_of(content.get("config", {}))
    if fault:
        _refuse(path, f"its configuration: {fault}")


def _shapes(state: dict) -> dict:
    return {name: tensor.shape for name, tensor in state.items()}


def _check_random_states(content: dict, path: Path) -> None:
    """The states of the generators of the processes and their devices."""
    rng = content.get("rng", {"torch": torch.get_rng_state(), "cuda": []})
    of_devices, of_others = rng.get("cuda"), rng.get("others", [])
    states = [rng.get("torch"), *(of_devices if isinstance(of_devices, list) else [None])]
    states += of_others if isinstance(of_others, list) else [None]
    if not all(isinstance(state, Tensor) and state.dtype == torch.uint8 for state in states):
        _refuse(path, "'rng' holds more than the states of generators")


def _check_optimizer(optimizer: dict, path: Path) -> None:
    """The parts of a state are numbers and tensors, by the number of a parameter and a name."""
    state, groups = optimizer.get("state", {}), optimizer.get("param_groups", [])
    plain = isinstance(state, dict) and all(isinstance(parts, dict) for parts in state.values())
    plain = plain and all(
        isinstance(part, (Tensor, int, float, type(None))) for parts in state.values() for part in parts.values()
    )
    if not plain or not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        _refuse(path, "'optimizer' holds more than tensors and settings")


def _refuse(path: Path, what: str) -> None:
    raise UserError(f"{path}: not a checkpoint as training writes it: {what}")
