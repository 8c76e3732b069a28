"""An optimizer that keeps every law, for others to differ from in one thing, and the list of those."""

import copy

import torch
from torch.optim.optimizer import Optimizer


class Descent(Optimizer):
    """Gradient descent with momentum."""

    refusal = "sparse gradients are not taken"

    def __init__(self, params, lr=0.1, momentum=0.5, weight_decay=0.0, maximize=False):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def add_param_group(self, group):
        super().add_param_group(dict(group))
        if "param_names" not in group:
            self.param_groups[-1]["params"] = list(dict.fromkeys(self.param_groups[-1]["params"]))

    def step(self, closure=None):
        loss = self.evaluate(closure) if closure else None
        with torch.no_grad():
            self.advance()
        return loss

    def evaluate(self, closure):
        with torch.enable_grad():
            return closure()

    def advance(self):
        moving = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(p.grad.is_sparse for p, _ in moving):
            raise RuntimeError(self.refusal)
        for p, group in moving:
            self.update(p, p.grad, self.state[p], group)

    def update(self, p, g, state, group):
        if not state:
            state.update(step=0, buffer=torch.zeros_like(p))
        state["step"] += 1
        state["buffer"].mul_(group["momentum"]).add_(g + group["weight_decay"] * p)
        p.add_(state["buffer"] * (group["lr"] if group["maximize"] else -group["lr"]))

    def load_state_dict(self, state_dict):
        super().load_state_dict(copy.deepcopy(state_dict))


LAWBREAKERS = {}


def breaks(*laws):
    """Enter a class among the lawbreakers, with all the laws that it breaks."""

    def enter(cls):
        LAWBREAKERS[cls] = set(laws)
        return cls

    return enter
