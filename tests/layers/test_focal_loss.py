import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from lib.layers.focal_loss import FocalLoss, sigmoid_focal, softmax_focal
from lib.layers.matcher import Matcher
from lib.structures import Predictions

from .test_multibox_loss import random_case


def random_logits(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (2, 50), generator=generator)
    return torch.randn(2, 50, 5, generator=generator) * 3, labels


def test_without_focus_it_is_cross_entropy():
    conf, labels = random_logits()
    expected = F.cross_entropy(conf.flatten(0, 1), labels.flatten(), reduction="none").view(2, 50)
    torch.testing.assert_close(softmax_focal(conf, labels, alpha=0.5, gamma=0.0), expected / 2)
    one_hot = F.one_hot(labels, 5)[..., 1:].float()
    expected = F.binary_cross_entropy_with_logits(conf[..., 1:], one_hot, reduction="none").sum(2)
    torch.testing.assert_close(sigmoid_focal(conf, labels, alpha=0.5, gamma=0.0), expected / 2)


def test_values_by_hand():
    """-alpha (1 - p)^2 log p for objects, -(1 - alpha) p^2 log(1 - p) for background, where an object has belief p."""
    logit = math.log(0.9 / 0.1)
    conf = torch.tensor([[[0.0, logit], [0.0, logit], [0.0, 0.0]]])
    labels = torch.tensor([[1, 0, 1]])
    expected = [-0.25 * 0.1**2 * math.log(0.9), -0.75 * 0.9**2 * math.log(0.1), -0.25 * 0.5**2 * math.log(0.5)]
    for focal in (softmax_focal, sigmoid_focal):  # the same where there is one class
        torch.testing.assert_close(focal(conf, labels)[0], torch.tensor(expected))


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.9, 0.5), (0.0, 5.0)])
def test_sigmoid_agrees_with_torchvision(alpha, gamma):
    conf, labels = random_logits()
    expected = sigmoid_focal_loss(conf[..., 1:], F.one_hot(labels, 5)[..., 1:].float(), alpha, gamma).sum(2)
    torch.testing.assert_close(sigmoid_focal(conf, labels, alpha, gamma), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_sums_over_all_priors_and_divides_by_the_positives(sigmoid):
    predictions, targets = random_case(counts=(3, 0, 2))
    losses = FocalLoss(Matcher(), sigmoid=sigmoid)(predictions, targets)
    labels = Matcher()(targets, predictions.priors).labels
    each = (sigmoid_focal if sigmoid else softmax_focal)(predictions.conf, labels)
    assert losses["conf_loss"].item() == pytest.approx(each.sum().item() / int((labels > 0).sum()), rel=1e-5)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradient_leaves_out_what_is_ignored_and_unused(sigmoid):
    predictions, targets = random_case(counts=(4, 4))
    matcher = Matcher(0.5, 0.3)
    sum(FocalLoss(matcher, sigmoid=sigmoid)(predictions, targets).values()).backward()
    matches = matcher(targets, predictions.priors)
    assert matches.ignored.any()
    assert torch.equal(predictions.conf.grad.abs().sum(2) == 0, matches.ignored)
    assert (predictions.conf.grad[..., 0] == 0).all() == sigmoid


@pytest.mark.parametrize("sigmoid", [False, True])
def test_no_objects_at_all(sigmoid):
    predictions, targets = random_case(counts=(0, 0))
    losses = FocalLoss(Matcher(), sigmoid=sigmoid)(predictions, targets)
    sum(losses.values()).backward()
    assert losses["loc_loss"] == 0 and torch.isfinite(losses["conf_loss"]) and losses["conf_loss"] > 0
    assert torch.isfinite(predictions.conf.grad).all()


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_stay_finite(sigmoid, gamma):
    predictions, targets = random_case()
    huge = (predictions.conf.detach() * 1e4).requires_grad_()
    criterion = FocalLoss(Matcher(), gamma=gamma, sigmoid=sigmoid)
    losses = criterion(Predictions(predictions.loc, huge, predictions.priors, None), targets)
    losses["conf_loss"].backward()
    assert torch.isfinite(losses["conf_loss"]) and torch.isfinite(huge.grad).all()


@pytest.mark.parametrize("sigmoid", [False, True])
def test_half_precision_predictions_are_scored_in_single(sigmoid):
    predictions, targets = random_case()
    rounded = [t.detach().bfloat16() for t in (predictions.loc, predictions.conf)]
    criterion = FocalLoss(Matcher(), sigmoid=sigmoid)
    low = criterion(Predictions(*rounded, predictions.priors, None), targets)
    full = criterion(Predictions(*[t.float() for t in rounded], predictions.priors, None), targets)
    assert all(torch.equal(low[name], full[name]) for name in full)
