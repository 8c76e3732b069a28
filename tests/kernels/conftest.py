"""The kernels' tests hold the backend that ``ONEPASS_BACKEND`` names, by default the CPU's.

``make test`` runs them once more with ``ONEPASS_BACKEND=triton TRITON_INTERPRET=1``: the GPU's kernels, on CPU tensors,
in Triton's interpreter. What is about machine code, threads and forks is the CPU's alone.
"""

import importlib.util
import os

collect_ignore = []
if os.environ.get("ONEPASS_BACKEND", "cpu") != "cpu":
    collect_ignore = [f"test_kernel_{name}.py" for name in ("mutants", "safety", "selection", "sizes")]
    if importlib.util.find_spec("triton") is None:
        collect_ignore += [f"test_kernel_{name}.py" for name in ("bookkeeping", "layouts", "nonfinite", "parity")]
