"""Optimizers that differ from Descent in their states, copies and checkpoints."""

import torch
from torch.optim.optimizer import Optimizer

from lawbreakers.descent import Descent, breaks


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
