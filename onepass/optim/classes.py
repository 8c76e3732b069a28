"""The optimizers: torch's constructors where torch has the optimizer, and the rule that each one runs.

Every class takes what its signature names, and what `Optimizer` documents: ``transforms``,
``skip_nonfinite``, ``backend``, ``maximize`` and torch's flags.
Throughout, ``lr`` >= 0 may be a float or a tensor of one element, ``betas`` lie in [0, 1), ``eps`` >= 0, and
``weight_decay`` is a float >= 0, in the form that the class names, or `onepass.decay.l2(x)`, `decoupled(x)` or
`independent(x)`, which say it outright. Hyperparameters changed in ``param_groups`` take effect at the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onepass import rules
from onepass.compiler import Stage
from onepass.groups import Group
from onepass.lang import Applied
from onepass.optim.arguments import Decay, Number, check_agreement, given
from onepass.optim.optimizer import Optimizer
from onepass.transforms import centralize, heavy_ball, lookahead


class SGD(Optimizer):
    """Stochastic gradient descent; batch or mini-batch, as the gradient is.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        momentum: >= 0; how much of the buffer is kept. 0 keeps no buffer.
        dampening: how much of the gradient stays out of the buffer. Torch's variant: the first buffer is undamped.
        weight_decay: L2 when a plain float. With momentum the forms part: L2 decay enters the buffer and goes on
            pulling, decoupled decay acts beside it (`onepass.decay` has both updates).
        nesterov: step along the buffer as it will be; needs momentum, and no dampening.

    Raises:
        ValueError: also for nesterov without momentum or with dampening.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(3, 1)
        >>> opt = onepass.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=onepass.decay.decoupled(1e-2))

    References:
        Robbins & Monro, A stochastic approximation method, 1951. Polyak, 1964. Sutskever et al., ICML 2013.
    """

    rule = rules.momentum
    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: Decay = 0,
        nesterov: bool = False, *, transforms: Sequence[Applied] = (), skip_nonfinite: bool = False,
        backend: str | None = None, maximize: bool = False, foreach: bool | None = None, differentiable: bool = False,
        fused: bool | None = None,
    ):  # fmt: skip
        super().__init__(params, given(locals()))

    @classmethod
    def rules(cls):
        return (rules.sgd, rules.momentum, rules.nesterov)

    @classmethod
    def rule_for(cls, group: Group):
        if group["momentum"] == 0:
            return rules.sgd
        return rules.nesterov if group["nesterov"] else rules.momentum

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"{type(self).__name__}: nesterov=True needs momentum > 0 and dampening = 0, "
                f"not momentum={group['momentum']} and dampening={group['dampening']}"
            )


class Adagrad(Optimizer):
    """Adagrad: divide by the root of the sum of all squared gradients.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        lr_decay: >= 0; the rate falls as 1 / (1 + (t - 1) lr_decay).
        weight_decay: L2 when a plain float.
        initial_accumulator_value: >= 0; where the sum starts.
        eps: added to the root, outside it.

    References:
        Duchi, Hazan, Singer, Adaptive subgradient methods, JMLR 2011.
    """

    rule = rules.adagrad
    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 1e-2, lr_decay: float = 0, weight_decay: Decay = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        transforms: Sequence[Applied] = (), skip_nonfinite: bool = False, backend: str | None = None,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ):  # fmt: skip
        super().__init__(params, given(locals()))


class Adadelta(Optimizer):
    """Adadelta: steps in the units of the parameter.

    Args:
        params: see `Optimizer`.
        lr: learning rate; 1 is the paper's.
        rho: in [0, 1]; how much of both averages is kept.
        eps: added inside both roots.
        weight_decay: L2 when a plain float.

    References:
        Zeiler, arXiv:1212.5701, Algorithm 1.
    """

    rule = rules.adadelta
    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: Decay = 0,
        foreach: bool | None = None, *, transforms: Sequence[Applied] = (), skip_nonfinite: bool = False,
        backend: str | None = None, capturable: bool = False, maximize: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        super().__init__(params, given(locals()))


class RMSprop(Optimizer):
    """RMSprop: divide by a moving root mean square of the gradient.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        alpha: >= 0; how much of the mean square is kept.
        eps: added to the root, outside it.
        weight_decay: L2 when a plain float.
        momentum: >= 0; how much of a buffer of the divided gradients is kept. 0 keeps none.
        centered: divide by a moving standard deviation instead.

    References:
        Tieleman & Hinton, Lecture 6.5, 2012. Centered: Graves, arXiv:1308.0850, eq. 38-45.
    """

    rule = rules.rmsprop
    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: Decay = 0,
        momentum: float = 0, centered: bool = False, capturable: bool = False, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False, *, transforms: Sequence[Applied] = (),
        skip_nonfinite: bool = False, backend: str | None = None,
    ):  # fmt: skip
        super().__init__(params, given(locals()))

    @classmethod
    def rules(cls):
        return (rules.rmsprop, rules.centered_rmsprop)

    @classmethod
    def rule_for(cls, group: Group):
        return rules.centered_rmsprop if group["centered"] else rules.rmsprop

    @classmethod
    def stages_for(cls, group: Group):
        return (Stage(heavy_ball),) if group["momentum"] != 0 else ()

    def _check(self, group: Group) -> None:
        super()._check(group)
        heavy_ball.check(type(self).__name__, group)


class _AdamFamily(Optimizer):
    rule = rules.adam

    @classmethod
    def rules(cls):
        return (rules.adam, rules.amsgrad)

    @classmethod
    def rule_for(cls, group: Group):
        return rules.amsgrad if group["amsgrad"] else rules.adam


class Adam(_AdamFamily):
    """Adam: averaged gradients over the root of averaged squares, both freed of their bias.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        betas: how much of the two averages is kept.
        eps: added to the root, outside it, after the bias correction.
        weight_decay: L2 when a plain float.
        amsgrad: divide by the largest average so far (torch's variant: the maximum of the raw averages).
        decoupled_weight_decay: decouple a plain float, which makes this AdamW.

    Raises:
        ValueError: also for ``decoupled_weight_decay=True`` with a decay of another form.

    References:
        Kingma & Ba, arXiv:1412.6980, Algorithm 1. AMSGrad: Reddi et al., arXiv:1904.09237.
    """

    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 1e-3, betas: tuple[Number, Number] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: Decay = 0, amsgrad: bool = False, *, transforms: Sequence[Applied] = (),
        skip_nonfinite: bool = False, backend: str | None = None, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):  # fmt: skip
        check_agreement(type(self).__name__, weight_decay, decoupled_weight_decay)
        super().__init__(params, given(locals()))


class AdamW(_AdamFamily):
    """AdamW: Adam with decoupled weight decay.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        betas: how much of the two averages is kept.
        eps: added to the root, outside it, after the bias correction.
        weight_decay: decoupled when a plain float: the parameter shrinks by ``lr * weight_decay``, as in torch. The
            paper scales it by the schedule alone; that is ``onepass.decay.independent(x)``.
        amsgrad: divide by the largest average so far (torch's variant: the maximum of the raw averages).

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(3, 1)
        >>> opt = onepass.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)

    References:
        Loshchilov & Hutter, arXiv:1711.05101, Algorithm 2.
    """

    paper = "arXiv:1711.05101"

    def __init__(
        self, params: Any, lr: Number = 1e-3, betas: tuple[Number, Number] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: Decay = 1e-2, amsgrad: bool = False, *, transforms: Sequence[Applied] = (),
        skip_nonfinite: bool = False, backend: str | None = None, maximize: bool = False, foreach: bool | None = None,
        capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
    ):  # fmt: skip
        defaults = given(locals()) | {"decoupled_weight_decay": True}
        super().__init__(params, defaults)


class Adamax(Optimizer):
    """Adamax: Adam with a decaying maximum of the gradient's magnitude in place of the root.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        betas: how much of the average and of the maximum is kept.
        eps: added to the magnitude inside the maximum, as torch does.
        weight_decay: L2 when a plain float.

    References:
        Kingma & Ba, arXiv:1412.6980, Algorithm 2.
    """

    rule = rules.adamax
    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: Decay = 0, foreach: bool | None = None, *, transforms: Sequence[Applied] = (),
        skip_nonfinite: bool = False, backend: str | None = None, maximize: bool = False,
        differentiable: bool = False, capturable: bool = False,
    ):  # fmt: skip
        super().__init__(params, given(locals()))


class NAdam(Optimizer):
    """NAdam: Adam with Nesterov's momentum, warming up; torch's form of it.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        betas: how much of the two averages is kept.
        eps: added to the root, outside it, after the bias correction.
        weight_decay: L2 when a plain float.
        momentum_decay: >= 0; how fast the momentum warms up.
        decoupled_weight_decay: decouple a plain float (NAdamW).

    Raises:
        ValueError: also for ``decoupled_weight_decay=True`` with a decay of another form.

    References:
        Dozat, Incorporating Nesterov momentum into Adam, 2016.
    """

    rule = rules.nadam
    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: Decay = 0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
        transforms: Sequence[Applied] = (), skip_nonfinite: bool = False, backend: str | None = None,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        check_agreement(type(self).__name__, weight_decay, decoupled_weight_decay)
        super().__init__(params, given(locals()))


class RAdam(Optimizer):
    """RAdam: Adam that leaves its adaptive step out until its variance can be trusted.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        betas: how much of the two averages is kept.
        eps: added to the root of the raw average, as torch does.
        weight_decay: L2 when a plain float.
        decoupled_weight_decay: decouple a plain float.

    Raises:
        ValueError: also for ``decoupled_weight_decay=True`` with a decay of another form.

    References:
        Liu et al., arXiv:1908.03265, Algorithm 2.
    """

    rule = rules.radam
    decay_form = "l2"

    def __init__(
        self, params: Any, lr: Number = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: Decay = 0, decoupled_weight_decay: bool = False, *, transforms: Sequence[Applied] = (),
        skip_nonfinite: bool = False, backend: str | None = None, foreach: bool | None = None, maximize: bool = False,
        capturable: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        check_agreement(type(self).__name__, weight_decay, decoupled_weight_decay)
        super().__init__(params, given(locals()))


class Yogi(Optimizer):
    """Yogi: Adam whose averaged square grows and shrinks by steps of the same size.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        betas: how much of the two averages is kept.
        eps: added to the root, outside it, after the bias correction; larger than Adam's, as in the paper.
        weight_decay: decoupled when a plain float.

    Both states start at zero, with Adam's bias corrections.

    References:
        Zaheer et al., Adaptive methods for nonconvex optimization, NeurIPS 2018, Algorithm 2.
    """

    rule = rules.yogi

    def __init__(
        self, params: Any, lr: Number = 1e-2, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-3,
        weight_decay: Decay = 0, *, transforms: Sequence[Applied] = (), skip_nonfinite: bool = False,
        backend: str | None = None, maximize: bool = False, differentiable: bool = False,
    ):  # fmt: skip
        super().__init__(params, given(locals()))


class Ranger(Optimizer):
    """Ranger: RAdam on centralised gradients, looking ahead.

    Args:
        params: see `Optimizer`.
        lr: learning rate.
        betas: how much of RAdam's two averages is kept.
        eps: added to the root of the raw average.
        weight_decay: decoupled when a plain float.
        k: >= 1; steps between synchronisations of the slow weights.
        alpha: in [0, 1]; how far the slow weights move then.

    RAdam is torch's variant: plain averaged steps until rho > 5.

    References:
        Wright, Ranger, 2019. RAdam: arXiv:1908.03265. Lookahead: arXiv:1907.08610. Centralisation: arXiv:2004.01461.
    """

    rule = rules.radam
    paper = "Wright 2019"
    built_in = (centralize(), lookahead(k=6, alpha=0.5))

    def __init__(
        self, params: Any, lr: Number = 1e-3, betas: tuple[float, float] = (0.95, 0.999), eps: float = 1e-5,
        weight_decay: Decay = 0, k: int = 6, alpha: float = 0.5, *, transforms: Sequence[Applied] = (),
        skip_nonfinite: bool = False, backend: str | None = None, maximize: bool = False,
        differentiable: bool = False,
    ):  # fmt: skip
        super().__init__(params, given(locals()))
