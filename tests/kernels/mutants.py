"""What kernels that are wrong on purpose are tried on, and how they are refused."""

import numpy as np
import pytest
import torch
from parity import hold

import onepass

SUBJECTS = {
    "adamw": lambda params, backend: onepass.AdamW(params, lr=0.1, backend=backend),
    "amsgrad": lambda params, backend: onepass.Adam(params, amsgrad=True, lr=0.1, backend=backend),
    "clipped": lambda params, backend: onepass.SGD(
        params, lr=0.1, momentum=0.9, backend=backend, transforms=[onepass.clip_norm(0.5)]
    ),
    "centralized": lambda params, backend: onepass.SGD(
        params, lr=0.1, backend=backend, transforms=[onepass.centralize(), onepass.cautious_mask()]
    ),
    "on the device": lambda params, backend: onepass.RAdam(
        params, lr=0.1, backend=backend, capturable=backend == "triton", transforms=[onepass.lookahead(k=2)]
    ),
}


def check(subject, dtype=torch.float32, **options):
    hold(SUBJECTS[subject], dtype, **{"shapes": ((5, 3), (17,)), "steps": 3, **options})


def refused(subject, dtype=torch.float32, **options):
    with pytest.raises(AssertionError, match="elements are wrong"):
        check(subject, dtype, **options)


CUTS = {
    "the last chunk is lost": lambda chunks: chunks[:-1],
    "the first chunk is lost": lambda chunks: chunks[1:],
    "a chunk comes twice": lambda chunks: chunks[[0, *range(len(chunks))]],
    "a chunk is an element short": lambda chunks: chunks - np.array([0, 0, 1]),
    "a chunk begins an element late": lambda chunks: chunks + np.array([0, 1, -1]),
}
