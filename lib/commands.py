"""The commands train and demo, as the scripts of a checkout and the console commands of an installation run them."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
from tqdm import tqdm

from .config.arguments import add_config_arguments, parse_config_arguments
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
        parser = argparse.ArgumentParser(prog="train.py", description="Train, evaluate, test or visualize a detector.")
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
        out = Path(args.out or Path(cfg.EXP_DIR) / "demo")
        return _draw_all(detector, paths, threshold, out, args.display and _has_screen())

    return run_command(body)


def run_command(body: Callable[[], int]) -> int:
    """Run a command so that mistakes of the input end in one line on stderr: 2 for those, 1 for a failed run, 130 or
    143 for a stop by signal."""
    try:
        return body()
    except UserError as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except Stopped as stop:
        return _fail(str(stop), stop.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no second error at exit
        return 141


def _fail(message: str, status: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"error: {message}\n" if status < 128 else f"{message}\n")
    return status


def _replay_file(argv: list[str] | None) -> str | None:
    """The file of --replay, which stands alone because the file holds the configuration; None without the option."""
    parser = argparse.ArgumentParser(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--replay", metavar="FILE", help=REPLAY_HELP)
    args, others = parser.parse_known_args(argv)
    if args.replay is not None and others:
        raise UserError(f"command line: --replay FILE stands alone, the file holds its configuration; not {others[0]}")
    return args.replay


def _demo_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo.py", description="Draw and save the detections of a trained detector.")
    parser.add_argument("--demo", metavar="PATH", required=True, help="an image, or a folder of images")
    parser.add_argument(
        "-t", "--type", choices=("image", "folder"), help="kind of PATH; found out by itself if not given"
    )
    parser.add_argument(
        "-d", "--display", action="store_true", help="show each picture in a window, where there is a screen"
    )
    parser.add_argument("-s", "--save", action="store_true", help="accepted for old habits: pictures are always saved")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights; otherwise those the test phase would take")
    parser.add_argument("--threshold", type=float, help="smallest score that is drawn (TEST.PICTURE_THRESHOLD)")
    parser.add_argument("--out", metavar="DIR", help="folder of the pictures and of detections.json (EXP_DIR/demo)")
    return add_config_arguments(parser)


def _find_images(path: Path, kind: str | None) -> list[Path]:
    if not path.exists():
        raise UserError(f"--demo {path}: there is no such file or folder")
    if kind == "folder" and not path.is_dir() or kind == "image" and path.is_dir():
        raise UserError(f"--demo {path}: is a {'folder' if path.is_dir() else 'file'}, but -t says {kind}")
    if not path.is_dir():
        return [path]
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"--demo {path}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def _draw_all(detector: ObjectDetector, paths: Iterable[Path], threshold: float, out: Path, display: bool) -> int:
    """Detect, draw and save each image; unreadable ones are named and skipped."""
    out.mkdir(parents=True, exist_ok=True)
    num_done = 0
    with ResultsWriter(out / "detections.json") as results:
        for path in tqdm(paths, unit="img", disable=None):
            try:
                image = read_image(str(path), detector.exif)
            except UserError as error:
                logger.warning("skipped: %s", error)
                continue
            (found,) = detector.predict([image], threshold)
            picture = draw_detections(image, found, threshold)
            name = out / (path.name if path.suffix.lower() in (".jpg", ".jpeg", ".png") else f"{path.name}.jpg")
            if name.resolve() == path.resolve():
                raise UserError(f"--out {out}: is the folder of the images, which would be overwritten")
            cv2.imencode(name.suffix, picture)[1].tofile(name)
            results.add([found], [Target(found.boxes[:0], found.labels[:0], image_id=path.name, size=image.shape[:2])])
            logger.info("%s: %s", path.name, _summary(found))
            num_done += 1
            if display:
                cv2.imshow("detections", picture)
                if cv2.waitKey(0) in (27, ord("q")):
                    break
    logger.info("%d pictures and detections.json in %s", num_done, out)
    if not num_done:
        raise UserError("none of the images could be read")
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
