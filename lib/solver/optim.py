"""Optimizer, learning rate and weight averaging of a run."""

import math

import torch
from torch import nn

from ..dataset.dataset_factory import whole_batch
from ..utils.errors import UserError
from .checkpoint import in_scope, scope_prefixes


def freeze_outside_scope(model: nn.Module, scope: str) -> list[nn.Parameter]:
    """Let only the parameters within TRAINABLE_SCOPE learn, which are returned; '' lets all."""
    prefixes = scope_prefixes(scope, model, "TRAIN.TRAINABLE_SCOPE")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(in_scope(name, prefixes))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning:
        raise UserError(f"TRAIN.TRAINABLE_SCOPE: '{scope}' names no part of this model that could learn")
    return learning


def hold_frozen_norms(model: nn.Module) -> None:
    """Put batch norms whose weights are frozen into eval mode, so that their statistics stay as well."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.weight.requires_grad:
            module.eval()


def create_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of cfg.TRAIN.OPTIMIZER over the parameters that learn.

    Each group carries `lr_factor`, by which `set_learning_rate` multiplies the scheduled rate.
    """
    settings = cfg.TRAIN.OPTIMIZER
    groups = parameter_groups(model, settings.WEIGHT_DECAY, settings.DECAY_BIAS_AND_NORM, settings.BIAS_LR_FACTOR)
    lr, momentum, momentum_2, eps = settings.LEARNING_RATE, settings.MOMENTUM, settings.MOMENTUM_2, settings.EPS
    if settings.OPTIMIZER == "sgd":
        sgd = torch.optim.SGD(groups, lr, momentum, fused=True)
        sgd.register_step_pre_hook(_begin_momentum)
        return sgd
    if settings.OPTIMIZER == "rmsprop":
        return torch.optim.RMSprop(groups, lr, alpha=momentum_2, eps=eps, momentum=momentum)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.OPTIMIZER]
    return kind(groups, lr, betas=(momentum, momentum_2), eps=eps, fused=True)


def _begin_momentum(sgd: torch.optim.SGD, *_) -> None:
    """Let parameters that get their first gradient after others did, such as those of a memory, start at rest: torch's
    fused step asks for a momentum of all or of none, and gives that of zeros the same meaning."""
    if sgd.state:
        for parameter in (parameter for group in sgd.param_groups for parameter in group["params"]):
            if parameter.grad is not None and parameter not in sgd.state:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)


def parameter_groups(model: nn.Module, weight_decay: float, decay_all: bool, bias_lr_factor: float) -> list[dict]:
    """Parameters that learn, in groups of equal weight decay and rate factor.

    Biases and norm weights are the parameters of one dimension; without `decay_all` they are not decayed.
    """
    groups: dict[tuple, list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if decay_all or parameter.ndim > 1 else 0.0
            factor = bias_lr_factor if name.endswith(".bias") else 1.0
            groups.setdefault((decay, factor), []).append(parameter)
    return [{"params": params, "weight_decay": d, "lr_factor": f} for (d, f), params in groups.items()]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


class EpochLengths:
    """How many optimizer steps the epochs have: the first `num_first` so many, the later ones another number."""

    def __init__(self, first: int, num_first: int = 0, later: int | None = None):
        self.first, self.num_first = first, num_first
        self.later = first if later is None else later

    def epochs_at(self, step: int) -> float:
        """Epochs that are over after so many steps."""
        turn = self.first * self.num_first
        return step / self.first if step < turn else self.num_first + (step - turn) / self.later

    def total(self, epochs: int) -> int:
        """Steps of so many epochs."""
        num_first = min(self.num_first, epochs)
        return self.first * num_first + self.later * (epochs - num_first)


class LearningRate:
    """The learning rate of every optimizer step, a pure function of the step number.  `steps_per_epoch` is a number, or
    EpochLengths where epochs differ.

    The schedules count epochs from 1 after WARM_UP_EPOCHS epochs at the base rate, as the reference family does;
    SGDR (arXiv 1608.03983) falls within the epoch too and reaches nothing only after the last step.  A linear ramp
    over the first steps multiplies all that.
    """

    def __init__(self, cfg, steps_per_epoch: "int | EpochLengths"):
        schedule = cfg.TRAIN.LR_SCHEDULER
        if schedule.SCHEDULER == "step" and not schedule.STEPS:
            raise UserError("TRAIN.LR_SCHEDULER.STEPS: is empty, but SCHEDULER step takes its period from it")
        self.schedule = schedule
        self.base = cfg.TRAIN.OPTIMIZER.LEARNING_RATE
        if meant := cfg.TRAIN.OPTIMIZER.RATE_FOR_BATCH:
            self.base *= whole_batch(cfg) * cfg.TRAIN.ACCUMULATE / meant
        self.lengths = EpochLengths(steps_per_epoch) if isinstance(steps_per_epoch, int) else steps_per_epoch
        self.hold = schedule.WARM_UP_EPOCHS
        self.epochs = cfg.TRAIN.MAX_EPOCHS - self.hold
        self.ramp = min(schedule.WARM_UP_ITERATIONS, self.lengths.total(cfg.TRAIN.MAX_EPOCHS) // 10)

    def at(self, step: int) -> float:
        """The rate of optimizer step `step`, counted from 0."""
        ramp = min(1.0, (step + 1) / (self.ramp + 1))
        passed = self.lengths.epochs_at(step) - self.hold  # epochs of the schedule behind us
        return self.base * ramp * (1.0 if passed < 0 else self._factor(passed))

    def _factor(self, passed: float) -> float:
        kind, gamma, epoch = self.schedule.SCHEDULER, self.schedule.GAMMA, int(passed) + 1
        if kind == "SGDR":
            return (1 + math.cos(math.pi * self._cosine_progress(passed))) / 2
        if kind == "exponential":
            return gamma**epoch
        if kind == "step":
            return gamma ** (epoch // self.schedule.STEPS[0])
        return gamma ** sum(epoch >= milestone for milestone in self.schedule.STEPS)

    def _cosine_progress(self, passed: float) -> float:
        length, factor = self.schedule.RESTART_EPOCHS, self.schedule.RESTART_FACTOR
        if not length:
            return passed / self.epochs
        while passed >= length:
            passed -= length
            length *= factor
        return passed / length


class WeightAverage:
    """Exponential moving average of a model's weights and statistics, on the model's device.

    The decay grows from 0.1 at the first step towards its value, so that the first weights are forgotten soon.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averaged, current = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(self.state[name])
                current.append(tensor)
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(averaged, current, 1 - decay)
