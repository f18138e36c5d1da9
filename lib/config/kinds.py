"""How the value of each kind of key is read from a YAML node and checked.

A scalar arrives as the text that was written.  String kinds keep it; the others read it here, so that `1e-3` is a
number, `off` is no boolean, and a tuple or list inside quotes counts as a list, as in the reference family.
"""

import math
import re

from ..utils.errors import nearest
from .schema import Key
from .yaml_text import Node, parse_list

NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d[\d_]*", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?\.?(nan|inf|infinity)", re.IGNORECASE)
YEAR = re.compile(r"(19|20)\d\d", re.ASCII)
LARGEST = 2**63

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "choice": "one of the choices",
    "choices": "a list of the choices",
    "strs": "a list of texts",
    "ints": "a list of whole numbers",
    "floats": "a list of numbers",
    "size": "[height, width] or one number",
    "sizes": "a list of sizes, each [height, width] or one number",
    "sets": "a list of split names or [year, split] pairs",
    "workers": "auto or a whole number",
    "levels": "a list, usually one entry a level",
}
"""What each kind expects, in words."""


class Mistake(Exception):
    """A value that its key cannot take: what is wrong and in which line; the loader adds file and key."""

    def __init__(self, message: str, line: int = 0):
        super().__init__(message)
        self.line = line


def read_value(node: Node, key: Key):
    """The value of `key` that `node` means; raises Mistake."""
    kind = key.kind.rstrip("?")
    if key.kind.endswith("?") and (node.is_null or (kind != "str" and node.value == "None")):
        return None
    value = _READERS[kind](node, key)
    _check_range(value, key, node)
    return value


def _check_range(value, key: Key, node: Node):
    if key.lengths and len(value) not in key.lengths:
        allowed = " or ".join(str(length) for length in key.lengths)
        raise Mistake(f"{node.show()} has {len(value)} entries; allowed: {allowed}", node.line)
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        low, above, high, below = key.minimum, key.above, key.maximum, key.below
        too_low = (low is not None and number < low) or (above is not None and number <= above)
        too_high = (high is not None and number > high) or (below is not None and number >= below)
        if too_low or too_high:
            raise Mistake(f"{number} is out of range; allowed: {range_text(key)}", node.line)


def range_text(key: Key) -> str:
    """The range of a key in words: 'at least 1', '0 to 1', '' where there is none."""
    if key.minimum is not None and key.maximum is not None:
        return f"{key.minimum} to {key.maximum}"
    parts = [f"at least {key.minimum}"] if key.minimum is not None else []
    parts += [f"above {key.above}"] if key.above is not None else []
    parts += [f"at most {key.maximum}"] if key.maximum is not None else []
    parts += [f"below {key.below}"] if key.below is not None else []
    return ", ".join(parts)


def _text(node: Node, expected: str) -> str:
    if not isinstance(node.value, str):
        raise Mistake(f"expected {expected}, not {node.show()}", node.line)
    return node.value


def _number(node: Node, expected: str) -> int | float:
    text = _text(node, expected).strip()
    if NOT_FINITE.fullmatch(text):
        raise Mistake(f"{node.show()} is not finite; expected {expected}", node.line)
    try:
        number = int(text) if INTEGER.fullmatch(text) else float(text) if NUMBER.fullmatch(text) else None
    except ValueError:  # a misplaced underscore, or more digits than Python converts
        number = None
    if number is None:
        raise Mistake(f"{node.show()} is not {expected}", node.line)
    if not math.isfinite(number) or (isinstance(number, int) and abs(number) >= LARGEST):
        raise Mistake(f"{node.show()} is too large; expected {expected}", node.line)
    return number


def _read_int(node: Node, key: Key | None = None) -> int:
    number = _number(node, KINDS["int"])
    if number != int(number):
        raise Mistake(f"{node.show()} is not a whole number", node.line)
    return int(number)


def _read_float(node: Node, key: Key | None = None) -> float:
    return float(_number(node, KINDS["float"]))


def _read_bool(node: Node, key: Key) -> bool:
    word = _text(node, KINDS["bool"]).strip().lower()
    if word not in ("true", "false"):
        raise Mistake(f"{node.show()} is not a boolean; write true or false", node.line)
    return word == "true"


def _read_str(node: Node, key: Key | None = None) -> str:
    return _text(node, KINDS["str"])


def _read_choice(node: Node, key: Key) -> str:
    word = _text(node, "one of " + ", ".join(key.choices)).strip()
    for choice in key.choices:
        if word.lower() == choice.lower():
            return choice
    raise Mistake(f"{node.show()} is unknown; {nearest(word, key.choices)}", node.line)


