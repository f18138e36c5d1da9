"""Generated videos in COCO-VID layout: the objects of the stills move, hide one another, and are at times hard to see.

Every video comes from a generator seeded by (seed, split, index), so that it depends neither on the other videos nor on
how many there are.  Where things are and what is degraded is drawn apart from looks, and depends on no pixel.
"""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .shapes_degrade import CLEAN, Degrader, Event, random_events
from .shapes_drawing import Light, Shape, draw_shape, mask_box, shape_area
from .shapes_folder import (
    ALL_CLASS_NAMES,
    SPLITS,
    VideoParameters,
    claim_folder,
    draw_all,
    finish_folder,
    replace_file,
    stem,
)
from .shapes_motion import GROUND, Camera, random_camera, random_path
from .shapes_scene import (
    MIN_VISIBLE,
    TINY,
    Exposure,
    class_hue,
    distractor_kinds,
    draw_background,
    made_visible,
    random_light,
)

PARTS = "annotations/.videos"  # what a video holds, until all are drawn
_COUNT_WEIGHTS = (20, 25, 25, 18, 12)  # of 1 to 5 objects
_SIZES = (0.15, 0.5)  # of the shorter side of the image


class Film(NamedTuple):
    """What happens in a video of T frames.

    The things in it, farthest first, are drawn as paths[i][t] in frame t; labels are theirs, 0 for a distractor; events
    say what degrades each frame, None where it is clean.
    """

    height: int
    width: int
    paths: list[list[Shape]]
    labels: list[int]
    camera: Camera
    events: list[Event | None]


class Sighting(NamedTuple):
    """An object in a frame: its track (from 1 in its video), label, box (x1, y1, x2, y2) of 0-based pixels, and whether
    it is difficult or occluded."""

    track: int
    label: int
    box: tuple[int, int, int, int]
    difficult: bool
    occluded: bool


def plan_film(rng: np.random.Generator, parameters: VideoParameters) -> Film:
    """What happens in a video."""
    class_names = ALL_CLASS_NAMES[: parameters.classes]
    height, width = (max(32, round(parameters.size * f)) for f in rng.uniform(0.75, 1.25, 2))
    camera = random_camera(rng, parameters.frames, height, width)
    weights = np.array(_COUNT_WEIGHTS, float)
    num_objects = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
    num_distractors, others = int(rng.integers(0, 3)), distractor_kinds(class_names)
    kinds = [class_names[i] for i in rng.integers(len(class_names), size=num_objects)]
    kinds += [others[i] for i in rng.integers(len(others), size=num_distractors)]
    paths, taken = [], []
    for kind in kinds:
        low, high = np.array(_SIZES) * min(height, width)
        size, aspect = low * (high / low) ** rng.random(), math.exp(rng.uniform(-0.35, 0.35))
        shape = Shape(kind, 0, 0, size, rng.uniform(-0.5, 0.5), aspect, rng.uniform(-1, 1), int(rng.integers(2**31)))
        paths.append(random_path(rng, camera, shape, taken))
        taken.append(np.array([paths[-1][0].x, paths[-1][0].y]))
    order = rng.permutation(len(paths))
    labels = [class_names.index(kind) + 1 if kind in class_names else 0 for kind in kinds]
    events = random_events(rng, parameters.frames, parameters.degraded)
    return Film(height, width, [paths[i] for i in order], [labels[i] for i in order], camera, events)


