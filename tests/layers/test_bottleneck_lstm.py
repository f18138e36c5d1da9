"""Memory cells: the formulas, the sizes of the papers, and what passes through time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.layers.bottleneck_lstm import BottleneckLSTM, SeparableLSTM, zero_state


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def small_cell(**settings):
    torch.manual_seed(0)
    return BottleneckLSTM(6, 8, **settings).double()


def frames(number, channels=6):
    torch.manual_seed(1)
    return torch.randn(number, 2, channels, 5, 4, dtype=torch.float64)


def test_parameters_of_the_papers():
    with torch.device("meta"):
        assert count(BottleneckLSTM(1024, 256)) == 604_928
        grouped = BottleneckLSTM([448, 112], 320, groups=4)
        assert [count(bottleneck) for bottleneck in grouped.bottlenecks] == [188_288, 68_672]
        assert count(grouped) == 188_288 + 68_672 + 106_560
        layer = SeparableLSTM(320, 512)
        assert count(layer) - count(layer._conv_dw) == 6 * 512**2 + 5 * 512


def reference_step(cell, x, h, c, source=0):
    """The cell by the letter: every group convolves the whole of x joined to its own part of h."""
    part, bottleneck = cell.channels // cell.groups, cell.bottlenecks[source]
    hs, cs, narrow = [], [], []
    for k in range(cell.groups):
        own = slice(k * part, (k + 1) * part)
        depthwise = torch.cat([bottleneck.x_depthwise.weight[k :: cell.groups], bottleneck.h_depthwise.weight[own]])
        width = x.shape[1]
        pointwise = torch.cat([bottleneck.x_pointwise.weight[own], bottleneck.h_pointwise.weight[own]], 1)
        joined = torch.cat([x, h[:, own]], 1)
        joined = F.conv2d(joined, depthwise, padding=1, groups=width + part)
        b = F.relu6(F.conv2d(joined, pointwise, bottleneck.x_pointwise.bias[own]))
        gates = F.conv2d(b, cell.gates_depthwise.weight[own], padding=1, groups=part)
        rows = slice(k * 4 * part, (k + 1) * 4 * part)
        gates = F.conv2d(gates, cell.gates_pointwise.weight[rows], cell.gates_pointwise.bias[rows])
        i, j, f, o = gates.split(part, 1)
        c_new = c[:, own] * torch.sigmoid(f + 1) + torch.sigmoid(i) * F.relu6(j)
        if cell.bound == "clip":
            c_new = c_new.clamp(-6, 6)
        elif cell.bound == "scale":
            c_new = c_new / (c_new.amax((1, 2, 3), keepdim=True) / 6).clamp(min=1)
        hs, cs, narrow = [*hs, F.relu6(c_new) * torch.sigmoid(o)], [*cs, c_new], [*narrow, b]
    h, c = torch.cat(hs, 1), torch.cat(cs, 1)
    return (torch.cat([h, *narrow], 1) if cell.output_bottleneck else h), (h, c)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("bound", ["clip", "scale", "none"])
def test_cell_is_what_the_formulas_say(groups, bound):
    cell = small_cell(groups=groups, bound=bound, output_bottleneck=groups > 1)
    for layer in cell.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.bias, 2.0)
    state = expected = None
    for x in 9 * frames(6):  # large enough to meet the bound
        expected_out, expected = reference_step(cell, x, *(expected or zero_state(x, 8)))
        out, state = cell(x, state)
        torch.testing.assert_close(out, expected_out)
        torch.testing.assert_close(state, expected)
    assert (state[1].max() > 5.9) or bound == "none"


def test_every_kind_of_input_has_a_bottleneck_of_its_own_and_all_share_the_memory():
    torch.manual_seed(0)
    cell = BottleneckLSTM([6, 3], 8, groups=2).double()
    wide, narrow = frames(1)[0], frames(1, 3)[0]
    _, state = cell(wide)
    out, after = cell(narrow, state, source=1)
    expected, expected_state = reference_step(cell, narrow, *state, source=1)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(after, expected_state)


@pytest.mark.parametrize("bound", ["clip", "scale"])
def test_memory_stays_bounded(bound):
    cell, state = small_cell(bound=bound), None
    for x in 1000 * frames(20):
        out, state = cell(x, state)
        assert out.isfinite().all() and state[1].min() >= 0 and state[1].max() <= 6 + 1e-9
    assert cell(torch.zeros(1, 6, 5, 4, dtype=torch.float64))[0].isfinite().all()


@pytest.mark.parametrize("make", [small_cell, lambda: SeparableLSTM(6, 8).double().eval()])
def test_cells_are_pure_functions(make):
    cell, (first, second) = make(), frames(2)
    names = set(vars(cell))
    _, state = cell(first)
    kept = [part.clone() for part in state]
    out, _ = cell(second, state)
    cell(first, state)
    again, _ = cell(second, state)
    assert torch.equal(out, again) and all(map(torch.equal, kept, state)) and set(vars(cell)) == names
    assert not torch.equal(out, cell(second)[0])


@pytest.mark.parametrize("make", [small_cell, lambda: SeparableLSTM(6, 8).double().eval()])
@pytest.mark.parametrize("way", [0, 1])
def test_gradient_flows_back_through_h_and_through_c(make, way):
    """The last output depends on the first input by either part of the state alone."""
    cell, (first, *others) = make(), frames(4)
    first.requires_grad_()
    _, state = cell(first)
    for x in others:
        state = tuple(part if place == way else part.detach() for place, part in enumerate(state))
        out, state = cell(x, state)
    out.sum().backward()
    assert first.grad.abs().sum() > 0


def test_step_after_prepare_is_the_cell():
    for cell in (small_cell(), SeparableLSTM(6, 8).double().eval()):
        clip = frames(3)
        prepared = cell.prepare(clip.flatten(0, 1)).unflatten(0, (3, 2))
        state = other = None
        for x, ready in zip(clip, prepared, strict=True):
            out, state = cell(x, state)
            same, other = cell.step(ready, other)
            torch.testing.assert_close(same, out)


def test_family_layer_by_its_formulas():
    torch.manual_seed(0)
    layer, (first, second) = SeparableLSTM(6, 8).double().eval(), frames(2)
    _, (h, c) = layer(first)
    x = layer._conv_dw(second)
    m = layer.conv_bottleneck(torch.cat([x, h], 1))
    sigmoid = torch.sigmoid
    c = c * sigmoid(layer.conv_forgetgate(m) + 1)
    c = c + sigmoid(layer.conv_inputgate(m)) * torch.tanh(layer.conv_input2cell(m))
    expected = torch.tanh(c) * sigmoid(layer.conv_outputgate(m))
    torch.testing.assert_close(layer(second, layer(first)[1])[0], expected)


def test_memory_is_kept_in_full_precision():
    cell = BottleneckLSTM(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        _, state = cell(torch.randn(1, 6, 5, 4))
        _, state = cell(torch.randn(1, 6, 5, 4), state)
    assert [part.dtype for part in state] == [torch.float32] * 2
