"""The visualize phase: pictures of what a detector's priors, augmentation, features and gradients look like.

Each part is a function from arrays or a model to pictures by title; `run_visualize` writes them all as PNG files, to
TensorBoard, and with words on how to read them into one HTML page.  A model is only looked at: its mode, weights and
gradients stay as they were.
"""

import difflib
import logging
import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ..dataset.transforms import create_transforms
from ..evaluation import written_id
from ..modeling.model_builder import create_postprocess, has_sigmoid_scores
from ..structures import Detections
from ..utils.draw import WHITE, draw_boxes, image_grid
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.page import Page
from . import scene as scenes
from .evaluate import evaluating
from .figures import render_figure
from .inner_pictures import detection_picture, feature_pictures, gradient_pictures, prior_of
from .prior_pictures import (
    LEVEL_COLUMNS,
    MATCH_COLUMNS,
    level_rows,
    match_figures,
    match_rows,
    match_statistics,
    prior_pictures,
)

logger = logging.getLogger(__name__)

NUM_AUGMENTATIONS = 4
MAX_MATCHED_IMAGES = 2000  # images, spread over the data set, whose objects the matching statistics count


class Topic(NamedTuple):
    """A section of the page: pictures by title, sentences on how to read them, whether they need the width of the page,
    and tables (columns, rows, caption)."""

    title: str
    how_to_read: str
    pictures: dict[str, np.ndarray]
    wide: bool = False
    tables: list[tuple] = []


READ_DETECTIONS = (
    "What the detector finds here at a score of {threshold:g} or more, numbered from the best. Solid boxes have the "
    "colour of their class and a caption number: class score; dashed boxes are the objects of the annotation. "
    "VISUALIZE.DETECTION=n draws the gradients of number n as well."
)
READ_PRIORS = (
    "The boxes that the detector starts from: all priors of the cell in the middle, with their sizes (width x height) "
    "in pixels of the network's input; every dot is the centre of another cell, which has the same priors. Dashed "
    "boxes are objects of the image: on each level there should be priors about as large as the objects that the "
    "level is for."
)
READ_MATCHING = (
    "Training makes a prior answer for an object if they overlap by an IoU of MATCHER.MATCHED_THRESHOLD "
    "({threshold:g}) or more: then the object is covered. An object without such a prior gets its best one by force, "
    "and is learnt badly. Counted are the objects of {images} as a plain resize shows them. Many orange bars at one "
    "end say that priors of that size or shape are missing: python -m lib.tools.priors --cfg FILE, which also counts "
    "what augmentation makes of the objects, proposes better ones."
)
READ_AUGMENTATION = (
    "From left to right one training image is made; each row is another draw of the random numbers. Dashed boxes are "
    "what remains of the objects: they should still fit them, and objects should stay recognisable."
)
READ_FEATURES = (
    "Outputs of a layer over the image, bright where they are large: mean and maximum of all channels, and the "
    "channels that vary most. Of a level, the class scores are the best of each cell: they should be bright on objects "
    "of the level's size and dark elsewhere."
)
READ_GRADIENTS = (
    "Where the class score of one prior would change most if the pixels changed: of the strongest prior of all, of the "
    "one that was chosen, and of the strongest of each level. Dashed: the prior; solid: its box. Light on the object "
    "means that the detector looks at it; light only on its surroundings, that it has learnt the surroundings."
)


def run_visualize(cfg, model, records, normalize, writer=None, step: int = 0) -> list[Path]:
    """Write pictures of priors, matching, augmentation, features and gradients for the image VISUALIZE.IMAGE of the
    records, and a page that shows them all.

    normalize: uint8 [B, 3, H, W] -> float; writer: a RunWriter or None.  EXP_DIR/visualize gets PNG files and
    index.html, whose paths are returned.  Raises UserError where there is no such image or detection and where a file
    cannot be written.
    """
    index = find_image(records, cfg.VISUALIZE.IMAGE)
    image, target = records.read(index), records.target(index)
    train_transform, eval_transform = (create_transforms(cfg, train) for train in (True, False))
    scene = scenes.look_at(image, target, eval_transform, normalize, next(model.parameters()).device)
    with evaluating(model):
        levels = scenes.detector_levels(model, scene.images)
        features = feature_pictures(model, scene, levels, has_sigmoid_scores(cfg))
        augmentation = {"step by step": augmentation_picture(image, target, train_transform, cfg.SEED)}
        topics = [
            *_detection_topics(cfg, model, scene, levels, records.class_names),
            Topic("prior boxes", READ_PRIORS, prior_pictures(scene, model.priors, levels)),
            _matching_topic(cfg, model, records, levels, scene.input_size),
            Topic("augmentation", READ_AUGMENTATION, augmentation, wide=True),
            Topic("features", READ_FEATURES, features, wide=True),
        ]
    folder, paths = Path(cfg.EXP_DIR) / "visualize", []
    page = Page(
        f"Inside a detector: {cfg.MODEL.SSDS} on {cfg.MODEL.NETS}",
        f"Image {written_id(records.image_id(index))} of {records.name}; VISUALIZE.IMAGE chooses another. Input "
        f"{scene.input_size[0]}x{scene.input_size[1]} pixels (height x width), {len(model.priors)} priors.",
    )
    for topic in topics:
        page.heading(topic.title.capitalize())
        page.text(topic.how_to_read)
        for columns, rows, caption in topic.tables:
            page.table(columns, rows, caption)
        for title, picture in topic.pictures.items():
            paths.append(_write_png(folder, f"{topic.title} {title}", picture))
            if writer is not None:
                writer.image(f"visualize/{topic.title}/{title}", picture, step, topic.how_to_read)
        _add_pictures(page, topic)
    paths.append(page.write(folder / "index.html"))
    logger.info("%d pictures of image %s are explained in %s", len(paths) - 1, records.image_path(index), paths[-1])
    return paths