def list_items(node: Node, kind: str) -> list[Node]:
    """The entries of a list, also of one written inside a string, with commas only, or of a single value."""
    if isinstance(node.value, list):
        return node.value
    text = _text(node, KINDS[kind]).strip()
    if not text:
        return []
    if text[0] in "[(":
        found = parse_list(text, node.line)
        if found is None:
            raise Mistake(f"{node.show()} is not readable as a list", node.line)
        return found.value
    return [Node(part.strip(), node.line) for part in text.split(",")]


def _read_choices(node: Node, key: Key) -> list[str]:
    words = [_read_choice(item, key) for item in list_items(node, "choices")]
    if not words:
        raise Mistake(f"the list is empty; allowed: {', '.join(key.choices)}", node.line)
    return list(dict.fromkeys(words))


def _read_strs(node: Node, key: Key) -> list[str] | str:
    if isinstance(key.default, str) and isinstance(node.value, str):
        return node.value
    if isinstance(node.value, str) and node.quoted and not node.value.startswith(("[", "(")):
        return [node.value] if node.value else []
    return [_read_str(item) for item in list_items(node, "strs")]


def _read_size(node: Node, key: Key) -> list[int]:
    sides = [_read_int(item) for item in list_items(node, "size")]
    if len(sides) not in (1, 2):
        raise Mistake(f"{node.show()} has {len(sides)} entries; expected {KINDS['size']}", node.line)
    return sides if len(sides) == 2 else sides * 2


def _read_sizes(node: Node, key: Key) -> list[list[int]]:
    sizes = [_read_size(item, key) for item in list_items(node, "sizes")]
    for size in sizes:
        _check_range(size, key, node)
    return sizes


def _read_sets(node: Node, key: Key) -> list[str | list[str]]:
    items = list_items(node, "sets")
    for item in items:
        parts = item.value if isinstance(item.value, list) else [item]
        if len(parts) not in (1, 2) or not all(isinstance(part.value, str) and part.value for part in parts):
            raise Mistake(f"{item.show()} is neither a split name nor a [year, split] pair", item.line)
        if any(not part.quoted and part.value[0] == "(" for part in parts):
            raise Mistake(f"{item.show()}: YAML knows no tuples; write [['2007', 'trainval']]", item.line)
    if len(items) == 2 and all(isinstance(item.value, str) for item in items) and YEAR.fullmatch(items[0].value):
        pair = f"[['{items[0].value}', '{items[1].value}']]"
        raise Mistake(f"{node.show()} is a list of two splits; a year and its split are written {pair}", node.line)
    return [_read_set(item) for item in items]


def _read_set(node: Node) -> str | list[str]:
    if isinstance(node.value, str):
        return node.value
    return [part.value for part in node.value] if len(node.value) == 2 else node.value[0].value


def _read_workers(node: Node, key: Key) -> int | str:
    if isinstance(node.value, str) and node.value.strip().lower() == "auto":
        return "auto"
    number = _number(node, KINDS["workers"])
    if number != int(number):
        raise Mistake(f"{node.show()} is not {KINDS['workers']}", node.line)
    return int(number)


def _read_levels(node: Node, key: Key) -> list:
    text = node.value.strip() if isinstance(node.value, str) else ""
    if text and text[0] not in "[(" and "," not in text:
        raise Mistake(f"expected {KINDS['levels']}, not {node.show()}", node.line)
    return [_read_entry(item) for item in list_items(node, "levels")]


def _read_entry(node: Node) -> int | float | str | list | None:
    if isinstance(node.value, dict):
        raise Mistake(f"expected a number, a token or a list, not {node.show()}", node.line)
    if isinstance(node.value, list):
        return [_read_entry(item) for item in node.value]
    if node.value and node.is_null:
        return None
    is_number = NUMBER.fullmatch(node.value) or NOT_FINITE.fullmatch(node.value)
    return _number(node, "a number") if is_number and not node.quoted else node.value


_READERS = {
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "str": _read_str,
    "choice": _read_choice,
    "choices": _read_choices,
    "strs": _read_strs,
    "ints": lambda node, key: [_read_int(item) for item in list_items(node, "ints")],
    "floats": lambda node, key: [_read_float(item) for item in list_items(node, "floats")],
    "size": _read_size,
    "sizes": _read_sizes,
    "sets": _read_sets,
    "workers": _read_workers,
    "levels": _read_levels,
}
