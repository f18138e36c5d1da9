"""Videos in and out: Frames reads files, streams, cameras and folders ahead of their use, VideoFile writes an mp4."""

import contextlib
import errno
import logging
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from pathlib import Path

import cv2
import numpy as np

from .address import hide_password
from .errors import UserError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".dib", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
                  ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".3gp"}  # fmt: skip

FRAMES_AHEAD = 4
MOST_UNREADABLE = 10_000  # failures in a row after which a file has ended, whatever its header announces
RETRIES = 3  # the same of a camera or a stream without an end, where each of them may take seconds
PATIENCE = 2.0  # seconds for which a read that does not return may delay `close`
CODECS = ((".mp4", "mp4v"), (".avi", "MJPG"))


class UnreadableSource(UserError):
    """A video, stream, camera or folder that cannot be opened, or that holds no picture."""


def quiet_video_libraries() -> None:
    """Leave what there is to say of bad videos to the messages here: FFmpeg writes a line for each damaged packet.

    Works only before the first video of the process is opened.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)


def pictures_in(folder: Path) -> list[Path]:
    """The images of a folder; UnreadableSource where there are none."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        names = sorted(path.name for path in folder.iterdir())
        holds = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "nothing"
        raise UnreadableSource(
            f"{folder}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) but {holds}"
        )
    return paths


class Frames:
    """Iterator over the frames of a video, BGR uint8 [H, W, 3], of which it holds a few at a time.

    `source` is a video file, the address of a stream, the number of a camera, a folder of numbered pictures, a list
    of pictures or another iterable of them; `read` makes a frame of a picture, which is a path or an array.  All but
    the last kind are read ahead by a thread that ends with the video or with `close`; an iterable is asked when a
    frame is wanted.  A file gives all its frames.  A `live` source, by default a camera or a stream without an end,
    gives the newest one, and drops those that nobody took in time.  `until` is asked before each frame, and while one
    is waited for, whether to end here.

    Frames that cannot be read are left out with a warning; UnreadableSource for a source that cannot be opened or that
    holds no frame.  name (without a password), fps (None where unknown), num_frames (as announced, None where unknown)
    and live describe the source; number is that of the frame last given, from 0, counted with those that were left out;
    dropped counts.
    """

    def __init__(self, source, read: Callable, live: bool | None = None, until: Callable[[], bool] | None = None):
        self.name, self.until = hide_password(str(source)), until
        self.fps = self.num_frames = None
        self.number, self.dropped = -1, 0
        self.live, self._closed, self._thread = False, False, None
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            pictures = sorted(pictures_in(Path(source)), key=_numerical)
        elif isinstance(source, (str, Path, Integral)):
            pictures = None
        elif isinstance(source, Iterable):
            pictures, self.name = source, "the video"
        else:
            raise UserError(
                "a video must be a file, a folder, an address, the number of a camera or an iterable of frames, "
                f"got {type(source).__name__}"
            )
        if pictures is None:
            self._numbered = self._open_capture(source)
            self.live = self.live if live is None else live
        else:
            self.num_frames = len(pictures) if hasattr(pictures, "__len__") else None
            self._numbered = _read_pictures(pictures, read)
        if pictures is None or isinstance(pictures, (list, tuple)):
            self._queue = queue.Queue(1 if self.live else FRAMES_AHEAD)
            self._thread = threading.Thread(target=self._read_ahead, name=f"frames of {self.name}", daemon=True)
            self._thread.start()

    def __iter__(self) -> "Frames":
        return self

    def __next__(self) -> np.ndarray:
        if self._ended():
            raise StopIteration
        item = next(self._numbered, None) if self._thread is None else self._take()
        if isinstance(item, BaseException):
            self.close()
            raise item
        if item is None:
            stopped = self._ended()
            self.close()
            if self.number < 0 and not stopped:
                raise UnreadableSource(f"{self.name}: holds no frame that can be read")
            raise StopIteration
        self.number, frame = item
        return frame

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and let go of the source; no frame comes any more."""
        self._closed = True
        if self._thread is None:
            self._numbered.close()
        elif self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def _ended(self) -> bool:
        return self._closed or self.until is not None and self.until()

    def _open_capture(self, source) -> Iterator[tuple[int, np.ndarray]]:
        if isinstance(source, Integral):
            self.name = f"camera {source}"
        elif "://" not in str(source):
            _check_file(Path(source))
        capture = cv2.VideoCapture(int(source) if isinstance(source, Integral) else str(source))
        if not capture.isOpened():
            capture.release()
            if isinstance(source, Integral):
                raise UnreadableSource(f"{self.name}: cannot be opened; is it connected, and used by no other program?")
            what = "address" if "://" in str(source) else "file: it is no video, damaged, or of a format unknown to it"
            raise UnreadableSource(f"{self.name}: OpenCV cannot open this {what}")
        fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else None
        self.num_frames = int(count) if math.isfinite(count) and 0 < count < 1e9 else None
        self.live = self.num_frames is None and not (isinstance(source, (str, Path)) and Path(source).is_file())
        return _read_capture(capture, self.name, self.num_frames, self.live)

    def _read_ahead(self) -> None:
        """The thread: frames, then None at the end or the exception that ended it."""
        last = None
        try:
            for item in self._numbered:
                self._offer(item)
                if self._closed:
                    return
        except Exception as error:
            last = error
        finally:
            self._numbered.close()
            self._offer(last)

    def _offer(self, item) -> None:
        """Put an item in the queue when there is room; a newer frame of a live source takes the place of an older."""
        replaces = self.live and isinstance(item, tuple)
        while not self._closed:
            try:
                self._queue.put(item, timeout=0 if replaces else 0.1)
                return
            except queue.Full:
                pass
            if replaces:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self.dropped += 1

    def _take(self):
        """The next item of the thread; None where `until` ends the wait."""
        while not self._ended():
            try:
                return self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
        return None


def _numerical(path: Path) -> list:
    """Sorts frame2 before frame10."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", path.name))]


