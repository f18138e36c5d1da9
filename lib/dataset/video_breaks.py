"""Where the videos begin in a list of images that only has names and an order: the kind customRNN."""

import logging
import re
from dataclasses import replace

import numpy as np

from ..utils.errors import UserError
from .detection import DetectionRecords, FlatStrings, with_videos

logger = logging.getLogger(__name__)

MARKED = re.compile(r"(.+)-(\d{3,})")
"""A video and the number of the frame, as 0001-000."""

BY_NAMES = "from_dataset"
WHERE = "TEST.VIDEO_BREAK"


def video_offsets_of(ids, breaks=(), frames_in_video: int | None = None) -> np.ndarray:
    """int64 [V + 1]: where each video of a list of images begins, and the end of the list.

    breaks: image numbers that ascend, counted from 0 (which need not be among them); or ['from_dataset']: a video is
    the images whose names differ in the last three or more digits only, as 0001-000 and 0001-001.  Without breaks
    that is so if all names have this form; else every frames_in_video images are a video, and without that number
    all are one.  UserError for breaks that cannot be.
    """
    ids, breaks = list(ids), [str(item).strip() for item in breaks]
    if BY_NAMES in breaks and len(breaks) > 1:
        raise UserError(f"{WHERE}: {BY_NAMES} stands alone, not with {', '.join(b for b in breaks if b != BY_NAMES)}")
    if breaks and breaks != [BY_NAMES]:
        starts = _read_breaks(breaks, len(ids))
    elif breaks or are_marked(ids):
        videos = [_split_name(text)[0] for text in ids]
        starts = [number for number in range(1, len(ids)) if videos[number] != videos[number - 1]]
    else:
        starts = list(range(frames_in_video, len(ids), frames_in_video)) if frames_in_video else []
    return np.asarray([0, *(start for start in starts if start), len(ids)], np.int64)


def are_marked(ids) -> bool:
    """Whether all names tell the video and the frame, as 0001-000."""
    return all(MARKED.fullmatch(text) for text in ids)


def cut_into_videos(records: DetectionRecords, breaks=(), frames_in_video: int | None = None) -> DetectionRecords:
    """The images of a list as frames of videos, by the rules of video_offsets_of; the log says which one.

    Where names mark the videos, the images are put in the order of these, since lists often are not.
    """
    by_names = [str(item).strip() for item in breaks] == [BY_NAMES] or not breaks and are_marked(records.ids)
    if not by_names:
        if breaks and are_marked(records.ids) and not _in_order(records.ids):
            logger.warning("%s: %s counts in the order of the list, not in that of its names", records.name, WHERE)
        offsets = video_offsets_of(records.ids, breaks, frames_in_video)
        _tell_counted(records, offsets, bool(breaks), frames_in_video)
        return with_videos(records, offsets)
    marks = [_split_name(text) for text in records.ids]
    order = sorted(range(len(marks)), key=marks.__getitem__)
    if not _in_order(records.ids):
        logger.info("%s: the list is not in the order of its names; its images are put into it", records.name)
        records = _reordered(records, order)
    offsets = video_offsets_of(records.ids, [BY_NAMES])
    logger.info("%s: %s by the names of the images", records.name, _counted(offsets))
    names = [marks[order[first]][0] for first in offsets[:-1]]
    return with_videos(records, offsets, names, [marks[position][1] for position in order])


def _read_breaks(breaks: list[str], num_images: int) -> list[int]:
    starts = []
    for text in breaks:
        if not (text.isascii() and text.isdecimal()):
            raise UserError(f"{WHERE}: '{text}' is no image number; allowed: numbers from 0 that ascend, or {BY_NAMES}")
        starts.append(int(text))
        if len(starts) > 1 and starts[-1] <= starts[-2]:
            raise UserError(f"{WHERE}: {starts[-1]} follows {starts[-2]}; the numbers must ascend")
        if starts[-1] >= num_images:
            raise UserError(
                f"{WHERE}: there is no image {starts[-1]}; the list has {num_images}, counted from 0, that can be used"
            )
    return starts


def _split_name(text: str) -> tuple[str, int]:
    """(video, number of the frame) of a name as 0001-000."""
    match = MARKED.fullmatch(text)
    if match is None:
        raise UserError(f"{WHERE}: {BY_NAMES} needs names that end in a frame number, as 0001-000; '{text}' does not")
    return match[1], int(match[2])


def _in_order(ids) -> bool:
    """Whether marked names come sorted by video and frame."""
    marks = [_split_name(text) for text in ids]
    return all(one <= other for one, other in zip(marks[:-1], marks[1:], strict=True))


def _reordered(records: DetectionRecords, order) -> DetectionRecords:
    """The records with their images in another order."""
    counts = np.diff(records.offsets)[order]
    offsets = np.cumsum([0, *counts])
    moved = np.repeat(records.offsets[:-1][order] - offsets[:-1], counts) + np.arange(offsets[-1])
    changed = {name: FlatStrings([getattr(records, name)[i] for i in order]) for name in ("paths", "ids")}
    changed |= {name: getattr(records, name)[moved] for name in ("boxes", "labels", "difficult")}
    kept = [name for name in ("crowd", "track_ids") if getattr(records, name) is not None]
    changed |= {name: getattr(records, name)[moved] for name in kept}
    if records.image_numbers is not None:
        changed["image_numbers"] = records.image_numbers[order]
    return replace(records, sizes=records.sizes[order], offsets=offsets, **changed)


def _tell_counted(records: DetectionRecords, offsets, given: bool, frames_in_video: int | None):
    """Say how videos were cut that the names do not tell."""
    if given:
        logger.info(
            "%s: %s by %s, counted in the %d images that can be used",
            records.name, _counted(offsets), WHERE, len(records),
        )  # fmt: skip
    elif frames_in_video:
        logger.info(
            "%s: %s: the names mark no videos (as 0001-000 would), so that every MODEL.RNN.FRAMES_IN_VIDEO images "
            "are one", records.name, _counted(offsets),
        )  # fmt: skip
    else:
        logger.warning(
            "%s: %s is empty and the names mark no videos (as 0001-000 would): all %d images are one video, through "
            "which the state is never reset", records.name, WHERE, len(records),
        )  # fmt: skip


def _counted(offsets) -> str:
    lengths = np.diff(offsets)
    frames = f"{lengths.min()} to {lengths.max()}" if lengths.min() < lengths.max() else f"{lengths.max()}"
    return f"{len(lengths)} video{'s' if len(lengths) > 1 else ''} of {frames} frame{'s' if lengths.max() > 1 else ''}"
