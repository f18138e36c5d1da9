"""Images and videos through a detector into drawn ones and results files, as far as they can be read."""

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from .demo_output import ResultFiles, picture_name, write_picture
from .demo_sources import Source, Sources
from .predictor import ObjectDetector
from .solver.train_state import StopRequest
from .utils.draw import draw_detections, draw_note
from .utils.errors import UserError
from .utils.meters import Pace, StopWatch
from .utils.thresholds import ScoreThreshold
from .utils.video import Frames, UnreadableSource, VideoFile

logger = logging.getLogger(__name__)

USUAL_FPS = 25.0
"""Of a folder of frames, and of a source that does not tell."""


class NothingRead(Exception):
    """Of all that was named nothing could be read."""


class Drawing:
    """One demo: what it works with and what it has done so far."""

    def __init__(
        self, detector: ObjectDetector, threshold: ScoreThreshold, out: Path, results: ResultFiles, window: "Window"
    ):
        self.detector, self.threshold, self.out, self.results, self.window = detector, threshold, out, results, window
        self.stop, self.quit = StopRequest(), False
        self.alone = self.live = False  # whether one source is all there is, and whether the last one has no end
        self.num_pictures = self.num_videos = 0
        self.skipped: list[str] = []

    @property
    def ended(self) -> bool:
        """Whether a signal or a key has asked for the end."""
        return self.quit or self.stop.received is not None

    def run(self, sources: Sources) -> int:
        """Detect, draw and save what is in the sources; what cannot be read is named and skipped.  Returns the exit
        status; NothingRead where nothing could be read."""
        self.alone = len(sources) == 1
        with self.stop, self.results:
            for message in sources.unusable:
                self.skip(message)
            self.draw_images(sources.images)
            for video in sources.videos:
                if not self.ended:
                    self.draw_video(video)
            if not self.num_pictures and not self.num_videos:
                if self.ended:
                    raise KeyboardInterrupt
                raise NothingRead(nothing_read(sources, self.skipped))
        self.report()
        return exit_status(self.stop.received, self.live)

    def skip(self, message: str) -> None:
        """Note a source that cannot be read; of one alone the error at the end tells."""
        self.skipped.append(message)
        if not self.alone:
            logger.warning("skipped: %s", message)

    def draw_images(self, images: list[Source]) -> None:
        """Detect, draw and save each image, as many at a time as a batch holds."""
        with tqdm(total=len(images), unit="img", disable=None) as bar:
            reader = _Reader(self, images, bar)
            for found in self.detector.predict_stream(reader, self.threshold):
                name, image = reader.waiting.popleft()
                picture = draw_detections(image, found, 0.0)
                write_picture(self.out / picture_name(name), picture)
                self.results.add(found, image, name)
                logger.info("%s: %s", name, _summary(found))
                self.num_pictures += 1
                bar.update()
                self.quit = self.window.show(picture)
                if self.ended:
                    break
        if self.stop.received and self.num_pictures:
            reason = f"stopped by {signal.Signals(self.stop.received).name}"
            logger.warning("%s after %d of %d images; %s holds them", reason, self.num_pictures, len(images), self.out)

    def draw_video(self, source: Source) -> None:
        """Detect, draw and save each frame; a stop by the keyboard or a signal keeps what was done until then."""
        try:
            with self.detector.open_video(source.place) as frames:
                self.draw_frames(frames, source)
        except UnreadableSource as error:
            self.skip(str(error))

    def draw_frames(self, frames: Frames, source: Source) -> None:
        """The same with the frames of an open video."""
        pace, whole, since = Pace(), StopWatch(self.detector.device), 0.0
        self.detector.timer.parts.clear()
        self.detector.timer.enabled = True
        path = self.out / f"{source.name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with VideoFile(path, frames.fps or USUAL_FPS, keep=_kept_file(source.place)) as video:
            if frames.fps is None:
                logger.info("%s tells no frame rate; its video plays at %g fps", frames.name, USUAL_FPS)
            whole.start()
            for frame, found in each_frame(self.detector, frames, self.threshold, self.stop):
                picture = draw_detections(frame, found, 0.0)
                rate = pace.tick()
                picture = draw_note(picture, f"{rate:.1f} fps") if rate == rate else picture
                since = since if whole.events else time.monotonic()
                number = _place(frames, video, since)
                video.write(picture, number)
                self.results.add(found, frame, (source.name, number))
                whole.events += 1
                self.quit = self.window.show(picture, milliseconds=1)
                if self.quit:
                    break
            whole.stop(0)
        if whole.events:
            self.num_videos, self.live = self.num_videos + 1, frames.live
            _report_video(self.detector, frames, video, whole, exit_status(self.stop.received, frames.live))

    def report(self) -> None:
        """Say what was done with how much of what was named."""
        counts = [f"{self.num_pictures} picture{'s' * (self.num_pictures != 1)}"] * bool(self.num_pictures)
        counts += [f"{self.num_videos} video{'s' * (self.num_videos != 1)}"] * bool(self.num_videos)
        done, files = " and ".join(counts), ", ".join(self.results.names)
        logger.info(
            "drawn %s, skipped %d; objects with scores of at least %s; %s in %s",
            done, len(self.skipped), self.threshold, files, self.out,
        )  # fmt: skip


