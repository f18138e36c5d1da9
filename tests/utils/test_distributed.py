"""What several processes tell each other."""

import copy

import pytest
import torch
from torch import nn

from lib.layers.synced_norm import SyncedBatchNorm2d, synchronise_norms
from lib.modeling.folding import fold_norms
from lib.utils.distributed import (
    EndedElsewhere,
    gather,
    joined,
    largest,
    main_first,
    on_main,
    part_of,
    rank,
    share_weights,
    sum_of_losses,
    sum_over_processes,
)
from lib.utils.errors import UserError

from ..processes import in_processes


def norms() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False)).double()
    model[1].momentum = None
    return model


def images() -> torch.Tensor:
    return 5 + torch.randn(5, 3, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def weighted_sum(y: torch.Tensor, rows: slice) -> torch.Tensor:
    """A loss whose gradients with respect to all cells differ."""
    weight = torch.randn(5, *y.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return (weight[rows] * y.tanh()).sum()


def talk() -> dict:
    """Everything once, in one start of the processes, which takes longest."""
    found = {"largest": largest(rank() * 3), "gathered": gather(rank() + 5), "part": part_of(5)}
    found["losses"] = sum_of_losses({"a": torch.tensor(1.0 + rank()), "b": torch.tensor(2.0)})
    found["told"] = on_main(lambda: "said once") if rank() == 0 else on_main(lambda: pytest.fail("only in process 0"))
    order = []
    main_first(lambda: order.append(rank()))
    found["order"] = gather(order)
    try:
        on_main(lambda: 1 / 0)
    except (ZeroDivisionError, EndedElsewhere) as error:
        found["error"] = type(error).__name__
    shared = nn.Linear(2, 2)
    with torch.no_grad():
        shared.weight.fill_(rank() + 1)
    share_weights(shared)
    found["weight"] = shared.weight.detach().clone()

    model, rows = norms().train(), part_of(5)
    synchronise_norms(model)
    for _ in range(2):  # a second pass for the running statistics
        model.zero_grad()
        weighted_sum(model(images()[rows]), rows).backward()
    found["gradients"] = [sum_over_processes(parameter.grad) for parameter in model.parameters()]
    found["statistics"] = dict(model.named_buffers())
    found["evaluated"] = model.eval()(images()).detach()
    return found


def test_processes_together():
    first, second, third = in_processes(3, talk)
    assert [f["largest"] for f in (first, second, third)] == [6, 6, 6]
    assert first["gathered"] == [5, 6, 7] and second["gathered"] is None
    assert [f["part"] for f in (first, second, third)] == [slice(0, 1), slice(1, 3), slice(3, 5)]
    assert float(third["losses"]["a"]) == 6 and float(third["losses"]["b"]) == 6
    assert second["told"] == "said once"
    assert first["order"] == [[0], [1], [2]]
    assert [f["error"] for f in (first, second, third)] == ["ZeroDivisionError", "EndedElsewhere", "EndedElsewhere"]
    assert third["weight"].eq(1).all()

    whole = norms().train()
    for _ in range(2):
        whole.zero_grad()
        weighted_sum(whole(images()), slice(None)).backward()
    for found in (first, second, third):
        torch.testing.assert_close(found["gradients"], [p.grad for p in whole.parameters()], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found["statistics"], dict(whole.named_buffers()), rtol=1e-10, atol=1e-12)
        evaluated = copy.deepcopy(whole).eval()(images()).detach()
        torch.testing.assert_close(found["evaluated"], evaluated, rtol=1e-10, atol=1e-10)


def test_one_alone_talks_to_itself():
    assert largest(4) == 4 and gather("x") == ["x"] and on_main(lambda: 3) == main_first(lambda: 3) == 3
    assert part_of(7) == slice(0, 7) and rank() == 0
    model, alike = norms().train(), norms().train()
    synchronise_norms(model)
    torch.testing.assert_close(model(images()), alike(images()), rtol=0, atol=0)


def test_synchronised_norms_fold_like_others():
    model = norms().eval()
    synchronise_norms(model)
    assert any(type(module) is SyncedBatchNorm2d for module in model)
    folded = fold_norms(model)
    assert not isinstance(folded[1], nn.BatchNorm2d)
    torch.testing.assert_close(folded(images()), model(images()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings, told", [
    ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR"),
    ({"WORLD_SIZE": "two"}, "'two' in the environment is no number"),
])  # fmt: skip
def test_half_an_environment_is_told(monkeypatch, settings, told):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=told), joined(torch.device("cpu"), 5):
        pass
