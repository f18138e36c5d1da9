"""The commands train and demo, as the scripts of a checkout and the console commands of an installation run them."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from .config.arguments import CommandLineParser, add_config_arguments, parse_config_arguments
from .dataset.transforms import read_image
from .evaluation.results import ResultsWriter
from .predictor import ObjectDetector
from .solver.replay import replay
from .solver.run import checkpoints_to_test
from .solver.solver import Solver
from .solver.train_state import Stopped
from .structures import Target
from .utils.draw import draw_detections
from .utils.errors import UserError
from .utils.log import setup_logging

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".dib", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

REPLAY_HELP = "run the step that EXP_DIR/replay/step_N.pth holds again, say why it was not finite, and exit"


def train(argv: list[str] | None = None) -> int:
    """Run the phases of a configuration; returns the exit status."""

    def body() -> int:
        setup_logging()
        replayed = _replay_file(argv)
        if replayed is not None:
            replay(replayed)
            return 0
        parser = CommandLineParser(prog="train.py", description="Train, evaluate, test or visualize a detector.")
        parser.add_argument("--replay", metavar="FILE", help=REPLAY_HELP)
        _, cfg = parse_config_arguments(add_config_arguments(parser), argv)
        Solver(cfg).run()
        return 0

    return run_command(body)


def demo(argv: list[str] | None = None) -> int:
    """Draw a detector's findings on images; returns the exit status."""

    def body() -> int:
        setup_logging()
        args, cfg = parse_config_arguments(_demo_parser(), argv)
        paths = _find_images(Path(args.demo), args.type)
        checkpoint = args.checkpoint or checkpoints_to_test(cfg)[-1][1]
        detector = ObjectDetector(cfg, checkpoint)
        threshold = cfg.TEST.PICTURE_THRESHOLD if args.threshold is None else args.threshold
        out = _picture_folder(Path(args.out or Path(cfg.EXP_DIR) / "demo"), paths)
        return _draw_all(detector, paths, threshold, out, args.display and _has_screen())

    return run_command(body)


def run_command(body: Callable[[], int]) -> int:
    """Run a command so that whatever a user can cause ends in one line on stderr: 2 for mistakes of the input, 1 for
    a failed run, 130 or 143 for a stop by signal."""
    # OpenCV would add a warning of its own to the line about an image that it cannot read.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return body()
    except UserError as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except (MemoryError, RuntimeError) as error:
        shortage = _shortage(error)
        if not shortage:
            raise
        return _fail(shortage, 1)
    except Stopped as stop:
        return _fail(str(stop), stop.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no second error at exit
        return 141
    except OSError as error:  # a full disk, a folder that became unwritable
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)


def _shortage(error: Exception) -> str:
    """What to say of an error that comes from too small a machine; '' for an error of the program."""
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        found = re.search(r"ried to allocate ([\d.]+ \w+)", text)
        wanted = f" (tried to allocate {found[1]})" if found else ""
        return f"out of memory{wanted}; a smaller TRAIN.BATCH_SIZE, TEST.BATCH_SIZE or MODEL.IMAGE_SIZE needs less"
    if text.startswith("DataLoader worker"):
        return f"{text.splitlines()[0].strip()} Fewer DATASET.NUM_WORKERS need less memory; 0 loads in the main process"
    return ""


def _fail(message: str, status: int) -> int:
    message = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
    sys.stdout.flush()
    sys.stderr.write(f"error: {message}\n" if status < 128 else f"{message}\n")
    return status


def _replay_file(argv: list[str] | None) -> str | None:
    """The file of --replay, which stands alone because the file holds the configuration; None without the option."""
    parser = CommandLineParser(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--replay", metavar="FILE", help=REPLAY_HELP)
    args, others = parser.parse_known_args(argv)
    if args.replay is not None and others:
        raise UserError(f"command line: --replay FILE stands alone, the file holds its configuration; not {others[0]}")
    return args.replay


def _demo_parser() -> CommandLineParser:
    parser = CommandLineParser(prog="demo.py", description="Draw and save the detections of a trained detector.")
    parser.add_argument("--demo", metavar="PATH", required=True, help="an image, or a folder of images")
    parser.add_argument(
        "-t", "--type", choices=("image", "folder"), help="kind of PATH; found out by itself if not given"
    )
    parser.add_argument(
        "-d", "--display", action="store_true", help="show each picture in a window, where there is a screen"
    )
    parser.add_argument("-s", "--save", action="store_true", help="accepted for old habits: pictures are always saved")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights; otherwise those the test phase would take")
    parser.add_argument("--threshold", type=score, help="smallest score that is drawn (TEST.PICTURE_THRESHOLD)")
    parser.add_argument("--out", metavar="DIR", help="folder of the pictures and of detections.json (EXP_DIR/demo)")
    return add_config_arguments(parser)


def score(text: str) -> float:
    """The number that --threshold gives; argparse calls it by the name of this function."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: 0 to 1")
    return number


def _find_images(path: Path, kind: str | None) -> list[Path]:
    if not path.exists():
        raise UserError(f"--demo {path}: there is no such file or folder")
    if kind == "folder" and not path.is_dir() or kind == "image" and path.is_dir():
        raise UserError(f"--demo {path}: is a {'folder' if path.is_dir() else 'file'}, but -t says {kind}")
    if not path.is_dir():
        return [path]
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        names = sorted(p.name for p in path.iterdir())
        holds = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "nothing"
        raise UserError(f"--demo {path}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) but {holds}")
    return paths


def _picture_folder(out: Path, images: Iterable[Path]) -> Path:
    """The folder of the pictures, made where it is missing; UserError if an image to be read would be overwritten."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: this folder cannot be made ({error.strerror})") from None
    for path in images:
        picture = out / _picture_name(path)
        if picture.exists() and path.exists() and picture.samefile(path):
            raise UserError(f"--out {out}: is the folder of the images, which would be overwritten")
    return out


def _picture_name(path: Path) -> str:
    return path.name if path.suffix.lower() in (".jpg", ".jpeg", ".png") else f"{path.name}.jpg"


def _draw_all(detector: ObjectDetector, paths: list[Path], threshold: float, out: Path, display: bool) -> int:
    """Detect, draw and save each image; unreadable ones are named and skipped."""
    num_done = 0
    with ResultsWriter(out / "detections.json") as results:
        for path in tqdm(paths, unit="img", disable=None):
            try:
                image = read_image(str(path), detector.exif)
            except UserError as error:
                if len(paths) == 1:
                    raise
                logger.warning("skipped: %s", error)
                continue
            (found,) = detector.predict([image], threshold)
            picture = draw_detections(image, found, threshold)
            name = out / _picture_name(path)
            name.write_bytes(cv2.imencode(name.suffix, picture)[1].tobytes())
            results.add([found], [Target(found.boxes[:0], found.labels[:0], image_id=path.name, size=image.shape[:2])])
            logger.info("%s: %s", path.name, _summary(found))
            num_done += 1
            if display:
                cv2.imshow("detections", picture)
                if cv2.waitKey(0) in (27, ord("q")):
                    break
    logger.info("%d pictures and detections.json in %s", num_done, out)
    if not num_done:
        raise UserError(f"--demo {paths[0].parent}: none of its {len(paths)} images could be read")
    return 0


def _summary(found) -> str:
    if not len(found):
        return "nothing found"
    parts = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores.tolist(), strict=True)]
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")


def _has_screen() -> bool:
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        logger.warning("-d: there is no screen here; the pictures are only saved")
        return False
    return True
