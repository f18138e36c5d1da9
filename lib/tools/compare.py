"""Compare tested runs: what was configured otherwise, whether the difference is more than chance, and where it is."""

import json
import logging
import math
import re
import sys
from pathlib import Path

import cv2

from ..commands import run_command
from ..config import CommandLineParser
from ..utils.errors import UserError
from ..utils.log import setup_logging
from .compare_page import write_page
from .compare_runs import changed_keys, read_runs
from .compare_sides import Comparison, Pair, compare
from .compare_statistics import RESAMPLES, Interval
from .compare_text import format_comparison, verdict
from .reports import is_report, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.compare")

MARK = "comparison of"  # the key of a JSON file by which it is known to be of this tool
REPORT, PAGE = "comparison.json", "comparison.html"


def compare_runs(paths, overrides=(), out=None) -> str:
    """Compare the runs in the folders `paths`, the others with the first; the text of the report.

    The page, its plots and the figures as JSON are written to the folder `out`, by default compare_A_B in the working
    folder, of the names of the runs.  overrides: KEY=VALUE words for the configurations of all runs.  UserErrors as in
    `read_runs`, and for a folder that holds anything but an earlier comparison.
    """
    if out is not None:
        _check_folder(Path(out))
    runs = read_runs(paths, overrides)
    folder = Path(_folder_name([run.name for run in runs])) if out is None else Path(out)
    _check_folder(folder)
    comparison = compare(runs)
    text = format_comparison(comparison)
    command = " ".join(["python -m lib.tools.compare", *map(str, paths), *overrides])
    plots = write_page(comparison, folder / PAGE, f"{command}")
    for name, image in plots.items():
        cv2.imencode(".png", image)[1].tofile(folder / f"{name}.png")
    report = json.dumps(_figures(comparison), indent=1, ensure_ascii=False)
    (folder / REPORT).write_text(report + "\n", encoding="utf-8")
    return f"{text}\n\nwritten: {folder / PAGE}, its plots as PNG, and {folder / REPORT}"


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("compare"),
        description="Compare tested runs by what they found in the same images: differences of the configurations, of "
        "average precision with 95 % intervals, of speed, and the images that became right or wrong. Runs whose "
        "configurations differ by SEED alone are taken together. The ground truth is read from the data set.",
        epilog="example: %(prog)s experiments/models/a experiments/models/b DATASET.DATASET_DIR=./data/BCCD",
    )
    parser.add_argument(
        "words", nargs="+", metavar="RUN | KEY=VALUE",
        help="folders of runs (EXP_DIR) with results of the test phase, or a results file such as "
        "results_epoch_20.json in one; and keys to change in the configurations of all",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder of the report (default: compare_A_B here, of the names of the runs)"
    )
    return parser


def _folder_name(names: list[str]) -> str:
    plain = [re.sub(r"[^\w.-]+", "_", name) for name in names]
    more = f"_and_{len(plain) - 2}_more" if len(plain) > 2 else ""
    return "_".join(["compare", *plain[:2]]) + more


def _check_folder(folder: Path) -> None:
    """UserError for a folder that holds anything but an earlier comparison."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_report(folder / REPORT, MARK):
        raise UserError(f"--out {folder}: holds other files; give a new folder, or one of an earlier comparison")


def _figures(comparison: Comparison) -> dict:
    """The comparison for other programs; what is not a number is null."""
    return {
        MARK: [str(run.folder) for run in comparison.runs],
        "figure": comparison.key,
        "iou": 0.5,
        "resamples": RESAMPLES,
        "unit": comparison.unit,
        "units": comparison.num_units,
        "sides": [
            {
                "side": side.letter,
                "runs": [run.name for run in side.runs],
                "scores": [_number(score) for score in side.scores],
                "interval": _ends(side.interval()),
                "per_class": {name: _number(value) for name, value in side.per_class.items()},
            }
            for side in comparison.sides
        ],
        "pairs": [_pair_figures(pair, comparison.key) for pair in comparison.pairs],
    }


def _pair_figures(pair: Pair, key: str) -> dict:
    changed, _ = changed_keys(pair.first.runs[0], pair.second.runs[0])
    return {
        "first": pair.first.letter,
        "second": pair.second.letter,
        "verdict": verdict(pair, key),
        "better": {1: pair.second.letter, -1: pair.first.letter, 0: None}[pair.sign],
        "by_images": _ends(pair.overall),
        "between_seeds": None if pair.seeds is None else _ends(pair.seeds),
        "per_class": {name: _ends(each) for name, each in pair.per_class.items()},
        "configuration": {key: [old, new] for key, old, new in changed},
    }


def _ends(interval: Interval) -> dict:
    return {name: _number(value) for name, value in interval._asdict().items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main(argv=None) -> int:
    """Entry point: print the comparison; returns 0, or 2 after one line about a mistake in the input."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        paths = [word for word in args.words if "=" not in word or Path(word).exists()]
        overrides = [word for word in args.words if word not in paths]
        if not paths:
            raise UserError("command line: no RUN is given; give the folders of tested runs")
        print(compare_runs(paths, overrides, args.out))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
