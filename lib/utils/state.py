"""Recurrent state: nested tuples, lists and dicts of tensors whose first dimension is the rows of the batch.

A state of zeros is that of a video that has not begun; None stands for it, and for a model without memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def map_state(function: Callable[[Tensor], Tensor], state):
    """The state with `function` applied to each of its tensors."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, (tuple, list)):
        return type(state)(map_state(function, part) for part in state)
    if isinstance(state, dict):
        return {name: map_state(function, part) for name, part in state.items()}
    return state


def detach_state(state):
    """The state without its history: no gradient flows back beyond it."""
    return map_state(Tensor.detach, state)


def reset_rows(state, first: Tensor):
    """The state with zeros in the rows that `first` bool [B] marks; whatever they held, infinities too, is gone."""

    def reset(part: Tensor) -> Tensor:
        return torch.where(first.reshape(-1, *[1] * (part.ndim - 1)), part.new_zeros(()), part)

    return map_state(reset, state)


def join_rows(states: list):
    """One state of the rows of several alike ones, in their order."""
    some = states[0]
    if isinstance(some, Tensor):
        return torch.cat(states)
    if isinstance(some, (tuple, list)):
        return type(some)(join_rows(list(parts)) for parts in zip(*states, strict=True))
    if isinstance(some, dict):
        return {name: join_rows([state[name] for state in states]) for name in some}
    return some


def keep_rows(state, count: int):
    """The first `count` rows of the state: the others have come to their end."""
    return map_state(lambda part: part[:count], state)
