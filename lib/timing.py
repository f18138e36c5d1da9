"""How long a detector takes for an image, stage by stage: what is timed, and the figures that the times come to.

A run is one call of an ObjectDetector, from image arrays in memory to boxes in their pixels.  Its stages follow each
other without a gap: "preprocess" (resize, to a tensor, to the device), "network" (from scaling the colours to logits)
and "postprocess" (decoding, NMS, back to the CPU).  A GPU is waited for at the ends of each.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch

from .modeling.inference import resolve_compile
from .modeling.nets.interleaved import InterleavedBackbone
from .utils.meters import PartTimer, StopWatch

STAGES = ("preprocess", "network", "postprocess")
PARTS = {
    "preprocess": "pre-processing",
    "backbone": "backbone",
    "neck_head": "neck and head",
    "postprocess": "decoding and NMS",
}
"""What a run consists of, and what it is called: the stages, with the network in two."""
WHOLES = {"network": "network only", "end_to_end": "end to end"}
WARM_UP = 3
"""Runs after the first ones that are not timed either."""
SPLIT_RUNS = 3
"""Runs by which the network is divided into its two parts."""

Laps = dict[str, list[float]]
"""Seconds of each run by stage."""


class Spread(NamedTuple):
    """Milliseconds of a run: the mean of the median round, and percentiles of all runs."""

    mean: float
    p50: float
    p95: float


@dataclass
class Figures:
    """What a detector takes for `batch` images at a time, in milliseconds a run.

    `parts` has the means of PARTS, which add up to that of "end_to_end"; `spreads` STAGES and "end_to_end".
    """

    batch: int
    runs: int
    parts: dict[str, float]
    spreads: dict[str, Spread]

    def rate(self, stage: str) -> float:
        """Images per second of a stage alone, or of "end_to_end"."""
        return 1000 * self.batch / self.spreads[stage].mean


class LapTimer(PartTimer):
    """A PartTimer that also keeps how long every stretch was."""

    def __init__(self, device: torch.device):
        super().__init__(device, enabled=True)
        self.laps: Laps = defaultdict(list)

    @contextmanager
    def part(self, name: str, events: int = 1) -> Iterator[None]:
        """The block is a stretch of this part, in which so many events happen; one that fails is not counted."""
        watch = self.parts.setdefault(name, StopWatch(self.device))
        before = watch.seconds
        with super().part(name, events):
            yield
        self.laps[name].append(watch.seconds - before)


@contextmanager
def timed(detector) -> Iterator[Laps]:
    """The laps of the runs that an ObjectDetector makes inside the block."""
    timer, before = LapTimer(detector.device), detector.timer
    detector.timer = timer
    try:
        yield timer.laps
    finally:
        detector.timer = before


def run_for(detector, batches: Iterable[list[np.ndarray]], seconds: float, least: int) -> None:
    """Run an ObjectDetector on lists of BGR uint8 images, a run for each, until so many seconds have passed and there
    were `least` runs, or the lists are at an end.

    Lists of one are the frames of a video where the detector has a memory, and of two extractors that take turns each
    has its usual share of them.
    """
    end, period = time.perf_counter() + seconds, period_of(detector)

    def until_then():
        for number, images in enumerate(batches):
            if number >= least and number % period == 0 and time.perf_counter() >= end:
                return
            yield images

    if detector.model.is_recurrent:
        for _ in detector.predict_video(frame for (frame,) in until_then()):
            pass
        return
    for images in until_then():
        detector.batch_size = len(images)
        detector.predict(images)


def warm_up(detector, images: list[np.ndarray], num_images: int | None = None) -> float | None:
    """Run an ObjectDetector on such images until it is as fast as it gets, compiled as for `num_images` of them (None:
    without an end), also from here on; the seconds that compiling took, None where nothing is compiled."""
    detector.compile_choice = resolve_compile(detector.compile_choice, num_images, detector.device)
    runs = period_of(detector) + 1  # either of two extractors, with and without a past
    start = time.perf_counter()
    run_for(detector, repeat(images), 0, runs)
    first = time.perf_counter() - start
    with timed(detector) as laps:
        run_for(detector, repeat(images), 0, WARM_UP)
    usual = sum(map(sum, laps.values())) / len(laps["network"])
    return None if detector.compile_choice == "none" else max(first - runs * usual, 0.0)


def period_of(detector) -> int:
    """The frames after which two extractors begin their turns again; 1 where there is nothing that takes turns."""
    backbone = detector.model.backbone
    return backbone.policy.interval + 1 if isinstance(backbone, InterleavedBackbone) else 1


@torch.no_grad()
def backbone_share(detector, images: list[np.ndarray]) -> float:
    """The part of the network's time, from 0 to 1, that goes to its base: nan where two extractors run beside each
    other.

    As long as nothing is compiled it is that of runs in which a GPU is waited for between the parts.  What is compiled
    knows no parts: the base is then compiled and run by itself, and the whole network beside it in turn.
    """
    if detector.never_waits:
        return float("nan")
    pixels = torch.from_numpy(np.stack([detector.transform.resize(image) for image in images]))
    pixels = pixels.to(detector.device).permute(0, 3, 1, 2)
    network, timer, state = detector.network_for(None), LapTimer(detector.device), None
    interleaved = isinstance(detector.model.backbone, InterleavedBackbone)
    if network.compile_mode != "none" and interleaved:
        choice, detector.compile_choice = detector.compile_choice, "none"
        network, detector.compile_choice = detector.network_for(None), choice
    runs = -(-SPLIT_RUNS // period_of(detector)) * period_of(detector)
    if network.compile_mode == "none":
        for _ in range(runs):
            state = network.run_in_parts(pixels, state, timer.part).state
        seconds = {name: sum(laps) for name, laps in timer.laps.items()}
        return (seconds["normalize"] + seconds["backbone"]) / sum(seconds.values())
    network.backbone(pixels)
    state = network(pixels).state
    for _ in range(runs):
        with timer.part("backbone"):
            network.backbone(pixels)
        with timer.part("network"):
            network(pixels, state)
    return min(1.0, percentile(timer.laps["backbone"], 50) / percentile(timer.laps["network"], 50))


def percentile(values, share: float) -> float:
    """The value that `share` per cent of the values lie below, between two of them in proportion; nan of none."""
    return float(np.percentile(values, share)) if len(values) else float("nan")


def summarize(rounds: list[Laps], batch: int, backbone_share: float) -> Figures:
    """The figures of rounds of runs, each of at least one.

    Means are those of the round whose runs took the median time, so that they add up and a moment in which the machine
    did something else does not count, while fast and slow frames of a video count as often as they come.
    backbone_share: the backbone's part of the time of the network.
    """
    wholes = [{**laps, "end_to_end": np.sum([laps[stage] for stage in STAGES], axis=0)} for laps in rounds]
    ranked = sorted(wholes, key=lambda laps: np.mean(laps["end_to_end"]))
    typical = ranked[(len(ranked) - 1) // 2]
    spreads = {}
    for stage in (*STAGES, "end_to_end"):
        every = np.concatenate([laps[stage] for laps in wholes])
        figures = np.mean(typical[stage]), percentile(every, 50), percentile(every, 95)
        spreads[stage] = Spread(*(1000 * float(figure) for figure in figures))
    network = spreads["network"].mean
    parts = {
        "preprocess": spreads["preprocess"].mean,
        "backbone": backbone_share * network,
        "neck_head": (1 - backbone_share) * network,
        "postprocess": spreads["postprocess"].mean,
    }
    return Figures(batch, sum(len(laps["network"]) for laps in rounds), parts, spreads)


def format_figures(figures: Figures) -> str:
    """The figures of one detector as a table: a row for each part, and for the network and the whole."""
    total = figures.spreads["end_to_end"].mean
    unit = "ms an image" if figures.batch == 1 else f"ms for {figures.batch} images"
    lines = [f"{unit:<18}{'mean':>9}{'share':>9}{'p50':>9}{'p95':>9}{'images/s':>10}"]
    lines.append("-" * len(lines[0]))
    for name, title in {**PARTS, **WHOLES}.items():
        spread, mean = figures.spreads.get(name), figures.parts.get(name)
        mean = spread.mean if mean is None else mean
        line = f"{title:<18}{mean:>9.2f}{100 * mean / total:>7.1f} %"
        line += f"{spread.p50:>9.2f}{spread.p95:>9.2f}" if spread else ""
        lines.append(line + (f"{figures.rate(name):>10.1f}" if name in WHOLES else ""))
    return "\n".join(lines)
