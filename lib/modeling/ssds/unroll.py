"""Running one step of a memory over the frames of a clip."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...utils.state import map_state, reset_rows


def unroll(step: Callable, prepared, state, first: Tensor | None) -> tuple[Tensor, object]:
    """Run `step(frame, state)` -> (output [B, ...], new state) over T frames.

    prepared is a tensor [T * B, ...] in order of time, or a tuple of such; first bool [T, B] marks the rows that begin
    a video, which forget their state before that frame; without `first` the rows are one frame.  Returns (outputs
    [T * B, ...], the last state).
    """
    if first is None:
        return step(prepared, state)
    frames = map_state(lambda part: part.unflatten(0, first.shape), prepared)
    outputs = []
    for t, begins in enumerate(first):
        frame = map_state(lambda part, t=t: part[t], frames)
        output, state = step(frame, reset_rows(state, begins))
        outputs.append(output)
    return torch.cat(outputs), state
