"""What the check tool says on the terminal: the problems, worst first, then classes and sizes as tables."""

from pathlib import Path

from .check_problems import SEVERITIES, Offender, Problem
from .plan_table import table_lines, wrap

INDENT = 9
NAMED = {"error": 3, "warning": 2, "note": 1}
"""Places that are named of a problem, by its severity."""

CLASSES = 30
"""Rows of the table of classes."""


def format_check(figures: dict, problems: list[Problem]) -> str:
    """Everything as text; figures: what the JSON file holds."""
    parts = [f"{row['set']} {row['images']:,} images with {row['objects']:,} objects" for row in figures["sizes"]]
    lines = wrap(f"Data of {figures['check of']}: {'; '.join(parts)}; {len(figures['classes'])} classes", 2)
    for problem in problems:
        lines += ["", *_problem_lines(problem)]
    if not problems:
        lines += ["", "Nothing was found that is wrong."]
    head, *rows = class_table(figures["classes"])
    lines += ["", *table_lines([head, *rows[:CLASSES]], "l" + "r" * (len(head) - 1))]
    lines += [f"and {len(rows) - CLASSES:,} more classes in the JSON file"] if len(rows) > CLASSES else []
    height, width = figures["image_size"]
    lines += ["", *table_lines(size_table(figures["sizes"]), "l" + "r" * (len(figures["sizes"][0]["sizes"]) + 3))]
    lines += wrap(
        f"Sizes are roots of areas in pixels of the network's input, {height} x {width}. How well the priors cover "
        f"them: python -m lib.tools.priors --cfg {figures['check of']}"
    )
    return "\n".join(lines)


def verdict(problems: list[Problem]) -> str:
    """How many problems of each severity there are, such as '2 errors, 1 note'."""
    counts = {name: sum(problem.severity == name for problem in problems) for name in SEVERITIES}
    words = [f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items() if count]
    return ", ".join(words) or "nothing wrong"


def place_of(offender: Offender) -> str:
    """The files that an offender is about, by their last names, numbered ones with their folder."""
    of_its_own = offender.annotation.endswith(".xml")  # not one file for many images
    name = _short(offender.annotation if of_its_own else offender.image or offender.annotation)
    if offender.other is None:
        return name
    role, path = offender.other
    return f"{name} ({offender.set}) and {_short(path)} ({role})"


def class_table(rows: list[dict]) -> list[tuple]:
    """The rows of check_classes.class_rows, with their header."""
    head = ("class", *(f"{name}: objects in images" for name in rows[0]["sets"])) if rows else ("class",)
    return [
        head,
        *((row["class"], *(_in_images(part) for part in row["sets"].values())) for row in rows),
    ]


def size_table(rows: list[dict]) -> list[tuple]:
    """The rows of check_boxes.size_rows, with their header."""
    head = ("set", *(f"{name} px" for name in rows[0]["sizes"]), "median", "ratio w/h: 1 %, 50 %, 99 %", "objects")
    return [
        head,
        *(
            (
                row["set"],
                *(f"{count:,}" for count in row["sizes"].values()),
                "-" if row["median_size"] is None else f"{row['median_size']:g}",
                "-" if row["ratios"] is None else "  ".join(f"{ratio:.2f}" for ratio in row["ratios"]),
                f"{row['objects']:,}",
            )
            for row in rows
        ),
    ]


def _problem_lines(problem: Problem) -> list[str]:
    told = problem.sets()
    head = f"{problem.severity.upper() if problem.severity == 'error' else problem.severity:<{INDENT}}"
    lines = wrap(f"{head}{problem.headline()}{f' ({told})' if told else ''}", INDENT)
    number = NAMED[problem.severity]
    for offender in problem.offenders[:number]:
        place = place_of(offender)
        lines += wrap(f"{' ' * INDENT}{place}{': ' if place else ''}{offender.what}", INDENT + 2)
    if problem.count > number:
        lines.append(f"{' ' * INDENT}and {problem.count - number:,} more")
    return lines


def _short(path: str) -> str:
    parts = Path(path).parts[-2:]
    return "/".join(parts if Path(path).stem.isdecimal() else parts[-1:])


def _in_images(part: dict) -> str:
    return f"{part['objects']:,} in {part['images']:,} ({100 * part['share']:.1f} %)"
