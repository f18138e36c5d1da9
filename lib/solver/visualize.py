"""The visualize phase: pictures of what a detector's priors, augmentation, features and gradients look like.

Each part is a function from arrays or a model to pictures by title; `run_visualize` writes them all as PNG files and
to TensorBoard.  A model is only looked at: its mode, weights and gradients stay as they were.
"""

import logging
import re
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..layers.box import cxcywh_to_xyxy, decode_boxes
from ..layers.postprocess import class_scores, log_odds
from ..modeling.nets.backbone import tap_name
from ..utils.draw import WHITE, draw_boxes, drawable_text, image_grid
from ..utils.errors import UserError

logger = logging.getLogger(__name__)

PICTURE_SIDE = 600  # pixels of the longer side of a picture, at least about that
TILE_SIDE = 240  # the same for a picture that is one of many
NUM_CHANNELS = 6
NUM_AUGMENTATIONS = 4

DESCRIPTIONS = {
    "prior boxes": "All priors of the cell in the middle, with their sizes in pixels of the network's input; dots are "
    "the centres of the other cells, dashed boxes the objects of the image.",
    "augmentation": "From left to right one training image is made; each row is another draw of the random numbers.",
    "features": "Outputs of a layer over the image, bright where they are large: mean and maximum of all channels, and "
    "the channels that vary most.",
    "gradients": "Where the class score of one prior would change most if the pixels changed. Dashed: the prior; "
    "solid: its box.",
}


class LevelInfo(NamedTuple):
    """A level of a detector: its map and where its priors lie in the list of all."""

    rows: int
    columns: int
    boxes_per_cell: int
    first: int

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.columns}"

    @property
    def priors(self) -> slice:
        """The priors of this level."""
        return slice(self.first, self.first + self.rows * self.columns * self.boxes_per_cell)


class Scene(NamedTuple):
    """The image that is looked at: as uint8 BGR in the shape that the network sees, large enough to draw on; the boxes
    [N, 4] of its objects in the unit square and their labels; and the input of the network [1, 3, H, W]."""

    picture: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    images: Tensor

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return tuple(self.images.shape[2:])

    def tile(self) -> np.ndarray:
        """A small copy of the picture."""
        return _resize(self.picture, _display_size(self.input_size, TILE_SIDE))


def run_visualize(
    model, records, train_transform, eval_transform, normalize, class_names, writer, out_dir,
    image_index: int = 0, seed: int = 0, step: int = 0, variance=(0.1, 0.2), sigmoid: bool = False,
) -> list[Path]:  # fmt: skip
    """Write pictures of priors, augmentation, features and gradients for image `image_index` of the records.

    normalize: uint8 [B, 3, H, W] -> float; writer: a RunWriter or None; out_dir gets PNG files, whose paths are
    returned; variance is that of the box encoding, sigmoid as in `class_scores`.  Raises UserError where there is no
    such image and where a file cannot be written.
    """
    if not 0 <= image_index < len(records):
        raise UserError(f"image {image_index} cannot be visualized: the data set has images 0 to {len(records) - 1}")
    image, target = records.read(image_index), records.target(image_index)
    scene = look_at(image, target, eval_transform, normalize, next(model.parameters()).device)
    with _only_looking(model):
        levels = detector_levels(model, scene.images)
        pictures = {
            "prior boxes": prior_pictures(scene, model.priors, levels),
            "augmentation": {"step by step": augmentation_picture(image, target, train_transform, seed)},
            "features": feature_pictures(model, scene, levels, sigmoid),
            "gradients": gradient_pictures(model, scene, levels, class_names, variance, sigmoid),
        }
    paths = []
    for topic, titled in pictures.items():
        for title, picture in titled.items():
            paths.append(_write_png(Path(out_dir), f"{topic} {title}", picture))
            if writer is not None:
                writer.image(f"visualize/{topic}/{title}", picture, step, DESCRIPTIONS[topic])
    logger.info("%d pictures of image %s are in %s", len(paths), records.image_path(image_index), out_dir)
    return paths


def look_at(image, target, eval_transform, normalize, device) -> Scene:
    """The scene of an image, uint8 BGR, with its Target."""
    resized = np.ascontiguousarray(eval_transform.resize(image))
    images = torch.from_numpy(resized).permute(2, 0, 1)[None].to(device)
    picture = _resize(image, _display_size(resized.shape[:2], PICTURE_SIDE))
    return Scene(picture, target.boxes.numpy(), target.labels.numpy(), normalize(images))


