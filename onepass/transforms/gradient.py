"""What can be done to a gradient before a rule sees it."""

from onepass.lang import absolute, maximum, mean, minimum, norm, sum_, transform, where


@transform
def maximize(g):
    """Climb instead of descending."""
    return -g


@transform(ranges={"limit": "(0, inf]"})
def clip_value(g, *, limit=1.0):
    """Clip every element of the gradient to [-limit, limit], as torch.nn.utils.clip_grad_value_ does."""
    return maximum(minimum(g, limit), -limit)


@transform(
    ranges={"max_norm": "(0, inf]"},
    reports={"last_grad_norm": lambda g: norm(g, over="model")},
)
def clip_norm(g, *, max_norm=1.0):
    """Scale all gradients so that their norm over the whole model is max_norm at most.

    As torch.nn.utils.clip_grad_norm_ does it, 1e-6 added to the norm included. The gradients themselves are left alone;
    the norm before clipping is offered as ``opt.last_grad_norm``.
    """
    return g * minimum(max_norm / (norm(g, over="model") + 1e-6), 1.0)


@transform(paper="arXiv:2102.06171", ranges={"clipping": "(0, inf]", "eps": "(0, inf)"})
def clip_adaptive(g, p, ndim, *, clipping=0.01, eps=1e-3):
    """Adaptive gradient clipping: no unit's gradient may exceed a fraction of its weights.

    The norms are taken for each row of a matrix (a neuron's weights, a filter) and over the whole of a vector, as in
    the authors' code; a unit's weights count as eps at the least. They leave the last layer out: give it a group of its
    own with ``clip_adaptive_clipping=float("inf")``.
    """
    size = where(ndim > 1, norm(g, over="row"), norm(g))
    limit = clipping * maximum(where(ndim > 1, norm(p, over="row"), norm(p)), eps)
    return where(size > limit, g * (limit / size), g)


@transform(paper="arXiv:2004.01461")
def centralize(g, ndim):
    """Gradient centralisation: take from each row (a neuron's weights, a filter) its mean; vectors are left alone."""
    return where(ndim > 1, g - mean(g, over="row"), g)


@transform
def unscale(g, *, inverse_scale):
    """Undo a gradient scaler's loss scale."""
    return g * inverse_scale


@transform(reports={"nonfinite": lambda g: sum_(where(absolute(g) < float("inf"), 0.0, 1.0), over="model")})
def watch(g):
    """Count the elements of all gradients that are NaN or infinite; a step that finds any writes nothing."""
    return g
