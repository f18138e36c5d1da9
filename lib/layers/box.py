"""Box geometry as pure functions: conversions, overlap, and the SSD encoding of boxes against priors.

"xyxy" is (x1, y1, x2, y2), "cxcywh" is (centre x, centre y, width, height); all in one unit, whatever it is.
"""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] from centre form to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] from corners to centre form."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU [..., N, M] of boxes [..., N, 4] with others [..., M, 4], both xyxy; leading axes broadcast.

    A pair of boxes without area has IoU 0.
    """
    intersection = _intersection(boxes, others)
    union = (_area(boxes)[..., :, None] + _area(others)[..., None, :]).sub_(intersection)
    return intersection.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def pairwise_share(boxes: Tensor, others: Tensor) -> Tensor:
    """The part [..., N, M] of the area of boxes [..., N, 4] that lies on others [..., M, 4], as `pairwise_iou`."""
    return _intersection(boxes, others).div_(_area(boxes)[..., :, None].clamp(min=torch.finfo(boxes.dtype).tiny))


def _intersection(boxes: Tensor, others: Tensor) -> Tensor:
    # One axis at a time: the [..., N, M] planes stay contiguous, which is several times faster than slices of
    # [..., N, M, 2].
    width = _overlap(boxes[..., 0], boxes[..., 2], others[..., 0], others[..., 2])
    return width.mul_(_overlap(boxes[..., 1], boxes[..., 3], others[..., 1], others[..., 3]))


def _overlap(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    start = torch.maximum(low[..., :, None], other_low[..., None, :])
    return torch.minimum(high[..., :, None], other_high[..., None, :]).sub_(start).clamp_(min=0)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def encode_boxes(boxes: Tensor, priors: Tensor, variance=(0.1, 0.2)) -> Tensor:
    """Offsets [..., 4] that take priors (cxcywh) to boxes (xyxy), SSD (arXiv 1512.02325) equation 2.

    The centre shift is in units of variance[0] prior sizes, the size ratio a logarithm in units of variance[1].
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    centre = ((low + high) / 2 - priors[..., :2]) / (priors[..., 2:] * variance[0])
    size = torch.log((high - low) / priors[..., 2:]) / variance[1]
    return torch.cat([centre, size], -1)


def decode_boxes(loc: Tensor, priors: Tensor, variance=(0.1, 0.2)) -> Tensor:
    """Boxes xyxy [..., 4] from offsets loc [..., 4] and priors (cxcywh) [..., 4]: the inverse of `encode_boxes`."""
    centre = priors[..., :2] + loc[..., :2] * variance[0] * priors[..., 2:]
    size = priors[..., 2:] * torch.exp(loc[..., 2:] * variance[1])
    low = centre - size / 2
    return torch.cat([low, low + size], -1)


def scale_to_pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes xyxy [N, 4] from the unit square to pixels of an image of `size` (height, width)."""
    height, width = size
    return boxes * boxes.new_tensor([width, height, width, height])


def clip_boxes(boxes: Tensor, height: float = 1.0, width: float = 1.0) -> Tensor:
    """Boxes xyxy [..., 4] cut to an image of the given height and width."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)
