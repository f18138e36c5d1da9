"""Several processes at work on one model, started by torchrun: who is who, and what they tell each other.

Alone, every function here does what one process needs, which is mostly nothing.  Process 0 is the main one: it reads
what the run goes on from, writes its files and speaks for all.
"""

import logging
import os
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from .errors import UserError

T = TypeVar("T")


class EndedElsewhere(Exception):
    """The main process has failed, and says why."""

    exit_status = 2


def num_launched() -> int:
    """How many processes torchrun, or another launcher of that kind, has started for this command."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"WORLD_SIZE: '{text}' in the environment is no number of processes; start with torchrun")
    return int(text)


def launched_rank() -> int:
    """The number of this process among those, from 0."""
    return int(os.environ.get("RANK", "0")) if num_launched() > 1 else 0


def local_rank() -> int:
    """The number of this process on its host, from 0; also before the processes have met."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_together() -> bool:
    """Whether this process works with others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process among all, from 0."""
    return dist.get_rank() if is_together() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if is_together() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks for all."""
    return rank() == 0


@contextmanager
def joined(device: torch.device, timeout: float):
    """Inside, the processes that torchrun started work together; nothing for one that is alone.

    device: where this process computes; GPUs talk through NCCL, CPUs through gloo.  timeout: seconds after which one
    that waits for the others gives up.  UserError where they do not find each other.
    """
    if num_launched() == 1:
        yield
        return
    needed = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if needed:
        raise UserError(
            f"{needed[0]}: WORLD_SIZE is {num_launched()} in the environment, but this is not; start the processes "
            "with torchrun --nproc-per-node=N train.py ..."
        )
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout)
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes do not find each other at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} "
            f"({str(error).splitlines()[0]})"
        ) from error
    yield
    # Not after an error: the others may never come here.
    dist.destroy_process_group()


def on_main(function: Callable[[], T]) -> T:
    """What `function` returns in the main process, in all of them; what it raises there ends the others silently."""
    if not is_together():
        return function()
    answer = [None, False]
    if is_main():
        try:
            answer = [function(), True]
        finally:
            dist.broadcast_object_list(answer)
    else:
        dist.broadcast_object_list(answer)
    if not answer[1]:
        raise EndedElsewhere
    return answer[0]


def main_first(function: Callable[[], T]) -> T:
    """Each process calls `function`, the others after the main one, whose files they find."""
    if not is_together():
        return function()
    if is_main():
        result = None

        def keep() -> None:
            nonlocal result
            result = function()

        on_main(keep)
        return result
    on_main(function)
    logging.disable(logging.WARNING)  # the main one has told it
    try:
        return function()
    finally:
        logging.disable(logging.NOTSET)


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if is_together():
        dist.barrier()


def largest(value: int) -> int:
    """The largest of the numbers that the processes give."""
    if not is_together():
        return value
    shared = torch.tensor(value)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared)


def gather(value: T) -> list[T] | None:
    """What the processes give, by their numbers, in the main one; None in the others."""
    if not is_together():
        return [value]
    found = [None] * world_size() if is_main() else None
    dist.gather_object(value, found)
    return found


def sum_of_losses(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sums of named numbers over the processes, without a gradient and without waiting for the device."""
    if not is_together():
        return losses
    values = torch.stack([value.detach() for value in losses.values()])
    dist.all_reduce(values)
    return dict(zip(losses, values, strict=True))


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of a tensor over the processes; gradients flow through it, to the inputs of all of them."""
    return _Sum.apply(tensor) if is_together() else tensor


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


def share_weights(module: torch.nn.Module) -> None:
    """Give all processes the weights and statistics of the main one."""
    if is_together():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def part_of(count: int) -> slice:
    """Which of `count` things in a row belong to this process: as many to each as can be, in the order of the
    processes."""
    number, total = rank(), world_size()
    return slice(number * count // total, (number + 1) * count // total)


def is_loss_of_others(error: Exception) -> bool:
    """Whether this is how torch tells that another process does not answer any more."""
    text = str(error)
    return is_together() and (
        isinstance(error, (dist.DistBackendError, dist.DistNetworkError)) or "gloo" in text or "NCCL" in text
    )
