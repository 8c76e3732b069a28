"""Cautious optimizers: move only where the direction agrees with the gradient."""

from onepass.lang import maximum, mean, transform, where


@transform(paper="arXiv:2411.16085")
def cautious(u, g):
    """Drop the elements of the step that point against the gradient, and enlarge the rest to make up for them.

    The authors' form: the mask is divided by its mean over the tensor, 1e-3 at the least.
    """
    mask = where(u * g > 0, 1.0, 0.0)
    return u * mask / maximum(mean(mask), 1e-3)


@transform(paper="arXiv:2411.16085")
def cautious_mask(u, g):
    """Drop the elements of the step that point against the gradient, and leave the rest as they are."""
    return where(u * g > 0, u, 0.0)
