"""Stochastic gradient descent, alone, with Polyak's and with Nesterov's momentum."""

from onepass.lang import rule, where


@rule(like="torch.optim.SGD", paper="Robbins & Monro 1951")
def sgd(g):
    """Step against the gradient."""
    return g


@rule(like="torch.optim.SGD", paper="Polyak 1964", state={"b": "momentum_buffer"}, ranges={"dampening": "(-inf, inf)"})
def momentum(g, b, t, *, momentum=0.9, dampening=0.0):
    """Step along a decaying sum of the gradients.

    Torch's variant: the first buffer is the gradient itself, undamped, and the learning rate stands outside the buffer.
    """
    b = where(t == 1, g, momentum * b + (1 - dampening) * g)
    return b, b


@rule(like="torch.optim.SGD", paper="Sutskever et al. 2013", state={"b": "momentum_buffer"})
def nesterov(g, b, *, momentum=0.9):
    """Step along the buffer as it will be: momentum with Nesterov's look ahead, in Sutskever's form."""
    b = momentum * b + g
    return g + momentum * b, b
