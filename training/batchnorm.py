"""Batch normalization over the images of all processes, as if one had computed the whole batch.

torch's SyncBatchNorm does the same on GPUs only.
"""

from typing import Any

import torch
from torch import nn

from distributed import add_up


class _Sum(torch.autograd.Function):
    """The sum over all processes. The loss is their sum too, so the gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(_: Any, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor of any shape."""
        total = value.clone()
        add_up(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        """The sum of the gradients with respect to it."""
        total = gradients[0].contiguous().clone()
        add_up(total)
        return total


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """In train mode, mean and variance are those of the batch of all processes, which all call it at the same time."""

    copies = 1  # how many processes compute the whole batch, instead of their share of it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C) or (B, C, H, W) -> the same shape."""
        if not self.training:
            return super().forward(x)
        dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        values = x.float()
        count = values.new_full((1,), x.numel() // x.shape[1])
        total = _Sum.apply(torch.cat([values.sum(dims), count]))
        mean, count = total[:-1] / total[-1], total[-1].detach()
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        values_of_one = count / self.copies
        self._count(mean.detach(), variance.detach() * values_of_one / (values_of_one - 1))
        normalized = centred * (variance + self.eps).rsqrt().view(shape)
        scaled: torch.Tensor = normalized * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(x.dtype)

    @torch.no_grad()
    def _count(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics, as ``nn.BatchNorm2d`` does."""
        assert self.momentum is not None and self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class SharedBatchNorm1d(SharedBatchNorm, nn.BatchNorm1d):
    """``SharedBatchNorm`` in place of ``nn.BatchNorm1d``."""


class SharedBatchNorm2d(SharedBatchNorm, nn.BatchNorm2d):
    """``SharedBatchNorm`` in place of ``nn.BatchNorm2d``."""


SHARED: dict[type[nn.Module], type[SharedBatchNorm]] = {
    nn.BatchNorm1d: SharedBatchNorm1d,
    nn.BatchNorm2d: SharedBatchNorm2d,
}


def share_batchnorm(module: nn.Module) -> None:
    """Replace the batch normalizations in ``module``; their weights and statistics stay, and so do their names."""
    for name, child in module.named_children():
        if shared := SHARED.get(type(child)):
            assert isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d)
            new = shared(child.num_features, child.eps, child.momentum).to(child.weight.device)
            new.weight, new.bias = child.weight, child.bias
            new.load_state_dict(child.state_dict())
            setattr(module, name, new.train(child.training))
        share_batchnorm(child)


def set_copies(module: nn.Module, copies: int) -> None:
    """Tell the batch normalizations in ``module`` how many processes compute the whole next batch."""
    for child in module.modules():
        if isinstance(child, SharedBatchNorm):
            child.copies = copies
