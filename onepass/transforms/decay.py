"""Weight decay, in the forms that the field means by it, for any rule.

They differ as soon as the rule does anything to the gradient. SGD with momentum shows it. **L2** adds the decay to the
gradient, so that the buffer averages it and keeps pulling after the weights have shrunk::

    b <- mu * b + g + weight_decay * p
    p <- p - lr * b

**Decoupled** decay shrinks the weights beside the step; the buffer holds gradients alone::

    b <- mu * b + g
    p <- p * (1 - lr * weight_decay) - lr * b

In Adam the difference is larger still: L2 decay is divided by the root of v with the rest, so that weights with large
gradients decay less than the others.
"""

from typing import Any

from onepass.lang import transform, where


@transform(paper="Krogh & Hertz 1991")
def l2(g, p, *, weight_decay):
    """The penalty weight_decay / 2 * |p|^2, as its gradient: coupled, for the rule then sees it as one."""
    return g + weight_decay * p


@transform(paper="arXiv:1711.05101")
def decoupled(p, lr, *, weight_decay):
    """Shrink the parameter by lr * weight_decay before the step: AdamW, as torch has it."""
    return p * (1 - lr * weight_decay)


@transform(paper="arXiv:1711.05101", ranges={"lr_max": "(0, inf)"})
def independent(p, lr, *, weight_decay, lr_max: Any = None):
    """Shrink the parameter by weight_decay * lr / lr_max: the schedule scales it, the base learning rate does not.

    This is what the AdamW paper writes. ``lr_max`` is the rate that counts as the schedule's height; by default the
    largest that the parameter group has declared (``lr``, and torch's ``initial_lr`` and ``max_lr``) or reached.
    """
    return p * (1 - weight_decay * where(lr_max > 0, lr / lr_max, 0.0))


@transform(paper="arXiv:2510.12402")
def cautious(p, u, lr, *, weight_decay):
    """Decoupled decay of those elements alone that the step does not enlarge: where u * p >= 0."""
    return where(u * p >= 0, p * (1 - lr * weight_decay), p)


FORMS = {form.name: form for form in (l2, decoupled, independent, cautious)}

__all__ = ["FORMS", "cautious", "decoupled", "independent", "l2"]
