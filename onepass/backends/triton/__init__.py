"""Fused kernels on GPUs: emitted as Triton source, one launch for a bucket, nothing read back by the host."""