def find_image(records, wanted: str) -> int:
    """The index of an image by its id in results, the name of its file or its number from 0; of '' the first that has
    objects.  UserError where there is none."""
    if not len(records):
        raise UserError(f"{records.name}: there is no image to visualize")
    if not wanted:
        return int((np.diff(records.offsets) > 0).argmax())
    names = [str(written_id(records.image_id(i))) for i in range(len(records))]
    if wanted in names:
        return names.index(wanted)
    for i in range(len(records)):
        if wanted in (Path(records.image_path(i)).name, records.image_path(i)):
            return i
    if wanted.isdecimal() and int(wanted) < len(records):
        return int(wanted)
    close = difflib.get_close_matches(wanted, names, 1)
    raise UserError(
        f"VISUALIZE.IMAGE: {wanted!r} is no image of {records.name}; allowed: the name of one, such as "
        f"{(close or names)[0]}, or a number from 0 to {len(records) - 1}"
    )


def _detection_topics(cfg, model, scene, levels, class_names) -> list[Topic]:
    """Numbered detections, and the gradients of the chosen one beside those of the levels."""
    sigmoid, variance, number = has_sigmoid_scores(cfg), cfg.MATCHER.VARIANCE, cfg.VISUALIZE.DETECTION
    threshold = cfg.TEST.PICTURE_THRESHOLD
    with torch.no_grad():
        predictions = model(scene.images)
        (found,) = create_postprocess(cfg)(predictions)
    found = Detections(found.boxes, found.scores, found.labels, tuple(class_names))
    if number > max(len(found), 1):
        raise UserError(f"VISUALIZE.DETECTION: {number}: the image has {len(found)} detections; the best one is 1")
    chosen = {}
    if number > 1:
        prior = prior_of(predictions, found, number - 1, variance, sigmoid)
        chosen[f"detection {number}"] = prior, int(found.labels[number - 1])
    detections = {"of the image": detection_picture(scene, found.select(found.scores >= threshold))}
    gradients = gradient_pictures(model, scene, levels, class_names, variance, sigmoid, chosen)
    return [
        Topic("detections", READ_DETECTIONS.format(threshold=threshold), detections, wide=True),
        Topic("gradients", READ_GRADIENTS, gradients),
    ]


def _matching_topic(cfg, model, records, levels, input_size) -> Topic:
    """How well the priors match the objects of the data set, or of a part of it that is large enough."""
    count = min(len(records), MAX_MATCHED_IMAGES)
    spread = np.linspace(0, len(records) - 1, count).round().astype(int).tolist()
    threshold = cfg.MATCHER.MATCHED_THRESHOLD
    statistics = match_statistics(map(records.target, spread), model.priors, levels, input_size, threshold)
    part = f"{count} images" if count == len(records) else f"{count} of {len(records)} images"
    tables = [
        (MATCH_COLUMNS, match_rows(statistics, records.class_names), f"Objects at IoU {threshold:g}"),
        (LEVEL_COLUMNS, level_rows(statistics, levels), "Levels; a positive prior is one that answers for an object"),
    ]
    figures = match_figures(statistics) if len(statistics.labels) else {}
    pictures = {title: render_figure(figure) for title, figure in figures.items()}
    text = READ_MATCHING.format(threshold=threshold, images=f"{part} of {records.name}")
    return Topic("matching", text, pictures, tables=tables)


def augmentation_picture(image, target, transform, seed: int = 0) -> np.ndarray:
    """A row for each of NUM_AUGMENTATIONS draws, a column for each step of `transform.steps`.

    image uint8 BGR; target with boxes in the unit square.  A step that changed nothing says so.
    """
    height, width = image.shape[:2]
    boxes = np.float32(target.boxes.numpy() * [width, height, width, height])
    rgb = getattr(transform, "color_order", "BGR") == "RGB"
    side = scenes.TILE_SIDE
    tiles, titles, columns = [], [], 0
    for draw in range(NUM_AUGMENTATIONS):
        rng = np.random.default_rng((seed, draw))
        steps = transform.steps(image, boxes, target.labels.numpy(), target.difficult.numpy(), rng)
        columns, before = len(steps), None
        for name, picture, found in steps:
            same = before is not None and np.array_equal(before, picture)
            titles.append(f"{name}: unchanged" if same else f"{name} {picture.shape[1]}x{picture.shape[0]}")
            before = picture
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if rgb else picture
            tile = scenes.resize(picture, scenes.display_size(picture.shape[:2], side))
            scale = side / max(picture.shape[:2])
            tiles.append(draw_boxes(tile, np.asarray(found) * scale, colors=WHITE, thickness=1, dashed=True))
    return image_grid(tiles, columns, titles, (round(side * 0.8), side))


def _add_pictures(page: Page, topic: Topic) -> None:
    """The pictures of a topic but for the overview, which repeats the others small."""
    shown = {title: picture for title, picture in topic.pictures.items() if title != scenes.OVERVIEW}
    if topic.wide:
        for title, picture in shown.items():
            page.picture(picture, title, lossless=False)
    else:
        page.gallery((picture, title, "") for title, picture in shown.items())


def _write_png(folder: Path, title: str, picture) -> Path:
    path = folder / (re.sub(r"\W+", "_", title).strip("_") + ".png")
    try:
        write_whole(path, cv2.imencode(".png", picture)[1].tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path
