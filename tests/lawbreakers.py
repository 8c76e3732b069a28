"""An optimizer that keeps every law, and many that differ in one thing, each with the laws that this breaks."""

import copy

import torch
from torch.optim.optimizer import Optimizer
from torch.utils.weak import WeakIdKeyDictionary


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


# Construction


@breaks("takes_tensors_groups_and_named_pairs")
class TakesListsAlone(Descent):
    def __init__(self, params, **given):
        if not isinstance(params, list):
            raise TypeError("params must be a list")
        super().__init__(params, **given)


@breaks("an_empty_list_is_refused")
class TakesNothing(Descent):
    def __init__(self, params, **given):
        super().__init__([{"params": []}] if isinstance(params, list) and not params else params, **given)


@breaks("an_empty_group_is_legal")
class RefusesEmptyGroups(Descent):
    def add_param_group(self, group):
        super().add_param_group(group)
        if not self.param_groups[-1]["params"]:
            raise ValueError("a group is empty")


@breaks("only_leaf_tensors_are_taken")
class TakesResults(Descent):
    def __init__(self, params, **given):
        if isinstance(params, list):
            params = [p.detach() if isinstance(p, torch.Tensor) and not p.is_leaf else p for p in params]
        super().__init__(params, **given)


@breaks("a_parameter_is_in_one_group")
class DropsWhatItKnows(Descent):
    def add_param_group(self, group):
        known = {p for other in self.param_groups for p in other["params"]}
        if isinstance(group["params"], list):
            group = {**group, "params": [p for p in group["params"] if p not in known]}
        super().add_param_group(group)


@breaks("a_parameter_listed_twice_steps_once")
class StepsTwice(Descent):
    def add_param_group(self, group):
        Optimizer.add_param_group(self, dict(group))


@breaks("the_callers_groups_are_left_alone")
class WritesIntoGroups(Descent):
    def add_param_group(self, group):
        group.setdefault("lr", self.defaults["lr"])
        super().add_param_group(group)


@breaks("groups_have_their_own_hyperparameters")
class OneRateForAll(Descent):
    def add_param_group(self, group):
        super().add_param_group({**group, "lr": self.defaults["lr"]})


@breaks("groups_can_be_added_later")
class ForgetsLaterGroups(Descent):
    def advance(self):
        groups = self.param_groups
        self.param_groups = groups[:1] if self.state else groups
        super().advance()
        self.param_groups = groups


@breaks("names_are_kept")
class Nameless(Descent):
    def add_param_group(self, group):
        super().add_param_group(group)
        self.param_groups[-1].pop("param_names", None)


@breaks("the_class_can_be_subclassed_at_run_time")
class Final(Descent):
    def __init_subclass__(cls):
        raise TypeError("this class is final")


# The step


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


# Tensors


@breaks("every_float_type_moves_and_stays")
class LeavesHalvesAlone(Descent):
    def update(self, p, g, state, group):
        if p.dtype != torch.float16:
            super().update(p, g, state, group)


@breaks("complex_numbers_are_pairs_of_reals")
class DropsImaginaryParts(Descent):
    def update(self, p, g, state, group):
        super().update(p, g.real + 0j if g.is_complex() else g, state, group)


@breaks("sparse_gradients_move_their_rows_or_are_refused")
class RefusesWithoutAName(Descent):
    refusal = "cannot do that"


@breaks("sparse_gradients_move_their_rows_or_are_refused")
class TakesTheLastOfRepeatedRows(Descent):
    def advance(self):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None and p.grad.is_sparse:
                dense = torch.zeros_like(p)
                dense[p.grad._indices()[0]] = p.grad._values()
                p.grad = dense
        super().advance()


@breaks("nan_stays_in_its_element")
class Normalizes(Descent):
    def update(self, p, g, state, group):
        super().update(p, g / (1 + g.norm()), state, group)


