"""Which detection claims which object of its image, by the rules of PASCAL VOC and of ImageNet VID.

Corners are pixels and inclusive, so a box is x2 - x1 + 1 wide.
"""

import numpy as np

NO_OBJECT = -1


def claim_objects(boxes, labels, objects, object_labels, iou_threshold: float) -> np.ndarray:
    """For boxes [K, 4] the index int32 [K] of the object, of objects [N, 4], that each claims, else NO_OBJECT.

    The rule of VOC: a detection looks only at the object of its class that it overlaps most, whoever else claims it.
    Of objects overlapped equally the first is taken, as in the development kit.
    """
    claims = np.full(len(boxes), NO_OBJECT, dtype=np.int32)
    # Most detections are of classes that the image does not hold: they need no overlap.
    rows = np.flatnonzero(np.isin(labels, object_labels))
    if len(rows):
        overlaps = inclusive_iou(boxes[rows], objects)
        overlaps[labels[rows, None] != object_labels[None]] = -1
        best = overlaps.argmax(axis=1)
        above = overlaps[np.arange(len(rows)), best] > iou_threshold
        claims[rows[above]] = best[above]
    return claims


def claim_free_objects(eligible, scores, difficult) -> np.ndarray:
    """The index int32 [K] of the object that each of K detections takes, of those still free, else NO_OBJECT.

    The rule of ImageNet VID: in the order of their scores detections take the free object that they overlap most, so
    that one whose best object is gone may take its second best.  A difficult object is never gone.
    eligible: overlaps [K, N], 0 where a detection must not take an object; equal scores keep their order, and of
    objects overlapped equally the first is taken.
    """
    claims = np.full(len(eligible), NO_OBJECT, dtype=np.int32)
    rows = np.flatnonzero(eligible.any(axis=1))
    free = eligible.copy()
    for row in rows[np.argsort(-scores[rows], kind="stable")]:
        best = free[row].argmax()
        if free[row, best] > 0:
            claims[row] = best
            if not difficult[best]:
                free[:, best] = 0
    return claims


def first_claims(claims: np.ndarray) -> np.ndarray:
    """bool [K]: the claim is the first on its object; claims [K] are ranked, negative ones claim nothing."""
    correct = np.zeros(len(claims), dtype=bool)
    hits = np.flatnonzero(claims >= 0)
    correct[hits[np.unique(claims[hits], return_index=True)[1]]] = True
    return correct


def inclusive_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU [K, N] of boxes [K, 4] and others [N, 4], xyxy in pixels with inclusive corners."""
    return paired_iou(boxes[:, None], others[None])


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU [...] of boxes [..., 4] with the others [..., 4] at the same places, xyxy in pixels, inclusive corners."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=-1)
    union = inclusive_sides(boxes).prod(axis=-1) + inclusive_sides(others).prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def inclusive_sides(boxes: np.ndarray) -> np.ndarray:
    """Width and height [..., 2] of boxes [..., 4], xyxy in pixels with inclusive corners."""
    return boxes[..., 2:] - boxes[..., :2] + 1
