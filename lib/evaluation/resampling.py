"""Average precision of many resamples of a set of images at once: what the intervals of the bootstrap are made of."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .ranking import RankedMetric

CHUNK = 200
"""Resamples that are worked on at once: the memory is that of CHUNK numbers for each object of a class."""


class _Ranking(NamedTuple):
    """What the figures of a class need: the image [T] of each right detection, best first; a sparse matrix [T, I] of
    how many wrong ones of each image rank between it and the right one before; and the objects [I] that count."""

    right: Tensor
    wrong: Tensor
    objects: Tensor


class ResampledAP:
    """Average precision by the rules of a metric that was fed, with its images weighted.

    A weight of 2 is an image that was drawn twice, 0 one that was not: the figures are those of the metric fed with
    that many copies.  (Copies of equal scores rank as their originals do.)
    """

    def __init__(self, metric: RankedMetric):
        images, rankings = metric.ranked_images(), metric.rankings()
        self.class_names = metric.class_names
        self._rankings = [
            _between_right_ones(rankings[name].correct, *images[name], metric.num_images) for name in self.class_names
        ]

    def compute(self, weights) -> dict[str, np.ndarray]:
        """{"voc07", "voc_area"}: average precision [C, B] of the classes under weights [I, B], one column a resample;
        NaN where a resample holds no object of a class."""
        parts = [self._compute(part) for part in torch.as_tensor(weights, dtype=torch.float64).split(CHUNK, dim=1)]
        return {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]}

    def _compute(self, weights: Tensor) -> dict[str, np.ndarray]:
        per_class = [_weighted_figures(ranking, weights) for ranking in self._rankings]
        eleven, area = zip(*per_class, strict=True)
        return {"voc07": np.stack(eleven), "voc_area": np.stack(area)}


def mean_over_classes(figures: np.ndarray) -> np.ndarray:
    """The mean [B] of figures [C, B] over the classes whose figure is not NaN; NaN where none is."""
    known = ~np.isnan(figures)
    total = np.where(known, figures, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0))


def _between_right_ones(correct: np.ndarray, images: np.ndarray, objects: np.ndarray, num_images: int) -> _Ranking:
    right = np.flatnonzero(correct)
    # What ranks behind the last right detection changes no figure.
    wrong = np.flatnonzero(~correct[: right[-1]]) if len(right) else right
    places = np.stack([np.searchsorted(right, wrong), images[wrong]])
    counts = torch.ones(len(wrong), dtype=torch.float64)
    return _Ranking(
        torch.from_numpy(images[right]),
        torch.sparse_coo_tensor(torch.from_numpy(places), counts, (len(right), num_images), check_invariants=False),
        torch.from_numpy(objects).double(),
    )


def _weighted_figures(ranking: _Ranking, weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(11-point, area) average precision [B] of a class."""
    num_objects = (ranking.objects @ weights).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        none = np.where(num_objects > 0, 0.0, np.nan)
        if not len(ranking.right):
            return none, none
        gains = weights[ranking.right]
        right = gains.cumsum(0)
        wrong = torch.sparse.mm(ranking.wrong, weights).cumsum(0)
        precision = (right / (right + wrong)).nan_to_num(0.0).numpy()
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        area = (gains.numpy() * envelope).sum(axis=0) / num_objects
        recall = right.numpy() / num_objects
    best_beyond = np.vstack([envelope, np.zeros_like(num_objects)])
    columns = np.arange(len(num_objects))
    points = [best_beyond[(recall < point).sum(axis=0), columns] for point in np.arange(11) * 0.1]
    return np.mean(points, axis=0) + none, area + none
