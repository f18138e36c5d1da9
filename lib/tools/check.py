"""Look at the data of a configuration before training does: faults, copies, classes and boxes; write a cleaned copy."""

import json
import logging
import sys
from collections import Counter
from pathlib import Path

from ..commands import run_command
from ..config import CommandLineParser, load_config
from ..dataset.inspection import write_atomically
from ..utils.errors import UserError
from ..utils.log import setup_logging
from .check_boxes import find_box_problems, size_rows
from .check_classes import class_rows, find_class_problems
from .check_fix import LOG, check_target, fix, restore
from .check_leaks import find_copies
from .check_page import write_page
from .check_problems import ERROR, worst_first
from .check_sets import open_sets
from .check_text import format_check, verdict
from .reports import is_report, number, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.check")

MARK = "check of"  # the key of a JSON file by which it is known to be of this tool
PAGE, JSON = "check.html", "check.json"
PICTURES = 12


def examine(cfg, name: str):
    """(figures, problems, sets) of the data of a configuration; problems are sorted, worst first.

    figures: what the JSON file holds.  UserError where no set can be opened.
    """
    size, named = tuple(cfg.MODEL.IMAGE_SIZE), bool(cfg.DATASET.CLASSES)
    sets, problems = open_sets(cfg)
    classes = class_rows(sets)
    problems += find_copies(sets)
    problems += find_class_problems(sets, classes, named)
    problems += find_box_problems(sets, size)
    problems = worst_first(problems)
    figures = {
        MARK: name,
        "image_size": list(size),
        "sets": {each.name: each.records.name for each in sets},
        "classes": classes,
        "sizes": size_rows(sets, size),
        "problems": [problem.as_entry() for problem in problems],
    }
    return figures, problems, sets


def check_folder(folder: Path) -> None:
    """UserError for a folder whose files would be overwritten and are not of this tool."""
    report, page = folder / JSON, folder / PAGE
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is no folder")
    if (report.exists() or page.exists()) and not is_report(report, MARK):
        there = report if report.exists() else page
        raise UserError(f"{there}: is there already and not of this tool; give another folder as --out")


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("check"),
        description="Look at all images and annotations that a configuration opens for training, evaluation and test: "
        "faults, copies within and across the sets, classes, and boxes that stand out. Writes a page with pictures and "
        "a JSON file. The exit status is 0 where no error was found, 1 where one was (data that is lost, or training "
        "images among those that score), 2 for a mistake in the configuration.",
        epilog="example: %(prog)s --cfg x.yml DATASET.DATASET_DIR=./data/BCCD",
    )
    parser.add_argument("--cfg", metavar="FILE", help="YAML file of the run")
    parser.add_argument("--out", metavar="DIR", help=f"folder of {PAGE} and {JSON} (default: EXP_DIR/check)")
    parser.add_argument(
        "--pictures", type=number, default=PICTURES, metavar="N", help=f"pictures of each problem (default: {PICTURES})"
    )
    parser.add_argument(
        "--fix",
        metavar="OUT",
        help="also write a cleaned copy of the data to this new folder, images as hard links: faulty boxes repaired or "
        "left out, copies of eval, test and training images taken from training; the data itself stays as it is",
    )
    parser.add_argument(
        "--keep-near", action="store_true", help="with --fix: leave images that are only nearly the same in training"
    )
    parser.add_argument(
        "--restore", metavar="OUT", help="undo --fix in its folder: the original annotations, lists and images"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def _fix(args, cfg, sets, problems) -> str:
    """Write the cleaned copy; what to say about it."""
    closed = [offender for problem in problems if problem.key == "not_opened" for offender in problem.offenders]
    if closed:
        raise UserError(f"--fix: the set for {closed[0].set} cannot be opened: {closed[0].what}")
    out = Path(args.fix)
    copy, folders = fix(cfg, args.cfg, out, sets, problems, args.keep_near)
    counts = Counter(change["what"] for change in copy.log["changes"])
    told = ", ".join(f"{count} x {what}" for what, count in counts.items()) or "nothing had to be changed"
    folder = folders[0] if len(folders) == 1 else f"'[{', '.join(folders)}]'"
    words = f"DATASET.DATASET_DIR={folder} EXP_DIR={cfg.EXP_DIR.rstrip('/')}_clean"
    return (
        f"\n{out}: cleaned copy with {copy.num_images:,} images: {told}; each in {out / LOG}\n"
        f"train on it: python train.py --cfg {args.cfg} {words}\nundo: python -m {__package__}.check --restore {out}"
    )


def _restore(args) -> int:
    out = Path(args.restore)
    number_of_files, gone = restore(out)
    print(f"{out}: {number_of_files:,} annotations and lists are as they were")
    for path in gone:
        log.warning("%s: is gone, so that its list names an image that is not there", path)
    return 0


def main(argv=None) -> int:
    """Entry point: print what was found; returns 0, 1 where there is an error in the data, or 2 after one line about
    a mistake in the input."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        if args.restore is not None:
            return _restore(args)
        if args.cfg is None:
            raise UserError("command line: --cfg FILE is missing; --help shows the options")
        cfg = load_config(args.cfg, args.overrides)
        folder = Path(args.out or Path(cfg.EXP_DIR) / "check")
        check_folder(folder)
        if args.fix is not None:
            check_target(Path(args.fix), cfg.DATASET.DATASET, cfg.DATASET.DATASET_DIR)
        figures, problems, sets = examine(cfg, args.cfg)
        page = write_page(folder / PAGE, figures, problems, sets, args.pictures)
        write_atomically(folder / JSON, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
        print(format_check(figures, problems))
        print(f"\n{verdict(problems)}; pictures in {page}")
        if args.fix is not None:
            print(_fix(args, cfg, sets, problems))
        return int(any(problem.severity == ERROR for problem in problems))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
