"""The effective configuration as YAML text, as a plain dictionary for checkpoints, and compared with another one."""

import re
from pathlib import Path

from ..utils.errors import UserError
from ..utils.files import write_whole
from .kinds import Mistake, read_value
from .loader import KEYS, SECTIONS, load_config
from .schema import ALIKE, DERIVED, IMPLIED
from .yaml_text import parse_yaml, write_value

TITLE = "# Effective configuration"
HEADER = f"{TITLE}; python train.py --cfg THIS_FILE repeats the run."


def config_to_dict(cfg) -> dict:
    """`cfg` as nested plain dictionaries and lists, which torch.save(..., weights_only) and json accept."""
    return {name: _plain(value) for name, value in cfg.items()}


def config_from_dict(values: dict):
    """The configuration that config_to_dict made `values` of, with the defaults for keys that are younger."""
    cfg = load_config(None)
    _merge(cfg, values)
    return cfg


def faults_of(values: dict) -> str:
    """What is wrong with the values of a dictionary that config_to_dict may have made, '' for nothing; keys that the
    schema does not know, or computes, are passed over."""
    try:
        flat = flatten_config(values)
        for name in flat:
            write_value(flat[name])
            if name in SECTIONS or not KEYS.keys().isdisjoint(name[: dot.start()] for dot in re.finditer(r"\.", name)):
                return f"{name}: a section in place of a value, or a value in place of a section"
        for name in KEYS.keys() & flat.keys() - DERIVED.keys():
            read_value(parse_yaml(write_value(flat[name]), name), KEYS[name])
    except (Mistake, UserError) as mistake:
        return f"{name}: {mistake}"
    except (AttributeError, TypeError, RecursionError):
        return "holds more than values by name"
    return ""


def _merge(into: dict, values: dict) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _plain(value):
    if isinstance(value, dict):
        return config_to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def flatten_config(cfg, prefix: str = "") -> dict:
    """The values of `cfg` by dotted name, such as 'TRAIN.BATCH_SIZE'."""
    flat = {}
    for name, value in cfg.items():
        if isinstance(value, dict):
            flat.update(flatten_config(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = _plain(value)
    return flat


def diff_configs(old: dict, new) -> list[tuple]:
    """The keys whose values differ, as (dotted name, old, new), in the order of the schema.

    Either side may be an EasyDict or the plain dictionary of a checkpoint.  A key that one side does not have counts
    there with what is IMPLIED, its default, or None if the schema does not know it either.  Derived keys are left out.
    """
    old, new = flatten_config(old), flatten_config(new)
    names = [*KEYS, *(name for name in (old | new) if name not in KEYS)]
    defaults = {name: _plain(key.default) for name, key in KEYS.items()} | IMPLIED
    pairs = [(name, old.get(name, defaults.get(name)), new.get(name, defaults.get(name))) for name in names]
    return [(name, a, b) for name, a, b in pairs if a != b and name not in DERIVED]


def diff_meanings(old: dict, new, keys) -> list[tuple]:
    """The differences in `keys`, as in `diff_configs`, that change what weights trained under `old` mean."""
    changed = [(key, a, b) for key, a, b in diff_configs(old, new) if key in keys]
    return [(key, a, b) for key, a, b in changed if not {str(a), str(b)} <= set(ALIKE.get(key, ()))]


def dump_config(cfg) -> str:
    """`cfg` as YAML text that load_config reads back to the same configuration.

    Derived keys stand there as comments, so that a copy of the text can be edited without contradicting them.
    """
    flat = flatten_config(cfg)
    lines, section = [], []
    for name in KEYS:
        if name not in flat:
            continue
        *parents, last = name.split(".")
        for depth, parent in enumerate(parents):
            if section[: depth + 1] != parents[: depth + 1]:
                lines += [""] if lines and depth == 0 else []
                lines.append("  " * depth + f"{parent}:")
                section = parents[: depth + 1]
        if not parents and section:
            lines.append("")
        section = parents
        lines.append("  " * len(parents) + _line(name, last, flat))
    return "\n".join(lines) + "\n"


def _line(name: str, last: str, flat: dict) -> str:
    if name in DERIVED:
        return f"# {last}: {write_value(flat[name])}  (derived)"
    if name == "LOG_DIR" and flat[name] == flat.get("EXP_DIR"):
        return f"{last}: ''  # EXP_DIR"
    return f"{last}: {write_value(flat[name])}"


def save_config(cfg, path) -> None:
    """Writes dump_config(cfg) to `path`, whose folders are made; a reader sees the old file or the whole new one.

    Raises UserError for an old one that was not written here, such as a user's own.
    """
    path = Path(path)
    if path.exists() and not _is_ours(path):
        raise UserError(f"EXP_DIR: {path} is not of an earlier run and would be overwritten; give another folder")
    write_whole(path, f"{HEADER}\n{dump_config(cfg)}")


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(len(TITLE)) == TITLE
