"""An exponential average of the weights."""

from onepass.lang import ema, transform


@transform(init={"average": lambda p: p}, precise=("average",), ranges={"decay": "[0, 1]"})
def average(p_next, average, *, decay=0.999):
    """Keep an exponential moving average of the parameter beside it, starting from where it stood.

    The step itself is not changed. ``with opt.averaged():`` puts the averages in the parameters' place and back. They
    are kept in float32 at the least: in bfloat16, an average that moves by a thousandth does not move.
    """
    return p_next, ema(average, p_next, decay)
