"""How ``step`` is called: with its hooks, in sight of the profiler, and out of `torch.compile`'s."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import chain
from typing import Any

import torch
import torch.optim.optimizer as torchs
from torch._C._autograd import _profiler_enabled
from torch._C._profiler import _RecordFunctionFast
from torch._compile import _disable_dynamo


def hooked(func: Callable[..., Any]) -> Callable[..., Any]:
    """What torch's own wrapper makes of ``step``, at a lower price where nothing of it is needed.

    Torch labels the step in Python for a profiler that seldom runs, which takes a quarter of a small optimizer's step.
    Kernels cannot be traced: `torch.compile` leaves the whole alone.
    """
    whole = torch.optim.Optimizer.profile_hook_step(func)

    @wraps(func)
    def step(*args: Any, **kwargs: Any) -> Any:
        self = args[0]
        if _profiler_enabled() or torchs._global_optimizer_pre_hooks or self._optimizer_step_pre_hooks:
            return whole(*args, **kwargs)
        # For observers that are no profiler.
        with _RecordFunctionFast(f"Optimizer.step#{type(self).__name__}.step"):
            out = func(*args, **kwargs)
            self._optimizer_step_code()
            after = self._optimizer_step_post_hooks.values(), torchs._global_optimizer_post_hooks.values()
            for hook in chain(*after):
                hook(self, args, kwargs)
            return out

    return _disable_dynamo(step)