def paint_film(rng: np.random.Generator, film: Film, class_names) -> Iterator[tuple[np.ndarray, list[Sighting]]]:
    """The frames of a film in order: an image uint8 BGR [height, width, 3] and the objects in it.

    A box is tight around the pixels of the whole object that lie in the image, hidden or not, degraded or not; it spans
    two pixels at least.  Occluded is an object of which things before it or covers leave less than MIN_VISIBLE of what
    lies in the image.  Difficult is one that is tiny, that border and things before it leave less than MIN_VISIBLE of,
    or that cannot be known yet: degraded, and not seen clearly since it entered the image.
    """
    height, width = (math.ceil(GROUND * side) for side in (film.height, film.width))
    ground = draw_background(rng, height, width, scribbles=2)
    looks = [_look(rng, film, number, ground, class_names) for number in range(len(film.paths))]
    light, exposure = random_light(rng), Exposure.draw(rng)
    known, degrader = set(), None
    for frame, event in enumerate(film.events):
        shapes = [replace(path[frame], seed=seed, hue=hue) for path, (seed, hue) in zip(film.paths, looks, strict=True)]
        image, masks = _paint_frame(film, frame, ground, shapes, light)
        if event is None:
            degrader = None
        else:
            if degrader is None or degrader.event is not event:
                degrader = Degrader(event, film.paths, film.height, film.width)
            image = degrader(image, frame)
        yield exposure(rng, image), _sightings(shapes, film.labels, masks, degrader, known)


def _look(rng: np.random.Generator, film: Film, number: int, ground: np.ndarray, class_names) -> tuple:
    """Seed and hue of a thing; the surface of an object differs from the ground along its path."""
    path, label = film.paths[number], film.labels[number]
    if not label:  # its form follows from the seed as well, and what it hides may depend on no pixel
        return path[0].seed, rng.uniform(0, 6)
    points = [film.camera.to_world(t, np.array([shape.x, shape.y])) for t, shape in enumerate(path)]
    limits = np.array(ground.shape[1::-1]) - 1
    columns, rows = np.clip(np.array(points) + limits / 2, 0, limits).astype(int).T
    look = replace(path[0], hue=class_hue(rng, path[0].kind, class_names))
    look = made_visible(rng, look, ground[rows, columns].mean(0))
    return look.seed, look.hue


def _paint_frame(film: Film, frame: int, ground: np.ndarray, shapes: list[Shape], light: Light) -> tuple:
    """What the camera sees of ground and things, uint8 [height, width, 3], and the masks bool of the things."""
    matrix = film.camera.matrix(frame)
    middle = (np.array(ground.shape[1::-1]) - 1) / 2
    matrix[:, 2] -= matrix[:, :2] @ middle
    image = cv2.warpAffine(ground, matrix, (film.width, film.height), borderMode=cv2.BORDER_REFLECT)
    return image, [draw_shape(image, shape, light) >= 128 for shape in shapes]


def _sightings(shapes: list, labels: list, masks: list, degrader: Degrader | None, known: set) -> list[Sighting]:
    """The objects among the things of a frame; `known` holds the numbers of those seen clearly, and is kept up."""
    found, side = [], min(masks[0].shape)
    before = np.zeros_like(masks[0])
    for number in reversed(range(len(shapes))):
        mask, shown = masks[number], masks[number] & ~before
        before = before | mask
        x1, y1, x2, y2 = mask_box(mask) or (0, 0, 0, 0)
        if min(x2 - x1, y2 - y1) < 1:
            known.discard(number)
        elif labels[number]:
            uncovered = shown & ~degrader.covered if degrader else shown
            occluded = int(uncovered.sum()) < MIN_VISIBLE * int(mask.sum())
            hidden = int(shown.sum()) < MIN_VISIBLE * shape_area(shapes[number])
            hidden = hidden or min(x2 - x1, y2 - y1) + 1 < TINY * side
            clear = degrader is None or degrader.event.kind == "occlusion" and not occluded
            if clear and not hidden:
                known.add(number)
            difficult = hidden or not clear and number not in known
            found.append(Sighting(number + 1, labels[number], (x1 - 1, y1 - 1, x2 - 1, y2 - 1), difficult, occluded))
    return found[::-1]


