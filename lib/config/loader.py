"""load_config: schema defaults, `_BASE_` files, the YAML file and KEY=VALUE words, merged into a checked EasyDict."""

import copy
import difflib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from easydict import EasyDict

from ..utils.errors import UserError, one_line
from .kinds import Mistake, list_items, read_value
from .schema import DERIVED, GENTLE_RATE, IGNORED, OLD_WORDS, RECIPE, SCHEMA, Key
from .weight_colors import expected_colors
from .yaml_text import Node, at_line, parse_yaml, read_text

logger = logging.getLogger(__name__)

BASE = "_BASE_"
COMMAND_LINE = "command line"
MAX_FILES = 50
"""Files that a configuration may be made of; a base that several name counts each time."""


def flatten_schema(section: dict = SCHEMA, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key of the schema under its dotted name, in the order of the schema."""
    for name, entry in section.items():
        if isinstance(entry, Key):
            yield prefix + name, entry
        else:
            yield from flatten_schema(entry, f"{prefix}{name}.")


KEYS: dict[str, Key] = dict(flatten_schema())
SECTIONS = dict.fromkeys(".".join(name.split(".")[:n]) for name in KEYS for n in range(1, name.count(".") + 1))


def load_config(path=None, overrides: Iterable[str] = ()) -> EasyDict:
    """The effective configuration: defaults, the `_BASE_` files, the file at `path`, then `KEY.SUB=value` overrides.

    Sections of RECIPE that no file mentions take its values; `path` None means defaults and overrides only.  Every call
    returns its own copy.  A mistake is one UserError line with file, line and key.
    """
    merged = _Merged()
    try:
        if path is not None:
            merged.add_file(Path(os.path.expanduser(path)), ())
            merged.fill_sections()
        for text in [overrides] if isinstance(overrides, str) else overrides:
            merged.add_override(text)
        return merged.finish()
    except UserError as error:  # what was given may hold line ends, the message shall not
        raise UserError(one_line(str(error))) from None


def update_derived(cfg: EasyDict) -> EasyDict:
    """Computes the DERIVED keys of `cfg` again, in place, after one of their sources was set by hand."""
    for dotted, rule in DERIVED.items():
        section, name = _place(cfg, dotted)
        section[name] = copy.deepcopy(rule(cfg))
    return cfg


def _place(cfg: EasyDict, dotted: str) -> tuple[EasyDict, str]:
    """The section of `cfg`, made where missing, and the last part of the name of a key."""
    *sections, name = dotted.split(".")
    for section in sections:
        if section not in cfg:
            cfg[section] = EasyDict()
        cfg = cfg[section]
    return cfg, name


class _Merged:
    """Values by dotted name, and for those that were given, where."""

    def __init__(self):
        self.values = {name: copy.deepcopy(key.default) for name, key in KEYS.items()}
        self.given: dict[str, str] = {}
        self.warned: set[str] = set()
        self.ignored: list[str] = []
        self.left_out: list[str] = []
        self.num_files = 0

    def add_file(self, path: Path, chain: tuple[Path, ...], named_in: str = ""):
        """Merges the file at `path` after the files that it names as its base; `chain` holds those that led to it."""
        if any(os.path.realpath(path) == os.path.realpath(earlier) for earlier in chain):
            circle = " -> ".join(str(p) for p in (*chain, path))
            raise UserError(f"{named_in}{BASE}: the files name each other in a circle: {circle}")
        self.num_files += 1
        if self.num_files > MAX_FILES:
            raise UserError(f"{named_in}{BASE}: more than {MAX_FILES} files; a base that several name counts each time")
        root = parse_yaml(read_text(path, named_in), str(path))
        if root is None or root.is_null:
            logger.warning("%s: empty; the defaults apply", path)
            return
        if not isinstance(root.value, dict):
            raise UserError(f"{path}:{root.line}: expected keys such as 'MODEL:' at the top level, not {root.show()}")
        sections = dict(root.value)
        base = sections.pop(BASE, None)
        if base is not None:
            where = f"{path}:{base.line}: "
            for name in _base_names(base, where):
                self.add_file(path.parent / os.path.expanduser(name), (*chain, path), where)
        self.ignored = []
        self._merge(sections, "", str(path))
        if self.ignored:
            logger.warning("%s: keys of other forks, without effect here: %s", path, ", ".join(self.ignored))

    def fill_sections(self):
        """Gives sections that no file mentions the values of RECIPE."""
        for section, values in RECIPE.items():
            if not any(name.startswith(f"{section}.") for name in self.given):
                self.values.update({f"{section}.{name}": value for name, value in values.items()})
                self.left_out.append(section)

    def add_override(self, text: str):
        """Merges one KEY.SUB=value."""
        name, equals, raw = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UserError(f"{COMMAND_LINE}: '{text}' is not of the form KEY=VALUE, such as TRAIN.BATCH_SIZE=16")
        self._set(name, _override_node(name, raw), COMMAND_LINE)

    def _merge(self, items: dict[str, Node], prefix: str, source: str):
        for name, node in items.items():
            self._set(prefix + name, node, source)

    def _set(self, dotted: str, node: Node, source: str):
        where = f"{source}:{node.line}" if node.line else source
        if dotted in SECTIONS:
            if isinstance(node.value, dict):
                self._merge(node.value, f"{dotted}.", source)
            elif not node.is_null:
                keys = ", ".join(name[len(dotted) + 1 :] for name in KEYS if name.startswith(f"{dotted}."))
                raise UserError(f"{where}: {dotted}: expected a section, not {node.show()}; its keys: {_cut(keys)}")
            return
        if dotted in IGNORED and source != COMMAND_LINE:
            self.ignored.append(f"{dotted} ({IGNORED[dotted]})")
            return
        if dotted not in KEYS:
            raise UserError(f"{where}: {dotted}: unknown key; {suggest_key(dotted)}")
        try:
            self.values[dotted] = read_value(self._modern(dotted, node, where), KEYS[dotted])
        except Mistake as mistake:
            where = f"{source}:{mistake.line}" if mistake.line else source
            raise UserError(f"{where}: {dotted}: {mistake}") from None
        self.given[dotted] = where

    def _modern(self, dotted: str, node: Node, where: str) -> Node:
        """The list with words of forks replaced by those of the schema, said once."""
        words = OLD_WORDS.get(dotted)
        if words is None:
            return node
        items = list_items(node, KEYS[dotted].kind)
        old = [item.value for item in items if isinstance(item.value, str) and item.value in words]
        if old and dotted not in self.warned:
            logger.warning("%s: %s: '%s' is read as '%s'", where, dotted, old[0], words[old[0]])
            self.warned.add(dotted)
        new = [item._replace(value=words[item.value]) if item.value in old else item for item in items]
        return node._replace(value=new)

    def finish(self) -> EasyDict:
        """The EasyDict with derived values."""
        values = self.values
        if not values["MODEL.HALF_PRECISION"] and "MODEL.PRECISION" not in self.given:
            values["MODEL.PRECISION"] = "fp32"
        self._follow_pretrained()
        self._choose_rate()
        if values["TRAIN.EARLY_STOP_EPOCHS"] and not values["TRAIN.TRACK_MAP"]:
            where = self.given["TRAIN.EARLY_STOP_EPOCHS"]
            raise UserError(f"{where}: TRAIN.EARLY_STOP_EPOCHS: watches the mAP of TRAIN.TRACK_MAP, which is False")
        values["LOG_DIR"] = values["LOG_DIR"] or values["EXP_DIR"]
        if len(values["TEST.TEST_SCOPE"]) == 1:  # one epoch is the first and the last
            values["TEST.TEST_SCOPE"] = values["TEST.TEST_SCOPE"] * 2
        cfg = EasyDict()
        for dotted, value in values.items():
            section, name = _place(cfg, dotted)
            section[name] = value
        update_derived(cfg)
        overruled = []
        for dotted in DERIVED:
            section, name = _place(cfg, dotted)
            if dotted in self.given and values[dotted] != section[name]:
                overruled.append(f"{self.given[dotted]}: {dotted}: {values[dotted]} becomes {section[name]}")
        if overruled:
            logger.warning("computed from other keys, not taken from the file: %s", "; ".join(overruled))
        return cfg

    def _follow_pretrained(self):
        """Sets what MODEL.PRETRAINED decides and nobody gave.

        It is decided here, before any file is opened, so that every later use of the configuration sees the same.
        """
        values, pretrained = self.values, self.values["MODEL.PRETRAINED"]
        if pretrained:
            colors = expected_colors(values["MODEL.NETS"], pretrained)
            values.update(copy.deepcopy({name: value for name, value in colors.items() if name not in self.given}))
        if values["MODEL.STEM_ACTIVATION"] == "auto":
            as_torchvision = pretrained and values["MODEL.NETS"].startswith("mobilenet_v2")
            values["MODEL.STEM_ACTIVATION"] = "relu6" if as_torchvision else "relu"

    def _choose_rate(self):
        """Lowers the rate of RECIPE where the network asks for it."""
        values, name = self.values, "TRAIN.OPTIMIZER.LEARNING_RATE"
        delicate = values["MODEL.NETS"].startswith("vgg") or values["MODEL.PRETRAINED"] or values["RESUME_CHECKPOINT"]
        if "TRAIN.OPTIMIZER" in self.left_out and name not in self.given and delicate:
            values[name] = GENTLE_RATE


def _base_names(node: Node, where: str) -> list[str]:
    nodes = node.value if isinstance(node.value, list) else [node]
    if not all(isinstance(item.value, str) and item.value and "\0" not in item.value for item in nodes):
        raise UserError(f"{where}{BASE}: expected a file name or a list of file names, not {node.show()}")
    return [item.value for item in nodes]


def _override_node(dotted: str, raw: str) -> Node:
    """The node that the right side of an override means for this key."""
    kind = KEYS[dotted].kind.rstrip("?") if dotted in KEYS else ""
    if kind in ("str", "choice"):
        return _unquoted(raw)
    if kind != "strs" and "(" in raw and raw.strip()[0] in "[(":  # tuples, which YAML would tear apart
        return Node(raw)
    if kind == "strs" and "," in raw and raw.strip()[0] not in "['\"":
        return Node([Node(part.strip()) for part in raw.split(",")])
    try:
        node = parse_yaml(raw, COMMAND_LINE)
    except UserError:
        return Node(raw)
    return Node("") if node is None else at_line(node, 0)


def _unquoted(raw: str) -> Node:
    """`raw` as text, character for character, except that YAML quotes around the whole of it are taken off."""
    if len(raw) < 2 or raw[0] not in "'\"" or raw[-1] != raw[0]:
        return Node(raw)
    try:
        return at_line(parse_yaml(raw, COMMAND_LINE), 0)
    except UserError:
        return Node(raw)


def suggest_key(dotted: str) -> str:
    """The tail of an error message about an unknown key: the key or keys that were probably meant."""
    names = [*KEYS, *SECTIONS]
    section, _, last = dotted.rpartition(".")
    if section in KEYS:
        return f"{section} is a value and has no keys"
    if last == "" or "=" in dotted:
        return "keys look like TRAIN.BATCH_SIZE"
    same = [name for name in names if name.upper() == dotted.upper()]
    same = same or [name for name in names if name.rpartition(".")[2] == last.upper()]
    if not same:
        siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == section.upper()}
        same = [siblings[word] for word in difflib.get_close_matches(last.upper(), siblings, n=1, cutoff=0.7)]
    same = same or difflib.get_close_matches(dotted.upper(), names, n=1, cutoff=0.8)
    if not same:
        lasts = {name.rpartition(".")[2]: name for name in names}
        same = [lasts[word] for word in difflib.get_close_matches(last.upper(), lasts, n=1, cutoff=0.75)]
    if same:
        return "did you mean " + " or ".join(f"'{name}'" for name in same) + "?"
    inside = [name[len(section) + 1 :] for name in KEYS if section in SECTIONS and name.startswith(f"{section}.")]
    return f"keys of {section}: {_cut(', '.join(inside))}" if inside else f"sections: {', '.join(SCHEMA)}"


def _cut(text: str, width: int = 120) -> str:
    return text if len(text) <= width else text[:width].rpartition(",")[0] + ", ..."
