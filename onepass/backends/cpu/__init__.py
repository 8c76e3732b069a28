"""Fused kernels on the CPU: emitted as Numba source, compiled through LLVM, run in torch's own thread pool."""