@torch.no_grad()
def detector_levels(model: nn.Module, images: Tensor) -> list[LevelInfo]:
    """The levels of a detector in the order of its priors, as a run on `images` shows them."""
    maps = [source.shape[2:] for source in model.sources(images)[0]]
    boxes = [predictor.out_channels // 4 for predictor in model.head.loc_predictors()]
    boxes = boxes * len(maps) if len(boxes) == 1 else boxes  # one predictor may serve all levels
    levels, first = [], 0
    for (rows, columns), boxes_per_cell in zip(maps, boxes, strict=True):
        levels.append(LevelInfo(rows, columns, boxes_per_cell, first))
        first = levels[-1].priors.stop
    if first != len(model.priors):
        raise ValueError(f"the head's maps make {first} predictions, the model has {len(model.priors)} priors")
    return levels


def prior_pictures(scene: Scene, priors: Tensor, levels: list[LevelInfo]) -> dict[str, np.ndarray]:
    """For every level, and for all in one: the priors of the middle cell and the centres of the others.

    priors [P, 4] as (cx, cy, w, h) in the unit square.
    """
    priors = priors.detach().cpu()
    height, width = scene.input_size
    large, small, titles = {}, [], []
    for number, level in enumerate(levels, start=1):
        cells = priors[level.priors].view(level.rows, level.columns, level.boxes_per_cell, 4)
        cell = cells[level.rows // 2, level.columns // 2]
        sides = (cell[:, 2:] * torch.tensor([width, height])).round().int()
        title = f"level {number} ({level.name})"
        titles.append(f"{title}: sides {sides.min()} to {sides.max()} px")
        full = f"{title}: a cell every {width / level.columns:.3g}x{height / level.rows:.3g} of {width}x{height} px"
        captions = [f"{w}x{h}" for w, h in sides.tolist()]
        large[title] = _titled(_draw_priors(scene, scene.picture, cells, cell, captions), full)
        small.append(_draw_priors(scene, scene.tile(), cells, cell, None))
    return {"all levels": image_grid(small, 3, titles), **large}


def augmentation_picture(image, target, transform, seed: int = 0) -> np.ndarray:
    """A row for each of NUM_AUGMENTATIONS draws, a column for each step of `transform.steps`.

    image uint8 BGR; target with boxes in the unit square.  A step that changed nothing says so.
    """
    height, width = image.shape[:2]
    boxes = np.float32(target.boxes.numpy() * [width, height, width, height])
    rgb = getattr(transform, "color_order", "BGR") == "RGB"
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
            scale = TILE_SIDE / max(picture.shape[:2])
            tile = _resize(picture, (max(1, round(side * scale)) for side in picture.shape[:2]))
            tiles.append(draw_boxes(tile, np.asarray(found) * scale, colors=WHITE, thickness=1, dashed=True))
    return image_grid(tiles, columns, titles, (round(TILE_SIDE * 0.8), TILE_SIDE))


@torch.no_grad()
def feature_pictures(
    model: nn.Module, scene: Scene, levels: list[LevelInfo], sigmoid: bool = False
) -> dict[str, np.ndarray]:
    """For every tapped layer of the base and every level: mean, maximum and the NUM_CHANNELS channels that vary most,
    each over the image; for a level also the best class score of every cell.  Maps of fewer than four cells, and an
    end of the base that is tapped, are left out."""
    features, state = model.backbone(scene.images, None, model.neck.inserts())
    sources, _ = model.neck(features, state)
    features = model.backbone.maps_of(features)
    conf = class_scores(model(scene.images).conf[0].float(), sigmoid).amax(1).cpu()
    names = [f"base layer {tap_name(tap)}" for tap in model.backbone.taps]
    names.append("end of the base" if model.backbone.split_at is None else "end of the coarse path")
    if len(features) > 1 and features[-1] is features[-2]:
        names, features = names[:-1], features[:-1]
    pictures = {}
    for name, x in zip(names, features, strict=True):
        pictures[f"{name} ({x.shape[2]}x{x.shape[3]})"] = _feature_grid(scene, x[0])
    for number, (level, x) in enumerate(zip(levels, sources, strict=True), start=1):
        if level.rows * level.columns >= 4:
            scores = conf[level.priors].view(level.rows, level.columns, -1).amax(2)
            pictures[f"level {number} ({level.name})"] = _feature_grid(scene, x[0], scores)
    return pictures


def gradient_pictures(
    model: nn.Module, scene: Scene, levels: list[LevelInfo], class_names=(), variance=(0.1, 0.2), sigmoid: bool = False
) -> dict[str, np.ndarray]:
    """Saliency (Simonyan et al., arXiv 1312.6034) of the strongest prior of all and of each level: the largest
    magnitude over the channels of the gradient of its class score for the input image."""
    with torch.inference_mode(False), torch.enable_grad():
        images = scene.images.detach().clone().requires_grad_()
        predictions = model(images)
        conf, loc = predictions.conf[0].float(), predictions.loc[0].float()
        scores = class_scores(conf.detach(), sigmoid)
        spots = {"strongest": slice(0, len(scores))}
        spots |= {f"level {number} ({level.name})": level.priors for number, level in enumerate(levels, start=1)}
        tiles, titles, single = [], [], {}
        for title, span in spots.items():
            best = int(scores[span].argmax())
            prior, label = span.start + best // scores.shape[1], best % scores.shape[1] + 1
            # Odds against the background: the score itself has no gradient left where it is near 1.
            odds = log_odds(conf[prior, label], conf[prior, 0], sigmoid)
            (gradient,) = torch.autograd.grad(odds, images, retain_graph=True)
            boxes = _unit_boxes(predictions.priors[prior], loc[prior].detach(), variance)
            name = class_names[label - 1] if label <= len(class_names) else ""
            text = f"{drawable_text(name, f'#{label}')} {scores[prior, label - 1]:.2f}"
            tiles.append(_draw_saliency(scene.tile(), gradient, boxes, label, None))
            titles.append(f"{title}: {text}")
            single[title] = _titled(_draw_saliency(scene.picture, gradient, boxes, label, text), f"{title}: {text}")
    return {"all levels": image_grid(tiles, 3, titles), **single}


@contextmanager
def _only_looking(model: nn.Module):
    """The model in evaluation mode, every module afterwards back in its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _draw_priors(scene: Scene, picture, cells: Tensor, cell: Tensor, captions: list[str] | None) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = np.array([width, height, width, height])
    picture = draw_boxes(picture, scene.boxes * scale, colors=WHITE, thickness=1, dashed=True)
    pitch = min(width / cells.shape[1], height / cells.shape[0])
    radius = int(np.clip(pitch / 12, 1, 3))
    for x, y in (cells[:, :, 0, :2].reshape(-1, 2) * torch.tensor([width, height])).round().int().tolist():
        cv2.circle(picture, (x, y), radius + 1, (0, 0, 0), -1)
        cv2.circle(picture, (x, y), radius, WHITE, -1)
    boxes = cxcywh_to_xyxy(cell).numpy() * scale
    return draw_boxes(picture, boxes, captions, range(1, len(cell) + 1), thickness=_line(picture))


def _feature_grid(scene: Scene, channels: Tensor, scores: Tensor | None = None) -> np.ndarray:
    """Tiles of feature maps [C, H, W], and of scores [H, W] where given."""
    channels = channels.float().cpu()
    spread = channels.flatten(1).std(1, correction=0)
    tiles, titles = [scene.tile()], ["input"]
    if scores is not None:
        tiles.append(_overlay(scene.tile(), scores.numpy()))
        titles.append(f"class scores, up to {scores.max():.2f}")
    tiles += [_overlay(scene.tile(), part.numpy()) for part in (channels.mean(0), channels.amax(0))]
    titles += [f"mean of {len(channels)} channels", "maximum of the channels"]
    for channel in spread.argsort(descending=True)[:NUM_CHANNELS].tolist():
        tiles.append(_overlay(scene.tile(), channels[channel].numpy()))
        titles.append(f"channel {channel}")
    return image_grid(tiles, 5 if scores is not None else 3, titles)


def _overlay(picture, values) -> np.ndarray:
    """A map [H, W] in viridis over a grey copy of the picture."""
    size = picture.shape[1], picture.shape[0]
    low, high = np.percentile(values, [1, 99])
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    heat = cv2.applyColorMap(np.uint8(scaled * 255), cv2.COLORMAP_VIRIDIS)
    heat = cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(grey, 0.3, heat, 0.7, 0)


def _draw_saliency(picture, gradient: Tensor, boxes: np.ndarray, label: int, text: str | None) -> np.ndarray:
    """Saliency over a dimmed picture; boxes [2, 4] in the unit square are the prior and the decoded box."""
    height, width = picture.shape[:2]
    saliency = gradient[0].abs().amax(0).cpu().numpy()
    saliency = cv2.GaussianBlur(saliency, (0, 0), max(saliency.shape) / 100)
    saliency = np.clip(saliency / max(np.percentile(saliency, 99.8), 1e-30), 0, 1)
    saliency = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap(np.uint8(saliency * 255), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    share = saliency[..., None]
    shown = np.uint8(0.6 * (1 - share) * grey + share * heat)
    boxes = boxes * [width, height, width, height]
    shown = draw_boxes(shown, boxes[:1], colors=WHITE, thickness=1, dashed=True)
    return draw_boxes(shown, boxes[1:], [text], [label], thickness=_line(picture))


def _unit_boxes(prior: Tensor, loc: Tensor, variance) -> np.ndarray:
    """The prior and its decoded box, [2, 4] xyxy."""
    return torch.stack([cxcywh_to_xyxy(prior), decode_boxes(loc, prior, variance)]).cpu().numpy().astype(np.float64)


def _titled(picture, title: str) -> np.ndarray:
    return image_grid([picture], 1, [title])


def _line(picture) -> int:
    """Thickness of an outline: thin in tiles."""
    return max(1, max(picture.shape) // 300)


def _display_size(size, side: int) -> tuple[int, int]:
    """Height and width, enlarged or shrunk to `side` on the longer side."""
    return tuple(max(1, round(part * side / max(size))) for part in size)


def _resize(image, size) -> np.ndarray:
    height, width = size
    shrink = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def _write_png(folder: Path, title: str, picture) -> Path:
    path = folder / (re.sub(r"\W+", "_", title).strip("_") + ".png")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path
