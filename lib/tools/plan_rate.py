"""The epochs of a training as the plan tool lays them out: stages, optimizer steps and learning rate."""

import math
from dataclasses import dataclass
from itertools import groupby

from ..config.stages import num_still_epochs, stage_of
from ..solver.optim import EpochLengths, LearningRate

ASSUMED_IMAGES = 10_000


@dataclass
class StageFacts:
    """Epochs of one kind, from first to last: clips of `frames` frames of `rows` videos side by side, or batches of
    `rows` stills, of which `frames` is 1."""

    first: int
    last: int
    clips: bool
    base_held: bool
    frames: int
    rows: int
    steps_per_epoch: int


@dataclass
class RateFacts:
    """The stages, and the course of the learning rate: (step, epochs passed, rate, what happens there).  `videos` is
    None where their number is not known."""

    images: int
    images_assumed: bool
    videos: int | None
    steps_per_epoch: int
    epochs: int
    stages: list[StageFacts]
    points: list[tuple[int, float, float, str]]


def collect_rate(cfg, images: int | None, videos: int | None) -> tuple[RateFacts, LearningRate]:
    """The facts for so many images in so many videos (None: not known), and the rule behind them."""
    assumed, images = images is None, images or ASSUMED_IMAGES
    rule = LearningRate(cfg, epoch_lengths(cfg, images, videos))
    stages = _stages(cfg, rule.lengths)
    points = rate_points(cfg, rule)
    return RateFacts(images, assumed, videos, stages[0].steps_per_epoch, cfg.TRAIN.MAX_EPOCHS, stages, points), rule


def steps_per_epoch(cfg, images: int) -> int:
    """Optimizer steps of an epoch of so many stills."""
    return _steps(cfg, images, cfg.TRAIN.BATCH_SIZE)


def steps_per_clip_epoch(cfg, images: int, videos: int | None) -> int:
    """Optimizer steps of an epoch of clips, which shows at most FRAMES_IN_VIDEO of the frames of each video."""
    rnn = cfg.MODEL.RNN
    shown = images if videos is None else min(images, videos * rnn.FRAMES_IN_VIDEO)
    return _steps(cfg, shown, rnn.BACKPROP_STEPS * rnn.BATCH_SIZE)


def _steps(cfg, images: int, batch_size: int) -> int:
    return math.ceil(math.ceil(images / batch_size) / cfg.TRAIN.ACCUMULATE)


def epoch_lengths(cfg, images: int, videos: int | None = None) -> EpochLengths:
    """The optimizer steps of the epochs of a training on so many images."""
    clips = steps_per_clip_epoch(cfg, images, videos)
    return EpochLengths(steps_per_epoch(cfg, images), num_still_epochs(cfg), clips)


def _stages(cfg, lengths: EpochLengths) -> list[StageFacts]:
    rnn, found = cfg.MODEL.RNN, []
    for stage, group in groupby(range(1, cfg.TRAIN.MAX_EPOCHS + 1), lambda epoch: stage_of(cfg, epoch)):
        epochs = list(group)
        shape = (rnn.BACKPROP_STEPS, rnn.BATCH_SIZE) if stage.clips else (1, cfg.TRAIN.BATCH_SIZE)
        steps = lengths.later if stage.clips else lengths.first
        found.append(StageFacts(epochs[0], epochs[-1], stage.clips, stage.base_held, *shape, steps))
    return found


def rate_points(cfg, rule: LearningRate) -> list[tuple[int, float, float, str]]:
    """(step, epochs passed, rate, what happens there) where the learning rate is worth a look, in order."""
    schedule, lengths, epochs = cfg.TRAIN.LR_SCHEDULER, rule.lengths, cfg.TRAIN.MAX_EPOCHS
    last, start = lengths.total(epochs) - 1, lengths.total(rule.hold)
    rest = epochs - rule.hold
    points = {_first_step(lengths, rule.hold + rest * quarter / 4): "" for quarter in range(1, 4)} if rest > 0 else {}
    if schedule.SCHEDULER in ("step", "multi_step"):
        points = {}
    if schedule.SCHEDULER == "multi_step":
        points = {lengths.total(rule.hold + n - 1): f"STEPS {n}" for n in schedule.STEPS}
    if schedule.SCHEDULER == "step":
        every = schedule.STEPS[0]
        count = rest // every
        chosen = range(1, count + 1) if count <= 6 else [1, 2, 3, count // 2, count]
        points = {lengths.total(rule.hold + n * every - 1): f"step {n} of {count}" for n in chosen}
    if schedule.SCHEDULER == "SGDR" and schedule.RESTART_EPOCHS:
        points = {_first_step(lengths, rule.hold + at): "restart" for at in _restarts(schedule, rest)}
    points[start] = f"after WARM_UP_EPOCHS, {schedule.SCHEDULER} begins" if rule.hold else points.get(start, "")
    for at, what in _stage_points(cfg, lengths):
        points[at] = ", ".join(filter(None, [what, points.get(at, "")]))
    points[rule.ramp] = points.get(rule.ramp, "") or "after the ramp of WARM_UP_ITERATIONS"
    points[0] = "first step" if rule.ramp else points.get(0) or "first step"
    points[last] = "last step"
    return [(at, lengths.epochs_at(at), rule.at(at), points[at]) for at in sorted(points) if 0 <= at <= last]


def _stage_points(cfg, lengths: EpochLengths) -> list[tuple[int, str]]:
    """(step, what happens there) where one stage follows another."""
    stages = _stages(cfg, lengths)
    return [
        (lengths.total(after.first - 1), "the base learns again" if before.clips else "clips begin")
        for before, after in zip(stages, stages[1:], strict=False)
    ]


def _first_step(lengths: EpochLengths, epochs: float) -> int:
    """The first step at which so many epochs are over."""
    later = max(0.0, epochs - lengths.num_first)
    return math.ceil(round(lengths.first * (epochs - later) + lengths.later * later, 6))


def _restarts(schedule, epochs: int) -> list[float]:
    """Epochs, from the beginning of the schedule, after which its first cosine cycles end; at most six."""
    found, at, length = [], 0.0, float(schedule.RESTART_EPOCHS)
    while at + length < epochs and len(found) < 6:
        at += length
        found.append(at)
        length *= schedule.RESTART_FACTOR
    return found
