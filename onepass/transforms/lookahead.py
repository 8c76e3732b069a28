"""Lookahead."""

from onepass.lang import transform, where


@transform(
    paper="arXiv:1907.08610",
    init={"slow": lambda p: p},
    ranges={"k": "[1, inf) integer", "alpha": "[0, 1]"},
)
def lookahead(p_next, slow, t, *, k=5, alpha=0.5):
    """Every k steps, move slow weights a fraction alpha towards the fast ones, and the fast ones onto them.

    The slow weights start as the parameter stood before its first step, as the authors' do; a library that makes them
    at the first synchronisation has none there.
    """
    synchronises = t % k == 0
    slow_next = slow + alpha * (p_next - slow)
    return where(synchronises, slow_next, p_next), where(synchronises, slow_next, slow)
