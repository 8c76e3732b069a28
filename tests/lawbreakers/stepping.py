"""Optimizers that differ from Descent in how they step."""

import torch

from lawbreakers.descent import Descent, breaks


@breaks("a_step_moves_what_has_a_gradient")
class MovesHouse(Descent):
    def update(self, p, g, state, group):
        super().update(p, g, state, group)
        p.data = p.data.clone(memory_format=torch.preserve_format)


@breaks("autograd_notices_a_step")
class Stealthy(Descent):
    def update(self, p, g, state, group):
        super().update(p.data, g, state, group)


@breaks("gradients_are_left_alone")
class ReplacesGradients(Descent):
    def update(self, p, g, state, group):
        super().update(p, g, state, group)
        p.grad = g.clone()


@breaks("gradients_are_left_alone", "layouts_do_not_matter")
class DecaysIntoGradients(Descent):
    def update(self, p, g, state, group):
        super().update(p, g.add_(group["weight_decay"] * p), state, {**group, "weight_decay": 0.0})


@breaks("parameters_without_gradients_rest")
class ForgetsTheIdle(Descent):
    def advance(self):
        super().advance()
        for p, state in self.state.items():
            if p.grad is None:
                state["buffer"].mul_(0.5)


@breaks("parameters_without_gradients_rest", "groups_can_be_added_later")
class CountsForAll(Descent):
    """Bias is corrected by one count of steps for all parameters."""

    def update(self, p, g, state, group):
        steps = max(state.get("step", 0) for state in self.state.values()) + 1
        super().update(p, g, state, {**group, "lr": group["lr"] / (1 - 0.5**steps)})


@breaks("steps_are_counted_per_parameter")
class CountsTwice(Descent):
    def update(self, p, g, state, group):
        super().update(p, g, state, group)
        state["step"] += 1


@breaks("closures_run_first_with_gradients_enabled")
class LeavesGradientsDisabled(Descent):
    def evaluate(self, closure):
        return closure()


@breaks("closures_run_first_with_gradients_enabled")
class KeepsTheLoss(Descent):
    def evaluate(self, closure):
        super().evaluate(closure)


@breaks("hooks_run_around_the_step")
class MixesUpHooks(Descent):
    def register_step_post_hook(self, hook):
        return self.register_step_pre_hook(hook)


@breaks("hooks_run_around_the_step")
class StepsThroughItsParent(Descent):
    """Torch wraps the step of the parent and that of this class, so that each hook runs twice."""

    def __init__(self, params, **given):
        Descent([torch.zeros(1)])
        super().__init__(params, **given)

    def step(self, closure=None):
        return super().step(closure)


@breaks("steps_show_in_profiles")
class NamesItsStep(Descent):
    def advance(self):
        with torch.autograd.profiler.record_function("Optimizer.step#Descent"):
            super().advance()


@breaks("schedulers_drive_the_step")
class HasNoPlainStep(Descent):
    def __init__(self, params, **given):
        super().__init__(params, **given)
        self.step = lambda closure=None: type(self).step(self, closure)


@breaks("hyperparameters_can_change_between_steps")
class KeepsItsMomentum(Descent):
    def update(self, p, g, state, group):
        super().update(p, g, state, {**group, "momentum": self.defaults["momentum"]})


@breaks("a_zero_lr_changes_nothing")
class DecaysAtAnyRate(Descent):
    def update(self, p, g, state, group):
        p.mul_(1 - 0.01 * group["weight_decay"])
        super().update(p, g, state, {**group, "weight_decay": 0.0})


@breaks("a_tensor_lr_stays_a_tensor")
class MakesRatesFloats(Descent):
    def update(self, p, g, state, group):
        group["lr"] = float(group["lr"])
        super().update(p, g, state, group)


@breaks("maximize_is_descent_on_the_negative")
class NeverClimbs(Descent):
    def update(self, p, g, state, group):
        super().update(p, g, state, {**group, "maximize": False})


@breaks("zero_grad_clears_gradients")
class DropsGradients(Descent):
    def zero_grad(self, set_to_none=True):
        super().zero_grad()
