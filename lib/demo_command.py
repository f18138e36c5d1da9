"""The command demo: a detector's findings drawn on images, videos and what a camera sees, or timed."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
from tqdm import tqdm

from .config.arguments import CommandLineParser, add_config_arguments, parse_config_arguments
from .dataset.transforms import read_image
from .evaluation.results import ResultsWriter
from .predictor import ObjectDetector
from .solver.run import checkpoints_to_test
from .solver.train_state import StopRequest
from .structures import Target
from .utils.address import hide_password
from .utils.draw import draw_detections, draw_note
from .utils.errors import UserError
from .utils.meters import Pace, StopWatch
from .utils.video import CODECS, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Frames, VideoFile, pictures_in

logger = logging.getLogger(__name__)

KINDS = ("image", "folder", "video", "camera", "time")
USUAL_FPS = 25.0
"""Of a folder of frames, and of a source that does not tell."""
WARM_UP = 3
"""Runs that are not timed: in the first ones a device chooses its algorithms."""
MOST_RUNS, MOST_SECONDS = 100, 10.0
"""How long one image is timed."""


def run_demo(argv: list[str] | None) -> int:
    """What the command line asks for; returns the exit status."""
    args, cfg = parse_config_arguments(_parser(), argv)
    kind, source = _find_source(args.demo, args.type)
    paths = pictures_in(source) if kind == "folder" else [source]
    detector = ObjectDetector(cfg, args.checkpoint or checkpoints_to_test(cfg)[-1][1])
    threshold = cfg.TEST.PICTURE_THRESHOLD if args.threshold is None else args.threshold
    is_video = kind in ("video", "camera")
    if args.type == "time":
        return _time_video(detector, source) if is_video else _time_images(detector, paths)
    out = Path(args.out or Path(cfg.EXP_DIR) / "demo")
    window = _Window(args.display)
    if is_video:
        return _draw_video(detector, source, threshold, _make_folder(out), window)
    return _draw_images(detector, paths, threshold, _picture_folder(out, paths), window)


def _parser() -> CommandLineParser:
    parser = CommandLineParser(prog="demo.py", description="Draw and save the detections of a trained detector.")
    parser.add_argument(
        "--demo",
        metavar="PATH",
        required=True,
        help="an image, a folder of images, a video file, a folder of its frames (with -t video), the address of a "
        "stream, or the number of a camera",
    )
    parser.add_argument(
        "-t",
        "--type",
        choices=KINDS,
        help="kind of PATH, found out by itself if not given; time measures the parts of the work on any kind and "
        "saves nothing",
    )
    parser.add_argument(
        "-d", "--display", action="store_true", help="show a window, where there is a screen; q or Esc ends"
    )
    parser.add_argument("-s", "--save", action="store_true", help="accepted for old habits: pictures are always saved")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights; otherwise those the test phase would take")
    parser.add_argument("--threshold", type=score, help="smallest score that is drawn (TEST.PICTURE_THRESHOLD)")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the pictures or the video and of detections.json (EXP_DIR/demo)"
    )
    return add_config_arguments(parser)


def score(text: str) -> float:
    """The number that --threshold gives; argparse calls it by the name of this function."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: 0 to 1")
    return number


def _find_source(text: str, asked: str | None) -> tuple[str, Path | str | int]:
    """The kind of what --demo names (image, folder, video or camera), and the path, address or number."""
    path, is_number = Path(text), text.isascii() and text.isdigit()
    if asked == "camera" and not is_number and not path.is_char_device():
        raise UserError(f"--demo {hide_password(text)}: is not a camera; -t camera takes a number, 0 for the first one")
    if is_number and (asked == "camera" or not path.exists() and asked in (None, "time")):
        return "camera", int(text)
    if "://" in text and asked in (None, "video", "time"):
        return "video", text
    if not path.exists():
        raise UserError(f"--demo {hide_password(text)}: there is no such file or folder")
    if asked in ("image", "folder") and path.is_dir() != (asked == "folder"):
        raise UserError(f"--demo {path}: is a {'folder' if path.is_dir() else 'file'}, but -t says {asked}")
    suffix = path.suffix.lower()
    for kind, suffixes, other in (("image", IMAGE_SUFFIXES, "video"), ("video", VIDEO_SUFFIXES, "image")):
        if asked == other and suffix in suffixes and not path.is_dir():
            raise UserError(f"--demo {path}: {suffix} is the suffix of {kind}s, but -t says {asked}")
    if asked in ("video", "camera"):
        return asked, path
    if path.is_dir():
        return "folder", path
    return "video" if asked != "image" and (suffix in VIDEO_SUFFIXES or path.is_char_device()) else "image", path


