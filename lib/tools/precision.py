"""Measure what half precision and compilation cost in accuracy on the test set, and fail where it is too much."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..commands import run_command
from ..config import CommandLineParser, load_config
from ..modeling.inference import InferenceNetwork, resolve_compile
from ..utils.device import DTYPES, device_name, resolve_precision
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.log import setup_logging
from .network_scores import POINT, NetworkScores, NetworkTest, figure_or_null
from .plan_table import table_lines, wrap
from .reports import is_report, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.precision")

MARK, REPORT = "precision of", "precision.json"
LIMIT = 0.3  # points of mAP; rounding to bf16 moves a detector of these by about a tenth of that
NAMES = {None: "fp32"} | {dtype: name for name, dtype in DTYPES.items()}


@dataclass
class Run:
    """The test set in one precision and compile mode; `chosen`: those of the configuration."""

    precision: str
    compile_mode: str
    scores: NetworkScores
    chosen: bool

    @property
    def name(self) -> str:
        return self.precision if self.compile_mode == "none" else f"{self.precision} {self.compile_mode}"


def compare_precisions(test: NetworkTest, every: bool = False) -> list[Run]:
    """Score the test set in fp32 without compilation, the first run, and in the precision and compile mode that
    MODEL.PRECISION and MODEL.COMPILE come to on this device; with `every` in all precisions, each with and without that
    compile mode."""
    cfg, device, runs = test.cfg, test.solver.device, []
    dtype = resolve_precision(cfg.MODEL.PRECISION, device, training=False)
    mode = resolve_compile(cfg.MODEL.COMPILE, len(test.records), device)
    for other, how in _ways(dtype, mode, every):
        network = InferenceNetwork(test.solver.model, test.solver.normalize, device, other, how)
        log.info("%d images: %s", len(test.records), network.describe())
        scores = test.score(network, NAMES[other])
        runs.append(Run(NAMES[other], network.compile_mode, scores, (other, how) == (dtype, mode)))
    return runs


def _ways(dtype, mode: str, every: bool) -> Iterator[tuple]:
    """(dtype, compile mode) to score in, each once; plain fp32 first."""
    ways = [(None, "none"), (dtype, mode)]
    if every:
        ways[1:] = [(other, how) for other in NAMES for how in ("none", mode)]
    yield from dict.fromkeys(ways)


def chosen_run(runs: list[Run]) -> Run:
    """The run in the precision and compile mode of the configuration."""
    return next(run for run in runs if run.chosen)


def is_within(runs: list[Run], limit: float) -> bool:
    """Whether the chosen run is at most `limit` points of mAP below the first."""
    return chosen_run(runs).scores.points_above(runs[0].scores) >= -limit


def format_runs(runs: list[Run], test: NetworkTest, limit: float) -> str:
    """The tables: a row for each run, a row for each class, what the figures are, and the verdict."""
    rows = [("precision", "compile", "mAP", "points", "images/s network", "end to end", "")]
    for run in runs:
        scores = run.scores
        points = "" if run is runs[0] else f"{scores.points_above(runs[0].scores):+.2f}"
        speeds = f"{scores.network:.1f}", f"{scores.end_to_end:.1f}"
        whose = "of the configuration" if run.chosen else ""
        rows.append((run.precision, run.compile_mode, f"{scores.mean_ap:.4f}", points, *speeds, whose))
    lines = [f"{test.checkpoint} on {test.records.name}, {len(test.records)} images", ""]
    lines += [*table_lines(rows, "llrrrrl"), ""]
    if len(runs) > 1:
        others = {run.name: run.scores.per_class for run in runs[1:]}
        lines += [*class_lines("fp32", runs[0].scores.per_class, others), ""]
    lines += wrap(f"mAP: {test.legend}; mean over classes. Points are hundredths of it, against the first row.")
    lines.append(f"On {device_name(test.solver.device)}, batches of {test.cfg.TEST.BATCH_SIZE}, one pass each.")
    verdict = "passed" if is_within(runs, limit) else "FAILED"
    lines.append(f"{verdict}: {chosen_run(runs).name} is {_distance(runs)} fp32; allowed: {limit:g} below (--limit)")
    return "\n".join(lines)


def class_lines(name: str, plain: dict[str, float], others: dict[str, dict[str, float]]) -> list[str]:
    """A table of the AP of every class in the case `name`, and how many points the others are above it."""
    rows = [("class", f"AP {name}", *(f"{other}, points" for other in others))]
    for label, value in plain.items():
        if value != value:
            rows.append((label, "-", *[""] * len(others)))
            continue
        gains = (f"{(per_class[label] - value) / POINT:+.2f}" for per_class in others.values())
        rows.append((label, f"{value:.4f}", *gains))
    return table_lines(rows, "l" + "r" * (len(others) + 1))


def _distance(runs: list[Run]) -> str:
    points = chosen_run(runs).scores.points_above(runs[0].scores)
    return f"{abs(points):.2f} points of mAP {'below' if points < 0 else 'above'}"


def save_runs(runs: list[Run], test: NetworkTest, limit: float, path: Path) -> None:
    """The figures as JSON; what is not a number is null."""
    facts = {
        MARK: str(test.checkpoint),
        "images": len(test.records),
        "device": device_name(test.solver.device),
        "batch_size": test.cfg.TEST.BATCH_SIZE,
        "mAP": test.legend,
        "limit": limit,
        "passed": is_within(runs, limit),
        "runs": [_facts(run, runs[0]) for run in runs],
    }
    write_whole(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def _facts(run: Run, first: Run) -> dict:
    return {
        "precision": run.precision,
        "compile": run.compile_mode,
        "chosen": run.chosen,
        "mAP": run.scores.mean_ap,
        "points": run.scores.points_above(first.scores),
        "images_per_second_network": figure_or_null(run.scores.network),
        "images_per_second_end_to_end": figure_or_null(run.scores.end_to_end),
        "AP": {name: figure_or_null(value) for name, value in run.scores.per_class.items()},
    }


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("precision"),
        description="Score the test set with the weights that the test phase takes in plain fp32, and in the precision "
        "and compile mode of the configuration (MODEL.PRECISION, MODEL.COMPILE). The exit status is 1 where the mAP of "
        f"the latter is too far below. The figures are also written to EXP_DIR/{REPORT}.",
        epilog="example: %(prog)s --cfg x.yml MODEL.PRECISION=bf16 MODEL.COMPILE=default",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file of the run")
    parser.add_argument("--all", action="store_true", help="score in every precision, with and without compilation")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="POINTS",
        help="points of mAP (hundredths) that may be lost; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def main(argv=None) -> int:
    """Entry point: print the tables; returns 0, 1 where too much is lost, or 2 after one line about a mistake."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        cfg = load_config(args.cfg, args.overrides)
        path = Path(cfg.EXP_DIR) / REPORT
        if path.exists() and not is_report(path, MARK):
            raise UserError(f"{path}: is there already and is no report of this tool; move it away")
        test = NetworkTest(cfg)
        runs = compare_precisions(test, args.all)
        save_runs(runs, test, args.limit, path)
        print(format_runs(runs, test, args.limit))
        print(f"written: {path}")
        return 0 if is_within(runs, args.limit) else 1

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
