"""Running sums that stay on the device until somebody reads them, and clocks."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class LossMeter:
    """Means of named losses since the last `pop`, summed without waiting for the device."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take in the losses of one step."""
        for name, value in losses.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._count += 1

    def pop(self) -> dict[str, float]:
        """Means since the last call, one transfer for all; empties the meter."""
        if not self._count:
            return {}
        names = list(self._sums)
        values = (torch.stack([self._sums[name] for name in names]) / self._count).tolist()
        self._sums, self._count = {}, 0
        return dict(zip(names, values, strict=True))


class StopWatch:
    """Seconds and events between `start` and `stop` pairs; waits for a GPU so that its work is counted."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0
        self.events = 0
        self._since = 0.0

    def start(self) -> None:
        """Begin a stretch."""
        self._since = self._now()

    def stop(self, events: int) -> None:
        """End the stretch, in which so many events happened."""
        self.seconds += self._now() - self._since
        self.events += events

    @property
    def rate(self) -> float:
        """Events per second; nan before any."""
        return self.events / self.seconds if self.seconds else float("nan")

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class PartTimer:
    """A StopWatch for each part of a job; none runs, and no device is waited for, unless `enabled`.

    >>> with timer.part("network", len(images)):
    ...     predictions = model(images)
    """

    def __init__(self, device: torch.device, enabled: bool = False):
        self.device, self.enabled = device, enabled
        self.parts: dict[str, StopWatch] = {}

    @contextmanager
    def part(self, name: str, events: int = 1) -> Iterator[None]:
        """The block is a stretch of this part, in which so many events happen; one that fails is not counted."""
        if not self.enabled:
            yield
            return
        watch = self.parts.setdefault(name, StopWatch(self.device))
        watch.start()
        yield
        watch.stop(events)


class Pace:
    """How fast events follow each other, over the latest `window` of them."""

    def __init__(self, window: int = 30):
        self._times = deque(maxlen=window + 1)

    def tick(self) -> float:
        """Note an event; events per second since the oldest in the window, nan for the first."""
        self._times.append(time.perf_counter())
        seconds = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / seconds if seconds else float("nan")
