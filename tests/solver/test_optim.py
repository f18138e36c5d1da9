import copy
import math

import pytest
import torch
from torch import nn

from lib.config import load_config
from lib.modeling.model_builder import create_model
from lib.solver.optim import (
    LearningRate,
    WeightAverage,
    create_optimizer,
    freeze_outside_scope,
    hold_frozen_norms,
    parameter_groups,
    set_learning_rate,
)
from lib.utils.errors import UserError


def schedule(*overrides, steps_per_epoch=10):
    defaults = ["TRAIN.OPTIMIZER.LEARNING_RATE=1", "TRAIN.MAX_EPOCHS=10", "TRAIN.LR_SCHEDULER.WARM_UP_ITERATIONS=0"]
    cfg = load_config(None, [*defaults, *(f"TRAIN.LR_SCHEDULER.{o}" for o in overrides)])
    rate = LearningRate(cfg, steps_per_epoch)
    return [rate.at(step) for step in range(10 * steps_per_epoch)]


def test_cosine_starts_at_the_base_rate_and_never_runs_an_epoch_at_nothing():
    rates = schedule("SCHEDULER=SGDR")
    assert rates[0] == 1 and rates[50] == pytest.approx(0.5)
    assert all(a > b for a, b in zip(rates, rates[1:], strict=False))
    assert rates[-1] > 0 and rates[90] == pytest.approx((1 + math.cos(0.9 * math.pi)) / 2)


def test_warm_up_epochs_hold_the_base_rate_and_shift_the_schedule():
    rates = schedule("SCHEDULER=SGDR", "WARM_UP_EPOCHS=4")
    assert rates[:41] == [1] * 41 and rates[70] == pytest.approx(0.5)


def test_warm_restarts():
    rates = schedule("SCHEDULER=SGDR", "RESTART_EPOCHS=2", "RESTART_FACTOR=2")
    assert rates[0] == rates[20] == rates[60] == 1
    assert rates[10] == pytest.approx(0.5) and rates[40] == pytest.approx(0.5)


def test_step_counts_epochs_from_one_like_the_reference():
    # StepLR(step_size=3, gamma=0.1), stepped to the epoch's number before the epoch: epochs 1 and 2, then 3 to 5, ...
    rates = schedule("SCHEDULER=step", "STEPS=[3]", "GAMMA=0.1")[::10]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001])


def test_milestones_and_exponential():
    assert schedule("SCHEDULER=multi_step", "STEPS=[3, 6]", "GAMMA=0.1")[::10] == pytest.approx(
        [1] * 2 + [0.1] * 3 + [0.01] * 5
    )
    assert schedule("SCHEDULER=exponential", "GAMMA=0.5")[::10] == pytest.approx([0.5**e for e in range(1, 11)])


def test_ramp_is_linear_and_at_most_a_tenth_of_the_run():
    rates = schedule("SCHEDULER=multi_step", "STEPS=[99]", "WARM_UP_ITERATIONS=4")
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    rates = schedule("SCHEDULER=multi_step", "STEPS=[99]", "WARM_UP_ITERATIONS=500")
    assert rates[9] < 1 and rates[10] == 1


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model(
        load_config(
            None, ["MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", "MODEL.NUM_CLASSES=3", "MODEL.IMAGE_SIZE=64"]
        )
    )


def test_every_learning_parameter_lands_in_one_group(model):
    freeze_outside_scope(model, "extras,norm,loc,conf")
    groups = parameter_groups(model, 0.1, decay_all=False, bias_lr_factor=2.0)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    factors = {id(p): group["lr_factor"] for group in groups for p in group["params"]}
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(factor == (2.0 if names[key].endswith("bias") else 1.0) for key, factor in factors.items())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_optimizers_take_the_keys_of_the_reference(name, model):
    cfg = load_config(
        None, [f"TRAIN.OPTIMIZER.{k}" for k in (f"OPTIMIZER={name}", "MOMENTUM=0.8", "MOMENTUM_2=0.7", "EPS=0.001")]
    )
    optimizer = create_optimizer(cfg, model)
    set_learning_rate(optimizer, 0.5)
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.5
    assert group.get("betas", (0.8, 0.7)) == (0.8, 0.7) and group.get("momentum", 0.8) == 0.8
    assert group.get("alpha", 0.7) == 0.7 and group.get("eps", 0.001) == 0.001


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_what_begins_to_learn_later_begins_like_the_others_did(momentum):
    """A memory has no gradient while it is switched off."""
    torch.manual_seed(0)
    fused, plain = (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2))
    plain.load_state_dict(fused.state_dict())
    words = ["OPTIMIZER=sgd", f"MOMENTUM={momentum}", "LEARNING_RATE=0.1", "WEIGHT_DECAY=0.01"]
    optimizer = create_optimizer(load_config(None, [f"TRAIN.OPTIMIZER.{word}" for word in words]), fused)
    other = torch.optim.SGD(plain.parameters(), 0.1, momentum, weight_decay=0.01, fused=False, foreach=False)
    for step in range(4):
        x = torch.randn(5, 3) if step > 1 else torch.randn(5, 4)
        for layers, stepper in ((fused, optimizer), (plain, other)):
            (layers if step > 1 else layers[1])(x).square().mean().backward()
            stepper.step()
            stepper.zero_grad()
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_frozen_parts_do_not_move_at_all(model):
    freeze_outside_scope(model, "extras,norm,loc,conf")
    before = copy.deepcopy(model.state_dict())
    model.train()
    hold_frozen_norms(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    out = model(torch.randn(4, 3, 64, 64))
    (out.loc.square().mean() + out.conf.square().mean()).backward()
    optimizer.step()
    after = model.state_dict()
    for name in before:
        if name.startswith("backbone."):
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["head.conf.0.weight"], after["head.conf.0.weight"])


def test_scope_words(model):
    freeze_outside_scope(model, "head.conf, transforms")  # a family word this model lacks is let pass
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning and all(name.startswith("head.conf.") for name in learning)
    with pytest.raises(UserError, match="TRAIN.TRAINABLE_SCOPE: 'bass' is no part of the model; did you mean 'base'"):
        freeze_outside_scope(model, "bass,loc")
    with pytest.raises(UserError, match="no part of this model that could learn"):
        freeze_outside_scope(model, "transforms")


def test_average_follows_the_weights():
    model = nn.BatchNorm1d(1)
    model.weight.data.fill_(4.0)
    average = WeightAverage(model, 0.2)
    expected = 4.0
    for step, value in enumerate((1.0, 2.0, 3.0)):
        model.weight.data.fill_(value)
        model.num_batches_tracked.fill_(step)
        average.update(model)
        decay = min(0.2, (1 + step) / (10 + step))  # 0.1, 2/11, 0.2
        expected = decay * expected + (1 - decay) * value
        assert average.state["weight"].item() == pytest.approx(expected)
        assert average.state["num_batches_tracked"].item() == step
