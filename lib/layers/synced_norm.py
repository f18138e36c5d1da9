"""Batch norm over the images of all processes.

torch's SyncBatchNorm does this on GPUs only.
"""

import torch
from torch import Tensor, nn

from ..utils.distributed import sum_over_processes, world_size


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the batches of all processes together.

    The processes have to run it at the same time.  In evaluation, and for one process alone, it is BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        # In double precision, where the mean square less the square of the mean loses nothing that counts.
        variance, mean = variance.double(), mean.double()
        sums = sum_over_processes(torch.cat([count * mean, count * (variance + mean**2), count]))
        count = sums[-1].detach()
        mean, square = (sums[:-1] / count).chunk(2)
        variance = square - mean**2
        if self.track_running_stats:
            self._remember(mean, variance * (count / (count - 1).clamp(min=1)))
        scale = (variance + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shift = (0 if self.bias is None else self.bias) - mean * scale
        shape = 1, -1, 1, 1
        y = torch.addcmul(shift.to(wide.dtype).view(shape), wide, scale.to(wide.dtype).view(shape))
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        # momentum None asks for a plain mean over all batches.
        part = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
        self.running_var.lerp_(variance.to(self.running_var.dtype), part)


BATCH_NORMS = (nn.BatchNorm2d, SyncedBatchNorm2d)


def synchronise_norms(module: nn.Module) -> None:
    """Turn the batch norms inside a module into ones over all processes; parameters and statistics stay what they are.

    Derived classes of other libraries, which may do more than norm, are left alone.
    """
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncedBatchNorm2d
