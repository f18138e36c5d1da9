"""YAML text to nodes with line numbers, and plain values back to YAML text; knows nothing of the schema.

Scalars stay text here: what `off`, `010` or `2012-01-01` mean is decided by the kind of the key (kinds.py), never by
the guesses of YAML 1.1.
"""

import ast
import codecs
import difflib
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from ..utils.errors import UserError

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 50
TOO_MUCH = "too many or too deeply nested values; an alias counts each time"


class Node(NamedTuple):
    """A value as written: text, a list of nodes or a dictionary of nodes; its line from 1; whether it was quoted."""

    value: "str | list[Node] | dict[str, Node]"
    line: int = 0
    quoted: bool = False

    @property
    def is_null(self) -> bool:
        """True for `~`, `null` without quotes and for an empty place."""
        return not self.quoted and self.value in ("", "~", "null", "Null", "NULL")

    def show(self) -> str:
        """The value for an error message: text in quotes, collections in brackets, cut when long."""
        if isinstance(self.value, dict):
            return "a section (" + ", ".join(list(self.value)[:4]) + ")"
        text = _flow(self) if isinstance(self.value, list) else f"'{self.value}'"
        text = " ".join(text.split())
        return text if len(text) <= 72 else text[:64] + " ..." + text[-1]


def _flow(node: Node) -> str:
    if isinstance(node.value, dict):
        return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in node.value.items()) + "}"
    if isinstance(node.value, list):
        return "[" + ", ".join(_flow(item) for item in node.value) + "]"
    return f"'{node.value}'" if node.quoted else node.value


def read_text(path: Path, named_in: str = "") -> str:
    """The text of a small file; a UserError begins with `named_in`, the place that names it, and helps to find it."""
    try:
        if path.is_dir():
            raise UserError(f"{named_in}{path}: is a folder; give a file{_files_of(path)}")
        if not path.exists():
            raise UserError(f"{named_in}{path}: no such file{_nearest_file(path)}")
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_BYTES + 1)
    except UnicodeDecodeError as error:
        with path.open("rb") as file:
            utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        found = "is UTF-16 text; save it as UTF-8" if utf_16 else f"is not UTF-8 text (byte {error.start})"
        raise UserError(f"{named_in}{path}: {found}") from None
    except OSError as error:
        raise UserError(f"{named_in}{path}: {error.strerror}") from None


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist"
    names = [other.name for other in path.parent.iterdir() if other.suffix in (".yml", ".yaml")]
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"; did you mean '{path.parent / close[0]}'?" if close else _files_of(path.parent)


def _files_of(folder: Path) -> str:
    names = sorted(str(path) for path in folder.iterdir() if path.suffix in (".yml", ".yaml"))
    if not names:
        return "; the folder holds no .yml file"
    return "; the folder holds " + ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class _Loader(yaml.BaseLoader):
    """PyYAML without its implicit types; remembers nothing but text, and not too much of it."""

    num_nodes = 0

    def compose_node(self, parent, index):
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=TOO_MUCH, problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


def parse_yaml(text: str, source: str) -> Node | None:
    """The only document in `text` as a node, None if there is none; UserErrors begin with `source`, line and column."""
    if len(text) > MAX_BYTES:
        raise UserError(f"{source}: larger than {MAX_BYTES // 1000} kB, which is no configuration file")
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UserError(f"{source}{place}: not readable as YAML: {_one_line(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"character #x{error.character:04x} is not text"
        raise UserError(f"{source}:{line}: not readable as YAML: {found}") from None
    except RecursionError:
        raise UserError(f"{source}: not readable as YAML: nested too deep") from None
    return None if root is None else _Converter(source).convert(root)


def _one_line(error: yaml.MarkedYAMLError) -> str:
    parts = [error.context, error.problem]
    text = " ".join("; ".join(part for part in parts if part).split())
    return text + " (indent with spaces, not tabs)" if r"'\t'" in text else text


class _Converter:
    """PyYAML nodes to ours, counting on the way: aliases may multiply a small file into a huge tree."""

    def __init__(self, source: str):
        self.source = source
        self.count = 0

    def convert(self, node, depth: int = 0) -> Node:
        line = node.start_mark.line + 1
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise UserError(f"{self.source}:{line}: {TOO_MUCH}")
        if node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise UserError(f"{self.source}:{line}: the tag {tag} is not allowed; write the value without it")
        if isinstance(node, yaml.ScalarNode):
            return Node(node.value, line, node.style is not None)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.convert(item, depth + 1) for item in node.value], line)
        items = {}
        for name, item in node.value:
            at = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise UserError(f"{self.source}:{at}: a key must be a word, not a list or a section")
            if name.value in items:
                first = items[name.value].line
                raise UserError(f"{self.source}:{at}: {name.value}: given twice, first in line {first}; keep one")
            items[name.value] = self.convert(item, depth + 1)._replace(line=at)
        return Node(items, line)


def parse_list(text: str, line: int = 0) -> Node | None:
    """A list written inside a string, '[1, 2]' or '(1, 2)', nested as needed, as a node; None if it is not one."""
    if "(" not in text:
        try:
            node = parse_yaml(text, "")
        except UserError:
            return None
        return at_line(node, line) if node and isinstance(node.value, list) else None
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _from_python(tree, text.strip(), line) if isinstance(tree, ast.Tuple | ast.List) else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def at_line(node: Node, line: int) -> Node:
    """The same node with every line number set to `line`; 0 means no line."""
    if isinstance(node.value, list):
        return Node([at_line(item, line) for item in node.value], line)
    if isinstance(node.value, dict):
        return Node({name: at_line(item, line) for name, item in node.value.items()}, line)
    return node._replace(line=line)


def _from_python(tree: ast.expr, text: str, line: int) -> Node:
    if isinstance(tree, ast.Tuple | ast.List):
        return Node([_from_python(item, text, line) for item in tree.elts], line)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        return Node(tree.value, line, quoted=True)
    if isinstance(tree, ast.Constant | ast.UnaryOp | ast.Name):
        return Node(ast.get_source_segment(text, tree), line)
    raise ValueError("neither text nor number nor list")


# Words that some YAML reader takes for something else than text.
_RESERVED = re.compile(r"(?i:y|n|yes|no|on|off|true|false|null|none|nan|inf|~)")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def write_value(value, inside_list: bool = False) -> str:
    """One value (None, bool, number, text, nested lists) as YAML on one line, which any YAML reader reads the same."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        mantissa, e, exponent = float.__repr__(value).partition("e")
        # Without a point, YAML 1.1 takes 1e-08 for text.
        return mantissa + (".0" if e and "." not in mantissa else "") + e + exponent
    if isinstance(value, list | tuple):
        return "[" + ", ".join(write_value(item, inside_list=True) for item in value) + "]"
    if not inside_list and _PLAIN.fullmatch(value) and not _RESERVED.fullmatch(value):
        return value
    if value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return yaml.dump(value, default_style='"', width=float("inf"), allow_unicode=False).rstrip("\n")
