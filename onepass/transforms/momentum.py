"""Momentum on any rule's direction, as RMSprop has it."""

from onepass.lang import transform


@transform(paper="Polyak 1964", state={"b": "momentum_buffer"})
def heavy_ball(u, b, *, momentum=0.9):
    """Step along a decaying sum of the rule's directions; the learning rate stands outside the buffer."""
    b = momentum * b + u
    return b, b
