"""What happens inside a detector that looks at an image: feature maps, scores, and gradients back to the pixels."""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..layers.box import cxcywh_to_xyxy, decode_boxes
from ..layers.postprocess import class_scores, log_odds
from ..modeling.nets.backbone import tap_name
from ..structures import Detections, Predictions
from ..utils.draw import WHITE, draw_boxes, drawable_text, image_grid
from .scene import OVERVIEW, LevelInfo, Scene, line_width, titled

NUM_CHANNELS = 6


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
    model: nn.Module,
    scene: Scene,
    levels: list[LevelInfo],
    class_names=(),
    variance=(0.1, 0.2),
    sigmoid: bool = False,
    chosen: dict[str, tuple[int, int]] | None = None,
) -> dict[str, np.ndarray]:
    """Saliency (Simonyan et al., arXiv 1312.6034) of the strongest prior of all and of each level, and of those that
    are `chosen` as {title: (prior, label)}: the largest magnitude over the channels of the gradient of the class score
    for the input."""
    with torch.inference_mode(False), torch.enable_grad():
        images = scene.images.detach().clone().requires_grad_()
        predictions = model(images)
        conf, loc = predictions.conf[0].float(), predictions.loc[0].float()
        scores = class_scores(conf.detach(), sigmoid)
        spots = {"strongest": _strongest(scores, slice(0, len(scores)))} | (chosen or {})
        for number, level in enumerate(levels, start=1):
            spots[f"level {number} ({level.name})"] = _strongest(scores, level.priors)
        tiles, titles, single = [], [], {}
        for title, (prior, label) in spots.items():
            # Odds against the background: the score itself has no gradient left where it is near 1.
            odds = log_odds(conf[prior, label], conf[prior, 0], sigmoid)
            (gradient,) = torch.autograd.grad(odds, images, retain_graph=True)
            boxes = _unit_boxes(predictions.priors[prior], loc[prior].detach(), variance)
            name = class_names[label - 1] if label <= len(class_names) else ""
            text = f"{drawable_text(name, f'#{label}')} {scores[prior, label - 1]:.2f}"
            tiles.append(_draw_saliency(scene.tile(), gradient, boxes, label, None))
            titles.append(f"{title}: {text}")
            single[title] = titled(_draw_saliency(scene.picture, gradient, boxes, label, text), f"{title}: {text}")
    return {OVERVIEW: image_grid(tiles, 3, titles), **single}


def _strongest(scores: Tensor, span: slice) -> tuple[int, int]:
    """The prior within the span and its label of the highest of scores [P, C - 1]."""
    best = int(scores[span].argmax())
    return span.start + best // scores.shape[1], best % scores.shape[1] + 1


def prior_of(predictions: Predictions, found: Detections, number: int, variance, sigmoid: bool = False) -> int:
    """The prior that made detection `number`, from 0, of the first image; the boxes of `found` in the unit square."""
    scores = class_scores(predictions.conf[0].float(), sigmoid)[:, found.labels[number] - 1]
    boxes = decode_boxes(predictions.loc[0].float(), predictions.priors, variance).clamp(0, 1)
    distance = (boxes - found.boxes[number].to(boxes).clamp(0, 1)).abs().amax(1)
    return int((distance + (scores - found.scores[number].to(scores)).abs()).argmin())


def detection_picture(scene: Scene, found: Detections) -> np.ndarray:
    """The detections (boxes in the unit square) numbered from 1, best first, over the dashed objects of the image."""
    height, width = scene.picture.shape[:2]
    scale = np.array([width, height, width, height])
    picture = draw_boxes(scene.picture, scene.boxes * scale, colors=WHITE, thickness=1, dashed=True)
    numbered = zip(found.names, found.scores.tolist(), found.labels.tolist(), strict=True)
    captions = [f"{n}: {drawable_text(name, f'#{label}')} {s:.2f}" for n, (name, s, label) in enumerate(numbered, 1)]
    return draw_boxes(picture, found.boxes.cpu().numpy() * scale, captions, found.labels, thickness=line_width(picture))


def _feature_grid(scene: Scene, channels: Tensor, scores: Tensor | None = None) -> np.ndarray:
    """Tiles of feature maps [C, H, W], and of scores [H, W] where given."""
    channels = channels.float().cpu()
    spread = channels.flatten(1).std(1, correction=0)
    tiles, titles = [scene.tile()], ["input"]
    if scores is not None:
        tiles.append(overlay(scene.tile(), scores.numpy()))
        titles.append(f"class scores, up to {scores.max():.2f}")
    tiles += [overlay(scene.tile(), part.numpy()) for part in (channels.mean(0), channels.amax(0))]
    titles += [f"mean of {len(channels)} channels", "maximum of the channels"]
    for channel in spread.argsort(descending=True)[:NUM_CHANNELS].tolist():
        tiles.append(overlay(scene.tile(), channels[channel].numpy()))
        titles.append(f"channel {channel}")
    return image_grid(tiles, 5 if scores is not None else 3, titles)


def overlay(picture, values) -> np.ndarray:
    """A map [H, W] in viridis, bright where it is large, over a grey copy of the picture."""
    size = picture.shape[1], picture.shape[0]
    low, high = np.percentile(values, [1, 99])
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    heat = cv2.applyColorMap(np.uint8(scaled * 255), cv2.COLORMAP_VIRIDIS)
    heat = cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)
    return cv2.addWeighted(_grey(picture), 0.3, heat, 0.7, 0)


def _draw_saliency(picture, gradient: Tensor, boxes: np.ndarray, label: int, text: str | None) -> np.ndarray:
    """Saliency over a dimmed picture; boxes [2, 4] in the unit square are the prior and the decoded box."""
    height, width = picture.shape[:2]
    saliency = gradient[0].abs().amax(0).cpu().numpy()
    saliency = cv2.GaussianBlur(saliency, (0, 0), max(saliency.shape) / 100)
    saliency = np.clip(saliency / max(np.percentile(saliency, 99.8), 1e-30), 0, 1)
    saliency = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap(np.uint8(saliency * 255), cv2.COLORMAP_INFERNO)
    share = saliency[..., None]
    shown = np.uint8(0.6 * (1 - share) * _grey(picture) + share * heat)
    boxes = boxes * [width, height, width, height]
    shown = draw_boxes(shown, boxes[:1], colors=WHITE, thickness=1, dashed=True)
    return draw_boxes(shown, boxes[1:], [text], [label], thickness=line_width(picture))


def _grey(picture) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


def _unit_boxes(prior: Tensor, loc: Tensor, variance) -> np.ndarray:
    """The prior and its decoded box, [2, 4] xyxy."""
    return torch.stack([cxcywh_to_xyxy(prior), decode_boxes(loc, prior, variance)]).cpu().numpy().astype(np.float64)
