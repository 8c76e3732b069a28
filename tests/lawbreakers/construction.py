"""Optimizers that differ from Descent in how they are made."""

import torch
from torch.optim.optimizer import Optimizer

from lawbreakers.descent import Descent, breaks


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
