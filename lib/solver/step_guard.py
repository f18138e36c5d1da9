"""Stops a training whose numbers are no longer finite, and keeps what one command needs to run that step again."""

import logging
import math
import shlex
from collections import deque
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..evaluation import written_id
from ..structures import Batch, Clip
from ..utils.distributed import gather, is_together
from ..utils.log import ROOT
from .checkpoint import save_atomically
from .run import run_content

logger = logging.getLogger(__name__)

FORMAT = 1
REPLAY_FOLDER = "replay"
COMMAND = "python train.py" if ROOT == "lib" else "ssds-train"
ADVICE = "a lower TRAIN.OPTIMIZER.LEARNING_RATE often helps"


class StepGuard:
    """Watches the targets, losses and gradients of every step; FloatingPointError for one that is not finite.

    On a CPU the step itself is stopped, before it changes a weight, and EXP_DIR/replay/step_N.pth keeps its batches
    and the state of the run before it.  On a GPU, where looking at every loss would make the host wait, the first bad
    batch is noted on the device, and `check_noted` stops the run later; its weights are gone by then.

    `records` are those of the loader, `dtype` is that of mixed precision or None.
    """

    def __init__(self, cfg, state, records, dtype: torch.dtype | None):
        self.cfg, self.state, self.records, self.dtype = cfg, state, records, dtype
        self.on_cpu = state.device.type == "cpu"
        weights = state.model.state_dict()
        self._buffers = {name: b for name, b in state.model.named_buffers() if name in weights}
        self._buffers_before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._rng_before = self._recurrent_before = None
        self._step = -1
        self._clips: list[Clip] = []
        self._losses: list[dict[str, float]] = []
        self._recent: deque[_Noted] = deque(maxlen=cfg.TRAIN.LOG_EVERY * cfg.TRAIN.ACCUMULATE + 1)
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=state.device)
        self._num_noted = 0

    @torch.no_grad()
    def begin(self, clip: Clip) -> None:
        """Take in a clip before it goes to the device; the batches of one optimizer step belong together."""
        if self.on_cpu:
            if self.state.step != self._step:
                self._step, self._clips, self._losses = self.state.step, [], []
                if self._buffers:  # torch refuses empty lists
                    torch._foreach_copy_(list(self._buffers_before.values()), list(self._buffers.values()))
                self._rng_before = torch.get_rng_state()
                self._recurrent_before = self.state.recurrent
            self._clips.append(clip)
        boxes = torch.cat([target.boxes for batch in clip for target in batch.targets])
        if not boxes.isfinite().all():
            targets = [target for batch in clip for target in batch.targets if not target.boxes.isfinite().all()]
            rate = self.state.learning_rate.at(self.state.step)
            if is_together():  # the others do not know of it, and so cannot give their part of a replay file
                message = _message("a box is not finite", self.state.epoch, self.state.batch, {}, rate, _ids(targets))
                raise FloatingPointError(f"{message}; look at its annotation")
            self._stop("a box is not finite", targets, rate, {})

    def check_losses(self, losses: dict[str, Tensor], total: Tensor, clip: Clip, rate: float) -> None:
        """Take in the losses of a clip and their sum, those of all processes together, before they go backward."""
        if self.on_cpu:
            self._losses.append({name: value.item() for name, value in losses.items()})
            if not math.isfinite(total.item()):
                self._stop("the loss is not finite", _targets(clip), rate, self._losses[-1])
            return
        parts = {name: value.detach() for name, value in losses.items()}
        state = self.state
        self._recent.append(_Noted(self._num_noted, state.epoch, state.batch, rate, parts, _ids(_targets(clip))))
        bad = (self._first_bad < 0) & ~total.detach().isfinite()
        self._first_bad = torch.where(bad, self._num_noted, self._first_bad)
        self._num_noted += 1

    def check_gradient(self, norm: Tensor, rate: float) -> None:
        """Take in the norm of the whole gradient, before the optimizer uses it; only on a CPU is it looked at."""
        if self.on_cpu and not math.isfinite(norm.item()):
            targets = [target for clip in self._clips for target in _targets(clip)]
            self._stop("the gradient is not finite", targets, rate, self._losses[-1], norm.item())

    def check_noted(self) -> None:
        """Stop the run if a loss of the GPU was not finite since the last call; waits for the device."""
        first = -1 if self.on_cpu else int(self._first_bad)
        if first < 0:
            return
        noted = next((noted for noted in self._recent if noted.number == first), self._recent[0])
        losses = {name: value.item() for name, value in noted.losses.items()}
        raise FloatingPointError(
            _message("the loss is not finite", noted.epoch, noted.batch, losses, noted.rate, noted.image_ids)
            + f"; {ADVICE}; on a GPU no replay file can be written: go on with DEVICE=cpu to get one"
        )

    def _stop(self, what: str, targets: list, rate: float, losses: dict[str, float], norm: float | None = None) -> None:
        """Raise in all processes, with what they did together."""
        clips, ids, state = gather(self._clips), gather(_ids(targets)), self._state_before()
        if clips is None or ids is None:
            raise FloatingPointError(what)
        message = _message(what, self.state.epoch, self.state.batch, losses, rate, sum(ids, []))
        message += "" if norm is None else f", gradient norm {norm:g}"
        message += f"; {ADVICE}" if losses else "; look at its annotation"
        if not self.on_cpu:
            raise FloatingPointError(message)
        path = Path(self.cfg.EXP_DIR) / REPLAY_FOLDER / f"step_{self.state.step + 1}.pth"
        try:
            whole = [_joined(parts) for parts in zip(*clips, strict=True)]
            save_atomically(self._content(state, whole, rate, norm), path)
        except OSError as error:
            end = f"{path} could not be written ({error.strerror or error})"
        else:
            end = f"to find out why: {COMMAND} --replay {shlex.quote(str(path))}"
        raise FloatingPointError(f"{message}; {end}")

    def _state_before(self) -> dict:
        """The state of the run before the step."""
        recurrent, self.state.recurrent = self.state.recurrent, self._recurrent_before
        state = self.state.state_dict()
        self.state.recurrent = recurrent
        state["model"] = {**state["model"], **self._buffers_before}
        state["rng"]["torch"] = self._rng_before
        return state

    def _content(self, state: dict, clips: list[Clip], rate: float, norm: float | None) -> dict:
        """What a replay file holds: the state of the run before the step, the step's batches, and what came out."""
        index = {self.records.image_id(i): i for i in range(len(self.records))}
        return {
            "replay": FORMAT,
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "arithmetic": str(self.dtype or torch.float32).removeprefix("torch."),
            "learning_rate": rate,
            "losses": self._losses,
            "gradient_norm": norm,
            "clips": [[self._plain(batch, index) for batch in clip] for clip in clips],
            "run": run_content(self.cfg, self.records.class_names, **state),
        }

    def _plain(self, batch, index: dict) -> dict:
        targets = []
        for target in batch.targets:
            number = index.get(target.image_id)
            path = "" if number is None else self.records.image_path(number)
            targets.append({**vars(target), "path": path})
        return {"images": batch.images, "first": batch.first, "targets": targets}


class _Noted(NamedTuple):
    """A batch of which the host has not seen the losses yet."""

    number: int
    epoch: int
    batch: int
    rate: float
    losses: dict[str, Tensor]
    image_ids: list[str]


def _joined(parts: tuple[Clip, ...]) -> Clip:
    """The rows of several processes as one clip."""
    return [
        Batch(
            torch.cat([batch.images for batch in batches]),
            [target for batch in batches for target in batch.targets],
            torch.cat([batch.first for batch in batches]),
        )
        for batches in zip(*parts, strict=True)
    ]


def _targets(clip: Clip) -> list:
    return [target for batch in clip for target in batch.targets]


def _ids(targets) -> list[str]:
    return [str(written_id(target.image_id)) for target in targets]


def _message(what: str, epoch: int, batch: int, losses: dict, rate: float, image_ids) -> str:
    parts = "".join(f"{name} {value:g}, " for name, value in losses.items())
    images = ", ".join(dict.fromkeys(image_ids))
    return f"{what} in epoch {epoch + 1}, batch {batch + 1}: {parts}learning rate {rate:g}, images {images}"
