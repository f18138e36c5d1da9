from functools import partial

import pytest
import torch

from lib.layers.focal_loss import FocalLoss
from lib.layers.matcher import Matcher
from lib.layers.multibox_loss import MultiBoxLoss
from lib.structures import Predictions, Target

# Four priors side by side, each a quarter of the unit square's width and all of its height.
PRIORS = torch.tensor([[0.125 + 0.25 * i, 0.5, 0.25, 1.0] for i in range(4)])


def target(*rows):
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return Target(boxes=rows[:, :4], labels=rows[:, 4].long())


def test_threshold_and_forced_match():
    # Half of prior 0 and a bit of prior 1; prior 3 overlaps nothing else.
    matches = Matcher(0.5)([target([0.0, 0.0, 0.2, 1.0, 3], [0.8, 0.0, 0.85, 1.0, 1])], PRIORS)
    assert matches.labels.tolist() == [[3, 0, 0, 1]]  # the thin object has IoU 0.2, but prior 3 is its best
    assert torch.allclose(matches.boxes[0, 0], torch.tensor([0.0, 0.0, 0.2, 1.0]))
    assert torch.allclose(matches.boxes[0, 3], torch.tensor([0.8, 0.0, 0.85, 1.0]))


def test_overlap_at_the_threshold_counts():
    # Both objects have IoU exactly 0.5 with two priors each.
    matches = Matcher(0.5)([target([0.0, 0.0, 0.5, 1.0, 1], [0.5, 0.0, 1.0, 1.0, 2])], PRIORS)
    assert matches.labels.tolist() == [[1, 1, 2, 2]]


def test_later_object_wins_a_shared_best_prior():
    objects = [[0.0, 0.0, 0.25, 1.0, 1], [0.0, 0.0, 0.24, 1.0, 2]]
    assert Matcher(0.5)([target(*objects)], PRIORS).labels.tolist() == [[2, 0, 0, 0]]
    assert Matcher(0.5)([target(*objects[::-1])], PRIORS).labels.tolist() == [[1, 0, 0, 0]]


def test_images_are_independent_of_their_neighbours():
    generator = torch.Generator().manual_seed(0)
    priors = torch.rand(50, 4, generator=generator) * 0.4 + 0.3
    targets = []
    for count in (3, 0, 7, 1):
        low = torch.rand(count, 2, generator=generator) * 0.5
        boxes = torch.cat([low, low + 0.1 + torch.rand(count, 2, generator=generator) * 0.4], 1)
        targets.append(Target(boxes=boxes, labels=torch.randint(1, 9, (count,), generator=generator)))
    together = Matcher()(targets, priors)
    for i, one in enumerate(targets):
        alone = Matcher()([one], priors)
        assert torch.equal(together.labels[i], alone.labels[0])
        positive = alone.labels[0] > 0
        assert torch.equal(together.boxes[i][positive], alone.boxes[0][positive])
    assert (together.labels[1] == 0).all()


def test_images_without_objects_alone():
    matches = Matcher()([target(), target()], PRIORS)
    assert matches.labels.shape == (2, 4) and not matches.labels.any()


@pytest.mark.parametrize("box", [[0.5, 0.5, 0.5, 0.5], [1.5, 0.0, 1.7, 1.0]])
def test_an_object_that_overlaps_nothing_claims_no_prior(box):
    assert not Matcher()([target([*box, 4])], PRIORS).labels.any()


def test_priors_between_the_thresholds_are_ignored():
    # IoU 0.8 with prior 0 (positive) and 0.1 / 0.4 = 0.25 with prior 1.
    rows = [0.0, 0.0, 0.2, 1.0, 3]
    near = target([0.05, 0.0, 0.35, 1.0, 3])  # overlaps prior 0 by 0.2 of 0.35 and prior 1 by 0.1 of 0.45
    assert not Matcher(0.5)([target(rows)], PRIORS).ignored.any()
    matches = Matcher(0.5, 0.2)([near], PRIORS)
    assert matches.labels.tolist() == [[3, 0, 0, 0]]
    assert matches.ignored.tolist() == [[False, True, False, False]]