def _make_folder(out: Path) -> Path:
    if out.suffix.lower() in {suffix for suffix, _ in CODECS} and not out.is_dir():
        raise UserError(f"--out {out}: is the name of a video; give the folder of the video and of detections.json")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: this folder cannot be made ({error.strerror})") from None
    return out


def _picture_folder(out: Path, images: Iterable[Path]) -> Path:
    """The folder of the pictures, made where it is missing; UserError if an image to be read would be overwritten."""
    out = _make_folder(out)
    for path in images:
        picture = out / _picture_name(path)
        if picture.exists() and path.exists() and picture.samefile(path):
            raise UserError(f"--out {out}: is the folder of the images, which would be overwritten")
    return out


def _picture_name(path: Path) -> str:
    return path.name if path.suffix.lower() in (".jpg", ".jpeg", ".png") else f"{path.name}.jpg"


def _video_name(source: Path | str | int) -> str:
    """What a video is called in results and as a file, without a suffix."""
    if isinstance(source, int):
        return f"camera{source}"
    if isinstance(source, Path):
        return (source.resolve().name if source.is_dir() else source.stem) or "video"
    return Path(urlsplit(source).path).stem or "stream"


def _found_target(found, image, image_id) -> Target:
    """What the results file must know of an image: there is no truth."""
    return Target(found.boxes[:0], found.labels[:0], image_id=image_id, size=image.shape[:2])


def _draw_images(detector: ObjectDetector, paths: list[Path], threshold: float, out: Path, window: "_Window") -> int:
    """Detect, draw and save each image; unreadable ones are named and skipped."""
    num_done = 0
    with ResultsWriter(out / "detections.json") as results:
        for path, image in _read_images(detector, paths):
            (found,) = detector.predict([image], threshold)
            picture = draw_detections(image, found, threshold)
            name = out / _picture_name(path)
            name.write_bytes(cv2.imencode(name.suffix, picture)[1].tobytes())
            results.add([found], [_found_target(found, image, path.name)])
            logger.info("%s: %s", path.name, _summary(found))
            num_done += 1
            if window.show(picture):
                break
    logger.info("%d pictures and detections.json in %s", num_done, out)
    return 0


def _read_images(detector: ObjectDetector, paths: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """(path, image) of those that can be read; UserError where it is none."""
    num_read = 0
    for path in tqdm(paths, unit="img", disable=None):
        try:
            image = read_image(str(path), detector.exif)
        except UserError as error:
            if len(paths) == 1:
                raise
            logger.warning("skipped: %s", error)
            continue
        num_read += 1
        yield path, image
    if not num_read:
        raise UserError(f"--demo {paths[0].parent}: none of its {len(paths)} images could be read")


def _summary(found) -> str:
    if not len(found):
        return "nothing found"
    parts = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores.tolist(), strict=True)]
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")


def _draw_video(
    detector: ObjectDetector, source: Path | str | int, threshold: float, out: Path, window: "_Window"
) -> int:
    """Detect, draw and save each frame; a stop by the keyboard or a signal keeps what was done until then."""
    name, pace, whole = _video_name(source), Pace(), StopWatch(detector.device)
    detector.timer.enabled = True
    with (
        StopRequest() as stop,
        detector.open_video(source) as frames,
        ResultsWriter(out / "detections.json") as results,
        VideoFile(out / f"{name}.mp4", frames.fps or USUAL_FPS, keep=_kept_file(source)) as video,
    ):
        if frames.fps is None:
            logger.info("%s tells no frame rate; its video plays at %g fps", frames.name, USUAL_FPS)
        since = 0.0
        whole.start()
        for frame, found in _each_frame(detector, frames, threshold, stop):
            picture = draw_detections(frame, found, threshold)
            rate = pace.tick()
            picture = draw_note(picture, f"{rate:.1f} fps") if rate == rate else picture
            since = since if whole.events else time.monotonic()
            number = _place(frames, video, since)
            video.write(picture, number)
            results.add([found], [_found_target(found, frame, (name, number))])
            whole.events += 1
            if window.show(picture, milliseconds=1):
                break
        whole.stop(0)
        if not whole.events:
            raise KeyboardInterrupt
    return _report_video(detector, frames, video, whole, stop.received)


def _place(frames: Frames, video: VideoFile, since: float) -> int:
    """The number of the latest frame in the drawn video: its own; of a live source, of which some are dropped, that of
    the clock, so that the video plays at the speed of life."""
    return max(video.num_frames, int((time.monotonic() - since) * video.fps)) if frames.live else frames.number


