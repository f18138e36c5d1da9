"""The schema as text for --help-config and the documentation."""

import textwrap

from .kinds import KINDS, range_text
from .loader import KEYS
from .schema import DERIVED, IGNORED, RECIPE, Key
from .yaml_text import write_value

WIDTH = 100


def describe_schema() -> str:
    """Every key with its default, what it takes and its sentence, section by section, at most 100 columns wide."""
    lines, section = [], ""
    for name, key in KEYS.items():
        if name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            lines += ["", section or "TOP LEVEL", "-" * len(section or "TOP LEVEL")]
        head = f"{name} = {write_value(key.default)}"
        takes = "computed" if name in DERIVED else expected(key)
        if len(head) + len(takes) + 4 <= WIDTH:
            lines.append(f"{head}  ({takes})")
        else:
            lines += [head, *_wrap(f"({takes})")]
        last, recipe = name.rpartition(".")[2], RECIPE.get(section, {})
        left_out = f"  {write_value(recipe[last])} where a file leaves out {section}." if last in recipe else ""
        lines += _wrap(key.doc + left_out)
    lines += ["", "KEYS OF OTHER FORKS", "-" * 19, "Accepted in files, without effect."]
    lines += [f"{name}: {hint}" for name, hint in IGNORED.items()]
    return "\n".join(lines).strip("\n") + "\n"


def expected(key: Key) -> str:
    """What a key takes, in words: kind or choices, range, and whether null is allowed."""
    kind = key.kind.rstrip("?")
    words = KINDS[kind]
    if key.choices:
        words = ("one of " if kind == "choice" else "a list of ") + ", ".join(key.choices)
    if kind == "strs" and isinstance(key.default, str):
        words = "text or " + words
    if key.lengths:
        words += " (" + " or ".join(str(n) for n in key.lengths) + " entries)"
    words += ", " + range_text(key) if range_text(key) else ""
    return words + ", or null" if key.kind.endswith("?") else words


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
