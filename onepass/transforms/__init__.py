"""Options as functions: each transform changes any rule."""

from onepass.transforms.average import average
from onepass.transforms.cautious import cautious, cautious_mask
from onepass.transforms.gradient import centralize, clip_adaptive, clip_norm, clip_value, maximize
from onepass.transforms.lookahead import lookahead
from onepass.transforms.momentum import heavy_ball

__all__ = [
    "average",
    "cautious",
    "cautious_mask",
    "centralize",
    "clip_adaptive",
    "clip_norm",
    "clip_value",
    "heavy_ball",
    "lookahead",
    "maximize",
]