def _kept_file(source) -> Path | None:
    return source if isinstance(source, Path) and source.is_file() else None


def _each_frame(detector: ObjectDetector, frames: Frames, threshold: float, stop: StopRequest) -> Iterator:
    """(frame, detections) of a video under a progress bar, until a stop is asked for."""
    frames.until = lambda: stop.received is not None
    with closing(detector.predict_video(frames, threshold)) as pairs:
        yield from tqdm(pairs, total=frames.num_frames, unit="frame", disable=None)


def _report_video(detector, frames: Frames, video: VideoFile, whole: StopWatch, received: int | None) -> int:
    """Say what became of a video; returns the exit status."""
    dropped = f", {frames.dropped} frames passed over to keep up" if frames.dropped else ""
    network = detector.timer.parts["network"].rate
    speed = f"{whole.rate:.1f} fps end to end, {network:.1f} fps of the network alone{dropped}"
    logger.info("%s: %d frames in %.1f s: %s", frames.name, whole.events, whole.seconds, speed)
    logger.info("%s and detections.json in %s", video.path.name, video.path.parent)
    status = _status(frames, received)
    if not status:
        return 0
    total = f" of {frames.num_frames}" if frames.num_frames else ""
    reason = f"stopped by {signal.Signals(received).name}"
    logger.warning("%s after %d%s frames; %s holds them", reason, whole.events, total, video.path)
    return status


def _status(frames: Frames, received: int | None) -> int:
    """The exit status after a signal or none; Ctrl-C is the ordinary end of a source that has no other."""
    return 0 if received is None or received == signal.SIGINT and frames.live else 128 + received


def _time_images(detector: ObjectDetector, paths: list[Path]) -> int:
    """Print the time per part of the images, or of many runs of one."""
    _warm_up(detector)
    whole = StopWatch(detector.device)
    whole.start()
    for _, image in _read_images(detector, paths):
        end = time.perf_counter() + MOST_SECONDS
        for _ in range(MOST_RUNS if len(paths) == 1 else 1):
            detector.predict([image])
            whole.events += 1
            if time.perf_counter() > end:
                break
    whole.stop(0)
    _report_parts(detector, f"{whole.events} runs of {paths[0].name if len(paths) == 1 else paths[0].parent}", whole)
    return 0


def _time_video(detector: ObjectDetector, source: Path | str | int) -> int:
    """Print the time per part of the frames of a video, up to a stop."""
    _warm_up(detector)
    whole = StopWatch(detector.device)
    with StopRequest() as stop, detector.open_video(source) as frames:
        whole.start()
        for _ in _each_frame(detector, frames, 0.0, stop):
            whole.events += 1
        whole.stop(0)
    if not whole.events:
        raise KeyboardInterrupt
    _report_parts(detector, f"{whole.events} frames of {frames.name}", whole)
    return _status(frames, stop.received)


def _warm_up(detector: ObjectDetector) -> None:
    for _ in range(WARM_UP):
        detector.predict(np.zeros((480, 640, 3), np.uint8))
    detector.timer.enabled = True


def _report_parts(detector: ObjectDetector, what: str, whole: StopWatch) -> None:
    parts = detector.timer.parts
    seconds = sum(watch.seconds for watch in parts.values())
    for name, watch in parts.items():
        part = 1000 * watch.seconds / watch.events
        logger.info("%-12s %8.2f ms %5.1f %%", name, part, 100 * watch.seconds / seconds)
    logger.info("%-12s %8.2f ms, %.1f fps", "together", 1000 * seconds / whole.events, whole.events / seconds)
    dtype = str(detector.dtype or "float32").removeprefix("torch.")
    where = f"{what}, one at a time, on {detector.device} in {dtype}"
    logger.info("%s; with reading %.1f fps", where, whole.rate)


class _Window:
    """A window for pictures, as long as it is wanted and there is a screen."""

    def __init__(self, wanted: bool):
        self._open = wanted
        no_display = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        if wanted and sys.platform.startswith("linux") and no_display:
            self._give_up("there is no screen here")

    def show(self, picture: np.ndarray, milliseconds: int = 0) -> bool:
        """Show a picture until a key is pressed, or so long; whether the key was q or Esc."""
        if not self._open:
            return False
        try:
            cv2.imshow("detections", picture)
            return cv2.waitKey(milliseconds) in (27, ord("q"))
        except cv2.error:
            self._give_up("this OpenCV cannot open windows")
            return False

    def _give_up(self, reason: str) -> None:
        logger.warning("-d: %s; the pictures are only saved", reason)
        self._open = False
