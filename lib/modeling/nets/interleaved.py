"""Two extractors that take turns on the frames of a video (Looking Fast and Slow, arXiv 1903.10172)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...utils.errors import UserError
from ...utils.state import reset_rows
from .backbone import Backbone


@dataclass(frozen=True)
class Policy:
    """Which frames the large extractor sees.

    kind: fixed (one, then `interval` of the small one), adaptive (as fixed, and whenever the memory has drifted by more
    than `threshold`), random (every second one, by chance), large (all) or small (none).  The first frame of a video is
    one of them, but for small.  small_updates: the frames of the small one change the memory, too.
    """

    kind: str = "fixed"
    interval: int = 9
    threshold: float = 0.5
    small_updates: bool = False

    def choose(self, age: Tensor, drift: Tensor) -> Tensor:
        """bool [B]: the rows whose frame the large extractor sees.

        age int64 [B]: frames since it last did, that one counted, 0 before the first; drift [B]: change of the memory
        in the frame before.
        """
        if self.kind == "small":
            return torch.zeros_like(age, dtype=torch.bool)
        if self.kind == "large":
            return torch.ones_like(age, dtype=torch.bool)
        if self.kind == "random":
            return (age == 0) | heads_or_tails(age)
        chosen = (age == 0) | (age > self.interval)
        return chosen | (drift > self.threshold) if self.kind == "adaptive" else chosen

    def keeps(self, chosen: Tensor) -> Tensor:
        """bool [B]: the rows whose frame changes the memory, given those of the large extractor; all of them where the
        small one is alone."""
        return torch.ones_like(chosen) if self.small_updates or self.kind == "small" else chosen


class Shared(NamedTuple):
    """What the two extractors made of T * B frames: the map of the large one for the rows in `chosen` bool [T * B],
    that of the small one for the others (None for no rows), and the rows that the memory shall keep."""

    large: Tensor | None
    small: Tensor | None
    chosen: Tensor
    kept: Tensor


class InterleavedBackbone(Backbone):
    """A large extractor, whose layers are those of this base, and a small one that sees images of half the size.

    Only the chosen one runs.  The state is {"age": int64 [B], "drift": [B], "memory": that of the neck}; `policy` is
    that of inference, `training_policy` that of training.
    """

    def __init__(self, large: Backbone, small: Backbone, policy: Policy, training_policy: Policy):
        super().__init__(list(large.layers), large.feature_info, large.usual_levels, large.unstrided)
        self.small = small
        self.policy, self.training_policy = policy, training_policy

    def forward(self, images: Tensor, state=None, inserts=None, first=None) -> tuple[Shared, object]:
        """Images [T * B, 3, H, W] -> (what the extractors made of them, the state with the ages after these frames)."""
        if images.is_meta:
            return self._run_on_shapes(images)
        rows = images.new_zeros(1, len(images), dtype=torch.bool) if first is None else first
        state = fresh_state(rows.shape[1], images) if state is None else state
        policy = self.training_policy if self.training else self.policy
        chosen, state = self._choose(policy, rows, state)
        large, small = images[chosen], images[~chosen]
        maps = self.extract(large) if len(large) else None, self.extract_small(small) if len(small) else None
        return Shared(*maps, chosen, policy.keeps(chosen)), state

    def _run_on_shapes(self, images: Tensor) -> tuple[Shared, dict]:
        """The same on the meta device, where no rows can be chosen: all are the large extractor's, unless the policy of
        inference is small."""
        rows = images.new_empty(len(images), dtype=torch.bool)
        if self.policy.kind == "small":
            return Shared(None, self.extract_small(images), rows, rows), fresh_state(len(images), images)
        return Shared(self.extract(images), None, rows, rows), fresh_state(len(images), images)

    def extract(self, images: Tensor) -> Tensor:
        """The last map of the large extractor."""
        return super().forward(images)[0][-1]

    def extract_small(self, images: Tensor) -> Tensor:
        """The last map of the small extractor, as large as that of the large one; the images are halved first."""
        size = [-(-side // 2) for side in images.shape[2:]]
        return self.small(F.interpolate(images, size, mode="bilinear", align_corners=False))[0][-1]

    def maps_of(self, features: Shared) -> list[Tensor]:
        """The map of the extractor that ran, as that of the only tap and as the end."""
        ran = features.small if features.large is None else features.large
        return [ran, ran]

    def _choose(self, policy: Policy, rows: Tensor, state: dict) -> tuple[Tensor, dict]:
        """(bool [T * B], state) for the frames of a clip; rows bool [T, B] marks the beginnings."""
        if not self.memory_on:  # frames without a past, of which in training each extractor must learn something
            chosen = policy.choose(torch.zeros_like(rows.flatten(), dtype=torch.int64), state["drift"])
            takes_turns = policy.kind == "fixed" and policy.interval > 0
            by_chance = policy.kind == "random" or (self.training and takes_turns)
            return heads_or_tails(chosen) if by_chance else chosen, state
        if policy.kind == "adaptive" and len(rows) > 1:
            raise ValueError("the adaptive policy decides from frame to frame, not for a whole clip")
        age, drift, choices = state["age"], state["drift"], []
        for begins in rows:
            age, drift = reset_rows((age, drift), begins)
            choices.append(policy.choose(age, drift))
            age = torch.where(choices[-1], 1, age + (age > 0))
        return torch.cat(choices), {**state, "age": age}


def heads_or_tails(like: Tensor) -> Tensor:
    """bool [B], each true by a chance of one half; drawn by the CPU's generator, whose state a checkpoint keeps."""
    return (torch.rand(len(like)) < 0.5).to(like.device)


def fresh_state(num_rows: int, like: Tensor) -> dict:
    """The state before the first frame of so many videos."""
    age = torch.zeros(num_rows, dtype=torch.int64, device=like.device)
    return {"age": age, "drift": torch.zeros(num_rows, device=like.device), "memory": None}


def usual_small_net(large: Backbone) -> str:
    """The name of the small extractor of the paper, with as many of its strides as suit the large one."""
    half = large.feature_info[-1].stride // 2
    return "slim_mobilenet_v2_035" + (f"_stride{half}" if half < 32 else "")


def check_strides(large: Backbone, small: Backbone, small_name: str) -> None:
    """UserError unless the small extractor's map of half an image is as large as the large one's of the whole."""
    stride, other = large.feature_info[-1].stride, 2 * small.feature_info[-1].stride
    if stride != other:
        raise UserError(
            f"MODEL.RNN.SMALL_NETS: {small_name} sees images of half the size and has a stride of {other} pixels of "
            f"the whole ones, MODEL.NETS one of {stride}: the two must be equal; mobilenet_v1_025_stride8 has 16, "
            "slim_mobilenet_v2_035_stride16 has 32"
        )
