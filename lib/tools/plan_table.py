"""Tables, paragraphs and numbers as the plan tool prints them."""

import textwrap

WIDTH = 100  # columns of the terminal


def table_lines(rows: list[tuple], align: str) -> list[str]:
    """Lines of a table whose first row is its header; align has l or r for each column."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    lines = [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, align, strict=True)
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def wrap(text: str, indent: int = 0) -> list[str]:
    """A paragraph as lines of WIDTH, those after the first with an indent."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def map_in_words(cells) -> str:
    """A map of (rows, columns)."""
    return f"{cells[0]} x {cells[1]}"


def sides_in_words(values) -> str:
    """Height and width, once where they are equal."""
    return (
        number_in_words(values[0])
        if values[0] == values[1]
        else f"{number_in_words(values[0])} x {number_in_words(values[1])}"
    )


def number_in_words(value: float) -> str:
    """A number with one digit behind the point, where it has any."""
    return f"{round(value, 1):g}" if value < 1e5 else f"{value:.0f}"


def share_in_words(value: int, total: int) -> str:
    """Per cent of a total; nothing of nothing."""
    return f"{100 * value / total:.1f} %" if total else ""


def bytes_in_words(size: float) -> str:
    """A size in the largest unit of which there is one."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1024
    raise AssertionError
