"""What demo prints with -t time: how long a detector takes for images, or for the frames of a video."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .demo_drawing import NothingRead, each_frame, exit_status
from .demo_sources import Sources
from .predictor import ObjectDetector
from .solver.train_state import StopRequest
from .timing import Laps, backbone_share, format_figures, summarize, timed, warm_up
from .utils.errors import UserError
from .utils.meters import StopWatch

logger = logging.getLogger(__name__)

MOST_RUNS, MOST_SECONDS = 100, 10.0
"""How long one image is timed."""
USUAL_SIZE = (480, 640, 3)
"""Of what the detector warms up on."""


def time_sources(detector: ObjectDetector, sources: Sources) -> int:
    """Print how long images, or the frames of one video, take, compiled as they would be without -t time; returns the
    exit status."""
    if len(sources.videos) > 1 or sources.videos and sources.images:
        raise UserError("--demo: -t time takes images or one video")
    if sources.videos:
        return _time_video(detector, sources.videos[0].place)
    return _time_images(detector, [image.place for image in sources.images])


def _time_images(detector: ObjectDetector, paths: list[Path]) -> int:
    """Time each image once, or one many times."""
    warm_up(detector, [np.zeros(USUAL_SIZE, np.uint8)], len(paths))
    whole = StopWatch(detector.device)
    with timed(detector) as laps:
        whole.start()
        for _, image in _read_images(detector, paths):
            end = time.perf_counter() + MOST_SECONDS
            for _ in range(MOST_RUNS if len(paths) == 1 else 1):
                detector.predict([image])
                whole.events += 1
                if time.perf_counter() > end:
                    break
        whole.stop(0)
    what = f"{whole.events} runs of {paths[0].name if len(paths) == 1 else paths[0].parent}"
    _report(detector, what, laps, whole, image)
    return 0


def _read_images(detector: ObjectDetector, paths: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """(path, image) of those that can be read; NothingRead where it is none."""
    num_read = 0
    for path in tqdm(paths, unit="img", disable=None):
        try:
            image = detector.read(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            logger.warning("skipped: %s", error)
            continue
        num_read += 1
        yield path, image
    if not num_read:
        raise NothingRead(f"--demo {paths[0].parent}: none of its {len(paths)} images could be read")


def _time_video(detector: ObjectDetector, source: Path | str | int) -> int:
    """Time the frames of a video, up to a stop."""
    whole = StopWatch(detector.device)
    with StopRequest() as stop, detector.open_video(source) as frames:
        warm_up(detector, [np.zeros(USUAL_SIZE, np.uint8)], frames.num_frames)
        with timed(detector) as laps:
            whole.start()
            for image, _ in each_frame(detector, frames, 0.0, stop):
                frame, whole.events = image, whole.events + 1
            whole.stop(0)
    if not whole.events:
        raise KeyboardInterrupt
    _report(detector, f"{whole.events} frames of {frames.name}", laps, whole, frame)
    return exit_status(stop.received, frames.live)


def _report(detector: ObjectDetector, what: str, laps: Laps, whole: StopWatch, image: np.ndarray) -> None:
    """Print the figures; `whole` is the time with reading, `image` one of those that were seen."""
    post, figures = detector.postprocess, summarize([laps], 1, backbone_share(detector, [image]))
    logger.info(
        "%s of %d x %d pixels, one at a time: %s; NMS: scores above %g, IoU %g, %d of a class at most\n%s",
        what, image.shape[1], image.shape[0], detector.network_for(None).describe(), post.score_threshold,
        post.iou_threshold, post.max_detections, format_figures(figures),
    )  # fmt: skip
    logger.info("end to end is from an image array in memory to boxes; with reading it is %.1f images/s", whole.rate)