def _write_video(out: Path, parameters: VideoParameters, job: tuple[str, int]) -> None:
    """Draw one video and write its frames, and then what they hold to PARTS."""
    seed = parameters.seed, SPLITS.index(job[0]), job[1]
    plan, look = (np.random.default_rng((*seed, number)) for number in (1, 2))
    film = plan_film(plan, parameters)
    quality, frames = [cv2.IMWRITE_JPEG_QUALITY, int(look.integers(60, 96))], []
    folder = out / job[0] / stem(job)
    folder.mkdir(parents=True, exist_ok=True)
    for image, sightings in paint_film(look, film, ALL_CLASS_NAMES[: parameters.classes]):
        frame = len(frames)
        event = film.events[frame]
        replace_file(folder / f"{frame:06d}.jpg", cv2.imencode(".jpg", image, quality)[1].tobytes())
        kind, strength = (event.kind, round(event.strength(frame), 3)) if event else (CLEAN, 0.0)
        frames.append({"degradation": kind, "strength": strength, "objects": sightings})
    part = {"height": film.height, "width": film.width, "frames": frames}
    replace_file(out / PARTS / f"{stem(job)}.json", json.dumps(part).encode())


def write_videos(out, parameters: VideoParameters | None = None, num_workers: int | None = None) -> int:
    """Draw videos under `out` (annotations/SPLIT.json, SPLIT/VIDEO/000000.jpg and on); the number of videos drawn.

    A complete set of the same parameters is left as it is (0 is returned), an unfinished one is continued.  UserError
    if the folder holds anything else.  `num_workers` processes draw; None takes one a core, few videos need none.
    """
    out, parameters = Path(out), parameters or VideoParameters()
    claim_folder(out, parameters, (PARTS,))
    jobs = [job for job in parameters.jobs() if not _is_done(out, parameters, job)]
    if jobs:
        (out / PARTS).mkdir(parents=True, exist_ok=True)
    draw_all(partial(_write_video, out, parameters), jobs, "video", num_workers, portion=1)
    for split in SPLITS:
        videos = [job for job in parameters.jobs() if job[0] == split]
        if videos and not _annotations(out, split).exists():
            content = json.dumps(_coco_vid(out, parameters, videos))
            replace_file(_annotations(out, split), content.encode())
    finish_folder(out)
    for job in parameters.jobs() if (out / PARTS).exists() else ():
        (out / PARTS / f"{stem(job)}.json").unlink(missing_ok=True)
    with suppress(OSError):  # gone already, or holds what is not ours
        (out / PARTS).rmdir()
    return len(jobs)


def _annotations(out: Path, split: str) -> Path:
    return out / "annotations" / f"{split}.json"


def _is_done(out: Path, parameters: VideoParameters, job: tuple[str, int]) -> bool:
    """Whether a video has all its frames, and what they hold is written down."""
    noted = _annotations(out, job[0]).exists() or (out / PARTS / f"{stem(job)}.json").exists()
    return noted and len(list((out / job[0] / stem(job)).glob("*.jpg"))) >= parameters.frames


def _coco_vid(out: Path, parameters: VideoParameters, jobs: list[tuple[str, int]]) -> dict:
    """The annotations of a split, joined from PARTS; ids count from 1 and tracks through the whole split."""
    names = ALL_CLASS_NAMES[: parameters.classes]
    videos, images, annotations, last_track = [], [], [], 0
    for video, job in enumerate(jobs, 1):
        part = json.loads((out / PARTS / f"{stem(job)}.json").read_text())
        videos.append({"id": video, "name": stem(job)})
        tracks = {}
        for frame, content in enumerate(part["frames"]):
            image = {"id": len(images) + 1, "video_id": video, "frame_id": frame}
            image["file_name"] = f"{stem(job)}/{frame:06d}.jpg"
            image |= {key: part[key] for key in ("width", "height")}
            images.append(image | {key: content[key] for key in ("degradation", "strength")})
            for track, label, (x1, y1, x2, y2), difficult, occluded in content["objects"]:
                track = tracks.setdefault(track, last_track + len(tracks) + 1)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image["id"], "video_id": video, "category_id": label}
                    | {"instance_id": track, "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]}
                    | {"iscrowd": int(difficult), "occluded": int(occluded)}
                )
        last_track += len(tracks)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"videos": videos, "images": images, "annotations": annotations, "categories": categories}
