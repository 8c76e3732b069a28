"""Arrays of the host with a copy on the device, sent again only when they have changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch


class Mirror:
    """A host array, to be changed freely, and its copy on a device.

    What is sent goes through pinned memory, asynchronously, on the current stream. A pinned buffer is used again only
    when its copy is over, which is asked and never waited for; while all are under way there is one buffer more.

    Args:
        array: the host's array.
        device: where the copy lies.
        may_be_captured: keep a buffer in reserve for a CUDA graph, which can allocate none.
    """

    def __init__(self, array: npt.NDArray[Any], device: torch.device, may_be_captured: bool = False):
        self.array = array
        self.copy = torch.zeros(array.shape, dtype=torch.from_numpy(array).dtype, device=device)
        self.sends = 0
        self._sent: npt.NDArray[Any] | None = None
        self._pinned = device.type != "cpu"
        self._ring: list[tuple[torch.Tensor, Any]] = []
        # What a captured graph sends again whenever it is replayed: never to be written again.
        self._captured: list[torch.Tensor] = []
        self._may_be_captured = may_be_captured and self._pinned
        self._reserve = self._buffer() if self._may_be_captured else None

    def send(self) -> bool:
        """Send the array if the device has another one; whether it was sent."""
        capturing = self._pinned and is_capturing(self.copy.device)
        if not capturing and self._sent is not None and np.array_equal(self.array, self._sent):
            return False
        self.sends += 1
        if not self._pinned:
            self.copy.numpy()[...] = self.array
        elif capturing:
            # A graph must bring all that its kernels read, whatever was sent before and between its replays.
            buffer, self._reserve = self._reserve if self._reserve is not None else self._buffer(), None
            self._captured.append(buffer)
            buffer.numpy()[...] = self.array
            self.copy.copy_(buffer, non_blocking=True)
        else:
            self._send_through_the_ring()
        # After a replay the device has what the graph sent.
        self._sent = None if self._captured else self.array.copy()
        return True

    def _send_through_the_ring(self) -> None:
        if self._reserve is None and self._may_be_captured:
            self._reserve = self._buffer()
        module = torch.get_device_module(self.copy.device)
        free = next((entry for entry in self._ring if entry[1].query()), None)
        if free is None:
            free = self._buffer(), module.Event()
            self._ring.append(free)
        buffer, copied = free
        buffer.numpy()[...] = self.array
        self.copy.copy_(buffer, non_blocking=True)
        copied.record(module.current_stream(self.copy.device))

    def _buffer(self) -> torch.Tensor:
        return torch.empty(self.array.shape, dtype=self.copy.dtype, pin_memory=True)


def is_capturing(device: torch.device) -> bool:
    """Whether the current stream of a device is being captured into a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
