"""Float and int8 beside each other: size, latency and accuracy, as a table, Markdown and JSON."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.device import cpu_name, int8_instructions
from .network_scores import POINT, figure_or_null
from .plan_table import table_lines, wrap
from .precision import class_lines

BATCHES = (1, 8)
ROUNDS = 15


@dataclass
class Side:
    """An ONNX file: its path, millions of bytes, mAP of the headline protocol, average precision by class, and the
    median milliseconds of a run by the number of its images."""

    path: Path
    megabytes: float
    mean_ap: float
    per_class: dict[str, float]
    latency: dict[int, float]


@dataclass
class Quantized:
    """What quantising came to.  `about` says what was done to what, by the words that the report uses for it."""

    plain: Side
    int8: Side
    limit: float
    legend: str
    about: dict[str, object]

    @property
    def points(self) -> float:
        """Points of mAP, hundredths, that int8 is above fp32."""
        return (self.int8.mean_ap - self.plain.mean_ap) / POINT

    @property
    def is_within(self) -> bool:
        """Whether int8 lost no more than the limit."""
        return self.points >= -self.limit


def measure_latency(runs: dict[str, dict], rounds: int = ROUNDS) -> dict[str, dict[int, float]]:
    """Median milliseconds of each of `runs` {name: {images: function}}, {name: {images: ms}}.

    The names take turns, once in every round, so that what slows the machine down slows down all of them.
    """
    times = {name: {count: [] for count in functions} for name, functions in runs.items()}
    for number in range(rounds + 1):
        for count in next(iter(runs.values())):
            for name, functions in runs.items():
                start = time.perf_counter()
                functions[count]()
                if number:  # the first round warms up
                    times[name][count].append(time.perf_counter() - start)
    return {
        name: {count: 1000 * statistics.median(laps) for count, laps in of_name.items()}
        for name, of_name in times.items()
    }


def batches_of(pixels: list[np.ndarray]) -> dict[int, np.ndarray]:
    """Batches of BATCHES images, uint8 [B, H, W, 3], of some images uint8 [H, W, 3], which are repeated if need be."""
    return {count: np.stack([pixels[index % len(pixels)] for index in range(count)]) for count in BATCHES}


def format_report(result: Quantized) -> str:
    """The table for the terminal, with what the figures are and the verdict."""
    lines = [*table_lines(_rows(result), "lrrr"), ""]
    lines += [*class_lines("fp32", result.plain.per_class, {"int8": result.int8.per_class}), ""]
    for note in _notes(result):
        lines += wrap(note)
    return "\n".join([*lines, _verdict(result)])


def format_markdown(result: Quantized) -> str:
    """The same as Markdown."""
    head, *rows = _rows(result)
    lines = [f"# {result.int8.path.name}", "", _markdown_row(head), "|---|---:|---:|---:|", *map(_markdown_row, rows)]
    lines += ["", "| class | AP fp32 | AP int8 |", "|---|---:|---:|"]
    for name, value in result.plain.per_class.items():
        lines.append(_markdown_row((name, _figure(value), _figure(result.int8.per_class[name]))))
    lines += ["", _verdict(result), ""]
    return "\n".join(lines + [f"- {note}" for note in _notes(result)]) + "\n"


def facts(result: Quantized) -> dict:
    """The same for other programs; what is not a number is null."""
    return {
        **result.about,
        "processor": cpu_name(),
        "int8_instructions": list(int8_instructions()),
        "mAP": result.legend,
        "limit": result.limit,
        "points": result.points,
        "passed": result.is_within,
        **{name: _side_facts(side) for name, side in (("fp32", result.plain), ("int8", result.int8))},
    }


def _side_facts(side: Side) -> dict:
    return {
        "file": side.path.name,
        "megabytes": side.megabytes,
        "mAP": side.mean_ap,
        "AP": {name: figure_or_null(value) for name, value in side.per_class.items()},
        "latency_ms": {str(count): value for count, value in side.latency.items()},
    }


def _rows(result: Quantized) -> list[tuple]:
    plain, int8 = result.plain, result.int8
    rows = [
        ("", "fp32", "int8", "int8 against fp32"),
        (
            "size, MB",
            f"{plain.megabytes:.2f}",
            f"{int8.megabytes:.2f}",
            _times(plain.megabytes, int8.megabytes, "less"),
        ),
    ]
    for count, before in plain.latency.items():
        after, title = int8.latency[count], "ms for 1 image" if count == 1 else f"ms for {count} images"
        rows.append((title, f"{before:.1f}", f"{after:.1f}", _times(before, after, "faster")))
    return [*rows, ("mAP", _figure(plain.mean_ap), _figure(int8.mean_ap), f"{result.points:+.2f} points")]


def _times(before: float, after: float, word: str) -> str:
    return f"{before / after:.2f} x {word}"


def _figure(value: float) -> str:
    return f"{value:.4f}" if value == value else "-"


def _markdown_row(cells: tuple) -> str:
    return f"| {' | '.join(cells)} |"


def _notes(result: Quantized) -> list[str]:
    about = result.about
    instructions = ", ".join(int8_instructions()) or "none known"
    return [
        f"Calibrated by {about['method']} on {about['images']} images of {about['calibrated_on']} (seed "
        f"{about['seed']}); {about['int8_layers']} of {about['layers']} convolutions are in int8.",
        f"mAP: {result.legend}; mean over classes, on the {about['test_images']} images of {about['tested_on']}, of "
        "the file with decoding and NMS. Points are hundredths of it.",
        f"Latency: median of {ROUNDS} runs in turn, {about['provider']}, threads: {about['threads']}, on {cpu_name()} "
        f"(instructions for int8: {instructions}).",
    ]


def _verdict(result: Quantized) -> str:
    word = "below" if result.points < 0 else "above"
    return (
        f"{'passed' if result.is_within else 'REFUSED'}: int8 is {abs(result.points):.2f} points of mAP {word} fp32; "
        f"allowed: {result.limit:g} below (--limit)"
    )
