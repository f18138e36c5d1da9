"""Convolutional memory: LSTM cells on feature maps, as pure functions of an input and a state.

A cell has `prepare(x)`, the part that needs no state and so can run on the frames of a whole clip at once, and
`step(prepared, state)` -> (output, new state), which goes from frame to frame; called, it does both.  A state is
(h, c), each [B, N, H, W]; None is the state of zeros before the first frame.  Nothing is kept on the module.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import separable_conv

State = tuple[Tensor, Tensor]
BOUND = 6.0  # of the memory: the reach of ReLU6, through which it is read
FORGET_BIAS = 1.0


class SeparableLSTM(nn.Module):
    """The extra layer 'L' of the LSTM fork: a strided separable block, then an LSTM whose convolutions are all 1x1.

    in_channels -> C = channels.  The names of the layers are those of its checkpoints.  The forget gate has a bias of 1
    beyond the learnt one; the candidate and the output go through tanh.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 2, padding: int = 1, hidden: int | None = None):
        super().__init__()
        self.channels = channels
        self._conv_dw = separable_conv(in_channels, channels, stride, padding, hidden)
        self.conv_bottleneck = nn.Conv2d(2 * channels, channels, 1)
        self.conv_forgetgate = nn.Conv2d(channels, channels, 1)
        self.conv_inputgate = nn.Conv2d(channels, channels, 1)
        self.conv_input2cell = nn.Conv2d(channels, channels, 1)
        self.conv_outputgate = nn.Conv2d(channels, channels, 1)

    def prepare(self, x: Tensor) -> Tensor:
        """The separable block [B, C, H', W'], which is all there is of the layer while the memory is switched off."""
        return self._conv_dw(x)

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(prepared input, state) -> (h', (h', c'))."""
        h, c = zero_state(x, self.channels) if state is None else state
        m = self.conv_bottleneck(torch.cat([x, h.to(x.dtype)], 1))
        forget = torch.sigmoid(self.conv_forgetgate(m).to(c.dtype) + FORGET_BIAS)
        candidate = torch.sigmoid(self.conv_inputgate(m)) * torch.tanh(self.conv_input2cell(m))
        c = c * forget + candidate
        h = torch.tanh(c) * torch.sigmoid(self.conv_outputgate(m))
        return h, (h, c)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One frame x [B, in_channels, H, W]."""
        return self.step(self.prepare(x), state)


class BottleneckLSTM(nn.Module):
    """Bottleneck-LSTM (Liu and Zhu 2018, arXiv 1711.06368) in the form of tensorflow/models lstm_object_detection.

    All convolutions are separable 3x3: b = ReLU6(W [x, h]), and from b the gates i, j, f, o; then
    c' = c sigmoid(f + 1) + sigmoid(i) ReLU6(j), kept within 6 by `bound`, and h' = ReLU6(c') sigmoid(o).  The output is
    h' [B, N, H, W], or [h', b] with twice the channels where `output_bottleneck`.

    The grouped, faster form of arXiv 1903.10172 splits h and c, but not x, into `groups`, each with gates of its own.
    in_channels may list several inputs, of which a frame has one: each has a bottleneck convolution of its own, and the
    memory is the same.  bound: clip to [0, 6], scale a group's whole map to a largest value of 6 at most, or none.
    """

    def __init__(
        self, in_channels, channels: int, groups: int = 1, bound: str = "clip", output_bottleneck: bool = False
    ):
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels do not split into {groups} groups")
        self.channels, self.groups, self.bound, self.output_bottleneck = channels, groups, bound, output_bottleneck
        self.out_channels = channels * (2 if output_bottleneck else 1)
        inputs = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        self.bottlenecks = nn.ModuleList(_Bottleneck(width, channels, groups) for width in inputs)
        self.gates_depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.gates_pointwise = nn.Conv2d(channels, 4 * channels, 1, groups=groups)

    def reset_parameters(self) -> None:
        """Fresh weights that keep the scale of the signal, since no norm inside would mend it.

        Those that read the memory begin small: where single frames were learnt first they never had a gradient, and the
        memory, when it is switched on, shall not upset what has been learnt.
        """
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="linear")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for bottleneck in self.bottlenecks:
            nn.init.normal_(bottleneck.h_pointwise.weight, std=0.1 / self.channels**0.5)

    def prepare(self, x: Tensor, source: int = 0) -> Tensor:
        """The input's part of the bottleneck [B, N, H, W], from an input of kind `source`."""
        return self.bottlenecks[source].of_input(x)

    def step(self, prepared: Tensor, state: State | None, source: int = 0) -> tuple[Tensor, State]:
        """(prepared input of kind `source`, state) -> (output, new state)."""
        state = zero_state(prepared, self.channels) if state is None else state
        return self.remember(prepared + self.bottlenecks[source].of_memory(state[0]), state)

    def remember(self, bottleneck: Tensor, state: State) -> tuple[Tensor, State]:
        """(bottleneck before its activation, state) -> (output, new state)."""
        bottleneck, c = F.relu6(bottleneck), state[1]
        gates = self.gates_pointwise(self.gates_depthwise(bottleneck)).unflatten(1, (self.groups, 4, -1))
        i, j, f, o = (gates[:, :, k].flatten(1, 2).to(c.dtype) for k in range(4))
        c = self._within_bound(c * torch.sigmoid(f + FORGET_BIAS) + torch.sigmoid(i) * F.relu6(j))
        h = F.relu6(c) * torch.sigmoid(o)
        return torch.cat([h, bottleneck.to(h.dtype)], 1) if self.output_bottleneck else h, (h, c)

    def forward(self, x: Tensor, state: State | None = None, source: int = 0) -> tuple[Tensor, State]:
        """One frame x [B, M, H, W], an input of kind `source`."""
        return self.step(self.prepare(x, source), state, source)

    def _within_bound(self, c: Tensor) -> Tensor:
        if self.bound == "clip":
            return c.clamp(max=BOUND)  # no term of it is negative
        if self.bound == "none":
            return c
        grouped = c.unflatten(1, (self.groups, -1))
        return (grouped / (grouped.amax((2, 3, 4), keepdim=True) / BOUND).clamp(min=1)).flatten(1, 2)


class _Bottleneck(nn.Module):
    """The separable convolution of [x, h] as a sum of one of x and one of h: a depthwise convolution keeps channels
    apart and a 1x1 adds them up.  Every group has depthwise weights of its own for the whole of x."""

    def __init__(self, in_channels: int, channels: int, groups: int):
        super().__init__()
        self.groups = groups
        self.x_depthwise = nn.Conv2d(in_channels, groups * in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.x_pointwise = nn.Conv2d(groups * in_channels, channels, 1, groups=groups)
        self.h_depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.h_pointwise = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)

    def of_input(self, x: Tensor) -> Tensor:
        # The outputs of x_depthwise lie channel by channel, those of a pointwise group must lie together.  To repeat x
        # for that is several times faster than a convolution that makes more than one map of each.
        weight, groups = self.x_depthwise.weight, self.groups
        weight = weight.unflatten(0, (-1, groups)).transpose(0, 1).flatten(0, 1)
        wide = F.conv2d(x.repeat(1, groups, 1, 1), weight, padding=1, groups=len(weight))
        return self.x_pointwise(wide)

    def of_memory(self, h: Tensor) -> Tensor:
        return self.h_pointwise(self.h_depthwise(h))


def zero_state(like: Tensor, channels: int) -> State:
    """The state before the first frame, for a map as large as `like` [B, ., H, W]; in fp32 at least, since the memory
    adds up many small changes."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    zeros = torch.zeros(like.shape[0], channels, *like.shape[2:], dtype=dtype, device=like.device)
    return zeros, zeros
