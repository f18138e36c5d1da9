"""Clocks count what they are asked to."""

import math

import pytest
import torch

from lib.utils import meters
from lib.utils.meters import Pace, PartTimer


@pytest.fixture
def clock(monkeypatch):
    """A list whose only number is the time."""
    now = [0.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: now[0])
    return now


def test_parts_of_a_job_are_timed_apart(clock):
    timer = PartTimer(torch.device("cpu"), enabled=True)
    for _ in range(2):
        with timer.part("read"):
            clock[0] += 1
        with timer.part("network", events=8):
            clock[0] += 4
    assert {name: (watch.seconds, watch.events) for name, watch in timer.parts.items()} == {
        "read": (2, 2),
        "network": (8, 16),
    }
    assert timer.parts["network"].rate == 2


def test_a_part_that_fails_or_is_not_asked_for_is_not_counted(clock):
    timer = PartTimer(torch.device("cpu"))
    with timer.part("read"):
        clock[0] += 1
    assert not timer.parts
    timer.enabled = True
    with pytest.raises(ValueError), timer.part("read"):
        clock[0] += 1
        raise ValueError
    assert (timer.parts["read"].seconds, timer.parts["read"].events) == (0, 0)


def test_the_pace_is_that_of_the_latest_events(clock):
    pace = Pace(window=4)
    assert math.isnan(pace.tick())
    for _ in range(10):
        clock[0] += 1
        rate = pace.tick()
    assert rate == 1
    for _ in range(4):
        clock[0] += 0.5
        rate = pace.tick()
    assert rate == 2
