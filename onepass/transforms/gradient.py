"""What can be done to a gradient before a rule sees it."""

from onepass.lang import maximum, mean, minimum, transform, where


@transform
def maximize(g):
    """Climb instead of descending."""
    return -g


@transform(ranges={"limit": "(0, inf]"})
def clip_value(g, *, limit=1.0):
    """Clip every element of the gradient to [-limit, limit], as torch.nn.utils.clip_grad_value_ does."""
    return maximum(minimum(g, limit), -limit)


@transform(paper="arXiv:2004.01461")
def centralize(g, ndim):
    """Gradient centralisation: take from each row (a neuron's weights, a filter) its mean; vectors are left alone."""
    return where(ndim > 1, g - mean(g, over="row"), g)
