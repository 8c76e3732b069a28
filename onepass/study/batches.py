"""The batches of a split, in an order that one generator decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from onepass.study.errors import StudyError
from onepass.study.task import Arrays, BatchSize, Data, Task
from onepass.study.tasks.user import blaming

DEFAULT_BATCH = 32
EVALUATION_BATCH = 256


class Batches:
    """The batches of one split of a task, moved to a device, as `(inputs, targets, number of examples)`.

    Each iteration draws a fresh order from `generator` where the data are shuffled, so that the generator's state at
    its start decides all of it. A user's `DataLoader` keeps its own batches and sampler; the generator is lent to both.
    (Data drawn from other random numbers than the global ones of torch, Python and numpy, or kept in persistent worker
    processes, escape it: such a run may not repeat itself.)
    """

    def __init__(self, task: Task, split: str, size: int, device: torch.device, generator: torch.Generator) -> None:
        data: Data = getattr(task, split)
        self._what = f"the {split} data"
        self._source = task.source
        self._device = device
        self.generator = generator
        self._shuffled = split == "train"
        self._size = size
        self._arrays: Arrays | TensorDataset | None = None
        self._loader: DataLoader[Any] | None = None
        if isinstance(data, DataLoader):
            self._loader = data
        elif isinstance(data, Arrays) or type(data) is TensorDataset:
            # Tensors are indexed a batch at a time: a loader would take, and then stack, every example by itself.
            self._arrays = _on_device(data, device)
        else:
            self._loader = DataLoader(data, size, shuffle=self._shuffled, generator=generator)
        with blaming(self._source, f"len() of {self._what}"):
            self._count = self._batch_count()
        if self._count == 0:
            raise StudyError(f"{task.source or task.name}: {self._what} hold no batch; give at least one example")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Any, Any, int]]:
        with blaming(self._source, self._what):
            if self._arrays is not None:
                yield from self._slices(self._arrays)
            else:
                for batch in self._lent_loader():
                    yield self._counted(batch)

    def _batch_count(self) -> int:
        if self._arrays is not None:
            return -(-len(self._arrays) // self._size)
        assert self._loader is not None
        return len(self._loader)

    def _slices(self, arrays: Arrays | TensorDataset) -> Iterator[tuple[Any, Any, int]]:
        count = len(arrays)
        order = torch.randperm(count, generator=self.generator) if self._shuffled else torch.arange(count)
        for index in order.to(self._device).split(self._size):
            yield self._counted(arrays[index])

    def _lent_loader(self) -> DataLoader[Any]:
        # The generator is lent anew each time: the same loader may serve as another split, with another generator.
        loader = self._loader
        assert loader is not None
        loader.generator = self.generator
        batch_sampler = getattr(loader, "batch_sampler", None)
        for sampler in (loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None)):
            if hasattr(sampler, "generator"):
                sampler.generator = self.generator  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        return loader

    def _counted(self, batch: Any) -> tuple[Any, Any, int]:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise StudyError(
                f"{self._source or 'the task'}: {self._what} gave a batch of type {type(batch).__name__}; "
                "a batch is a pair (inputs, targets)"
            )
        # Lists and dicts may hold examples or columns: only a tensor is sure to have the examples along its first axis.
        counts = [len(each) for each in reversed(batch) if isinstance(each, Tensor) and each.dim()]
        if not counts or counts[0] == 0:
            raise StudyError(
                f"{self._source or 'the task'}: {self._what} gave a batch without examples; its targets, or else its "
                "inputs, must be a tensor with the examples along the first axis"
            )
        return move(batch[0], self._device), move(batch[1], self._device), counts[0]


def move(value: Any, device: torch.device) -> Any:
    """The tensors in `value`, however nested in tuples, lists and dicts, on the device; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: move(each, device) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return tuple(move(each, device) for each in value)
    return value


def batch_size(task: Task, asked: BatchSize | None) -> int:
    """The examples in a training batch; `StudyError` where the task's own `DataLoader` has already decided.

    `asked` is a positive integer, "full" or None for the task's own; more than there are examples means all of them.
    """
    if isinstance(task.train, DataLoader):
        if asked is not None:
            raise StudyError(
                f"--batch-size {asked}: {task.source or task.name} gives a DataLoader, which makes its own batches; "
                "set batch_size there, or give the Dataset instead"
            )
        return EVALUATION_BATCH
    size = asked or task.batch_size or DEFAULT_BATCH
    with blaming(task.source, "len() of the train data"):
        examples = max(1, len(task.train))  # pyright: ignore[reportArgumentType]
    return examples if size == "full" else min(size, examples)


def _on_device(data: Arrays | TensorDataset, device: torch.device) -> Arrays | TensorDataset:
    tensors = [tensor.to(device) for tensor in data.tensors]
    if isinstance(data, Arrays):
        return Arrays(*tensors, prepare=data.prepare)
    return TensorDataset(*tensors)
