"""The command demo: a detector's findings drawn on images, videos and what a camera sees, or timed."""

import argparse
import logging
import sys
from pathlib import Path

from .config.arguments import CommandLineParser, add_config_arguments, parse_config_arguments
from .dataset.image_header import UnreadableImage
from .demo_drawing import Drawing, NothingRead, Window, nothing_read
from .demo_output import FORMATS, ResultFiles, make_folder, refuse_to_overwrite
from .demo_sources import KINDS, find_sources, some_names
from .demo_timing import time_sources
from .predictor import ObjectDetector
from .solver.run import checkpoints_to_test
from .utils.errors import nearest
from .utils.thresholds import OTHERS, ScoreThreshold
from .utils.video import UnreadableSource

logger = logging.getLogger(__name__)


def run_demo(argv: list[str] | None) -> int:
    """What the command line asks for; returns the exit status."""
    args, cfg = parse_config_arguments(_parser(), _repeat_demo(sys.argv[1:] if argv is None else argv))
    out = Path(args.out or Path(cfg.EXP_DIR) / "demo")
    sources = find_sources(args.demo, args.type, args.recursive, out)
    if sources.others:
        count, names = len(sources.others), some_names(sources.others)
        logger.info("left alone, neither image nor video: %d file%s (%s)", count, "s" * (count != 1), names)
    try:
        if not sources.images and not sources.videos:
            raise NothingRead(nothing_read(sources, sources.unusable))
        detector = ObjectDetector(cfg, args.checkpoint or checkpoints_to_test(cfg)[-1][1])
        threshold = {OTHERS: cfg.TEST.PICTURE_THRESHOLD} | (args.threshold or {})
        threshold = ScoreThreshold(threshold, detector.class_names)
        if args.type == "time":
            return time_sources(detector, sources)
        make_folder(out)
        refuse_to_overwrite(out, sources, args.format, ours=args.out is None)
        results = ResultFiles(out, args.format, detector.class_names)
        return Drawing(detector, threshold, out, results, Window(args.display)).run(sources)
    except (NothingRead, UnreadableImage, UnreadableSource) as error:
        logger.error("%s", error)
        return 1


def _parser() -> CommandLineParser:
    parser = CommandLineParser(prog="demo.py", description="Draw and save the detections of a trained detector.")
    parser.add_argument(
        "--demo",
        metavar="PATH",
        required=True,
        action="append",
        help="an image, a folder of images, a video file, a folder of its frames (with -t video), a pattern such as "
        "'pics/*.jpg', the address of a stream, or the number of a camera; may be given several times",
    )
    parser.add_argument(
        "-t",
        "--type",
        choices=KINDS,
        help="kind of PATH, found out by itself if not given; time measures the parts of the work on any kind and "
        "saves nothing",
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="take the images in folders of a folder, too")
    parser.add_argument(
        "-d", "--display", action="store_true", help="show a window, where there is a screen; q or Esc ends"
    )
    parser.add_argument("-s", "--save", action="store_true", help="accepted for old habits: pictures are always saved")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights; otherwise those the test phase would take")
    parser.add_argument(
        "--threshold",
        metavar="SCORE",
        type=_scores,
        help="smallest score that counts, and others for some classes: 0.5 or 0.5,car=0.7 or car=0.7 "
        "(TEST.PICTURE_THRESHOLD)",
    )
    parser.add_argument(
        "--format",
        metavar="FORMATS",
        type=_formats,
        default=("json",),
        help="results files beside the pictures, a comma list: json (detections.json), csv (detections.csv), coco "
        "(coco_results.json and, with the numbers of images and classes, coco_images.json); json if not given",
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the pictures, videos and results files (EXP_DIR/demo)")
    return add_config_arguments(parser)


def _repeat_demo(words: list[str]) -> list[str]:
    """The command line with --demo before each of several paths behind it, as a shell makes them of a pattern."""
    repeated, behind = [], 0  # how many words lie behind --demo
    for word in words:
        behind = 0 if word.startswith("-") or "=" in word and not Path(word).exists() else behind
        repeated += ["--demo", word] if behind > 1 else [word]
        behind = 1 if word == "--demo" or word.startswith("--demo=") else behind and behind + 1
    return repeated


def _scores(text: str) -> dict[str, float]:
    """What --threshold gives, as ScoreThreshold takes it."""
    scores = {}
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        name = name.strip()
        try:
            score = float(number)
        except ValueError:
            score = None
        if score is None or bool(name) != bool(equals):
            raise argparse.ArgumentTypeError(f"invalid score '{part}'; give 0.5 or 0.5,car=0.7")
        if not 0 <= score <= 1:
            raise argparse.ArgumentTypeError(f"{number.strip()} is out of range; allowed: 0 to 1")
        if name in scores:
            raise argparse.ArgumentTypeError(f"'{name}' is given twice" if name else "two scores without a class")
        scores[name] = score
    return scores


def _formats(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    for word in words:
        if word not in FORMATS:
            raise argparse.ArgumentTypeError(f"'{word}' is unknown; {nearest(word, FORMATS)}")
    return words
