"""The processes that train together, each on its share of every batch; usually there is one.

A launcher (torchrun, accelerate) starts them, and all they exchange goes through here. The networks
are small, under a megabyte, so gradients are averaged when they are complete.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from deepstab.errors import TrainingError

_T = TypeVar("_T")

_ENDED = "a process of this training ended before the others; run again to go on"
# Longer than any validation, for which the others wait. One that ended is noticed at once.
_PATIENCE = timedelta(hours=6)


@contextmanager
def together(device: str) -> Iterator[None]:
    """Join the processes that a launcher started; without one, nothing.

    Args:
        device: `train.device`.

    Raises:
        TrainingError: another process ended, or this one was told to end.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    PartialState(cpu=on_processor(device), timeout=_PATIENCE)
    if not is_main():
        logging.getLogger("deepstab").setLevel(logging.ERROR)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    yield
    dist.destroy_process_group()


def on_processor(device: str) -> bool:
    """Whether the networks are trained on the processor: `train.device` says so, or no GPU is."""
    return device == "cpu" or not torch.accelerator.is_available()


def count() -> int:
    """How many they are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the one that validates, reports and writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def shares(num_items: int, batch_size: int) -> list[list[int]]:
    """This process's items of every batch, as many as any other's.

    Together the shares are what one process would take with a batch so many times the size. Items
    at the end that cannot be shared equally, fewer than there are processes, are left out.

    Raises:
        TrainingError: there are fewer items than processes.
    """
    num = count()
    rank = dist.get_rank() if num > 1 else 0
    if num_items < num:
        raise TrainingError(
            f"{num_items} windows cannot be shared by {num} processes; start fewer, or raise "
            "train.windows_per_video"
        )
    found = []
    for first in range(0, num_items - num_items % num, num * batch_size):
        size = min(batch_size, (num_items - first) // num)
        found.append(list(range(first + rank * size, first + (rank + 1) * size)))
    return found


def from_main(make: Callable[[], _T]) -> _T:
    """What the main process makes, for all of them."""
    if count() == 1:
        return make()
    made = [make() if is_main() else None]
    with _in_touch():
        dist.broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]


def mean(values: Tensor) -> Tensor:
    """The mean over the processes, without gradient."""
    return values if count() == 1 else _sum(values) / count()


def ratio(total: Tensor, size: Tensor, *, least: float) -> Tensor:
    """A total over its size, or over the least size if that is more.

    With several processes, their mean is the ratio that one process has of the whole batch.
    """
    if count() == 1:
        return total / size.clamp(min=least)
    whole: Tensor = _Sum.apply(size)
    return count() * total / whole.clamp(min=least)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    averaged = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, values in zip(gradients, averaged.split(sizes), strict=True):
        gradient.copy_(values.view_as(gradient))


class _Sum(torch.autograd.Function):
    """The sum over the processes; of its gradients, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _sum(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _sum(gradient)


def _sum(values: Tensor) -> Tensor:
    summed = values.detach().clone()
    with _in_touch():
        dist.all_reduce(summed)
    return summed


@contextmanager
def _in_touch() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(_ENDED) from error


def _end(number: int, _frame: FrameType | None) -> None:
    if sys.exception() is None:  # else what ends already does so in order
        _raise(number)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise TrainingError(_ENDED)
