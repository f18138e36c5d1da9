"""Short ways to write ground truth and detections in pixels for the tests of the metrics."""

import torch

from lib.structures import Detections, Target

SIZE = (100, 100)


def truth(*objects, image_id="image", size=SIZE) -> Target:
    """A target of objects (label, x1, y1, x2, y2[, "difficult"]) with corners in 0-based pixels."""
    height, width = size
    boxes = torch.tensor([o[1:5] for o in objects], dtype=torch.float32).reshape(-1, 4)
    return Target(
        boxes / torch.tensor([width, height, width, height]),
        torch.tensor([o[0] for o in objects], dtype=torch.int64),
        torch.tensor([len(o) > 5 for o in objects], dtype=torch.bool),
        image_id,
        size,
    )


def frame(*objects, video="video", number=0, tracks=None, size=SIZE) -> Target:
    """The target of a frame, objects as for truth; tracks are their numbers, by default 0, 1, 2 ..."""
    target = truth(*objects, image_id=(video, number), size=size)
    target.track_ids = torch.tensor(range(len(objects)) if tracks is None else tracks, dtype=torch.int64)
    return target


def found(*rows, class_names=(), dtype=torch.float32) -> Detections:
    """Detections of rows (label, score, x1, y1, x2, y2) in pixels."""
    return Detections(
        torch.tensor([r[2:] for r in rows], dtype=dtype).reshape(-1, 4),
        torch.tensor([r[1] for r in rows], dtype=dtype),
        torch.tensor([r[0] for r in rows], dtype=torch.int64),
        tuple(class_names),
    )


def plain_iou(a, b):
    """IoU of two boxes of inclusive pixels, the plain way."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (sum(areas) - width * height)
