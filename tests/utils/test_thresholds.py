"""Which detections count."""

import pytest
import torch

from lib.utils.errors import UserError
from lib.utils.thresholds import ScoreThreshold

NAMES = ("cat", "dog", "car")
SCORES, LABELS = torch.tensor([0.9, 0.6, 0.5, 0.4, 0.2]), torch.tensor([1, 2, 3, 1, 2])


@pytest.mark.parametrize(
    "threshold, expected",
    [
        (0, [True, True, True, True, True]),
        (0.5, [True, True, True, False, False]),
        ({"": 0.5, "dog": 0.1}, [True, True, True, False, True]),
        ({"cat": 0.95}, [False, True, True, False, True]),
        ({"": 1, "cat": 0.4, "car": 0.55}, [True, False, False, True, False]),
        (ScoreThreshold({"cat": 0.95}, NAMES), [False, True, True, False, True]),
    ],
)
def test_each_class_has_its_own_threshold_or_that_of_the_others(threshold, expected):
    assert ScoreThreshold(threshold, NAMES).mask(SCORES, LABELS).tolist() == expected
    assert ScoreThreshold(threshold, NAMES).mask(SCORES.numpy(), LABELS.numpy()).tolist() == expected


def test_classes_without_names_go_by_their_labels():
    assert ScoreThreshold({"2": 0.5}).mask(SCORES, LABELS).tolist() == [True, True, True, True, False]
    with pytest.raises(UserError, match="'dog' is no class of this detector; its classes have no names"):
        ScoreThreshold({"dog": 0.5})


@pytest.mark.parametrize(
    "threshold, message",
    [
        ({"dgo": 0.5}, "'dgo' is no class of this detector; did you mean 'dog'?"),
        (1.5, "1.5 is no score; allowed: 0 to 1"),
        (float("nan"), "nan is no score"),
        ({"cat": -0.1}, "threshold of 'cat': -0.1 is no score"),
        ("0.5", "'0.5' is no score"),
        (True, "True is no score"),
    ],
)
def test_what_is_no_threshold_is_refused(threshold, message):
    with pytest.raises(UserError) as error:
        ScoreThreshold(threshold, NAMES)
    assert message in str(error.value)


def test_it_tells_what_it_is():
    assert str(ScoreThreshold({"": 0.5, "dog": 0.25}, NAMES)) == "0.5, dog 0.25"
