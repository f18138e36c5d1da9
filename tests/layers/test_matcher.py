import pytest
import torch

from lib.layers.matcher import Matcher
from lib.structures import Target

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
