"""What a step may leave to the GPU: step counts, whether it is skipped, hyperparameters that are tensors there.

The host then waits for nothing, and a CUDA graph can replay the step.
"""

from __future__ import annotations

from typing import Any

import torch

from onepass.backends.select import Runner


class Signals:
    """The part of an optimizer that knows what is known on the GPU alone."""

    # What a backend keeps between steps; a copy of the optimizer makes its own.
    _backend_runner: Runner | None = None
    _skipped_steps: int = 0

    # What the optimizer has.
    backend: str | None
    skip_nonfinite: bool
    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]
    state: Any

    @property
    def skipped_steps(self) -> int:
        """How many steps ``skip_nonfinite`` has left out. Where a GPU counts them, reading it waits for the GPU."""
        runner = self._backend_runner
        return self._skipped_steps + (runner.skipped_steps() if runner is not None else 0)

    def _runner(self) -> Runner:
        # Without states there is nothing that a runner should remember: they may have been cleared to start anew.
        if self._backend_runner is None or not self.state:
            self._forget_runner()
            self._backend_runner = Runner(self.backend)
        return self._backend_runner

    def _forget_runner(self) -> None:
        self._skipped_steps, self._backend_runner = self.skipped_steps, None

    @property
    def _leaves_counts_to_device(self) -> bool:
        """Whether torch would keep step counts on the GPU, or the GPU alone may know that a step was skipped."""
        return bool(self.defaults.get("capturable") or self.defaults.get("fused") or self.skip_nonfinite)

    def _counts_device(self, p: torch.Tensor) -> torch.device | None:
        """Where a parameter's step count belongs."""
        return p.device if self._leaves_counts_to_device else None

    def _reads_signals(self) -> bool:
        """Whether the kernels in use read step counts, scales and skips from the GPU."""
        if not self._leaves_counts_to_device or self.defaults["differentiable"]:
            return False
        first = next((p for group in self.param_groups for p in group["params"]), None)
        return first is not None and self._runner().reads_signals(first)

    def _signal(self) -> torch.Tensor | bool:
        """Whether a scaler wants the step to be skipped; a tensor if that is for the kernels to read."""
        found = getattr(self, "found_inf", None)
        if found is None:
            return False
        if isinstance(found, torch.Tensor) and self._reads_signals() and not self._is_scheduled():
            return found
        return float(found) > 0

    def _is_scheduled(self) -> bool:
        """Whether a schedule must know that a step was taken, even where that must be read from a GPU."""
        return any("schedules" in group for group in self.param_groups)

    def _flags(self, reads_signals: bool, skip: torch.Tensor | bool) -> dict[str, Any]:
        """What the runner is told of a step besides the groups."""
        fused, capturable = self.defaults.get("fused"), self.defaults.get("capturable")
        return {
            "differentiable": self.defaults["differentiable"],
            # With fused=True, torch takes capturable=True on a CPU and gives it no meaning.
            "capturable": bool(capturable) and (reads_signals or not fused),
            "skip": skip if isinstance(skip, torch.Tensor) else None,
        }


def as_it_is(value: Any) -> Any:
    """A hyperparameter for kernels that read tensors themselves."""
    return value if isinstance(value, torch.Tensor) else float(value)


def inverse(scale: Any, stays_on_device: bool) -> Any:
    """1 over a scaler's scale; on its device if it is to stay there."""
    if stays_on_device and isinstance(scale, torch.Tensor):
        return scale.double().reciprocal().reshape(())
    return 1 / float(scale)