@breaks("nan_stays_in_its_element")
class HidesNan(Descent):
    def update(self, p, g, state, group):
        super().update(p, g if g.is_complex() else g.nan_to_num(0.0), state, group)


@breaks("layouts_do_not_matter")
class ReadsByTheParametersStrides(Descent):
    def update(self, p, g, state, group):
        super().update(p, g.as_strided(p.shape, p.stride()), state, group)


@breaks("every_size_is_legal")
class StopsAtNothing(Descent):
    def update(self, p, g, state, group):
        if not p.numel():
            raise RuntimeError("no elements")
        super().update(p, g, state, group)


HOMES = WeakIdKeyDictionary()


@breaks("parameters_can_be_given_new_data")
class RemembersAddresses(Descent):
    def update(self, p, g, state, group):
        super().update(HOMES.setdefault(p, p.data), g, state, group)
        torch.autograd.graph.increment_version(p)


# The state


@breaks("deepcopy_copies")
class IsItsOwnCopy(Descent):
    def __deepcopy__(self, memo):
        return self


@breaks("deepcopy_copies", "pickle_copies")
class KeepsAnAttribute(Descent):
    """Torch's optimizers copy and pickle their defaults, groups and states, and no other attribute."""

    def __init__(self, params, **given):
        super().__init__(params, **given)
        self.scale = 2.0

    def update(self, p, g, state, group):
        super().update(p, g * getattr(self, "scale", 1.0), state, group)


@breaks("pickle_copies")
class HoldsALambda(Descent):
    def __init__(self, params, **given):
        super().__init__(params, **given)
        self.defaults["note"] = lambda: None


@breaks("checkpoints_continue_bit_for_bit")
class LoadsInLowPrecision(Descent):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["buffer"] = state["buffer"].bfloat16().to(state["buffer"].dtype)


@breaks("checkpoints_continue_bit_for_bit")
class KeepsTheStateItHad(Descent):
    """As a kernel does that still has the addresses from before."""

    def load_state_dict(self, state_dict):
        had = dict(self.state)
        super().load_state_dict(state_dict)
        self.state.update(had)


@breaks("checkpoints_bring_their_hyperparameters")
class KeepsItsRate(Descent):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["lr"] = self.defaults["lr"]


@breaks("checkpoints_bring_their_hyperparameters")
class RemembersItsGroups(Descent):
    """Loading replaces the groups; the old ones change no more."""

    def advance(self):
        current, self.param_groups = self.param_groups, self.__dict__.setdefault("remembered", self.param_groups)
        super().advance()
        self.param_groups = current


@breaks("loading_copies")
class SharesWhatItLoads(Descent):
    def load_state_dict(self, state_dict):
        Optimizer.load_state_dict(self, state_dict)


@breaks("a_checkpoint_of_other_groups_is_refused")
class SwallowsErrors(Descent):
    def load_state_dict(self, state_dict):
        try:
            super().load_state_dict(state_dict)
        except ValueError:
            return


@breaks("a_new_optimizer_reloads", "checkpoints_bring_their_hyperparameters")
class NeedsAState(Descent):
    def load_state_dict(self, state_dict):
        if not state_dict["state"]:
            raise KeyError("buffer")
        super().load_state_dict(state_dict)


@breaks("a_cleared_state_starts_anew")
class MakesStatesOnce(Descent):
    def add_param_group(self, group):
        super().add_param_group(group)
        for p in self.param_groups[-1]["params"]:
            self.state[p].update(step=0, buffer=torch.zeros_like(p))

    def update(self, p, g, state, group):
        if not state:
            raise KeyError("buffer")
        super().update(p, g, state, group)


@breaks("state_keys_are_parameters")
class CountsInItsState(Descent):
    def advance(self):
        super().advance()
        if self.state:
            self.state["steps"] = {"count": 1}


@breaks("state_dict_hooks_run")
class ForgetsHooks(Descent):
    def register_state_dict_post_hook(self, hook, prepend=False):
        return self.register_state_dict_pre_hook(lambda optimizer: None)