def nothing_read(sources: Sources, reasons: list[str]) -> str:
    """The error of a demo that could read nothing, for the reasons given."""
    if len(sources) == 1:
        return reasons[0]
    folders = {str(image.place.parent) for image in sources.images}
    if len(folders) == 1 and len(sources) == len(sources.images):
        return f"--demo {folders.pop()}: none of its {len(sources)} images could be read"
    return f"--demo: none of the {len(sources)} images and videos could be read"


class _Reader:
    """The images that can be read, until a stop is asked for; their number is that of all.  `waiting` has (name, image)
    of those that were given but not drawn."""

    def __init__(self, drawing: Drawing, images: list[Source], bar: tqdm):
        self._drawing, self._images, self._bar = drawing, images, bar
        self.waiting = deque()

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[np.ndarray]:
        for place, name in self._images:
            if self._drawing.ended:
                return
            try:
                image = self._drawing.detector.read(place)
            except UserError as error:
                self._drawing.skip(str(error))
                self._bar.update()
                continue
            self.waiting.append((name, image))
            yield image


def _summary(found) -> str:
    if not len(found):
        return "nothing found"
    parts = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores.tolist(), strict=True)]
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")


def _place(frames: Frames, video: VideoFile, since: float) -> int:
    """The number of the latest frame in the drawn video: its own; of a live source, of which some are dropped, that of
    the clock, so that the video plays at the speed of life."""
    return max(video.num_frames, int((time.monotonic() - since) * video.fps)) if frames.live else frames.number


def _kept_file(source) -> Path | None:
    return source if isinstance(source, Path) and source.is_file() else None


def each_frame(detector: ObjectDetector, frames: Frames, threshold, stop: StopRequest) -> Iterator:
    """(frame, detections) of a video under a progress bar, until a stop is asked for."""
    frames.until = lambda: stop.received is not None
    with closing(detector.predict_video(frames, threshold)) as pairs:
        yield from tqdm(pairs, total=frames.num_frames, unit="frame", disable=None)


def _report_video(detector, frames: Frames, video: VideoFile, whole: StopWatch, status: int) -> None:
    """Say what became of a video."""
    dropped = f", {frames.dropped} frames passed over to keep up" if frames.dropped else ""
    network = detector.timer.parts["network"].rate
    speed = f"{whole.rate:.1f} fps end to end, {network:.1f} fps of the network alone{dropped}"
    logger.info("%s: %d frames in %.1f s: %s", frames.name, whole.events, whole.seconds, speed)
    if status:
        total = f" of {frames.num_frames}" if frames.num_frames else ""
        reason = f"stopped by {signal.Signals(status - 128).name}"
        logger.warning("%s after %d%s frames; %s holds them", reason, whole.events, total, video.path)


def exit_status(received: int | None, live: bool = False) -> int:
    """The exit status after a signal or none; Ctrl-C is the ordinary end of a source that has no other."""
    return 0 if received is None or received == signal.SIGINT and live else 128 + received


class Window:
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
