import pytest
import torch
from torch.nn import functional as F

from lib.layers.box import encode_boxes
from lib.layers.box_loss import BoxLoss
from lib.layers.matcher import Matcher
from lib.layers.multibox_loss import MultiBoxLoss
from lib.structures import Predictions, Target


def random_case(counts=(3, 1, 6), num_priors=200, num_classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(num_priors, 2, generator=generator)
    priors = torch.cat([centres, torch.rand(num_priors, 2, generator=generator) * 0.3 + 0.1], 1)
    targets = []
    for count in counts:
        low = torch.rand(count, 2, generator=generator) * 0.6
        boxes = torch.cat([low, low + 0.1 + torch.rand(count, 2, generator=generator) * 0.3], 1)
        targets.append(Target(boxes=boxes, labels=torch.randint(1, num_classes, (count,), generator=generator)))
    loc = torch.randn(len(counts), num_priors, 4, generator=generator, requires_grad=True)
    conf = torch.randn(len(counts), num_priors, num_classes, generator=generator, requires_grad=True)
    return Predictions(loc, conf, priors, None), targets


def slow_loss(predictions, targets, ratio=3):
    """The definition, image by image and prior by prior."""
    loc_sum = conf_sum = 0.0
    num_positives = 0
    for loc, conf, target in zip(predictions.loc, predictions.conf, targets, strict=True):
        matches = Matcher()([target], predictions.priors)
        labels, boxes = matches.labels[0], matches.boxes[0]
        losses = F.cross_entropy(conf, labels, reduction="none")
        positive = labels > 0
        negatives = sorted(losses[~positive].tolist(), reverse=True)[: ratio * int(positive.sum())]
        conf_sum += losses[positive].sum().item() + sum(negatives)
        encoded = encode_boxes(boxes[positive], predictions.priors[positive])
        loc_sum += F.smooth_l1_loss(loc[positive], encoded, reduction="sum").item()
        num_positives += int(positive.sum())
    return loc_sum / num_positives, conf_sum / num_positives


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_definition(seed):
    predictions, targets = random_case(seed=seed)
    losses = MultiBoxLoss(Matcher())(predictions, targets)
    loc, conf = slow_loss(predictions, targets)
    assert losses["loc_loss"].item() == pytest.approx(loc, rel=1e-4)
    assert losses["conf_loss"].item() == pytest.approx(conf, rel=1e-4)


def test_gradient_reaches_positives_and_hard_negatives_only():
    predictions, targets = random_case(counts=(2, 2))
    sum(MultiBoxLoss(Matcher())(predictions, targets).values()).backward()
    labels = Matcher()(targets, predictions.priors).labels
    touched = predictions.conf.grad.abs().sum(2) > 0
    for i in range(2):
        num_positives = int((labels[i] > 0).sum())
        assert touched[i][labels[i] > 0].all()
        assert int(touched[i].sum()) == num_positives * 4
    assert torch.equal(predictions.loc.grad.abs().sum(2) > 0, labels > 0)


def test_images_without_objects_teach_the_background():
    predictions, targets = random_case(counts=(0, 0))
    losses = MultiBoxLoss(Matcher(), negatives_if_empty=10)(predictions, targets)
    assert losses["loc_loss"].item() == 0
    background = -F.log_softmax(predictions.conf, 2)[..., 0]
    expected = background.topk(10, dim=1)[0].sum() / 2  # each image counts as one positive
    assert losses["conf_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    sum(losses.values()).backward()
    assert torch.isfinite(predictions.conf.grad).all()
    assert (predictions.conf.grad[..., 0] <= 0).all() and predictions.conf.grad.abs().sum() > 0


def test_an_empty_image_leaves_the_others_exact():
    predictions, targets = random_case(counts=(3, 0, 6))
    with_empty = MultiBoxLoss(Matcher(), negatives_if_empty=0)(predictions, targets)
    pick = torch.tensor([0, 2])
    others = Predictions(predictions.loc[pick], predictions.conf[pick], predictions.priors, None)
    without = MultiBoxLoss(Matcher())(others, [targets[0], targets[2]])
    num_positives = int((Matcher()(targets, predictions.priors).labels > 0).sum())
    for name, loss in without.items():
        assert with_empty[name].item() == pytest.approx(loss.item() * num_positives / (num_positives + 1), rel=1e-5)


def test_box_loss_enters_by_the_number_of_positives():
    predictions, targets = random_case()
    box_loss = BoxLoss("giou", weight=3.0)
    boxes, labels, _ = Matcher()(targets, predictions.priors)
    expected = box_loss(predictions.loc, boxes, predictions.priors, labels > 0) / int((labels > 0).sum())
    losses = MultiBoxLoss(Matcher(), box_loss)(predictions, targets)
    assert losses["loc_loss"].item() == pytest.approx(expected.item())


def test_ignored_priors_are_never_hard_negatives():
    predictions, targets = random_case(counts=(4, 4))
    matcher = Matcher(0.5, 0.3)
    sum(MultiBoxLoss(matcher, negatives_per_positive=1000)(predictions, targets).values()).backward()
    matches = matcher(targets, predictions.priors)
    assert matches.ignored.any()
    assert torch.equal(predictions.conf.grad.abs().sum(2) == 0, matches.ignored)


def test_negative_weight_scales_exactly_the_negatives():
    predictions, targets = random_case(counts=(3, 0, 6))
    labels = Matcher()(targets, predictions.priors).labels
    positive = labels > 0
    normaliser = int(positive.sum(1).clamp(min=1).sum())
    positives = F.cross_entropy(predictions.conf[positive], labels[positive], reduction="sum").item() / normaliser
    whole, half = (
        MultiBoxLoss(Matcher(), negative_weight=weight)(predictions, targets)["conf_loss"].item()
        for weight in (1.0, 0.5)
    )
    assert half - positives == pytest.approx((whole - positives) / 2, rel=1e-5)
    assert whole > positives > 0


def test_extreme_logits_stay_finite():
    predictions, targets = random_case()
    huge = Predictions(predictions.loc, predictions.conf * 1e4, predictions.priors, None)
    losses = MultiBoxLoss(Matcher())(huge, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_half_precision_predictions_are_scored_in_single():
    predictions, targets = random_case()
    rounded = [t.detach().bfloat16() for t in (predictions.loc, predictions.conf)]
    low = MultiBoxLoss(Matcher())(Predictions(*rounded, predictions.priors, None), targets)
    full = MultiBoxLoss(Matcher())(Predictions(*[t.float() for t in rounded], predictions.priors, None), targets)
    assert all(torch.equal(low[name], full[name]) for name in full)


def test_parity_with_the_published_loss(shared):
    """Figures of the reference code for the geometry of SSD300; the random numbers are those of its script."""
    np = pytest.importorskip("numpy")
    reference = np.load(shared / "parity" / "multibox.npz")
    from lib.layers.prior_box import build_priors

    steps, sizes = (8, 16, 32, 64, 100, 300), (30, 60, 111, 162, 213, 264, 315)
    priors = build_priors(
        (300, 300), [(m, m) for m in (38, 19, 10, 5, 3, 1)], [[1, 2, 3]] * 4 + [[1, 2]] * 2,
        [[s, s] for s in sizes], [[s, s] for s in steps],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(int(reference["seed"]))
    targets = []
    for count in reference["targets"].tolist():
        low = torch.rand(count, 2, generator=generator) * 0.6
        size = torch.rand(count, 2, generator=generator) * 0.35 + 0.05
        labels = torch.randint(1, 21, (count, 1), generator=generator)[:, 0]
        targets.append(Target(boxes=torch.cat([low, low + size], 1), labels=labels))
    loc = torch.randn(len(targets), len(priors), 4, generator=generator)
    conf = torch.randn(len(targets), len(priors), 21, generator=generator) * 2
    losses = MultiBoxLoss(Matcher())(Predictions(loc, conf, priors, None), targets)
    assert losses["loc_loss"].item() == pytest.approx(float(reference["loss_loc"]), rel=1e-4)
    assert losses["conf_loss"].item() == pytest.approx(float(reference["loss_conf"]), rel=1e-4)
