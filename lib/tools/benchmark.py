"""Measure how fast detectors are, stage by stage, and what they cost: many configurations and runs side by side."""

import argparse
import logging
import math
import multiprocessing
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import cv2

from ..commands import run_command
from ..config import CommandLineParser
from ..solver.figures import render_figure
from ..timing import summarize
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.log import setup_logging
from .benchmark_jobs import Job, find_configs, find_runs, load_images, name_all, save_images
from .benchmark_report import COLUMNS, draw_plot, format_csv, format_table, is_benchmark, timed_columns
from .benchmark_worker import Failure, serve
from .reports import number, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.benchmark")

CSV, PLOT = "benchmark.csv", "benchmark.png"
ROUNDS, SECONDS, LEAST = 5, 1.0, 3
QUICK_ROUNDS, QUICK_SECONDS, QUICK_LEAST = 2, 0.0, 2
TOGETHER = 6
PATIENCE = 3.0  # seconds for a process to end by itself
COMPILE = ("none", "default", "max")


class Worker:
    """The process of a job, and what it has answered: a row of facts and rounds, or why there are none."""

    def __init__(self, job: Job):
        self.job, self.facts, self.rounds, self.failure = job, {}, [], None
        context = _process_context()
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, job), daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self._connection.close()  # which ends it, after the round that it may be in
        self._process.join(PATIENCE)
        self._process.terminate()
        self._process.join()

    def prepare(self) -> None:
        """Build and warm up the detector."""
        self.facts = self._ask("facts") or {}

    def run_round(self) -> None:
        """Time a round, unless something has failed."""
        answer = self._ask("round")
        if answer is not None:
            self.rounds.append(answer)

    def _ask(self, request: str):
        if self.failure is not None:
            return None
        try:
            self._connection.send(request)
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            answer = Failure(_end_in_words(self._process.exitcode))
        if isinstance(answer, Failure):
            self.failure = answer
            return None
        return answer

    def row(self, shared: dict) -> dict:
        """The columns of the job."""
        job = self.job
        row = {"name": job.name, "status": "ok", "config": str(job.config), "batch": job.batch, "threads": job.threads}
        row |= shared | self.facts | {"rounds": len(self.rounds)}
        if self.failure is not None:
            return row | {"status": "failed", "reason": self.failure.reason}
        shares = sorted(each.backbone_share for each in self.rounds)
        figures = summarize([each.laps for each in self.rounds], row["batch"], shares[len(shares) // 2])
        peaks = [each.peak for each in self.rounds if each.peak is not None]
        return row | timed_columns(figures) | {"memory_mb": max(peaks) / 1e6 if peaks else None}


def _process_context():
    """How processes are started: by a server that has imported everything, whose children begin at once and small;
    Windows has no such thing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", f"{__package__}.benchmark_worker"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the server inherits: it has nothing to say of Ctrl-C
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    return context


def _end_in_words(exitcode: int) -> str:
    if exitcode == -9:
        return "its process was killed (signal 9), as systems do when memory runs out"
    return f"its process ended by itself ({'signal' if exitcode < 0 else 'status'} {abs(exitcode)})"


def measure(jobs: list[Job], num_rounds: int, together: int, shared: dict) -> Iterator[dict]:
    """A row for each job, in their order.

    So many are measured `together`: a round of each in turn, so that what else the machine does meanwhile is shared out
    evenly.  shared: columns that all rows have.
    """
    for start in range(0, len(jobs), together):
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(job)) for job in jobs[start : start + together]]
            for worker in workers:
                worker.prepare()
                for warning in worker.facts.get("warnings", ()):
                    log.warning("%s: %s", worker.job.name, warning)
            for _ in range(num_rounds):
                for worker in workers:
                    worker.run_round()
            for place, worker in enumerate(workers, start + 1):
                if worker.failure is not None and worker.failure.expected:
                    log.info("%s, batch %d is left out: %s", worker.job.name, worker.job.batch, worker.failure.reason)
                    continue
                row = worker.row(shared)
                log.info("%d/%d %s, batch %d: %s", place, len(jobs), row["name"], row["batch"], _outcome(row))
                yield row


def _outcome(row: dict) -> str:
    if row["status"] != "ok":
        return f"failed: {row['reason']}"
    how = f"{row['precision']}, compile {row['compile']}, {row['threads']} threads"
    return f"{row['end_to_end_p50_ms']:.1f} ms end to end, {row['network_p50_ms']:.1f} of the network only ({how})"


def benchmark(args, overrides) -> int:
    """Measure what the command line asks for, write the report and print the table; the exit status."""
    if not args.cfg and not args.runs:
        raise UserError("command line: nothing to measure; give --cfg GLOB or --runs GLOB")
    configs, runs, out = find_configs(args.cfg), find_runs(args.runs), Path(args.out)
    _check_folder(out)
    images, about, decoding = load_images(args.images, args.size)
    shared = {"images": about, "decode_ms": decoding}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        save_images(images, Path(folder) / "images.npz")
        jobs = create_jobs(args, overrides, configs, runs, Path(folder) / "images.npz")
        log.info("%d measurements, %d at a time in turn; %s", len(jobs), args.together, about)
        for row in measure(jobs, args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS), args.together, shared):
            rows.append(row)
            write_whole(out / CSV, format_csv(rows))
    print(format_table(rows))
    written = [out / CSV]
    figure = draw_plot(rows)
    if figure is None:
        log.info("no plot: there is no mAP; --runs takes tested runs")
    else:
        cv2.imencode(".png", render_figure(figure))[1].tofile(out / PLOT)
        written.append(out / PLOT)
    log.info("written: %s", " and ".join(map(str, written)))
    return int(any(row["status"] != "ok" for row in rows))


def create_jobs(args, overrides, configs, runs, images: Path) -> list[Job]:
    """The jobs: every configuration and run with every batch size, number of threads and way of compiling."""
    usual, least = (QUICK_SECONDS, QUICK_LEAST) if args.quick else (SECONDS, LEAST)
    seconds = args.seconds or usual
    names = name_all(configs, runs)
    subjects = [(path, None, None) for path in configs] + [
        (folder / "config.yml", folder, file) for folder, file in runs
    ]
    compiled = args.compile or (["none"] if args.quick else [None])
    jobs = []  # what will be compared comes together
    for batch, (name, subject) in product(args.batches, zip(names, subjects, strict=True)):
        for mode, threads in product(compiled, args.threads or [None]):
            words = (*overrides, *([f"MODEL.COMPILE={mode}"] if mode else []))
            first = batch == args.batches[0]
            jobs.append(Job(name, *subject, words, threads, batch, first, images, seconds, least))
    return jobs


def _check_folder(out: Path) -> None:
    """UserError for a folder that cannot be one, or that holds files of the names that are no benchmark's."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: this folder cannot be made ({error.strerror})") from None
    for name in (CSV, PLOT):
        if (out / name).exists() and not is_benchmark(out / CSV):
            raise UserError(f"--out {out}: holds {name}, which is no benchmark's; give another folder")


def counts(text: str) -> list[int]:
    """A comma list of numbers from 1; argparse calls it by the name of this function."""
    return list(dict.fromkeys(number(part) for part in text.split(",")))


def size(text: str) -> tuple[int, int]:
    """Width and height from "500x375"; argparse calls it by the name of this function."""
    width, height = text.lower().split("x")
    return number(width), number(height)


def modes(text: str) -> list[str]:
    """A comma list of ways of compiling; argparse calls it by the name of this function."""
    unknown = [part for part in text.split(",") if part not in COMPILE]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is unknown; allowed: {', '.join(COMPILE)}")
    return list(dict.fromkeys(text.split(",")))


def seconds(text: str) -> float:
    """A time above 0; argparse calls it by the name of this function."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: above 0")
    return value


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("benchmark"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Time detectors from image arrays in memory to boxes (pre-processing, backbone, neck and\n"
        "head, NMS) and count parameters, multiply-adds and memory: one CSV file, one table, and a plot of\n"
        "mAP over latency. Each measurement has a process of its own. What fails is named, the others go\n"
        "on, and the exit status is 1.",
        epilog="example: %(prog)s --cfg 'experiments/cfgs/ssd_*_voc.yml' --runs 'experiments/models/*'\n\n"
        "columns of the CSV file:\n"
        + "\n".join(f"  {name:<27}{text}" for name, text in COLUMNS.items()).replace("%", "%%"),
    )  # fmt: skip
    parser.add_argument("--cfg", nargs="+", action="extend", default=[], metavar="GLOB", help="YAML files; untrained "
                        "unless EXP_DIR or TEST.CHECKPOINT has weights")  # fmt: skip
    parser.add_argument("--runs", nargs="+", action="extend", default=[], metavar="GLOB",
                        help="folders of runs (EXP_DIR), or results files in them")  # fmt: skip
    parser.add_argument("--batches", type=counts, default=[1, 8], metavar="N,N", help="images in a run (1,8)")
    parser.add_argument("--threads", type=counts, metavar="N,N", help="of the CPU (as many as torch chooses)")
    parser.add_argument("--compile", type=modes, metavar="MODE,MODE",
                        help=f"{', '.join(COMPILE)} (MODEL.COMPILE, auto as for a stream without an end)")  # fmt: skip
    parser.add_argument("--images", metavar="FOLDER", help="images to run on (drawn scenes)")
    parser.add_argument("--size", type=size, default=(500, 375), metavar="WxH", help="of drawn scenes (500x375)")
    parser.add_argument("--rounds", type=number, metavar="N", help=f"of each measurement ({ROUNDS})")
    parser.add_argument("--seconds", type=seconds, metavar="S", help=f"of a round ({SECONDS:g})")
    parser.add_argument("--together", type=number, default=TOGETHER, metavar="N",
                        help=f"measurements in turn, each with its network in memory ({TOGETHER})")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of {QUICK_LEAST} runs, nothing "
                        "compiled: shows what works, and roughly how fast")  # fmt: skip
    parser.add_argument("--out", default="benchmark", metavar="FOLDER", help=f"of {CSV} and {PLOT} (benchmark)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def main(argv=None) -> int:
    """Entry point: print the table; returns 0, 1 where something failed, 2 after a line about a mistake."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        words = [*args.cfg, *args.runs, *args.overrides]
        overrides = [word for word in words if "=" in word and not Path(word).exists()]
        args.cfg, args.runs = ([w for w in words if w not in overrides] for words in (args.cfg, args.runs))
        stray = [word for word in args.overrides if word not in overrides]
        if stray:
            raise UserError(f"command line: '{stray[0]}': a word that no option takes; files follow --cfg or --runs")
        return benchmark(args, overrides)

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