class TestCrowds:
    """The four priors are columns a quarter wide and as high as the image, so shares of them can be read off."""

    @staticmethod
    def scene(crowds, *rows):
        found = target(*rows)
        found.crowd = torch.tensor(crowds, dtype=torch.bool)
        return found

    def test_priors_of_which_half_lies_on_a_crowd_are_ignored(self):
        # Over all of prior 0, half of prior 1, and just less than half of prior 3.
        crowds = [0.0, 0.0, 0.375, 1.0, 1], [0.75, 0.0, 1.0, 0.49, 1]
        matches = Matcher(0.5)([self.scene([True, True], *crowds)], PRIORS)
        assert not matches.labels.any()
        assert matches.ignored.tolist() == [[True, True, False, False]]

    def test_the_share_is_that_of_the_prior_and_of_one_crowd(self):
        # Small inside prior 0; two that cover a third of prior 2 each.
        rows = [0.1, 0.4, 0.15, 0.6, 1], [0.5, 0.0, 0.75, 0.33, 1], [0.5, 0.6, 0.75, 0.93, 1]
        assert not Matcher(0.5)([self.scene([True] * 3, *rows)], PRIORS).ignored.any()

    def test_an_object_in_a_crowd_is_matched_as_ever(self):
        crowd, thing = [0.0, 0.0, 1.0, 1.0, 1], [0.26, 0.0, 0.5, 1.0, 2]
        matches = Matcher(0.5)([self.scene([True, False], crowd, thing)], PRIORS)
        assert matches.labels.tolist() == [[0, 2, 0, 0]]
        assert torch.equal(matches.boxes[0, 1], torch.tensor(thing[:4]))
        assert matches.ignored.tolist() == [[True, False, True, True]]

    def test_only_the_image_of_the_crowd_is_concerned(self):
        thing, crowd = [0.0, 0.0, 0.2, 1.0, 3], [0.5, 0.0, 1.0, 1.0, 1]
        plain = [target(thing), target()]
        matches = Matcher(0.5)([*plain, self.scene([False, True], thing, crowd)], PRIORS)
        alone = Matcher(0.5)(plain, PRIORS)
        assert torch.equal(matches.labels[:2], alone.labels) and torch.equal(matches.ignored[:2], alone.ignored)
        assert matches.labels[2].tolist() == [3, 0, 0, 0]
        assert matches.ignored[2].tolist() == [False, False, True, True]

    def test_objects_that_are_only_difficult_stay_positive(self):
        found = target([0.0, 0.0, 0.25, 1.0, 3])
        found.difficult[:] = True
        matches = Matcher(0.5)([found], PRIORS)
        assert matches.labels.tolist() == [[3, 0, 0, 0]] and not matches.ignored.any()

    @pytest.mark.parametrize("create", [MultiBoxLoss, FocalLoss, partial(FocalLoss, sigmoid=True)])
    def test_no_loss_depends_on_what_is_predicted_in_a_crowd(self, create):
        targets = [self.scene([False, True], [0.0, 0.0, 0.25, 1.0, 2], [0.5, 0.0, 1.0, 1.0, 1])]
        conf = torch.zeros(1, 4, 3, requires_grad=True)
        losses = create(Matcher(0.5))(Predictions(torch.zeros(1, 4, 4), conf, PRIORS), targets)
        losses["conf_loss"].backward()
        assert (conf.grad[0, 2:] == 0).all() and (conf.grad[0, :2] != 0).any(1).all()
        without = create(Matcher(0.5))(Predictions(torch.zeros(1, 4, 4), conf, PRIORS), [target([0, 0, 0.25, 1, 2])])
        assert without["conf_loss"] > losses["conf_loss"]
