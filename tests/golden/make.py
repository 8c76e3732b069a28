"""Make the golden trajectories with the reference: ``python -m golden.make`` in ``tests``."""

from __future__ import annotations

import numpy as np
import torch

import onepass
from golden import CASES, FILE, LR, RECORDED, SHAPES, STEPS, Case, split
from onepass.optim.registry import get_class

# Where a rule is a flag of a torch class.
FLAGS = {
    "momentum": (onepass.SGD, {"momentum": 0.9}),
    "nesterov": (onepass.SGD, {"momentum": 0.9, "nesterov": True}),
    "amsgrad": (onepass.Adam, {"amsgrad": True}),
    "centered_rmsprop": (onepass.RMSprop, {"centered": True}),
}


def inputs() -> dict[str, np.ndarray]:
    """The start and the gradients, as float32 numbers: small and large ones, and a zero that stays one."""
    random = np.random.default_rng(20260101)
    size = sum(int(np.prod(shape)) for shape in SHAPES)
    start = random.standard_normal(size)
    scale = 10.0 ** (np.arange(STEPS) % 3 - 1)
    gradients = random.standard_normal((STEPS, size)) * scale[:, None]
    gradients[:, 1] = 0.0
    return {name: x.astype(np.float32).astype(np.float64) for name, x in (("start", start), ("gradients", gradients))}


def trajectory(case: Case, start: np.ndarray, gradients: np.ndarray) -> dict[str, np.ndarray]:
    params = [torch.tensor(p, requires_grad=True) for p in split(start)]
    cls, flags = FLAGS.get(case.rule, (None, {}))
    if cls is None:
        cls = get_class(case.rule)
    opt = cls(params, lr=LR, weight_decay=case.weight_decay, transforms=case.transforms, backend="reference", **flags)
    rows = []
    for t in range(1, STEPS + 1):
        opt.param_groups[0]["lr"] = case.lr(t)
        for p, g in zip(params, split(gradients[t - 1]), strict=True):
            p.grad = torch.tensor(g)
        opt.step()
        if t in RECORDED:
            rows.append(_flat(params))
    keys = [key for key in opt.state[params[0]] if key != "step"]
    rows += [_flat([opt.state[p][key].expand_as(p) for p in params]) for key in keys]
    return {f"{case}:{','.join(keys)}" if keys else str(case): np.stack(rows)}


def _flat(tensors: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([x.detach().double().numpy().reshape(-1) for x in tensors])


def trajectories() -> dict[str, np.ndarray]:
    """All that the file holds."""
    made = inputs()
    for case in CASES:
        made.update(trajectory(case, **{name: made[name] for name in ("start", "gradients")}))
    return made


if __name__ == "__main__":
    np.savez_compressed(FILE, **trajectories())
