"""Videos for tests: small files, and a camera that is none."""

import time

import cv2
import numpy as np


def write_video(path, num_frames: int = 20, size=(120, 50), codec: str = "mp4v", fps: float = 10.0):
    """A video of `size` (width, height) whose frame k has the grey value 10 * k; returns its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
    for number in range(num_frames):
        writer.write(grey_frame(10 * number, size))
    writer.release()
    return path


def grey_frame(value: int, size=(120, 50)) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


def read_video(path) -> list[np.ndarray]:
    """All frames of a video file."""
    capture, frames = cv2.VideoCapture(str(path)), []
    more, frame = capture.read()
    while more:
        frames.append(frame)
        more, frame = capture.read()
    return frames


class ScriptedCapture:
    """Stands in for cv2.VideoCapture: gives grey_frame(k) where `script` has True at place k, after some seconds, and
    then nothing more."""

    def __init__(self, script, num_frames: int = -1, fps: float = 30.0, seconds: float = 0.0):
        self.script, self.properties = list(script), {cv2.CAP_PROP_FRAME_COUNT: num_frames, cv2.CAP_PROP_FPS: fps}
        self.num_reads, self.released, self.seconds = 0, False, seconds

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return self.properties[what]

    def read(self):
        time.sleep(self.seconds)
        place, self.num_reads = self.num_reads, self.num_reads + 1
        good = place < len(self.script) and self.script[place]
        return good, grey_frame(place % 256) if good else None

    def release(self) -> None:
        self.released = True
