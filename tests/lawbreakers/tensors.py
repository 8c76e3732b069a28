"""Optimizers that differ from Descent in the tensors that they take."""

import torch
from torch.utils.weak import WeakIdKeyDictionary

from lawbreakers.descent import Descent, breaks


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
