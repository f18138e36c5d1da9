"""Everything that changes while a run trains, saved and restored as one."""

import logging
import signal
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..utils.distributed import gather, is_together, largest, part_of, rank, world_size
from ..utils.errors import UserError
from ..utils.state import join_rows, map_state
from .optim import LearningRate, WeightAverage, create_optimizer

logger = logging.getLogger(__name__)

YOUNGER = ("to_score", "recurrent")
"""Entries that old checkpoints lack, without harm."""


class TrainState:
    """Model, optimizer, averaged weights, gradient scaler, position in the data and best score of a run.

    `epoch` counts the finished epochs, `batch` the batches done in the one after them, `step` the optimizer steps;
    `to_score` says that the weights at the end of the last finished epoch are still to be evaluated.  `recurrent` is
    the state that the videos of the next clip go on from, None at the start of an epoch and without memory.
    """

    def __init__(self, cfg, model: nn.Module, steps_per_epoch, scale_gradients: bool, device: torch.device):
        self.model = model
        self.device = device
        self.optimizer = create_optimizer(cfg, model)
        self.learning_rate = LearningRate(cfg, steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=scale_gradients)
        self.ema_decay = cfg.TRAIN.EMA_DECAY
        self.restart_average()
        self.epoch = self.batch = self.step = 0
        self.to_score = False
        self.recurrent = None
        self.best: dict = {}

    def restart_average(self) -> None:
        """Let the average begin with the weights the model has now; there is none where EMA_DECAY is 0."""
        self.average = WeightAverage(self.model, self.ema_decay) if self.ema_decay else None

    def state_dict(self) -> dict:
        """Plain tensors and data.  To be called in all processes; that of the main one is whole."""
        return {
            "model": self.model.state_dict(),
            "ema": self.average and self.average.state,
            "ema_steps": self.average.steps if self.average else 0,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": _random_states(self.device),
            "position": {"epoch": self.epoch, "batch": self.batch, "step": self.step},
            "to_score": self.to_score,
            "recurrent": _rows_of_all(self.recurrent),
            "best": dict(self.best),
        } | ({"pruned": self.model.pruned} if self.model.pruned else {})

    def load_state_dict(self, state: dict, path) -> None:
        """Continue from a saved state; UserError where it belongs to another optimizer or set of parameters."""
        missing = [name for name in self.state_dict() if name not in state and name not in YOUNGER]
        missing += ["step"] if "step" not in state.get("position", {"step": 0}) else []
        if missing:
            raise UserError(
                f"{path}: holds no {', '.join(missing)} to continue with; start a new run from its weights with "
                "RESUME_CHECKPOINT and another EXP_DIR"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(_with_factors(state["optimizer"], self.optimizer))
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(
                f"{path}: cannot be continued with this model and optimizer ({str(error).splitlines()[0]}); start a "
                "new run from its weights with RESUME_CHECKPOINT and another EXP_DIR"
            ) from error
        if self.average is not None:
            averaged = state["ema"] or state["model"]
            self.average.state = {name: tensor.to(self.device).clone() for name, tensor in averaged.items()}
            self.average.steps = state["ema_steps"]
        self._set_random_states(state["rng"])
        self.epoch, self.batch, self.step = (state["position"][key] for key in ("epoch", "batch", "step"))
        self.to_score = state.get("to_score", False)
        rows = map_state(lambda part: part[part_of(len(part))], state.get("recurrent"))
        self.recurrent = map_state(lambda part: part.to(self.device), rows)
        self.best = dict(state["best"])

    def _set_random_states(self, rng: dict) -> None:
        """Go on drawing where each process was; with another number of them, all but the main one begin anew."""
        of_processes, of_gpus = [rng["torch"], *rng.get("others", ())], rng["cuda"]
        if len(of_processes) != world_size():
            logger.info(
                "the checkpoint is of %d processes, now there are %d: random numbers drawn by the network go another "
                "way; the batches stay those of the run, unless TRAIN.BATCH_PER_PROCESS makes them of another size",
                len(of_processes), world_size(),
            )  # fmt: skip
        if rank() < len(of_processes):
            torch.set_rng_state(of_processes[rank()])
        if torch.cuda.is_available() and is_together() and len(of_gpus) == world_size():
            torch.cuda.set_rng_state(of_gpus[rank()], self.device)
        elif torch.cuda.is_available() and not is_together() and len(of_gpus) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(of_gpus)

    @contextmanager
    def averaged_weights(self):
        """The model with the averaged weights in place of its own, as far as averaging is on."""
        if self.average is None:
            yield self.model
            return
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        try:
            self.model.load_state_dict(self.average.state)
            yield self.model
        finally:
            self.model.load_state_dict(own)


def _random_states(device: torch.device) -> dict:
    """Where the generators stand: of one process those of all its GPUs, of several each one's own."""
    if not is_together():
        return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    found = gather(torch.get_rng_state()) or [torch.get_rng_state()]
    gpus = (gather(torch.cuda.get_rng_state(device)) if device.type == "cuda" else None) or []
    return {"torch": found[0], "cuda": gpus, "others": found[1:]}


def _rows_of_all(recurrent):
    """The recurrent state of the rows of all processes."""
    if not is_together():
        return recurrent
    states = gather(map_state(Tensor.cpu, recurrent))
    return states and join_rows(states)


def _with_factors(saved: dict, optimizer: torch.optim.Optimizer) -> dict:
    """A saved optimizer state under the settings of the present configuration, so that changed ones take effect; but
    for the learning rate, which every step sets, and which a checkpoint shall show as the last step had it."""
    if len(saved["param_groups"]) != len(optimizer.param_groups):
        raise ValueError("its parameters are grouped differently")
    groups = [
        {**now, "params": then["params"], "lr": then["lr"]}
        for then, now in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {"state": saved["state"], "param_groups": groups}


class GivenUp(Exception):
    """A stop was asked for in the middle of an evaluation, which is left unfinished."""


class StopRequest:
    """While active, the first SIGINT or SIGTERM only sets `received`, so that the loop can save and leave; the second
    SIGINT interrupts at once."""

    def __init__(self):
        self.received: int | None = None
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: signals are somebody else's
            self._previous = {}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agree(self) -> bool:
        """Whether any process has been asked to stop, of which then all know; they have to ask at the same time."""
        self.received = largest(self.received or 0) or None
        return self.received is not None

    def give_up(self) -> None:
        """GivenUp where there was a request: to be called between two batches, where leaving spoils nothing."""
        if self.agree():
            raise GivenUp

    def _handle(self, number, frame) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


class Stopped(Exception):
    """Training was asked to stop by a signal, and has saved its state."""

    def __init__(self, signal_number: int, path, resumed_from: str = "auto"):
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name}; {saved_note(path, resumed_from)}")
        self.exit_status = 128 + signal_number


def saved_note(path, resumed_from: str) -> str:
    """What to say of a run that ends and has saved itself; resumed_from is its TRAIN.RESUME."""
    same = "the same command" if resumed_from == "auto" else "the same command with TRAIN.RESUME auto (no --resume)"
    return f"saved {path}, {same} continues"
