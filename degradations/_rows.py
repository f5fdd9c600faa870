"""One image at a time: what operators share whose kernels may round differently in another batch."""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

__all__ = ["freeze", "kind", "one_by_one"]


def one_by_one(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The results of ``function`` for every row by itself, (1, ...) to (1, ...), one after the other.

    Kernels for vectors also round differently at another alignment in memory (MKL's matrix times vector does, where a row is no
    whole number of cache lines). So each row is copied to memory of its own, and so is its gradient: that is the product with 1.
    """
    if len(x) == 0:
        return function(x.new_zeros(1, *x.shape[1:]))[:0]
    return torch.cat([function(row.clone(memory_format=torch.contiguous_format)) * 1 for row in x.split(1)])


def freeze(module: nn.Module) -> None:
    """Put somebody's module in evaluation mode and end its training, in place."""
    module.eval()
    for parameter in module.parameters():  # a ScriptModule has no requires_grad_ of its own
        parameter.requires_grad_(False)


def kind(module: nn.Module) -> Tensor:
    """An empty tensor of the dtype and on the device of a module's numbers; float32 on the CPU if it has none."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.new_empty(0) for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
