"""How steadily a detector sees the objects of a video: what average precision, which looks at frames one by one, cannot
tell."""

import numpy as np

from ..structures import Target
from .image_metric import ImageArrays, ImageMetric, joined
from .matching import claim_free_objects, inclusive_iou
from .tracks import VideoObjects


class FlickerRate(ImageMetric):
    """How often objects of videos vanish from the detections and return, gathered frame by frame.

    class_names: the classes without the background; label i is class_names[i - 1].
    score_threshold: detections below do not count, as those that a user's screen would not show.
    iou_threshold: overlap from which a detection and an object belong together.

    A track is one object of a video, in the frames that it is annotated in.  In each of them it is seen when a
    detection of its class takes it; best score first, every detection takes the free object that it overlaps most, as
    for map50 of VIDMeanAP.  Difficult objects and those of an unknown track are left out, but keep the detections that
    take them.  The image_id of a target is (video, number of the frame); frames may come in any order, and each once.
    """

    def __init__(self, class_names, score_threshold: float = 0.5, iou_threshold: float = 0.5):
        super().__init__(class_names)
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self._objects = VideoObjects()
        self._seen, self._difficult = [], []

    def _take(self, image: ImageArrays, target: Target) -> None:
        self._objects.add(target)
        shown = image.scores >= self.score_threshold
        overlaps = inclusive_iou(image.boxes[shown], image.objects)
        overlaps[image.labels[shown, None] != image.object_labels[None]] = 0
        overlaps[overlaps < self.iou_threshold] = 0
        claims = claim_free_objects(overlaps, image.scores[shown], image.difficult)
        seen = np.zeros(len(image.objects), dtype=bool)
        seen[claims[claims >= 0]] = True
        self._seen.append(seen)
        self._difficult.append(image.difficult)

    def compute(self) -> dict[str, float]:
        """{"flicker", "gaps", "seen"} over the tracks of all classes together.

        flicker: changes between seen and unseen in 100 pairs of frames, 0 to 100.  A pair is a track in two frames that
        follow each other in the video, of those that were given; where the track is interrupted there is none.
        gaps: share of the frames of tracks, 0 to 1, in which the object is not seen though it is in an earlier and in a
        later one.
        seen: share of the frames of tracks in which the object is seen.  Read the others beside it, because a detector
        that finds nothing does not flicker.
        Each is NaN without tracks, flicker also when no track has two frames in a row.
        """
        objects, seen = self._objects.arrays(), joined(self._seen, bool)
        order = np.lexsort((objects.places, objects.tracks, objects.videos))
        order = order[(objects.tracks[order] >= 0) & ~joined(self._difficult, bool)[order]]
        if not len(order):
            return dict.fromkeys(("flicker", "gaps", "seen"), float("nan"))
        seen, places = seen[order], objects.places[order]
        starts = np.append(True, (np.diff(objects.videos[order]) != 0) | (np.diff(objects.tracks[order]) != 0))
        pairs = ~starts[1:] & (np.diff(places) == 1)
        changes = pairs & (seen[1:] != seen[:-1])
        flicker = 100 * changes.sum() / pairs.sum() if pairs.any() else float("nan")
        gaps = ~seen & _seen_before(seen, starts) & _seen_before(seen[::-1], np.append(starts[1:], True)[::-1])[::-1]
        return {"flicker": float(flicker), "gaps": float(gaps.mean()), "seen": float(seen.mean())}


def _seen_before(seen: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """bool [M]: the object is seen here or earlier in its track; starts [M] marks where tracks begin."""
    so_far = np.cumsum(seen)
    track = np.cumsum(starts) - 1
    return so_far > (so_far - seen)[starts][track]