def _check_file(path: Path) -> None:
    """UserError for what cannot be a video file."""
    if not path.exists():
        raise UnreadableSource(f"{path}: there is no such file or folder")
    # OpenCV would look for the other images of a numbered series.
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{path}: is an image; a video is a file of a video format, or the folder of its frames")
    if path.is_file() and not path.stat().st_size:
        raise UnreadableSource(f"{path}: the file is empty")


def _read_pictures(pictures: Iterable, read: Callable) -> Iterator[tuple[int, np.ndarray]]:
    for number, picture in enumerate(pictures):
        try:
            frame = read(picture)
        except UserError as error:
            if not isinstance(picture, (str, Path)):
                raise
            logger.warning("frame %d left out: %s", number, error)
            continue
        yield number, frame


def _read_capture(capture, name: str, num_frames: int | None, endless: bool) -> Iterator[tuple[int, np.ndarray]]:
    """(number, frame) of an open cv2.VideoCapture, which goes on behind a damaged part and is released at the end."""
    number = failed = 0  # reads that were tried, and how many of the latest in a row gave nothing
    most_failed = RETRIES if endless else MOST_UNREADABLE
    try:
        while failed < most_failed and not (failed and num_frames is not None and number >= num_frames):
            more, frame = capture.read()
            if more:
                if failed:
                    _warn_of_gap(name, number - failed, number - 1)
                failed = 0
                yield number, frame
            else:
                failed += 1
            number += 1
    finally:
        capture.release()
    end = number - failed
    if endless and end:
        logger.warning("%s: no frame came after frame %d", name, end - 1)
    elif num_frames is not None and 0 < end < num_frames:
        last = f"gives no frame after frame {end - 1}"
        announced = f"though its header announces {num_frames} frames; the others are damaged or missing"
        logger.warning("%s: %s, %s", name, last, announced)


def _warn_of_gap(name: str, first: int, last: int) -> None:
    frames = f"frame {first} is" if first == last else f"frames {first} to {last} are"
    logger.warning("%s: %s damaged and left out", name, frames)


class VideoFile:
    """Writes frames to an mp4 file (mp4v), or where OpenCV cannot, after a warning, to an .avi file (MJPG) beside it.

    Used as a context manager: `with VideoFile(path, fps, keep=source) as video: video.write(frame)`.  The file appears
    under its name, `video.path`, at the end of the block; after an exception nothing is left behind and an older file
    stays.  UserError rather than writing over the file `keep`.
    """

    def __init__(self, path, fps: float, keep=None):
        self.path, self.fps, self.num_frames = Path(path), fps, 0
        self._keep, self._writer, self._temporary = keep, None, None
        self._size, self._last = None, None

    def __enter__(self) -> "VideoFile":
        return self

    def write(self, frame: np.ndarray, number: int | None = None) -> None:
        """Append a frame BGR uint8 [H, W, 3]; it becomes frame `number` of the file if frames were left out before
        it, and their place is filled by the frame before.

        A frame of another size than the first is fitted into it on black; odd sides get a black line more.
        """
        if self._writer is None:
            self._open(frame.shape[1] + frame.shape[1] % 2, frame.shape[0] + frame.shape[0] % 2)
        frame = self._fit(frame)
        for _ in range(self.num_frames, self.num_frames if number is None else number):
            self._append(frame if self._last is None else self._last)
        self._append(frame)
        self._last = frame

    def _append(self, frame: np.ndarray) -> None:
        self._writer.write(frame)
        self.num_frames += 1

    def __exit__(self, kind, value, traceback) -> None:
        if self._writer is None:
            return
        self._writer.release()
        try:
            if kind is None:
                self._check()
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _open(self, width: int, height: int) -> None:
        self._size = width, height
        # MPEG-4 counts time in parts of a second that are fewer than 65536.
        fps = round(self.fps, 3) if self.fps < 65 else round(self.fps)
        path = self.path
        for suffix, codec in CODECS:
            self.path = path.with_suffix(suffix) if codec != CODECS[0][1] else path
            if self._keep is not None and self.path.exists() and self.path.samefile(self._keep):
                raise UserError(f"{self.path}: is the video itself, which would be overwritten; name another folder")
            self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")
            self._temporary.touch()  # the reason, where this folder cannot be written to
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter_fourcc(*codec), fps, self._size)
            if self._writer.isOpened():
                if self.path != path:
                    logger.warning("OpenCV cannot write this video as %s (mp4v); it is %s", path.name, self.path.name)
                return
            self._temporary.unlink(missing_ok=True)
        self._writer = None
        raise UserError(f"{path}: this OpenCV can write a video of {width}x{height} neither as mp4v nor as MJPG")

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        width, height = self._size
        if frame.shape[1::-1] == self._size:
            return frame
        if not (width - 1 <= frame.shape[1] <= width and height - 1 <= frame.shape[0] <= height):
            scale = min(width / frame.shape[1], height / frame.shape[0])
            fitted = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
            frame = cv2.resize(frame, fitted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: frame.shape[0], : frame.shape[1]] = frame
        return canvas

    def _check(self) -> None:
        """OSError unless the file plays and holds all frames: OpenCV does not tell of a write that failed."""
        capture = cv2.VideoCapture(str(self._temporary))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if count < self.num_frames:
            reason = f"only {max(count, 0)} of {self.num_frames} frames could be written; is the disk full?"
            raise OSError(errno.EIO, reason, str(self.path))
