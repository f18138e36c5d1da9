"""Which detection claims which object of its image, by the rules of PASCAL VOC, of ImageNet VID and of COCO.

Corners are pixels.  For VOC and VID they are inclusive, so a box is x2 - x1 + 1 wide; for COCO it is x2 - x1 wide.
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


def claim_best_free(overlaps, scores, difficult, threshold: float) -> np.ndarray:
    """The index int32 [K] of the object that each of K detections takes, else NO_OBJECT.

    The rule of COCO: in the order of their scores detections take the free object that they overlap most, by at least
    `threshold`; those left over share the difficult objects, which are never gone.  overlaps [K, N] as of
    `overlaps_of_crowds`, 0 where a detection must not take an object; equal scores keep their order, and of objects
    overlapped equally the last is taken.
    """
    # COCO's evaluator takes off as much, that an IoU of exactly 1 reaches a threshold of 1.
    eligible = np.where(overlaps >= min(threshold, 1 - 1e-10), overlaps, 0)[:, ::-1]
    difficult = difficult[::-1]
    claims = claim_free_objects(np.where(difficult, 0, eligible), scores, np.zeros_like(difficult))
    if difficult.any():
        on_difficult = np.where(difficult, eligible, 0)
        left = np.flatnonzero((claims == NO_OBJECT) & on_difficult.any(axis=1))
        claims[left] = on_difficult[left].argmax(axis=1)
    return np.where(claims == NO_OBJECT, NO_OBJECT, overlaps.shape[1] - 1 - claims).astype(np.int32)


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


def overlaps_of_crowds(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Overlap [K, N] of boxes [K, 4] with the others [N, 4] by the rules of COCO: IoU, but of those in crowd bool [N]
    the share of the box that lies on them.  xyxy in pixels; a box is x2 - x1 wide."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    shared = np.maximum(np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - low, 0).prod(axis=-1)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(axis=-1) for b in (boxes, others))
    whole = areas[:, None] + np.where(crowd, shared, other_areas[None]) - shared
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def inclusive_sides(boxes: np.ndarray) -> np.ndarray:
    """Width and height [..., 2] of boxes [..., 4], xyxy in pixels with inclusive corners."""
    return boxes[..., 2:] - boxes[..., :2] + 1
